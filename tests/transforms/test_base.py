"""The protocol of transforms: draws by index, compositions, choices, magnitudes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms import Compose, ElementSubstitution, Identity, RandomChoice, RandomStrain, Transform
from cdvae_kit.transforms.base import (
    Generator,
    IndexedDraws,
    Params,
    magnitude_grid,
    normal,
    select_samples,
    sweep_magnitude,
    uniform,
)


@dataclass(frozen=True)
class Add(Transform[Tensor]):
    """Adds up to `most`; a target moves along."""

    most: float
    differentiable = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        return {"amount": self.most * torch.as_tensor(magnitude) * uniform(generator, len(batch), like=batch)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        return batch + params["amount"][:, None]

    def act_on_target(self, target: Any, params: Params) -> Any:
        return target + params["amount"]


class Halve(Transform[Tensor]):
    changes_shape = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        return {}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        return batch[:, ::2]


class Noise(Transform[Tensor]):
    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        return {"noise": normal(generator, *batch.shape, like=batch)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        return batch + params["noise"]


def draws(seed: int, *indices: int) -> IndexedDraws:
    return IndexedDraws(seed, torch.tensor(indices))


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_draw_by_index_knows_neither_its_neighbours_nor_the_order(draw: Any) -> None:
    all_of_them = draw(draws(3, 0, 1, 2, 3), 4, 2, 5)
    assert torch.equal(draw(draws(3, 2, 0), 2, 2, 5), all_of_them[[2, 0]])
    assert not torch.equal(draw(draws(4, 2, 0), 2, 2, 5), all_of_them[[2, 0]])
    # the control: a generator goes by the order
    assert not torch.equal(draw(make_generator(3), 2, 2, 5), draw(make_generator(3), 4, 2, 5)[[2, 0]])


def test_a_second_draw_is_another_one() -> None:
    source = draws(0, 0, 1)
    assert not torch.equal(uniform(source, 2, 4), uniform(source, 2, 4))


def test_draws_by_index_follow_their_distribution() -> None:
    source = IndexedDraws(0, torch.arange(20000))
    u, n = uniform(source, 20000, 2), normal(source, 20000, 2)
    assert u.mean().item() == pytest.approx(0.5, abs=0.01) and u.var().item() == pytest.approx(1 / 12, rel=0.03)
    assert n.mean().item() == pytest.approx(0.0, abs=0.02) and n.var().item() == pytest.approx(1.0, rel=0.03)
    assert abs(torch.corrcoef(n.T)[0, 1].item()) < 0.02


def test_draws_for_another_number_of_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="for 2 samples, got a batch of 3"):
        uniform(draws(0, 0, 1), 3)


def test_the_identity_returns_what_it_got() -> None:
    x = torch.rand(3, 2, generator=make_generator(0))
    assert Identity()(x, generator=make_generator(0)) is x


def test_a_composition_acts_in_order_on_data_and_target() -> None:
    x, target = torch.zeros(5, 4), torch.zeros(5)
    both = Compose([Add(1.0), Add(10.0)])
    params = both.sample(x, generator=make_generator(0))
    assert set(params) == {"0.amount", "1.amount"}
    total = params["0.amount"] + params["1.amount"]
    assert torch.allclose(both.apply(x, params), total[:, None].expand(5, 4))
    assert torch.allclose(both.act_on_target(target, params), total)
    assert both.name == "add+add" and both.differentiable and not Compose([Add(1.0), Noise()]).differentiable


def test_a_composition_of_nothing_is_the_identity() -> None:
    x = torch.ones(2, 3)
    assert torch.equal(Compose([])(x, generator=make_generator(0)), x)


def test_a_law_sees_the_shape_that_the_one_before_it_leaves() -> None:
    x = torch.zeros(3, 8)
    assert Compose([Halve(), Noise()])(x, generator=make_generator(0)).shape == (3, 4)


def test_a_choice_gives_each_sample_its_own_transform_in_place() -> None:
    x = torch.arange(200.0)[:, None].repeat(1, 2)
    choice = RandomChoice([Identity(), Add(0.5)])
    params = choice.sample(x, generator=make_generator(0))
    expected = torch.where(params["choice"] == 1, params["1.amount"], 0.0)
    assert torch.allclose(choice.apply(x, params), x + expected[:, None])
    assert torch.allclose(choice.act_on_target(x[:, 0], params), x[:, 0] + expected)


@pytest.mark.parametrize("weights", [(1.0, 3.0), (0.0, 1.0)])
def test_choices_come_in_their_shares(weights: tuple[float, float]) -> None:
    x = torch.zeros(8000, 1)
    params = RandomChoice([Identity(), Add(1.0)], weights).sample(x, generator=make_generator(0))
    assert params["choice"].float().mean().item() == pytest.approx(weights[1] / sum(weights), abs=0.02)


@pytest.mark.parametrize(
    ("weights", "words"), [((1.0,), "for each of 2"), ((0.0, 0.0), "not all zero"), ((-1.0, 2.0), "not all zero")]
)
def test_a_choice_with_senseless_probabilities_is_refused(weights: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RandomChoice([Identity(), Add(1.0)], weights)


def test_a_choice_refuses_what_changes_the_shape_and_nothing() -> None:
    with pytest.raises(ValueError, match="changes the shape"):
        RandomChoice([Identity(), Compose([Halve()])])
    with pytest.raises(ValueError, match="at least one"):
        RandomChoice([])


def test_an_empty_batch_passes_through() -> None:
    x = torch.zeros(0, 2)
    for transform in (Identity(), Compose([Add(1.0)]), RandomChoice([Identity(), Add(1.0)])):
        assert transform(x, generator=make_generator(0)).shape == (0, 2)


@pytest.mark.parametrize("magnitude", [-0.1, 1.5, float("nan"), torch.tensor([0.0, 2.0])])
def test_a_magnitude_out_of_range_is_refused(magnitude: Any) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        Identity().sample(torch.zeros(2, 1), magnitude=magnitude, generator=make_generator(0))
    with pytest.raises(ValueError, match="one for each of 2 samples"):
        Identity().sample(torch.zeros(2, 1), magnitude=torch.zeros(3), generator=make_generator(0))


def test_a_sweep_changes_the_strength_alone() -> None:
    x = torch.zeros(4, 1)
    steps = dict(sweep_magnitude(Add(1.0), x, magnitude_grid(3), seed=0))
    assert torch.equal(steps[0.0], x)
    assert torch.allclose(steps[1.0], 2.0 * steps[0.5]) and steps[1.0].abs().min() > 0.0


@pytest.mark.parametrize(("levels", "largest"), [(1, 1.0), (3, 0.0), (3, 1.1)])
def test_a_grid_without_a_range_is_refused(levels: int, largest: float) -> None:
    with pytest.raises(ValueError, match="at least 2 levels"):
        magnitude_grid(levels, largest=largest)


def test_crystals_fit_under_the_protocol(zoo: CrystalBatch) -> None:
    crystals = zoo.replace(properties={"energy": torch.arange(float(len(zoo)))})
    both = Compose([RandomStrain(0.05), ElementSubstitution(1.0, (6, 8, 14))])
    choice = RandomChoice([Identity(), both])
    params = choice.sample(crystals, generator=draws(0, *range(len(crystals))))
    after = choice.apply(crystals, params)
    assert torch.equal(after.num_atoms, crystals.num_atoms)
    same = (after.lattice == crystals.lattice).flatten(1).all(1)
    assert torch.equal(same, params["choice"] == 0)
    assert 0 < int(same.sum()) < len(crystals)
    still = both.apply(crystals, both.sample(crystals, magnitude=0.0, generator=make_generator(0)))
    assert torch.equal(still.lattice, crystals.lattice)
    assert torch.equal(still.atomic_numbers, crystals.atomic_numbers)


def test_each_crystal_has_a_magnitude_of_its_own(zoo: CrystalBatch) -> None:
    magnitude = torch.zeros(len(zoo))
    magnitude[2] = 1.0
    after = RandomStrain(0.1)(zoo, magnitude=magnitude, generator=make_generator(0))
    changed = (after.lattice != zoo.lattice).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [2]


def test_samples_are_selected_from_tuples_and_strangers_are_refused() -> None:
    data, labels = select_samples((torch.arange(6).view(3, 2), torch.arange(3)), torch.tensor([2, 0]))
    assert data.tolist() == [[4, 5], [0, 1]] and labels.tolist() == [2, 0]
    with pytest.raises(TypeError, match="got list"):
        select_samples([1, 2], torch.tensor([0]))
