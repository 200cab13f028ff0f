"""How much of the reference the generated crystals cover, and how many of them lie near the reference.

COV recall and precision, AMSD and AMCD (Xie et al., ICLR 2022, arXiv 2110.06197; the idea is Ganea et al., NeurIPS
2021, arXiv 2106.07802) from the vectors of `fingerprints`. Published code asks for a near structure and a near
composition, each from any crystal; the `joint` rates ask for one crystal that is near in both, as the text does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.computing.nearest import NearestVectors
from cdvae_kit.metrics.fingerprints.vectors import Fingerprint, stack
from cdvae_kit.metrics.metric import COUNT, SHARE, Columns, Family, Measured, Metric, Need, mean, number, rate

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence

_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Cutoffs:
    """Euclidean distances between vectors up to which two crystals are near."""

    structure: float
    composition: float

    def __post_init__(self) -> None:
        if not (self.structure >= 0 and self.composition >= 0):
            raise ValueError(f"coverage cutoffs must be distances of at least 0, got {self}")


COVERAGE_CUTOFFS = {
    "perov_5": Cutoffs(0.2, 4.0),
    "carbon_24": Cutoffs(0.2, 4.0),
    "mp_20": Cutoffs(0.4, 10.0),
}
"""The published cutoffs by data set."""


@dataclass(frozen=True)
class Nearest:
    """For each crystal of one set, what the other set has near it; NaN and False where a crystal has no vectors.

    Attributes:
        structure: (num_crystals,) distance to the nearest structure vector.
        composition: (num_crystals,) distance to the nearest composition vector, of whichever crystal.
        near: (num_crystals,) both distances are within the cutoffs, as published.
        near_joint: (num_crystals,) one crystal is within both.
    """

    structure: np.ndarray
    composition: np.ndarray
    near: np.ndarray
    near_joint: np.ndarray


@dataclass(frozen=True)
class CoverageResult:
    """COV and mean nearest distances.

    Attributes:
        references: of each reference, to the generated crystals (recall).
        generated: of each generated crystal, to the references (precision).
        cutoffs: that `near` used.
        reason: why there is nothing to compare; None where there is.
    """

    references: Nearest = field(repr=False, compare=False)
    generated: Nearest = field(repr=False, compare=False)
    cutoffs: Cutoffs
    reason: str | None = None

    @property
    def num_references(self) -> int:
        """The denominator of recall: every reference, also one without vectors, which nothing can be near."""
        return len(self.references.near)

    @property
    def num_generated(self) -> int:
        """The denominator of precision: every generated crystal, failures included."""
        return len(self.generated.near)

    @property
    def cov_recall(self) -> float:
        return _share(self.references.near)

    @property
    def cov_precision(self) -> float:
        return _share(self.generated.near)

    @property
    def cov_recall_joint(self) -> float:
        return _share(self.references.near_joint)

    @property
    def cov_precision_joint(self) -> float:
        return _share(self.generated.near_joint)

    @property
    def amsd_recall(self) -> float | None:
        """Mean distance to the nearest structure, over references with vectors; None without one."""
        return _mean(self.references.structure)

    @property
    def amsd_precision(self) -> float | None:
        return _mean(self.generated.structure)

    @property
    def amcd_recall(self) -> float | None:
        return _mean(self.references.composition)

    @property
    def amcd_precision(self) -> float | None:
        return _mean(self.generated.composition)

    def numbers(self) -> dict[str, float | None]:
        """The eight numbers by the names that published results use, `_joint` behind ours."""
        names = ("cov_recall", "cov_precision", "cov_recall_joint", "cov_precision_joint")
        means = ("amsd_recall", "amsd_precision", "amcd_recall", "amcd_precision")
        return {name: getattr(self, name) for name in names + means}


def coverage(generated: Sequence[Fingerprint], reference: Sequence[Fingerprint], *, cutoffs: Cutoffs) -> CoverageResult:
    """Coverage of the reference by the generated crystals; memory does not grow with the product of the two sets.

    Crystals without vectors count in the denominators and are near nothing.

    >>> import numpy as np
    >>> here = Fingerprint(np.zeros(61), np.zeros(132))
    >>> there = Fingerprint(np.ones(61), np.ones(132))
    >>> coverage([here], [here, there], cutoffs=COVERAGE_CUTOFFS["perov_5"]).cov_recall
    0.5
    """
    reason = None
    for name, vectors in (("generated", generated), ("reference", reference)):
        if not any(vector.complete for vector in vectors):
            reason = reason or f"none of {len(vectors)} {name} crystals has a fingerprint"
    ours, theirs = stack(generated), stack(reference)
    has_ours = np.array([vector.complete for vector in generated], dtype=bool)
    has_theirs = np.array([vector.complete for vector in reference], dtype=bool)
    of_theirs, of_ours = _nearest(theirs, ours, cutoffs)
    return CoverageResult(_spread(of_theirs, has_theirs), _spread(of_ours, has_ours), cutoffs, reason)


def _nearest(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray], cutoffs: Cutoffs
) -> tuple[Nearest, Nearest]:
    """What the second set has near each crystal of the first, and the other way round, in one pass over the pairs."""
    num_ours, num_theirs = len(ours[0]), len(theirs[0])
    if not (num_ours and num_theirs):
        return _nothing_near(num_ours), _nothing_near(num_theirs)
    structure = NearestVectors(ours[0], theirs[0], cutoffs.structure)
    composition = NearestVectors(ours[1], theirs[1], cutoffs.composition)
    joint_ours, joint_theirs = np.zeros(num_ours, dtype=bool), np.zeros(num_theirs, dtype=bool)
    for start in range(0, num_ours, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, num_ours)
        both = structure.measure(start, stop) & composition.measure(start, stop)
        joint_ours[start:stop] = both.any(axis=1)
        joint_theirs |= both.any(axis=0)
    return (
        _within(structure.of_rows, composition.of_rows, joint_ours, cutoffs),
        _within(structure.of_columns, composition.of_columns, joint_theirs, cutoffs),
    )


def _within(structure: np.ndarray, composition: np.ndarray, joint: np.ndarray, cutoffs: Cutoffs) -> Nearest:
    near = (structure <= cutoffs.structure) & (composition <= cutoffs.composition)
    return Nearest(structure, composition, near, joint)


def _nothing_near(num_crystals: int) -> Nearest:
    nothing, never = np.full(num_crystals, np.nan), np.zeros(num_crystals, dtype=bool)
    return Nearest(nothing, nothing, never, never)


def _spread(found: Nearest, has_vectors: np.ndarray) -> Nearest:
    """The same with a row for each crystal of the set, those without vectors included."""

    def spread(values: np.ndarray, empty: float | bool) -> np.ndarray:
        full = np.full(len(has_vectors), empty, dtype=values.dtype)
        full[has_vectors] = values
        return full

    return Nearest(
        spread(found.structure, np.nan),
        spread(found.composition, np.nan),
        spread(found.near, False),
        spread(found.near_joint, False),
    )


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _mean(distances: np.ndarray) -> float | None:
    measured = distances[~np.isnan(distances)]
    return float(measured.mean()) if len(measured) else None


# The numbers of an evaluation

_CDVAE = "Xie et al., ICLR 2022, arXiv:2110.06197"
_NEEDS: tuple[Need, ...] = ("fingerprints", "reference")


def _found(evidence: Evidence) -> CoverageResult:
    return coverage(_vectors(evidence), _reference(evidence), cutoffs=evidence.settings.coverage_cutoffs)


def _vectors(evidence: Evidence) -> Sequence[Fingerprint]:
    return evidence.vectors or ()


def _reference(evidence: Evidence) -> Sequence[Fingerprint]:
    return evidence.reference_vectors or ()


def _num_references(evidence: Evidence) -> Measured:
    return number(len(evidence.theirs), len(evidence.theirs))


def _num_with_fingerprint(evidence: Evidence) -> Measured:
    vectors = _reference(evidence)
    return number(sum(vector.complete for vector in vectors), len(vectors))


def _rate_of(name: str, label: str, flags: Callable[[CoverageResult], np.ndarray], what: str) -> Metric:
    """COV one way; `what` says of what, "" for the joint rates."""

    def compute(evidence: Evidence) -> Measured:
        found, cutoffs = evidence.once(_found), evidence.settings.coverage_cutoffs
        apart = f"nearest structure within {cutoffs.structure:g} and nearest composition within {cutoffs.composition:g}"
        note = f"{what} with {apart}" if what else "ours: one crystal near in both"
        return rate(flags(found), seed=evidence.seed, note=found.reason or note)

    source = _CDVAE if what else "this package"
    return Metric(name, label, "coverage", "higher", SHARE, source, _NEEDS, compute)


def _mean_of(name: str, label: str, distances: Callable[[CoverageResult], np.ndarray]) -> Metric:
    def compute(evidence: Evidence) -> Measured:
        found = evidence.once(_found)
        return mean(distances(found), seed=evidence.seed, note=found.reason or "")

    return Metric(name, label, "coverage", "lower", "", _CDVAE, _NEEDS, compute)


def _columns(evidence: Evidence) -> Columns:
    if not evidence.has(_NEEDS):
        return Columns()
    ours = evidence.once(_found).generated
    return Columns(
        {"covered": ours.near.tolist(), "covered_joint": ours.near_joint.tolist()},
        {"nearest_structure": ours.structure, "nearest_composition": ours.composition},
    )


FAMILY = Family(
    "coverage",
    (
        Metric("n_ref", "reference crystals", "coverage", None, COUNT, _CDVAE, _NEEDS, _num_references),
        Metric(
            "n_ref_with_fp",
            "references with a fingerprint",
            "coverage",
            None,
            COUNT,
            _CDVAE,
            _NEEDS,
            _num_with_fingerprint,
        ),
        _rate_of("cov_recall", "COV recall", lambda found: found.references.near, "references"),
        _rate_of("cov_precision", "COV precision", lambda found: found.generated.near, "generated"),
        _rate_of("cov_recall_joint", "COV recall, joint", lambda found: found.references.near_joint, ""),
        _rate_of("cov_precision_joint", "COV precision, joint", lambda found: found.generated.near_joint, ""),
        _mean_of("amsd_recall", "AMSD recall", lambda found: found.references.structure),
        _mean_of("amsd_precision", "AMSD precision", lambda found: found.generated.structure),
        _mean_of("amcd_recall", "AMCD recall", lambda found: found.references.composition),
        _mean_of("amcd_precision", "AMCD precision", lambda found: found.generated.composition),
    ),
    columns=_columns,
)
