"""Random changes of crystals: identities, group properties, seeds, and what must stay as it is."""

from __future__ import annotations

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.elements import pettifor_ranks
from cdvae_kit.crystal.lattice import volume
from cdvae_kit.graph import neighbor_list
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms import ElementMask, ElementSubstitution, OrderedSubstitution, RandomStrain

ELEMENTS = (2, 6, 8, 14, 22, 29, 56, 94)
ALL_ELEMENTS = tuple(range(1, 101))


@pytest.fixture
def crystals(zoo: CrystalBatch) -> CrystalBatch:
    return zoo.replace(properties={"energy": torch.arange(float(len(zoo)))})


def test_a_strain_of_no_deviation_changes_nothing(crystals: CrystalBatch) -> None:
    strain = RandomStrain(0.0)
    after = strain.apply(crystals, strain.sample(crystals, generator=make_generator(0)))
    assert torch.equal(after.lattice, crystals.lattice)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_strain_keeps_fractions_elements_properties_and_type(crystals: CrystalBatch, dtype: torch.dtype) -> None:
    crystals = crystals.replace(lattice=crystals.lattice.to(dtype), frac_coords=crystals.frac_coords.to(dtype))
    strain = RandomStrain(0.05)
    after = strain.apply(crystals, strain.sample(crystals, generator=make_generator(0)))
    assert after.lattice.dtype == dtype
    assert torch.equal(after.frac_coords, crystals.frac_coords)
    assert torch.equal(after.atomic_numbers, crystals.atomic_numbers)
    assert torch.equal(after.properties["energy"], crystals.properties["energy"])
    assert not torch.allclose(after.lattice, crystals.lattice)


def test_two_strains_are_their_product_and_the_inverse_undoes(crystals: CrystalBatch) -> None:
    strain, generator = RandomStrain(0.1), make_generator(0)
    first, second = strain.sample(crystals, generator=generator), strain.sample(crystals, generator=generator)
    both = strain.apply(strain.apply(crystals, first), second)
    product = {"deformation": first["deformation"] @ second["deformation"]}
    assert torch.allclose(both.lattice, strain.apply(crystals, product).lattice)
    back = strain.apply(strain.apply(crystals, first), {"deformation": torch.linalg.inv(first["deformation"])})
    assert torch.allclose(back.lattice, crystals.lattice)


@pytest.mark.parametrize("std", [0.03, 0.9])
def test_strains_are_symmetric_and_keep_the_volume_positive(crystals: CrystalBatch, std: float) -> None:
    many = crystals.select([0] * 500)
    strain = RandomStrain(std)
    params = strain.sample(many, generator=make_generator(0))
    deformation = params["deformation"]
    assert torch.allclose(deformation, deformation.transpose(-1, -2))
    assert torch.linalg.eigvalsh(deformation).min() > 0.0
    assert volume(strain.apply(many, params).lattice).min() > 0.0


def test_the_size_of_cells_changes_by_the_deviation(crystals: CrystalBatch) -> None:
    many = crystals.select([0] * 4000)
    deformation = RandomStrain(0.03).sample(many, generator=make_generator(0))["deformation"]
    # log det / 3 is b plus a mean of three entries a S_ii, with the mean square of a 1/3
    sizes = torch.logdet(deformation) / 3.0
    assert sizes.std().item() == pytest.approx(0.03 * (1.0 + 1.0 / 9.0) ** 0.5, rel=0.05)
    assert abs(sizes.mean().item()) < 0.002


def test_edges_found_before_a_strain_serve_after_it(crystals: CrystalBatch) -> None:
    graph = neighbor_list(crystals, 3.0)
    strain = RandomStrain(0.02)
    after = strain.apply(crystals, strain.sample(crystals, generator=make_generator(0)))
    change = graph.distances(after) / graph.distances(crystals)
    assert change.min() > 0.85 and change.max() < 1.15
    # the control: other atoms' coordinates at the same edges are far off
    moved = crystals.replace(frac_coords=crystals.frac_coords.flip(0))
    assert (graph.distances(moved) / graph.distances(crystals)).max() > 1.5


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_same_seed_draws_the_same_and_another_another(crystals: CrystalBatch, probability: float) -> None:
    swap = ElementSubstitution(probability, ELEMENTS)
    first, again = (swap.sample(crystals, generator=make_generator(5))["permutation"] for _ in range(2))
    assert torch.equal(first, again)
    other = swap.sample(crystals, generator=make_generator(6))["permutation"]
    assert torch.equal(first, other) == (probability == 0.0)
    strain = RandomStrain(0.1)
    drawn, once_more = (strain.sample(crystals, generator=make_generator(5))["deformation"] for _ in range(2))
    assert torch.equal(drawn, once_more)


def test_a_substitution_of_no_probability_changes_nothing(crystals: CrystalBatch) -> None:
    swap = ElementSubstitution(0.0, ELEMENTS)
    after = swap.apply(crystals, swap.sample(crystals, generator=make_generator(0)))
    assert torch.equal(after.atomic_numbers, crystals.atomic_numbers)
    assert torch.equal(after.properties["energy"], crystals.properties["energy"])


def test_permutations_compose_and_the_inverse_undoes(crystals: CrystalBatch) -> None:
    swap, generator = ElementSubstitution(1.0, ELEMENTS), make_generator(0)
    first, second = swap.sample(crystals, generator=generator), swap.sample(crystals, generator=generator)
    both = swap.apply(swap.apply(crystals, first), second)
    product = {"permutation": second["permutation"].gather(1, first["permutation"])}
    assert torch.equal(both.atomic_numbers, swap.apply(crystals, product).atomic_numbers)
    back = swap.apply(swap.apply(crystals, first), {"permutation": first["permutation"].argsort(1)})
    assert torch.equal(back.atomic_numbers, crystals.atomic_numbers)


def test_sites_of_one_element_stay_sites_of_one_element(crystals: CrystalBatch) -> None:
    swap = ElementSubstitution(1.0, ELEMENTS)
    after = swap.apply(crystals, swap.sample(crystals, generator=make_generator(0)))
    for i in range(len(crystals)):
        before, now = crystals.select([i]).atomic_numbers, after.select([i]).atomic_numbers
        assert torch.equal(before[:, None] == before, now[:, None] == now)
    assert set(after.atomic_numbers.tolist()) <= set(ELEMENTS)


def test_only_the_properties_of_changed_crystals_are_forgotten(crystals: CrystalBatch) -> None:
    swap = ElementSubstitution(0.5, ELEMENTS)
    after = swap.apply(crystals, swap.sample(crystals, generator=make_generator(1)))
    for i in range(len(crystals)):
        same = torch.equal(crystals.select([i]).atomic_numbers, after.select([i]).atomic_numbers)
        assert bool(after.properties["energy"][i].isnan()) == (not same)
    assert 0 < int(after.properties["energy"].isnan().sum()) < len(crystals)
    assert not crystals.properties["energy"].isnan().any()


def test_elements_that_are_not_exchanged_stay(crystals: CrystalBatch) -> None:
    swap = ElementSubstitution(1.0, (6, 8))
    after = swap.apply(crystals, {"permutation": torch.tensor([[1, 0]]).repeat(len(crystals), 1)})
    expected = crystals.atomic_numbers.clone()
    expected[crystals.atomic_numbers == 6], expected[crystals.atomic_numbers == 8] = 8, 6
    assert torch.equal(after.atomic_numbers, expected)


def test_the_share_of_substituted_crystals_is_the_probability(crystals: CrystalBatch) -> None:
    swap = ElementSubstitution(0.25, ELEMENTS)
    many = crystals.select([1] * 4000)
    drawn = swap.sample(many, generator=make_generator(0))["permutation"]
    share = (drawn != torch.arange(len(ELEMENTS))).any(1).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("std", [-0.1, 1.0])
def test_a_deviation_out_of_range_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        RandomStrain(std)


@pytest.mark.parametrize(
    ("probability", "elements", "message"),
    [(1.5, (6,), "probability"), (0.5, (6, 6), "distinct"), (0.5, (0, 6), "atomic numbers")],
)
def test_a_substitution_that_makes_no_sense_is_refused(
    probability: float, elements: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ElementSubstitution(probability, elements)


def test_parameters_of_another_batch_are_refused(crystals: CrystalBatch) -> None:
    swap, strain = ElementSubstitution(0.5, ELEMENTS), RandomStrain(0.1)
    few = crystals.select([0, 1])
    with pytest.raises(ValueError, match="one permutation"):
        swap.apply(crystals, swap.sample(few, generator=make_generator(0)))
    with pytest.raises(ValueError, match="one deformation"):
        strain.apply(crystals, strain.sample(few, generator=make_generator(0)))


def test_a_mask_hides_all_atoms_of_an_element_or_none(crystals: CrystalBatch) -> None:
    hidden = []
    for seed in range(20):
        after = ElementMask(0.5)(crystals, generator=make_generator(seed))
        gone = after.atomic_numbers == 118
        assert torch.equal(after.atomic_numbers[~gone], crystals.atomic_numbers[~gone])
        # an element of a crystal is there or not
        key = crystals.batch * 119 + crystals.atomic_numbers
        shares = torch.zeros(int(key.max()) + 1).index_add(0, key, gone.float()) / key.bincount()
        assert set(shares[key].unique().tolist()) <= {0.0, 1.0}
        hidden.append(gone.float().mean())
    assert 0.3 < torch.stack(hidden).mean() < 0.7


def test_a_mask_of_no_magnitude_hides_nothing_and_a_full_one_everything(crystals: CrystalBatch) -> None:
    unchanged = ElementMask(0.5)(crystals, magnitude=0.0, generator=make_generator(0))
    assert torch.equal(unchanged.atomic_numbers, crystals.atomic_numbers)
    everything = ElementMask(1.0)(crystals, generator=make_generator(0))
    assert everything.atomic_numbers.unique().tolist() == [118]
    assert torch.equal(everything.properties["energy"], crystals.properties["energy"])


@pytest.mark.parametrize("options", [{"probability": 1.5}, {"probability": 0.5, "stand_in": 0}])
def test_a_mask_that_makes_no_sense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"mask|says nothing"):
        ElementMask(**options)  # type: ignore[arg-type]


def test_substitutes_keep_the_order_of_the_elements(crystals: CrystalBatch) -> None:
    place = torch.tensor(pettifor_ranks())
    swap = OrderedSubstitution(1.0, ALL_ELEMENTS, reach=5)
    moved = 0
    for seed in range(20):
        after = swap(crystals, generator=make_generator(seed))
        for i in range(len(crystals)):
            before, now = (place[c.select([i]).atomic_numbers] for c in (crystals, after))
            order = before[:, None] - before, now[:, None] - now
            assert torch.equal(order[0].sign(), order[1].sign())
            assert int((now - before).abs().max()) <= 5 * len(place) // len(ALL_ELEMENTS)
            moved += int((now != before).any())
    assert moved > 10 * len(crystals)


def test_a_crystal_of_one_element_may_become_any_within_reach() -> None:
    metal = CrystalBatch(torch.zeros(1, 3), 3.0 * torch.eye(3)[None], torch.tensor([29]), torch.tensor([1]))
    many = metal.select([0] * 2000)
    swap = OrderedSubstitution(1.0, ALL_ELEMENTS, reach=3)
    found = swap(many, generator=make_generator(0)).atomic_numbers.unique()
    assert len(found) == 7 and 29 in found.tolist()


def test_neighbours_in_the_order_stay_and_unknown_elements_too() -> None:
    by_place = sorted(ALL_ELEMENTS, key=lambda number: pettifor_ranks()[number])
    pair = torch.tensor(by_place[40:42])
    crystal = CrystalBatch(torch.tensor([[0.0] * 3, [0.5] * 3]), 4.0 * torch.eye(3)[None], pair, torch.tensor([2]))
    many = crystal.select([0] * 200)
    after = OrderedSubstitution(1.0, ALL_ELEMENTS, reach=9)(many, generator=make_generator(0)).atomic_numbers.view(
        -1, 2
    )
    assert set(after[:, 0].tolist()) <= set(by_place[31:41]) and set(after[:, 1].tolist()) <= set(by_place[41:51])
    only = OrderedSubstitution(1.0, (1, 2), reach=9)(many, generator=make_generator(0))
    assert torch.equal(only.atomic_numbers, many.atomic_numbers)


def test_a_share_of_crystals_gets_substitutes_and_loses_its_properties(crystals: CrystalBatch) -> None:
    many = crystals.select([1] * 3000)
    after = OrderedSubstitution(0.25, ALL_ELEMENTS)(many, generator=make_generator(0))
    changed = (after.atomic_numbers != many.atomic_numbers).view(3000, -1).any(1)
    assert torch.equal(changed, after.properties["energy"].isnan())
    assert 0.15 < float(changed.float().mean()) < 0.25
    none = OrderedSubstitution(0.0, ALL_ELEMENTS)(many, generator=make_generator(0))
    assert torch.equal(none.atomic_numbers, many.atomic_numbers)
    with pytest.raises(ValueError, match="reach"):
        OrderedSubstitution(0.5, ALL_ELEMENTS, reach=0)
    with pytest.raises(ValueError, match="draws for each"):
        OrderedSubstitution(0.5, ALL_ELEMENTS).apply(crystals, {"draws": torch.zeros(1, 2), "chosen": torch.ones(1)})
