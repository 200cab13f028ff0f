"""The sampler against its stationary distribution, the dual step against its formula, plain training as the limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.representation.methods.encoder import ConvEncoder, MLPEncoder
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.methods.invariance_constrained import (
    InvarianceConstraint,
    PrimalDual,
    metropolis_hastings,
)
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Generator, Params, Transform, per_sample, uniform
from cdvae_kit.transforms.images import Rotate
from cdvae_kit.transforms.vectors import CoordinateShift, PlaneRotation, SignFlip


class Pick(Transform[Tensor]):
    """Writes 0, 1 or 2, alike, into the first column."""

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        per_sample(magnitude, len(batch))
        return {"choice": (3.0 * uniform(generator, len(batch))).long()}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        return torch.cat([params["choice"][:, None].to(batch.dtype), batch[:, 1:]], dim=1)


@dataclass(frozen=True)
class TurningLabels(PlaneRotation):
    """Labels are vectors of the same plane."""

    def act_on_target(self, target: Any, params: Params) -> Any:
        return self.apply(target, params)


def shares_of(losses: tuple[float, ...], *, num_proposals: int, num: int = 20_000) -> Tensor:
    table = torch.tensor(losses)
    end = metropolis_hastings(
        Pick(),
        torch.zeros(num, 1),
        lambda changed, _: table[changed[:, 0].long()],
        num_proposals=num_proposals,
        generator=make_generator(0),
    )
    return torch.bincount(end.batch[:, 0].long(), minlength=3) / num


def squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum(1)


def learner(*constraints: InvarianceConstraint, **options: Any) -> PrimalDual:
    options = {"dual_lr": 0.1} | options
    with seeded_weights(0):
        return PrimalDual(MLPEncoder([2, 8, 2]), squared, constraints, **options)


def plane(num: int = 40) -> tuple[Tensor, Tensor]:
    x = torch.randn(num, 2, generator=make_generator(7))
    return x, 2.0 * x


def test_long_chains_visit_transforms_in_proportion_to_their_loss() -> None:
    shares = shares_of((1.0, 2.0, 5.0), num_proposals=40)
    assert torch.allclose(shares, torch.tensor([1.0, 2.0, 5.0]) / 8.0, atol=0.01), shares


def test_one_proposal_is_the_law_itself_and_two_lie_between() -> None:
    one, two = (shares_of((1.0, 2.0, 5.0), num_proposals=n) for n in (1, 2))
    assert torch.allclose(one, torch.full((3,), 1.0 / 3.0), atol=0.012)
    # one step of the chain from the distribution, by its matrix
    step = torch.tensor([[min(1.0, new / old) / 3.0 for new in (1.0, 2.0, 5.0)] for old in (1.0, 2.0, 5.0)])
    step += torch.diag(1.0 - step.sum(1))
    expected = torch.full((3,), 1.0 / 3.0) @ step
    assert torch.allclose(two, expected, atol=0.012), (two, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_transform_whose_loss_is_no_number_is_never_accepted_and_soon_left(bad: float) -> None:
    shares = shares_of((1.0, bad, 1.0), num_proposals=30)
    assert shares[1] == 0.0 and abs(float(shares[0]) - 0.5) < 0.012
    assert shares_of((1.0, bad, 1.0), num_proposals=1)[1] > 0.3


def test_a_chain_leaves_no_loss_for_none() -> None:
    assert shares_of((0.0, 1.0, 0.0), num_proposals=30)[1] > 0.99
    assert torch.allclose(shares_of((0.0, 0.0, 0.0), num_proposals=5), torch.full((3,), 1.0 / 3.0), atol=0.012)


def test_batch_parameters_and_losses_of_the_end_belong_together() -> None:
    x = torch.randn(50, 2, generator=make_generator(1))
    rotation = PlaneRotation(0, 1)
    end = metropolis_hastings(rotation, x, lambda c, _: c[:, 0].abs(), num_proposals=5, generator=make_generator(2))
    assert torch.equal(end.batch, rotation.apply(x, end.params))
    assert torch.equal(end.losses, end.batch[:, 0].abs())
    assert 0.2 < end.acceptance < 1.0
    # the mean of a loss under its own density is above that under the distribution, 2/π of the length
    assert end.losses.mean() > 1.1 * (2.0 / math.pi) * x.norm(dim=1).mean()


def test_the_multiplier_steps_by_rate_times_excess_and_stops_at_zero() -> None:
    tight = InvarianceConstraint(SignFlip(0), 0.01, name="tight")
    loose = InvarianceConstraint(CoordinateShift(1, 0.1), 1e3, name="loose")
    objective = learner(tight, loose, initial_dual=0.5)
    assert objective.dual_history.shape == objective.loss_history.shape == (0, 2)
    expected = torch.tensor([0.5, 0.5], dtype=torch.float64)
    tolerances = torch.tensor([0.01, 1e3], dtype=torch.float64)
    for step in range(5):
        terms = objective.loss(plane(), generator=make_generator(step))
        values = torch.stack([terms["transformed/tight"], terms["transformed/loose"]]).detach().double()
        objective.after_step(step, 5)
        expected = (expected + 0.1 * (values - tolerances)).clamp(min=0.0)
        assert torch.equal(objective.duals, expected)
        assert torch.equal(objective.dual_history[-1], expected) and torch.equal(objective.loss_history[-1], values)
    assert objective.multipliers["loose"] == 0.0 < 0.5 < objective.multipliers["tight"]


def test_the_loss_is_clean_plus_multiplier_times_transformed() -> None:
    objective = learner(InvarianceConstraint(SignFlip(0), 1.0), initial_dual=3.0)
    terms = objective.loss(plane(), generator=make_generator(0))
    assert torch.allclose(terms["loss"], terms["clean"] + 3.0 * terms["transformed/sign_flip"])
    assert terms["dual/sign_flip"] == 3.0
    assert terms["transformed/sign_flip"] > terms["clean"]


def weights_after(objective: Any, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    fit(objective, data, FitSettings(3, batch_size=16), seed=0)
    return {name: value for name, value in objective.state_dict().items() if "dual" not in name}


def test_a_constraint_that_always_holds_gives_plain_training_bit_for_bit() -> None:
    images = torch.rand(48, 1, 8, 8, generator=make_generator(0))
    labels = torch.arange(48) % 3

    def parts() -> tuple[ConvEncoder, nn.Linear]:
        with seeded_weights(0):
            return ConvEncoder(in_channels=1, widths=(4, 6)), nn.Linear(6, 3)

    def losses(logits: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(logits, target, reduction="none")

    def constrained(tolerance: float) -> dict[str, Tensor]:
        objective = PrimalDual(
            nn.Sequential(*parts()), losses, [InvarianceConstraint(Rotate(), tolerance)], dual_lr=1.0
        )
        return weights_after(objective, (images, labels))

    encoder, head = parts()
    plain = list(weights_after(Supervision(encoder, 3, head=head), (images, labels)).values())
    loose, tight = (list(constrained(tolerance).values()) for tolerance in (1e3, 0.1))
    assert len(plain) == len(loose) > 8  # batch statistics among them
    assert all(torch.equal(a, b) for a, b in zip(sorted_by_shape(plain), sorted_by_shape(loose), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(sorted_by_shape(plain), sorted_by_shape(tight), strict=True))


def sorted_by_shape(values: list[Tensor]) -> list[Tensor]:
    return sorted(values, key=lambda value: (value.ndim, value.numel(), float(value.sum())))


def test_one_forward_pass_mixes_clean_and_transformed_by_the_multipliers() -> None:
    constraints = [InvarianceConstraint(SignFlip(0, 1.0), 1.0, name="a"), InvarianceConstraint(SignFlip(1, 1.0), 1.0)]
    x, _ = plane(20_000)
    data = (x, x)  # the identity has no clean loss, and one flip costs four squares
    objective = PrimalDual(nn.Identity(), squared, constraints, dual_lr=0.1, forward="one", initial_dual=2.0)
    terms = objective.loss(data, generator=make_generator(0))
    assert set(terms) == {"loss", "transformed/a", "transformed/sign_flip", "dual/a", "dual/sign_flip"}
    both = terms["transformed/a"] + terms["transformed/sign_flip"]
    assert float(terms["loss"]) == pytest.approx(float(2.0 * both / 5.0), rel=0.03)
    objective.duals.zero_()
    assert float(objective.loss(data, generator=make_generator(0))["loss"]) == 0.0


def test_one_forward_pass_puts_each_sample_through_once() -> None:
    seen: list[tuple[int, bool]] = []

    class Counting(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            seen.append((len(batch), torch.is_grad_enabled()))
            return batch

    for forward, with_gradient in (("one", [10]), ("all", [10, 10])):
        seen.clear()
        objective = PrimalDual(
            Counting(),
            squared,
            [InvarianceConstraint(SignFlip(0), 1.0)],
            dual_lr=0.1,
            forward=forward,
            initial_dual=1.0,
        )
        objective.loss(plane(10), generator=make_generator(0))
        assert [count for count, gradient in seen if gradient] == with_gradient
        assert [count for count, gradient in seen if not gradient] == [10, 10]  # the proposals


@pytest.mark.parametrize("forward", ["all", "one"])
def test_an_equivariant_network_meets_the_constraint_that_labels_follow_and_no_other(forward: Any) -> None:
    x, _ = plane()
    for label, costs in (("equivariant", False), ("invariant", True)):
        constraint = InvarianceConstraint(TurningLabels(0, 1), 1.0, label=label, name="turn")
        objective = PrimalDual(nn.Identity(), squared, [constraint], dual_lr=0.1, forward=forward, initial_dual=5.0)
        terms = objective.loss((x, x), generator=make_generator(0))
        assert (float(terms["transformed/turn"]) > 1.0) == costs
        assert (float(terms["loss"]) > 1e-6) == costs


def test_a_label_does_not_follow_a_transform_that_does_not_act_on_it() -> None:
    constraint = InvarianceConstraint(PlaneRotation(0, 1), 1.0, label="equivariant")
    target = torch.ones(3, 2)
    assert constraint.target(target, {"angle": torch.ones(3)}) is target
    assert constraint.name == "plane_rotation"


def test_a_fit_is_decided_by_its_seed() -> None:
    def run(seed: int) -> tuple[list[float], Tensor]:
        objective = learner(InvarianceConstraint(SignFlip(0), 0.1))
        return fit(objective, plane(), FitSettings(2, batch_size=8), seed=seed), objective.dual_history

    first, again, other = run(0), run(0), run(1)
    assert first[0] == again[0] and torch.equal(first[1], again[1])
    assert first[0] != other[0] and first[1].shape == (10, 1)


def test_multipliers_are_kept_with_the_weights() -> None:
    objective = learner(InvarianceConstraint(SignFlip(0), 0.1), initial_dual=0.25)
    other = learner(InvarianceConstraint(SignFlip(0), 0.1))
    other.load_state_dict(objective.state_dict())
    assert other.multipliers == {"sign_flip": 0.25}


def test_senseless_settings_say_what_is_wrong() -> None:
    flip = SignFlip(0)
    for tolerance in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="positive loss"):
            InvarianceConstraint(flip, tolerance)
    with pytest.raises(ValueError, match="'invariant' or 'equivariant'"):
        InvarianceConstraint(flip, 1.0, label="covariant")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names of their own"):
        learner(InvarianceConstraint(flip, 1.0), InvarianceConstraint(SignFlip(1), 1.0))
    for options in ({"dual_lr": -1.0}, {"initial_dual": -1.0}):
        with pytest.raises(ValueError, match="must not be negative"):
            learner(**options)
    with pytest.raises(ValueError, match="'all' or 'one'"):
        learner(forward="two")
    with pytest.raises(ValueError, match="at least one proposal"):
        learner(num_proposals=0)
    with pytest.raises(RuntimeError, match="call `loss` before"):
        learner().after_step(0, 1)


def test_losses_that_are_no_density_are_refused() -> None:
    with pytest.raises(ValueError, match="reduction='none'"):
        PrimalDual(nn.Identity(), functional.mse_loss, [], dual_lr=0.1).loss(plane(), generator=make_generator(0))
    with pytest.raises(ValueError, match="must not be negative"):
        metropolis_hastings(SignFlip(0), plane()[0], lambda c, _: c[:, 0], generator=make_generator(0))
    with pytest.raises(ValueError, match="at least one proposal"):
        shares_of((1.0, 1.0, 1.0), num_proposals=0)


def test_draws_whose_parameters_have_different_shapes_are_refused() -> None:
    class Ragged(SignFlip):
        calls = 0

        def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
            Ragged.calls += 1
            return {"on": torch.zeros(len(batch), Ragged.calls)}

        def apply(self, batch: Tensor, params: Params) -> Tensor:
            return batch

    with pytest.raises(ValueError, match="different shapes"):
        metropolis_hastings(Ragged(0), plane()[0], lambda c, _: c[:, 0].abs(), generator=make_generator(0))
