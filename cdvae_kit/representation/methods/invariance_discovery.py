"""Which transforms leave a label as it is: one constrained training a transform, and what its multiplier says.

One at a time, because one constraint that cannot be met makes all others pay (`experiments.invariance_constrained`
shows it). The objective is that of `invariance_constrained`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cdvae_kit.representation.methods.encoder import embed
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.representation.methods.invariance_constrained import (
    InvarianceConstraint,
    Label,
    LossFunction,
    PrimalDual,
)
from cdvae_kit.representation.methods.invariance_measures import Table
from cdvae_kit.representation.panels import Curve
from cdvae_kit.representation.protocol import ExperimentResult, standard_error
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.transforms.base import Transform
from cdvae_kit.typing import ShareDone

Verdict = Literal["free", "costs", "broken"]

TOLERANCES = (1.1, 1.5)
"""Shares of the unconstrained validation loss."""
NEGLIGIBLE = 0.1
"""A multiplier up to it counts as zero: to tighten the tolerance by a tenth costs less than a hundredth of it."""
SETTLED = 0.1
"""Share of the tolerance; a multiplier whose constraint has more slack is on its way to zero, with less than minus
that it is on its way up for good."""


@dataclass(frozen=True)
class Reading:
    """What one constrained training says of one transform.

    Attributes:
        name: of the transform.
        label: whether the label was to stay or to follow.
        tolerance: ε.
        dual: γ at the end.
        slack: ε − L, L the loss under transforms, mean of the last third of the steps; negative where it is exceeded.
        slope: of γ a step, by least squares over the second half.
        verdict: `free`, a symmetry that costs nothing: γ is zero, or falls since there is slack; `costs`, one that
            can be had at a price, at which γ stands; `broken`, none, and γ grows.
        duals: γ after each step.
        model: as it was trained.
    """

    name: str
    label: Label
    tolerance: float
    dual: float
    slack: float
    slope: float
    verdict: Verdict
    duals: tuple[float, ...]
    model: nn.Module

    def thinned(self, most: int) -> list[float]:
        """γ at no more than `most` steps, evenly spaced, the last one included; for a picture."""
        every = -(-len(self.duals) // most)
        return list(self.duals[::-1][::every][::-1])

    def as_details(self, *, most_steps: int = 120) -> dict[str, Any]:
        """For `PartResult.details`: the numbers, and γ over some steps."""
        return {
            "tolerance": self.tolerance,
            "slack": self.slack,
            "slope": self.slope,
            "verdict": self.verdict,
            "duals": self.thinned(most_steps),
        }


@dataclass(frozen=True)
class Discovery:
    """All readings, and the plain training that set the tolerances.

    Attributes:
        model: trained without a constraint.
        validation_loss: of that model, clean.
        readings: by transform and share of the validation loss.
    """

    model: nn.Module
    validation_loss: float
    readings: Mapping[tuple[str, float], Reading]

    def at(self, share: float) -> dict[str, Reading]:
        """The readings at one tolerance, by transform."""
        return {name: reading for (name, own), reading in self.readings.items() if own == share}

    def table(self) -> Table:
        """A row for each transform and tolerance: final multiplier, slack, slope."""
        return Table(
            tuple(f"{name}, ε = {share:g} × validation" for name, share in self.readings),
            ("dual", "slack", "slope"),
            tuple((reading.dual, reading.slack, reading.slope) for reading in self.readings.values()),
        )


def discover_invariances(
    make_model: Callable[[], nn.Module],
    train: tuple[Any, Tensor],
    validation: tuple[Any, Tensor],
    transforms: Mapping[str, Transform[Any]],
    *,
    loss_fn: LossFunction,
    settings: FitSettings,
    constrained_settings: FitSettings | None = None,
    dual_lr: float,
    tolerances: Sequence[float] = TOLERANCES,
    equivariant: Collection[str] = (),
    num_proposals: int = 2,
    start: Literal["fresh", "plain"] = "fresh",
    seed: int = 0,
    progress: ShareDone | None = None,
) -> Discovery:
    """Trains once without and, for every transform and tolerance, once with the constraint.

    Every training sees the samples in the same order.

    Args:
        make_model: a new model; called where `seed` decides its weights.
        train: samples and targets.
        validation: others, for the loss that sets the tolerances.
        transforms: by name; one constraint each.
        loss_fn: (outputs, targets) to (b,).
        settings: of each training. A multiplier needs steps to come back: from a height γ it falls by at most
            `dual_lr` ε a step.
        constrained_settings: of the constrained ones, where they differ.
        dual_lr: of the multiplier.
        tolerances: shares of the unconstrained validation loss, two so that a verdict can be seen not to hang on one.
        equivariant: names of the transforms under which the label has to follow by `act_on_target`; under the others
            it has to stay.
        num_proposals: of the chain.
        start: of the constrained trainings: `fresh` from the same weights as the plain one, as in the paper, or `plain`
            from what that one learnt. A multiplier climbs until the network can do what is asked of the label at all;
            from `plain` it need not come back from there, which is for labels that are slow to learn.
        seed: of weights, order and draws.
        progress: told the share of trainings that are done.
    """
    if start not in ("fresh", "plain"):
        raise ValueError(f"a training starts 'fresh' or from the 'plain' one, got {start!r}")
    if not transforms or not tolerances:
        raise ValueError("there is nothing to discover without a transform and a tolerance")
    if strangers := set(equivariant) - set(transforms):
        raise ValueError(f"there is no transform {sorted(strangers)}; there are {', '.join(transforms)}")
    total = 1 + len(transforms) * len(tolerances)

    def fresh() -> nn.Module:
        with seeded_weights(seed):
            return make_model()

    def trained(model: nn.Module, constraints: Sequence[InvarianceConstraint], done: int) -> PrimalDual:
        chosen = constrained_settings if constraints and constrained_settings is not None else settings
        learner = PrimalDual(model, loss_fn, constraints, dual_lr=dual_lr, num_proposals=num_proposals)
        fit(
            learner,
            train,
            chosen,
            seed=seed,
            progress=None if progress is None else lambda share: progress((done + share) / total),
        )
        return learner

    plain = trained(fresh(), [], 0).model
    reference = mean_loss(plain, validation, loss_fn)
    readings: dict[tuple[str, float], Reading] = {}
    for name, transform in transforms.items():
        for share in tolerances:
            label: Label = "equivariant" if name in equivariant else "invariant"
            constraint = InvarianceConstraint(transform, share * reference, label=label, name=name)
            model = fresh() if start == "fresh" else deepcopy(plain)
            readings[name, share] = read_multiplier(trained(model, [constraint], 1 + len(readings)))
    return Discovery(plain, reference, readings)


def mean_loss(model: nn.Module, data: tuple[Any, Tensor], loss_fn: LossFunction) -> float:
    """Over all samples, in evaluation mode."""
    samples, targets = data
    return float(loss_fn(embed(model, samples), targets).double().mean())


def read_multiplier(learner: PrimalDual, index: int = 0) -> Reading:
    """What the multiplier of one constraint says, after `fitting.fit`."""
    constraint = learner.constraints[index]
    if len(learner.dual_history) < 6:
        raise ValueError(f"{len(learner.dual_history)} steps are too few to read a multiplier from")
    duals, losses = learner.dual_history[:, index], learner.loss_history[:, index]
    slope = _slope(duals[len(duals) // 2 :])
    slack = constraint.tolerance - float(losses[-(len(losses) // 3) :].mean())
    dual = float(duals[-1])
    excess = -slack / constraint.tolerance
    verdict: Verdict = "broken" if excess > SETTLED else "free" if dual <= NEGLIGIBLE or excess < -SETTLED else "costs"
    return Reading(
        constraint.name,
        constraint.label,
        constraint.tolerance,
        dual,
        slack,
        slope,
        verdict,
        tuple(duals.tolist()),
        learner.model,
    )


def _slope(values: Tensor) -> float:
    """Of a line through values a step apart, by least squares."""
    step = torch.arange(len(values), dtype=values.dtype) - 0.5 * (len(values) - 1)
    return float((step * values).sum() / (step * step).sum())


def largest_free(strengths: Sequence[float], readings: Sequence[Reading]) -> float:
    """The largest strength that costs nothing, as all weaker ones; 0 where even the weakest does.

    Args:
        strengths: rising.
        readings: one a strength.
    """
    if list(strengths) != sorted(strengths) or len(strengths) != len(readings):
        raise ValueError(f"expected rising strengths with a reading each, got {list(strengths)}, {len(readings)}")
    best = 0.0
    for strength, reading in zip(strengths, readings, strict=True):
        if reading.verdict != "free":
            break
        best = strength
    return best


Kind = Literal["invariant", "equivariant", "neither"]


def label_kind(staying: Reading, following: Reading) -> Kind:
    """What a group does to a label, from the constraint that the label stays and the one that it follows.

    A label that may stay is invariant, whatever becomes of the other: where the action leaves it alone, both hold.
    """
    if (staying.label, following.label) != ("invariant", "equivariant"):
        raise ValueError(f"expected one reading of each kind, got {staying.label} and {following.label}")
    if staying.verdict != "broken":
        return "invariant"
    return "neither" if following.verdict == "broken" else "equivariant"


def dual_ratios(result: ExperimentResult, true: Sequence[str], false: Sequence[str]) -> list[float]:
    """The largest multiplier of true symmetries over the smallest of false ones, a seed; the names are arms."""
    ratios = []
    for index in range(len(result.seeds)):
        least = min(result.per_seed(arm)[index] for arm in false)
        most = max(result.per_seed(arm)[index] for arm in true)
        # of arms that were left out there is no number
        ratios.append(math.inf if least <= 0.0 else most / least)
    return ratios


def mean_duals(runs: Sequence[Mapping[str, Any]], key: str) -> Curve:
    """The multiplier over the share of the training that is done, mean of some seeds.

    Args:
        runs: one a seed; `key` leads to a mapping with the `duals` of `Reading.thinned`.
        key: of the transform.
    """
    columns = list(zip(*(run[key]["duals"] for run in runs), strict=True))
    return Curve(
        [(i + 1) / len(columns) for i in range(len(columns))],
        [sum(column) / len(column) for column in columns],
        [standard_error(column) for column in columns],
    )
