"""What is made of trials: the ranked candidates, and the success rates by optimised predictor and by judge.

How far the winners lie from known crystals is in `remoteness`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation.optimization.objectives import Goal, hypervolume, pareto_ranks
from cdvae_kit.generation.optimization.trials import Trials
from cdvae_kit.metrics.uniqueness import uniqueness

SUCCESS_PERCENTILES = (5.0, 10.0, 15.0)
"""Of the property in the data: the published thresholds of success."""


_KINDS = (
    (" A apart", "atoms too near"),
    (" A from its own periodic image", "atoms too near their own images"),
    ("oxidation state", "composition not neutral"),
    ("is not allowed", "an element that is not allowed"),
    ("is missing", "a required element is missing"),
    (" atoms, ", "another number of atoms"),
    ("density ", "density out of range"),
)


def final_values(trials: Trials, goals: Sequence[Goal], *, has_judge: bool) -> np.ndarray:
    """(num_trials, num_goals) that trials are ranked by: the judge's, or without one the optimised predictor's."""
    kind = "judged" if has_judge else "reread"
    nothing = np.full(len(trials), np.nan)
    return np.stack([trials.numbers.get(f"{kind}_{goal.name}", nothing) for goal in goals], axis=1)


def goal_distances(values: np.ndarray, goals: Sequence[Goal]) -> np.ndarray:
    """(num_trials, num_goals), lower is better."""
    return np.stack([goal.distance(values[:, i]) for i, goal in enumerate(goals)], axis=1)


def rank(
    trials: Trials,
    goals: Sequence[Goal],
    scales: Sequence[float],
    *,
    has_judge: bool,
    among: np.ndarray | None = None,
) -> np.ndarray:
    """Indices of the candidates among the trials, or among those that `among` names, the best first.

    A candidate is valid, meets the constraints, was submitted and has a value of every goal. Several goals are ranked
    by Pareto front, and within a front by the sum of the distances in standard deviations of the data.
    """
    distances = goal_distances(final_values(trials, goals, has_judge=has_judge), goals)
    there = trials.passed & trials.flag("submitted") & np.isfinite(distances).all(axis=1)
    indices = np.flatnonzero(there)
    if among is not None:
        indices = np.intersect1d(indices, among)
    if not len(indices):
        return indices
    total = (distances[indices] / np.asarray(scales)).sum(axis=1)
    fronts = pareto_ranks(distances[indices]) if len(goals) > 1 else np.zeros(len(indices))
    return indices[np.lexsort((indices, total, fronts))]


def without_duplicates(trials: Trials, order: np.ndarray) -> np.ndarray:
    """`order` without what matches something before it: StructureMatcher with CDVAE's tolerances."""
    if not len(order):
        return order
    return order[uniqueness(trials.crystals.select(order.tolist()), matcher="cdvae").unique]


@dataclass(frozen=True)
class Success:
    """How many starts reach a threshold with the best of their submitted valid crystals.

    Attributes:
        goal: the property.
        percentile: of the data that the threshold is; None where it was given.
        threshold: in the property's unit; for a target, the largest distance from it.
        by_judge: share of all starts, by the independent judge; None without one.
        by_predictor: the same by the optimised predictor, on the codes of the decoded crystals.
        by_predictor_at_code: the same on the codes that the optimiser proposed, as an optimiser sees itself.
        num_starts: the denominator.
    """

    goal: str
    percentile: float | None
    threshold: float
    by_judge: float | None
    by_predictor: float | None
    by_predictor_at_code: float | None
    num_starts: int


def success(
    trials: Trials,
    goals: Sequence[Goal],
    thresholds: Mapping[str, Sequence[tuple[float | None, float]]],
    num_starts: int,
    *,
    has_judge: bool,
) -> list[Success]:
    """One entry a threshold, (percentile, value) pairs by the goal's name; constraints count, too."""
    found = []
    for goal in goals:
        for percentile, threshold in thresholds.get(goal.name, ()):
            limit = threshold if goal.direction != "maximize" else -threshold
            rates = {
                kind: _share(trials, goal, f"{kind}_{goal.name}", limit, num_starts)
                for kind in ("judged", "reread", "predicted")
            }
            found.append(
                Success(
                    goal.name,
                    percentile,
                    threshold,
                    rates["judged"] if has_judge else None,
                    rates["reread"],
                    rates["predicted"],
                    num_starts,
                )
            )
    return found


def _share(trials: Trials, goal: Goal, column: str, limit: float, num_starts: int) -> float | None:
    if column not in trials.numbers:
        return None
    there = trials.passed & trials.flag("submitted")
    reached = there & (goal.distance(trials.numbers[column]) <= limit)
    return len(np.unique(trials.numbers["start"][reached])) / num_starts


def percentile_thresholds(goal: Goal, values: np.ndarray) -> list[tuple[float | None, float]]:
    """The thresholds of success that lie at `SUCCESS_PERCENTILES` of the data, from their best end."""
    values = values[np.isfinite(values)]
    if not len(values):
        return []
    sign = -1.0 if goal.direction == "maximize" else 1.0
    return [(p, sign * float(np.percentile(goal.distance(values), p))) for p in SUCCESS_PERCENTILES]


def best_of_each_start(trials: Trials, order: np.ndarray) -> np.ndarray:
    """Of `order`, the first trial of each start."""
    _, first = np.unique(trials.numbers["start"][order], return_index=True)
    return order[np.sort(first)]


def reasons(trials: Trials) -> dict[str, int]:
    """How many trials are lost to each kind of reason, the most frequent first; what is particular is left out."""
    kinds = (_kind(reason) for reason in trials.reasons if reason is not None)
    return dict(Counter(kinds).most_common(20))


def _kind(reason: str) -> str:
    for mark, kind in _KINDS:
        if mark in reason:
            return kind
    return reason.split(":")[0].split(";")[0]


def front_volume(trials: Trials, order: np.ndarray, goals: Sequence[Goal], *, has_judge: bool) -> float | None:
    """Hypervolume of the candidates' front, up to the worst candidate in every goal; None for one goal."""
    if len(goals) < 2 or not len(order):
        return None
    distances = goal_distances(final_values(trials, goals, has_judge=has_judge), goals)[order]
    return hypervolume(distances, distances.max(axis=0))


def named_candidates(
    trials: Trials, order: np.ndarray, goals: Sequence[Goal], *, has_judge: bool, start_names: Sequence[str]
) -> CrystalBatch:
    """The candidates as a batch, best first, each with its values as properties and a name that says where from."""
    chosen = trials.select(order)
    distances = goal_distances(final_values(trials, goals, has_judge=has_judge), goals)[order]
    fronts = pareto_ranks(distances) if len(goals) > 1 else np.zeros(len(order))
    columns: dict[str, np.ndarray] = {"rank": np.arange(1, len(order) + 1, dtype=np.float64)}
    if len(goals) > 1:
        columns["pareto_front"] = fronts.astype(np.float64)
    for name, column in chosen.numbers.items():
        if name not in ("valid", "allowed", "submitted"):
            columns[name] = column
    return chosen.crystals.replace(
        properties={name: torch.from_numpy(column).float() for name, column in columns.items()},
        material_ids=[
            f"{start_names[int(start)]}_{int(snapshot)}" + ("_relaxed" if relaxed == 1 else "")
            for start, snapshot, relaxed in zip(
                chosen.numbers["start"],
                chosen.numbers["snapshot"],
                chosen.numbers.get("relaxed", np.zeros(len(order))),
                strict=True,
            )
        ],
    )
