"""How many crystals are stable; how many of those are unique and novel as well is in `sun`.

Takes crystals that are relaxed already (`cdvae_kit.relaxation`) and a hull of reference phases. Published rates differ
by ten times on convention alone, so the convention is part of every result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.computing.intervals import Interval, wilson_interval
from cdvae_kit.metrics.crystals import CrystalArrays, unusable
from cdvae_kit.metrics.evaluation_result import Distribution
from cdvae_kit.metrics.metric import COUNT, SHARE, Columns, Family, Measured, Metric, Need, number
from cdvae_kit.metrics.reconstruction import Tolerances, match_pairs
from cdvae_kit.metrics.symmetry import space_groups
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence
    from cdvae_kit.relaxation.hull import ReferenceHull
    from cdvae_kit.relaxation.result import Relaxation

STABLE = 0.0
"""eV/atom above the hull: on it or below."""

METASTABLE = 0.1
"""eV/atom above the hull; MatterGen's threshold (Zeni et al., Nature 639, 624 (2025))."""

ROUNDING = 1e-6
"""eV/atom that an energy may be above a threshold by rounding alone."""

LOWEST_PLAUSIBLE = -5.0
"""eV/atom; a crystal that is deeper under the hull than this is a fault of the calculator, not a discovery."""


@dataclass(frozen=True)
class CrystalStability:
    """One crystal.

    Attributes:
        energy_above_hull: eV/atom, negative below the hull; None where it is not known.
        converged: the relaxation came to its end; where it did not, the energy is an upper bound.
        rms: root mean square displacement between the crystal and the relaxed one by pymatgen's matcher, as a fraction
            of (volume / atom)^(1/3); None where they do not match.
        rms_angstrom: the same times (volume / atom)^(1/3) of the relaxed crystal.
        reason: why there is no energy above the hull; None where there is.
    """

    energy_above_hull: float | None
    converged: bool
    rms: float | None
    rms_angstrom: float | None
    reason: str | None

    def is_stable(self, threshold: float) -> bool:
        """At most `threshold` eV/atom above the hull; False where that is not known."""
        return self.energy_above_hull is not None and self.energy_above_hull <= threshold + ROUNDING


@dataclass(frozen=True)
class StabilityResult:
    """Every crystal and the rates.

    Attributes:
        crystals: one entry a crystal, in order.
        threshold: eV/atom, of `metastable`.
        calculator: what gave the energies.
        hull: what they are compared with.
        convention: all that the numbers rest on, in words.
    """

    crystals: tuple[CrystalStability, ...] = field(repr=False)
    threshold: float
    calculator: str
    hull: str
    convention: str

    @property
    def num_crystals(self) -> int:
        """The denominator of the rates: every crystal, failures included."""
        return len(self.crystals)

    @property
    def num_judged(self) -> int:
        """Crystals whose energy above the hull is known."""
        return sum(crystal.energy_above_hull is not None for crystal in self.crystals)

    @property
    def num_converged(self) -> int:
        return sum(crystal.converged for crystal in self.crystals)

    @property
    def num_matching(self) -> int:
        """Crystals that are still the same after relaxation."""
        return sum(crystal.rms is not None for crystal in self.crystals)

    @property
    def stable(self) -> list[bool]:
        """On the hull or below, one flag a crystal."""
        return self.flags(STABLE)

    @property
    def metastable(self) -> list[bool]:
        """Within `threshold` of the hull, one flag a crystal; the stable ones are among them."""
        return self.flags(self.threshold)

    @property
    def stable_rate(self) -> Interval:
        return rate(self.stable)

    @property
    def metastable_rate(self) -> Interval:
        return rate(self.metastable)

    @property
    def energies_above_hull(self) -> np.ndarray:
        """(num_crystals,) eV/atom, NaN where not known."""
        return np.array([_or_nan(crystal.energy_above_hull) for crystal in self.crystals], dtype=np.float64)

    @property
    def mean_rms(self) -> float | None:
        """Over the crystals that match; None without one."""
        return _mean([crystal.rms for crystal in self.crystals if crystal.rms is not None])

    @property
    def mean_rms_angstrom(self) -> float | None:
        return _mean([crystal.rms_angstrom for crystal in self.crystals if crystal.rms_angstrom is not None])

    @property
    def reasons(self) -> dict[str, int]:
        """How many crystals have no verdict for each reason, the most frequent first; what follows a colon is left out.

        The reasons of failed calculators keep the error's name.
        """
        return dict(Counter(_short(c.reason) for c in self.crystals if c.reason is not None).most_common())

    def flags(self, threshold: float) -> list[bool]:
        return [crystal.is_stable(threshold) for crystal in self.crystals]


def stability(
    relaxations: Sequence[Relaxation],
    hull: ReferenceHull,
    *,
    threshold: float = METASTABLE,
    calculator: str = "calculator not named",
    tolerances: Tolerances | None = None,
    lowest: float = LOWEST_PLAUSIBLE,
    num_workers: int = 1,
    progress: Progress | None = None,
) -> StabilityResult:
    """Energies above the hull, stable and metastable flags, and how far relaxation moved the atoms.

    A crystal that was not relaxed, or that the hull has no answer for, is not stable, and says why.

    Args:
        relaxations: in order; energies by the method of the hull's phases.
        hull: the phases.
        threshold: eV/atom above the hull that is still metastable.
        calculator: its name, and how it relaxed, for the convention.
        tolerances: of the matcher for the displacement; CDVAE's where None.
        lowest: eV/atom; energies further below the hull are a fault, not a stable crystal.
        num_workers: processes that match; -1 takes every core.
        progress: told how many pairs are matched.
    """
    if not threshold >= 0:
        raise ValueError(f"threshold must be eV/atom above the hull, 0 or more, got {threshold}")
    tolerances = tolerances or Tolerances()
    relaxed = [i for i, crystal in enumerate(relaxations) if not crystal.failed]
    matches = match_pairs(
        [_pair(relaxations[i]) for i in relaxed], tolerances=tolerances, num_workers=num_workers, progress=progress
    )
    rms: dict[int, float | None] = {i: match.rms for i, match in zip(relaxed, matches, strict=True)}
    crystals = []
    for i, (crystal, distance) in enumerate(zip(relaxations, hull.distances(relaxations), strict=True)):
        energy, reason = distance.energy_above_hull, distance.reason
        if energy is not None and energy < lowest:
            reason = f"implausible: {energy:.2f} eV/atom above the hull, under {lowest:g}"
            energy = None
        moved = rms.get(i)
        in_angstrom = None if moved is None else moved * _spacing(crystal)
        crystals.append(CrystalStability(energy, crystal.converged, moved, in_angstrom, reason))
    convention = (
        f"energies by {calculator}; hull: {hull}; stable at {STABLE:g}, metastable at {threshold:g} eV/atom; "
        f"crystals that ran out of steps count with the energy they reached; displacements by StructureMatcher "
        f"(ltol {tolerances.ltol:g}, stol {tolerances.stol:g}, angle_tol {tolerances.angle_tol:g}); "
        f"rates over all {len(crystals)} crystals, of which {sum(c.energy_above_hull is not None for c in crystals)} "
        f"have an energy above the hull and {sum(c.converged for c in crystals)} converged"
    )
    return StabilityResult(tuple(crystals), threshold, calculator, str(hull), convention)


def rate(flags: Sequence[bool]) -> Interval:
    """The share of crystals that are it, with its interval."""
    return wilson_interval(sum(flags), len(flags))


def _pair(crystal: Relaxation) -> tuple[CrystalArrays, CrystalArrays]:
    numbers = crystal.atomic_numbers
    return (
        CrystalArrays(crystal.initial_lattice, crystal.initial_frac_coords, numbers),
        CrystalArrays(crystal.lattice, crystal.frac_coords, numbers),
    )


def _spacing(crystal: Relaxation) -> float:
    return float((abs(np.linalg.det(crystal.lattice)) / crystal.num_atoms) ** (1 / 3))


def _short(reason: str) -> str:
    parts = reason.split(":")
    return ":".join(parts[:2]) if reason.startswith("the calculator failed") else parts[0]


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


# The numbers of an evaluation

MATTERGEN = "Zeni et al., Nature 639, 624 (2025), arXiv:2312.03687"
_NEEDS: tuple[Need, ...] = ("stability",)


def judged(evidence: Evidence) -> StabilityResult:
    """Energies above the hull of the generated crystals."""
    return evidence.relaxed.result


def relaxed_groups(evidence: Evidence) -> list[int | None]:
    """Space group of each generated crystal after relaxation, None where it failed or none is found."""
    arrays = [
        unusable("it was not relaxed")
        if one.failed
        else CrystalArrays(one.lattice, one.frac_coords, one.atomic_numbers)
        for one in evidence.relaxed.relaxations
    ]
    return space_groups(arrays, evidence.settings.symprec)


def _changes_group(evidence: Evidence) -> Measured:
    pairs = [
        (before, after)
        for before, after in zip(evidence.groups, evidence.once(relaxed_groups), strict=True)
        if before is not None and after is not None
    ]
    changed = sum(before != after for before, after in pairs)
    up = sum(after > before for before, after in pairs)
    note = f"of those relaxed, at symprec {evidence.settings.symprec:g} A; {up} into a group of higher number"
    return in_words(rate([before != after for before, after in pairs]), note if changed else note.split(";")[0])


def in_words(interval: Interval, note: str) -> Measured:
    """A rate with its interval as a number of an evaluation; 0 of no crystals."""
    value = 0.0 if interval.value is None else interval.value
    return Measured(value, interval.num_crystals, interval.low, interval.high, note)


def _rate_metric(name: str, compute: Callable[[StabilityResult], tuple[Interval, str]]) -> Metric:
    def measure(evidence: Evidence) -> Measured:
        return in_words(*compute(judged(evidence)))

    return Metric(name, name, "stability", "higher", SHARE, MATTERGEN, _NEEDS, measure)


def _count_metric(name: str, label: str, count: Callable[[StabilityResult], int], note: str) -> Metric:
    def measure(evidence: Evidence) -> Measured:
        result = judged(evidence)
        return number(count(result), result.num_crystals, note=note)

    return Metric(name, label, "stability", None, COUNT, "this package", _NEEDS, measure)


def _rms_relaxation(evidence: Evidence) -> Measured:
    result = judged(evidence)
    return number(result.mean_rms_angstrom, result.num_matching, note="Å, of what matches")


def _columns(evidence: Evidence) -> Columns:
    if not evidence.has(_NEEDS):
        return Columns()
    result, relaxations = judged(evidence), evidence.relaxed.relaxations
    energies = result.energies_above_hull
    verdicts = {
        "stable": [None if np.isnan(e) else flag for e, flag in zip(energies, result.stable, strict=True)],
        "metastable": [None if np.isnan(e) else flag for e, flag in zip(energies, result.metastable, strict=True)],
    }
    values = {
        "energy_above_hull": energies,
        "relaxation_steps": np.array([relaxation.steps for relaxation in relaxations], dtype=np.float64),
        "max_force": np.array([_or_nan(relaxation.max_force) for relaxation in relaxations], dtype=np.float64),
        "rms_relaxation": np.array([_or_nan(crystal.rms_angstrom) for crystal in result.crystals], dtype=np.float64),
    }
    reasons = [
        crystal.reason or (None if crystal.converged else f"not relaxed: {relaxation.reason}")
        for crystal, relaxation in zip(result.crystals, relaxations, strict=True)
    ]
    shown = Distribution("energy_above_hull", "eV/atom", energies, None, "continuous")
    return Columns(verdicts, values, reasons, [shown])


FAMILY = Family(
    "stability",
    (
        _rate_metric("stable", lambda found: (found.stable_rate, found.convention)),
        _rate_metric(
            "metastable",
            lambda found: (found.metastable_rate, f"within {found.threshold:g} eV/atom of the hull"),
        ),
        _count_metric("relaxed", "relaxed to the end", lambda found: found.num_converged, "converged"),
        _count_metric(
            "judged",
            "with an energy above the hull",
            lambda found: found.num_judged,
            "have an energy above the hull",
        ),
        Metric(
            "rms_relaxation",
            "displacement by relaxation",
            "stability",
            "lower",
            "Å",
            MATTERGEN,
            _NEEDS,
            _rms_relaxation,
        ),
        Metric(
            "relaxed_into_another_group",
            "relaxed into another space group",
            "stability",
            "lower",
            SHARE,
            "this package",
            _NEEDS,
            _changes_group,
        ),
    ),
    columns=_columns,
)
