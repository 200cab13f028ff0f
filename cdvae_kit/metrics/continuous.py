"""Uniqueness, novelty and memorisation without a tolerance: how far crystals lie from each other and from known ones.

A matcher says same or different; here a crystal that is nearly a copy counts nearly as one. Structures are compared by
average minimum distances, compositions by the Element Mover's Distance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.fingerprints.average_distances import average_distances_of
from cdvae_kit.metrics.fingerprints.element_scale import cumulative_shares
from cdvae_kit.metrics.metric import Columns, Family, Measured, Metric, Need, mean, missing, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdvae_kit.metrics.evidence import Evidence

_NEGISHI = "Negishi et al., arXiv:2510.12405"
_MEEHAN = "Meehan et al., AISTATS 2020, arXiv:2004.05675"
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class _Scale:
    """How crystals are compared."""

    name: str
    label: str
    unit: str
    distance: str  # of scipy's cdist
    rows: Callable[[Evidence, Sequence[CrystalArrays], str], np.ndarray]


def _structures(evidence: Evidence, crystals: Sequence[CrystalArrays], whose: str) -> np.ndarray:
    with evidence.report(f"Average distances, {whose}", "crystals") as tell:
        return average_distances_of(crystals, num_workers=evidence.num_workers, progress=tell, store=evidence.store)


def _compositions(evidence: Evidence, crystals: Sequence[CrystalArrays], whose: str) -> np.ndarray:
    return cumulative_shares([None if crystal.fault else crystal.reduced_composition for crystal in crystals])


AMD = _Scale("amd", "average minimum distances", "Å", "chebyshev", _structures)
ELMD = _Scale("elmd", "Element Mover's Distance", "", "cityblock", _compositions)


def nearest_distances(rows: np.ndarray, others: np.ndarray, distance: str) -> np.ndarray:
    """(num_rows,) distance to the nearest of the others; NaN for rows that are NaN, and where there is no other.

    Args:
        rows: (num_rows, num_features).
        others: (num_others, num_features); those that are NaN are left out.
        distance: of scipy's `cdist`.
    """
    from scipy.spatial.distance import cdist

    there = others[np.isfinite(others).all(1)]
    found = np.full(len(rows), np.nan)
    usable = np.flatnonzero(np.isfinite(rows).all(1))
    if len(there):
        for start in range(0, len(usable), _ROWS_AT_ONCE):
            part = usable[start : start + _ROWS_AT_ONCE]
            found[part] = cdist(rows[part], there, distance).min(1)
    return found


def mean_distances(rows: np.ndarray, distance: str) -> np.ndarray:
    """(num_rows,) mean distance to all other rows; NaN for rows that are NaN, and where there is no other."""
    from scipy.spatial.distance import cdist

    usable = np.flatnonzero(np.isfinite(rows).all(1))
    found = np.full(len(rows), np.nan)
    if len(usable) > 1:
        for start in range(0, len(usable), _ROWS_AT_ONCE):
            part = usable[start : start + _ROWS_AT_ONCE]
            found[part] = cdist(rows[part], rows[usable], distance).sum(1) / (len(usable) - 1)
    return found


def nearer_share(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """The probability that a value of `ours` is below one of `theirs`, ties counting half; None where there is none.

    This is Mann and Whitney's U over the number of pairs; 0.5 where both are alike.

    >>> nearer_share(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    from scipy.stats import rankdata

    ours, theirs = ours[np.isfinite(ours)], theirs[np.isfinite(theirs)]
    if not (len(ours) and len(theirs)):
        return None
    ranks = rankdata(np.concatenate([theirs, ours]))[: len(theirs)]
    return float((ranks.sum() - len(theirs) * (len(theirs) + 1) / 2) / (len(ours) * len(theirs)))


# The numbers of an evaluation


def _ours(scale: _Scale) -> Callable[[Evidence], np.ndarray]:
    return _ROWS[scale.name, "ours"]


def _made(scale: _Scale, which: str) -> Callable[[Evidence], np.ndarray]:
    def rows(evidence: Evidence) -> np.ndarray:
        if which == "ours":
            return scale.rows(evidence, evidence.ours, "generated")
        if which == "theirs":
            return scale.rows(evidence, evidence.theirs, "reference")
        index = evidence.training_index
        assert index is not None
        return scale.rows(evidence, [index.crystal(i) for i in range(len(index))], "training")

    return rows


def _nearest(scale: _Scale, which: str) -> Callable[[Evidence], np.ndarray]:
    def distances(evidence: Evidence) -> np.ndarray:
        rows, known = (evidence.once(_ROWS[scale.name, part]) for part in (which, "train"))
        return nearest_distances(rows, known, scale.distance)

    return distances


_ROWS = {(scale.name, which): _made(scale, which) for scale in (AMD, ELMD) for which in ("ours", "theirs", "train")}
_NEAREST = {(scale.name, which): _nearest(scale, which) for scale in (AMD, ELMD) for which in ("ours", "theirs")}


def _uniqueness_metric(scale: _Scale) -> Metric:
    def compute(evidence: Evidence) -> Measured:
        distances = mean_distances(evidence.once(_ours(scale)), scale.distance)
        found = mean(distances, seed=evidence.seed, note="mean distance of a pair of generated crystals")
        # the crystals of a pair are not independent: no interval
        return number(found.value, found.num_crystals, note=found.note)

    label = f"uniqueness by {scale.label}"
    return Metric(f"{scale.name}_uniqueness", label, "uniqueness", None, scale.unit, _NEGISHI, ("extended",), compute)


def _novelty_metric(scale: _Scale) -> Metric:
    def compute(evidence: Evidence) -> Measured:
        distances = evidence.once(_NEAREST[scale.name, "ours"])
        return mean(distances, seed=evidence.seed, note="mean distance to the nearest training crystal")

    needs: tuple[Need, ...] = ("extended", "train")
    label = f"novelty by {scale.label}"
    return Metric(f"{scale.name}_novelty", label, "uniqueness", None, scale.unit, _NEGISHI, needs, compute)


def _memorisation_metric(scale: _Scale, label: str) -> Metric:
    def compute(evidence: Evidence) -> Measured:
        ours, theirs = (evidence.once(_NEAREST[scale.name, which]) for which in ("ours", "theirs"))
        value = nearer_share(ours, theirs)
        if value is None:
            return missing("a set has no crystal that can be compared with the training set")
        note = (
            "probability that a generated crystal lies nearer to the training set than a reference crystal; 0.5 where "
            f"neither is nearer; median distances {np.nanmedian(ours):.3g} and {np.nanmedian(theirs):.3g}"
        )
        return number(value, int(np.isfinite(ours).sum()), note=note)

    needs: tuple[Need, ...] = ("extended", "train", "reference")
    return Metric(f"memorisation_{scale.name}", label, "uniqueness", None, "", _MEEHAN, needs, compute)


def _columns(evidence: Evidence) -> Columns:
    if not evidence.has(("extended", "train")):
        return Columns()
    return Columns(
        values={f"nearest_training_{name}": evidence.once(_NEAREST[name, "ours"]) for name in ("amd", "elmd")}
    )


FAMILY = Family(
    "continuous",
    (
        *(_uniqueness_metric(scale) for scale in (AMD, ELMD)),
        *(_novelty_metric(scale) for scale in (AMD, ELMD)),
        _memorisation_metric(AMD, "memorisation of structures"),
        _memorisation_metric(ELMD, "memorisation of compositions"),
    ),
    columns=_columns,
)
