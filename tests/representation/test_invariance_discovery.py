"""Verdicts on labels whose symmetries are known, and on multipliers made up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cdvae_kit.representation.methods.encoder import MLPEncoder, embed
from cdvae_kit.representation.methods.fitting import FitSettings
from cdvae_kit.representation.methods.invariance_constrained import InvarianceConstraint, PrimalDual
from cdvae_kit.representation.methods.invariance_discovery import (
    Discovery,
    Reading,
    discover_invariances,
    dual_ratios,
    label_kind,
    largest_free,
    mean_duals,
    mean_loss,
    read_multiplier,
)
from cdvae_kit.representation.protocol import ExperimentResult
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import Params
from cdvae_kit.transforms.vectors import SignFlip

SETTINGS = FitSettings(30, batch_size=100, learning_rate=0.03, schedule="constant")


class FlipsLabels(SignFlip):
    """The label's sign goes along."""

    def act_on_target(self, target: Any, params: Params) -> Any:
        return torch.where(params["on"], -target, target)


def squared(output: Tensor, target: Tensor) -> Tensor:
    return (output[:, 0] - target).square()


def discover(label: Any, **options: Any) -> Discovery:
    options = {"settings": SETTINGS, "dual_lr": 0.05, "tolerances": (1.5,)} | options
    x, held_out = (torch.randn(300, 2, generator=make_generator(key)) for key in (1, 2))
    return discover_invariances(
        lambda: MLPEncoder([2, 16, 1]),
        (x, label(x) + 0.3 * torch.randn(300, generator=make_generator(3))),
        (held_out, label(held_out) + 0.3 * torch.randn(300, generator=make_generator(4))),
        options.pop("transforms", {"first": SignFlip(0), "second": SignFlip(1)}),
        loss_fn=squared,
        **options,
    )


@pytest.mark.parametrize(("place", "free", "broken"), [(0, "first", "second"), (1, "second", "first")])
def test_the_multiplier_vanishes_for_the_true_symmetry_and_grows_for_the_false_one(
    place: int, free: str, broken: str
) -> None:
    found = discover(lambda x: x[:, place].abs() + x[:, 1 - place]).at(1.5)
    assert (found[free].verdict, found[broken].verdict) == ("free", "broken")
    assert found[free].dual < 0.05 * found[broken].dual
    assert found[free].slack > 0.0 > found[broken].slack
    assert found[broken].slope > 0.0 >= found[free].slope


@pytest.mark.parametrize(("label", "kind"), [(0, "invariant"), (1, "equivariant"), (2, "neither")])
def test_the_pair_of_constraints_names_the_kind_of_the_label(label: int, kind: str) -> None:
    labels: list[Any] = [lambda x: x[:, 0].square(), lambda x: x[:, 0], lambda x: x[:, 0] + x[:, 0].square()]
    found = discover(
        labels[label],
        transforms={"stays": FlipsLabels(0), "follows": FlipsLabels(0)},
        equivariant=["follows"],
    ).at(1.5)
    assert label_kind(found["stays"], found["follows"]) == kind
    assert (found["stays"].label, found["follows"].label) == ("invariant", "equivariant")


def test_tolerances_are_shares_of_the_loss_of_the_plain_training() -> None:
    found = discover(lambda x: x[:, 0], tolerances=(1.1, 2.0), transforms={"second": SignFlip(1)})
    assert [reading.tolerance for reading in found.readings.values()] == [
        share * found.validation_loss for share in (1.1, 2.0)
    ]
    held_out = torch.randn(300, 2, generator=make_generator(2))
    target = held_out[:, 0] + 0.3 * torch.randn(300, generator=make_generator(4))
    assert found.validation_loss == pytest.approx(float(squared(embed(found.model, held_out), target).mean()))
    assert found.table()["second, ε = 1.1 × validation", "dual"] == found.at(1.1)["second"].dual


def test_a_plain_start_goes_on_from_what_was_learnt_and_leaves_it_alone() -> None:
    no_step = FitSettings(6, batch_size=300, learning_rate=1e-12, schedule="constant")
    options: dict[str, Any] = {"constrained_settings": no_step, "transforms": {"second": SignFlip(1)}}
    going_on, fresh = (discover(lambda x: x[:, 0], start=start, **options) for start in ("plain", "fresh"))
    x = torch.randn(20, 2, generator=make_generator(9))
    for found, same in ((going_on, True), (fresh, False)):
        reading = found.at(1.5)["second"]
        assert reading.model is not found.model
        assert torch.allclose(reading.model(x), found.model(x), atol=1e-4) == same


def learner(duals: Tensor, losses: Tensor) -> PrimalDual:
    objective = PrimalDual(nn.Identity(), squared, [InvarianceConstraint(SignFlip(0), 1.0)], dual_lr=0.1)
    objective._history = [(dual[None], [float(loss)]) for dual, loss in zip(duals.double(), losses, strict=True)]
    return objective


@pytest.mark.parametrize(
    ("end", "loss", "verdict"),
    [(0.0, 0.5, "free"), (0.05, 1.05, "free"), (3.0, 0.8, "free"), (3.0, 1.0, "costs"), (3.0, 1.3, "broken")],
)
def test_the_verdict_follows_multiplier_and_slack(end: float, loss: float, verdict: str) -> None:
    reading = read_multiplier(learner(torch.linspace(0.0, end, 31), torch.full((31,), loss)))
    assert reading.verdict == verdict
    assert reading.dual == pytest.approx(end) and reading.slack == pytest.approx(1.0 - loss, abs=1e-6)
    assert reading.slope == pytest.approx(end / 30.0, abs=1e-6)


def test_a_slope_is_that_of_the_second_half_and_the_slack_that_of_the_last_third() -> None:
    duals = torch.cat([torch.linspace(5.0, 0.0, 30), torch.linspace(0.0, 6.0, 31)[1:]])
    losses = torch.cat([torch.full((40,), 9.0), torch.full((20,), 2.0)])
    reading = read_multiplier(learner(duals, losses))
    assert reading.slope == pytest.approx(0.2) and reading.slack == pytest.approx(-1.0)


def test_too_short_a_training_says_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        read_multiplier(learner(torch.zeros(5), torch.zeros(5)))


def reading(verdict: Any, label: Any = "invariant", duals: tuple[float, ...] = (0.0,)) -> Reading:
    return Reading("made up", label, 1.0, duals[-1], 0.0, 0.0, verdict, duals, nn.Identity())


def test_the_range_ends_before_the_first_strength_that_is_not_free() -> None:
    readings = [reading(verdict) for verdict in ("free", "free", "costs", "free")]
    assert largest_free((1.0, 2.0, 3.0, 4.0), readings) == 2.0
    assert largest_free((3.0, 4.0), readings[2:]) == 0.0
    with pytest.raises(ValueError, match="rising"):
        largest_free((2.0, 1.0), readings[:2])


def test_kinds_need_a_reading_of_each_constraint() -> None:
    assert label_kind(reading("costs"), reading("broken", "equivariant")) == "invariant"
    with pytest.raises(ValueError, match="one reading of each"):
        label_kind(reading("free"), reading("free"))


def test_thinned_multipliers_keep_the_last_one() -> None:
    long = reading("free", duals=tuple(float(i) for i in range(101)))
    thinned = long.thinned(10)
    assert len(thinned) <= 10 and thinned[-1] == 100.0 and thinned == sorted(thinned)
    assert long.thinned(200) == list(long.duals)


def test_ratios_and_curves_over_seeds() -> None:
    arms = {"a": (1.0, 0.0), "b": (0.5, 2.0), "c": (10.0, 4.0), "d": (5.0, 0.0)}
    result = ExperimentResult("", "", False, (0, 1), arms, {}, 0.0)
    assert dual_ratios(result, ["a", "b"], ["c", "d"]) == [0.2, float("inf")]
    curve = mean_duals([{"x": {"duals": [0.0, 1.0]}}, {"x": {"duals": [0.0, 3.0]}}], "x")
    assert (list(curve.x), list(curve.y)) == ([0.5, 1.0], [0.0, 2.0])
    assert curve.standard_error is not None and curve.standard_error[1] == pytest.approx(1.0)


def test_the_mean_loss_is_that_of_evaluation() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Flatten())
    x = torch.ones(600, 1)
    assert mean_loss(model.train(), (x, torch.zeros(600)), squared) == 1.0 and model.training


def test_what_cannot_be_discovered_is_refused() -> None:
    for options, words in (
        ({"transforms": {}}, "nothing to discover"),
        ({"tolerances": ()}, "nothing to discover"),
        ({"equivariant": ["third"]}, "no transform \\['third'\\]"),
        ({"start": "warm"}, "'fresh'|fresh"),
    ):
        with pytest.raises(ValueError, match=words):
            discover(lambda x: x[:, 0], **options)
