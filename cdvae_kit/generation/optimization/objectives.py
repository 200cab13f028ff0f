"""What is wanted of a crystal's properties: goals, the loss that an optimiser of codes goes down, and Pareto fronts.

Nothing here knows how codes are moved (`latent_optimizers`) or who judges the crystals (`oracles`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

Direction = Literal["minimize", "maximize", "target"]


class UnknownPropertyError(ValueError):
    """A property that the predictor does not predict."""


class TargetOutsideDataError(ValueError):
    """A target that no crystal of the training data comes near: a predictor knows nothing there."""


@dataclass(frozen=True)
class PropertyRange:
    """What values a property takes in the data.

    Attributes:
        name: of the property.
        unit: "" where it has none.
        low: smallest value in the training data, in the unit.
        high: largest one.
    """

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True)
class Goal:
    """What is wanted of one property.

    Attributes:
        name: of the property.
        direction: to make it small, large, or equal to `target`.
        target: in the property's unit, for the direction "target".

    >>> Goal("heat_ref", "target", 0.5).distance(np.array([0.25, 1.0]))
    array([0.25, 0.5 ])
    """

    name: str
    direction: Direction = "minimize"
    target: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("minimize", "maximize", "target"):
            raise ValueError(f"direction must be minimize, maximize or target, got {self.direction!r}")
        if (self.direction == "target") != (self.target is not None):
            raise ValueError(
                f"a target value goes with the direction 'target' alone, got {self.direction!r} and {self.target}"
            )
        if self.target is not None and not math.isfinite(self.target):
            raise ValueError(f"the target of {self.name!r} must be a number, got {self.target}")

    def distance(self, values: np.ndarray) -> np.ndarray:
        """How bad each value is, in the property's unit; lower is better, and NaN stays NaN."""
        if self.target is not None:
            return np.abs(values - self.target)
        return values if self.direction == "minimize" else -values

    def loss(self, values: Tensor, scale: Tensor) -> Tensor:
        """The same for an optimiser, in standard deviations of the data; smooth where a target is met."""
        if self.target is not None:
            error = (values - self.target) / scale
            # a square root of a square, rounded off at a hundredth of a standard deviation
            return torch.sqrt(error.square() + 1e-4) - 1e-2
        return values / scale if self.direction == "minimize" else -values / scale

    def __str__(self) -> str:
        return f"{self.name} to {self.target:g}" if self.target is not None else f"{self.direction} {self.name}"


def check_goals(goals: Sequence[Goal], known: Mapping[str, PropertyRange], *, allow_outside: bool = False) -> None:
    """Raises where a goal cannot be pursued with a predictor of the properties `known`.

    Args:
        goals: at least one, each of another property.
        known: what the predictor predicts, by name.
        allow_outside: take targets outside the data's range.
    """
    if not goals:
        raise ValueError("there is nothing to optimise: give at least one goal")
    names = [goal.name for goal in goals]
    if len(set(names)) < len(names):
        raise ValueError(f"each property can have one goal, got {names}")
    for goal in goals:
        if goal.name not in known:
            raise UnknownPropertyError(
                f"the predictor knows no property {goal.name!r}; it knows "
                f"{', '.join(f'{r.name} ({r.unit})' if r.unit else r.name for r in known.values()) or 'none'}"
            )
        span = known[goal.name]
        if goal.target is not None and not allow_outside and not span.low <= goal.target <= span.high:
            raise TargetOutsideDataError(
                f"the target {goal.target:g} {span.unit} of {goal.name!r} lies outside the training data, "
                f"{span.low:g} to {span.high:g}: the predictor knows nothing there. Choose a target inside, or allow "
                "targets outside the data (allow_outside)"
            )


class LatentModel(Protocol):
    """A differentiable predictor from codes; `predictors.CodeModel` makes one of a `LatentPredictor`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The properties, in the order of the last axis."""
        ...

    @property
    def mean(self) -> Tensor:
        """(num_properties,) of the training data, in the properties' units."""
        ...

    @property
    def standard_deviation(self) -> Tensor:
        """(num_properties,), likewise."""
        ...

    @property
    def ranges(self) -> Mapping[str, PropertyRange]:
        """Unit and range of each property in the training data."""
        ...

    def __call__(self, z: Tensor) -> Tensor:
        """(members, num_crystals, num_properties), standardised."""
        ...


@dataclass(frozen=True)
class PropertyObjective:
    """The loss of several goals under an ensemble, with a penalty where its members disagree.

    Attributes:
        model: the ensemble.
        goals: what is wanted.
        weights: (num_starts, num_goals), the share of each goal in the loss of each start's codes.
        uncertainty: standard deviations of the ensemble that are added to each loss. Members agree where there is
            data; where they are only extrapolating they do not.
    """

    model: LatentModel
    goals: tuple[Goal, ...]
    weights: Tensor
    uncertainty: float = 1.0

    def __call__(self, z: Tensor, rows: Tensor) -> Tensor:
        losses = self.losses(z)
        return (losses * self.weights[rows].to(losses)).sum(-1)

    def losses(self, z: Tensor) -> Tensor:
        """(num_crystals, num_goals)."""
        predicted = self.model(z)
        columns = [self.model.names.index(goal.name) for goal in self.goals]
        mean, std = self.model.mean[columns], self.model.standard_deviation[columns]
        members = predicted[..., columns]
        values = members.mean(0) * std + mean
        parts = torch.stack([goal.loss(values[:, i], std[i]) for i, goal in enumerate(self.goals)], dim=-1)
        if self.uncertainty and len(members) > 1:
            # at the spread's own zero a square root has no gradient
            spread = (members.var(0, unbiased=False) + 1e-8).sqrt()
            parts = parts + self.uncertainty * spread
        return parts


@torch.no_grad()
def predicted_values(model: LatentModel, z: Tensor, goals: Sequence[Goal]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the ensemble, (num_crystals, num_goals) each, in the properties' units."""
    columns = [model.names.index(goal.name) for goal in goals]
    members = model(z)[..., columns] * model.standard_deviation[columns] + model.mean[columns]
    spread = members.std(0, unbiased=False)
    return members.mean(0).double().cpu().numpy(), spread.double().cpu().numpy()


def pareto_ranks(points: np.ndarray) -> np.ndarray:
    """(num_points,) front of each point, 0 the best: no point of a front dominates another of the same front.

    Lower is better in every column. Source: non-dominated sorting, Deb et al., IEEE Trans. Evol. Comput. 6, 182
    (2002), doi 10.1109/4235.996017. A point with a NaN comes after all fronts, at rank `num_points`.

    >>> pareto_ranks(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, 2.0]]))
    array([0, 0, 1, 2])
    """
    points = np.asarray(points, dtype=np.float64)
    ranks = np.full(len(points), len(points))
    left = np.flatnonzero(~np.isnan(points).any(axis=1))
    rank = 0
    while len(left):
        some = points[left]
        no_worse = (some[:, None] <= some[None]).all(-1)
        better = (some[:, None] < some[None]).any(-1)
        front = ~(no_worse & better).any(axis=0)
        ranks[left[front]] = rank
        left, rank = left[~front], rank + 1
    return ranks


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Volume of what the points dominate, up to the reference; lower is better in every column.

    Exact, by slices along the last axis; the time grows fast with the number of goals.

    >>> hypervolume(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([2.0, 2.0]))
    3.0
    """
    points, reference = np.asarray(points, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    points = points[(points < reference).all(axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(reference[0] - points.min())
    points = points[pareto_ranks(points) == 0]
    points = points[np.argsort(points[:, -1], kind="stable")]
    heights = np.append(points[1:, -1], reference[-1]) - points[:, -1]
    return float(
        sum(
            height * hypervolume(points[: i + 1, :-1], reference[:-1])
            for i, height in enumerate(heights)
            if height > 0.0
        )
    )
