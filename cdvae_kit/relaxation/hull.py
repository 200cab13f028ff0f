"""Energy above the convex hull of a set of reference phases.

The hull at a composition is the least energy that a mixture of phases of that composition can have: a linear program
in the phases whose elements the composition has. It is solved as that, one crystal at a time, so eight elements cost
what two do; pymatgen's `PhaseDiagram`, which builds the whole hull of a chemical system first, gives the same numbers.
Reading a file of phases belongs to `cdvae_kit.io`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from cdvae_kit.relaxation.result import Relaxation

Counts: TypeAlias = Mapping[int, float]
"""Atoms of each atomic number; only their ratios matter."""

Energies: TypeAlias = Literal["total", "formation"]

_SMALLEST_SHARE = 1e-6


@dataclass(frozen=True)
class Phase:
    """A reference phase: composition as atoms of each atomic number, energy in eV/atom, and where it comes from."""

    composition: Counts
    energy_per_atom: float
    name: str = ""

    def __post_init__(self) -> None:
        if not self.composition or not all(
            1 <= number <= 118 and math.isfinite(count) and count > 0 for number, count in self.composition.items()
        ):
            raise ValueError(
                f"phase {self.name!r}: expected atomic numbers 1 to 118 with positive counts, got {self.composition}"
            )
        if not math.isfinite(self.energy_per_atom):
            raise ValueError(f"phase {self.name!r}: the energy must be finite, in eV/atom, got {self.energy_per_atom}")


@dataclass(frozen=True)
class HullDistance:
    """Where a crystal lies.

    Attributes:
        energy_above_hull: eV/atom, negative below the hull of the reference; None where it is not known.
        decomposition: share of the atoms by phase, of the mixture that the crystal is compared with.
        reason: why it is not known; None where it is.
    """

    energy_above_hull: float | None
    decomposition: Mapping[str, float]
    reason: str | None = None


class ReferenceHull:
    """The phases that crystals are compared with.

    Of the phases of one composition only the lowest counts. An element without a phase of its own leaves every
    crystal that holds it without a verdict, with the reason.

    Args:
        phases: in any order.
        name: what the hull is, to be printed beside what rests on it.
        energies: `total` energies, all from one method; or `formation` energies, whose zero is the elements: they
            need not be among the phases then.

    >>> hull = ReferenceHull([Phase({3: 1}, -1.9), Phase({9: 1}, -1.8), Phase({3: 1, 9: 1}, -4.9)], name="by hand")
    >>> round(hull.distance({3: 1, 9: 1}, -4.7).energy_above_hull, 6)
    0.2
    >>> hull.distance({3: 1, 17: 1}, -4.0).reason
    'the reference hull has no phase of pure Cl'
    """

    def __init__(self, phases: Iterable[Phase], *, name: str, energies: Energies = "total") -> None:
        if energies not in ("total", "formation"):
            raise ValueError(f"energies are 'total' or 'formation', got {energies!r}")
        self.name, self.energies = name, energies
        lowest: dict[tuple[tuple[int, float], ...], Phase] = {}
        for phase in phases:
            key = _fractions(phase.composition)
            if key not in lowest or phase.energy_per_atom < lowest[key].energy_per_atom:
                lowest[key] = phase
        if energies == "formation":
            for number in {number for key in lowest for number, _ in key}:
                pure = Phase({number: 1}, 0.0, _symbol(number))
                known = lowest.setdefault(((number, 1.0),), pure)
                if known.energy_per_atom > 0:
                    lowest[((number, 1.0),)] = pure
        if not lowest:
            raise ValueError("a hull needs at least one phase, got none")
        self._by_system: dict[frozenset[int], list[tuple[dict[int, float], Phase]]] = {}
        for key, phase in lowest.items():
            self._by_system.setdefault(frozenset(number for number, _ in key), []).append((dict(key), phase))
        self._tables: dict[frozenset[int], _System] = {}

    @property
    def num_phases(self) -> int:
        """Distinct compositions."""
        return sum(len(phases) for phases in self._by_system.values())

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that have a phase of their own: what a crystal may hold."""
        return tuple(sorted(number for system in self._by_system if len(system) == 1 for number in system))

    def __str__(self) -> str:
        kind = "" if self.energies == "total" else "formation energies, "
        return f"{self.name} ({kind}{self.num_phases} compositions, {len(self.elements)} elements)"

    def distance(self, composition: Counts, energy_per_atom: float | None) -> HullDistance:
        """Where a crystal of that composition and energy (eV/atom, by the method of the phases) lies."""
        if energy_per_atom is None or not math.isfinite(energy_per_atom):
            return HullDistance(None, {}, "there is no energy")
        if not composition:
            return HullDistance(None, {}, "there is no atom")
        shares = dict(_fractions(composition))
        if missing := [number for number in shares if frozenset((number,)) not in self._by_system]:
            names = ", ".join(_symbol(number) for number in sorted(missing))
            return HullDistance(None, {}, f"the reference hull has no phase of pure {names}")
        system = self._system(frozenset(shares))
        energy, weights = system.lowest_mixture(np.array([shares[number] for number in system.elements]))
        parts = {
            _label(phase): float(weight)
            for phase, weight in zip(system.phases, weights, strict=True)
            if weight > _SMALLEST_SHARE
        }
        return HullDistance(energy_per_atom - energy, parts)

    def distances(self, relaxations: Sequence[Relaxation]) -> list[HullDistance]:
        """One entry a relaxed crystal; one that has no energy says why."""
        return [
            HullDistance(None, {}, crystal.reason or "there is no energy")
            if crystal.failed
            else self.distance(crystal.composition, crystal.energy_per_atom)
            for crystal in relaxations
        ]

    def _system(self, elements: frozenset[int]) -> _System:
        if elements not in self._tables:
            # of few elements, the subsets are fewer than the systems of a large reference
            if 2 ** len(elements) < len(self._by_system):
                inside = [self._by_system[part] for part in _subsets(elements) if part in self._by_system]
            else:
                inside = [phases for part, phases in self._by_system.items() if part <= elements]
            self._tables[elements] = _System(sorted(elements), [entry for entries in inside for entry in entries])
        return self._tables[elements]


class _System:
    """The phases within one set of elements."""

    def __init__(self, elements: list[int], entries: list[tuple[dict[int, float], Phase]]) -> None:
        self.elements = elements
        self.phases = [phase for _, phase in entries]
        # (num_elements, num_phases) shares of the atoms
        self.shares = np.array([[shares.get(number, 0.0) for shares, _ in entries] for number in elements])
        self.energies = np.array([phase.energy_per_atom for phase in self.phases])

    def lowest_mixture(self, shares: np.ndarray) -> tuple[float, np.ndarray]:
        """eV/atom, and the share of the atoms in each phase."""
        if len(self.elements) == 1:
            best = int(self.energies.argmin())
            return float(self.energies[best]), np.eye(len(self.phases))[best]
        from scipy.optimize import linprog

        # energies from the elements' own: small numbers, for which the solver's tolerances are meant
        pure = [int(np.flatnonzero(row == 1.0)[0]) for row in self.shares]
        offset = self.energies[pure]
        solved = linprog(self.energies - offset @ self.shares, A_eq=self.shares, b_eq=shares, method="highs-ds")
        if solved.status != 0:  # the pure elements are a solution, so there is a best one
            raise RuntimeError(f"the linear program of the hull was not solved: {solved.message}")
        weights = np.clip(solved.x, 0.0, None)
        return float(solved.fun + offset @ shares), weights


def formation_hull(compounds: Iterable[Mapping[str, Any]], *, name: str, known_hull: bool = True) -> ReferenceHull:
    """The hull of tabulated compounds, whose energies are formation energies.

    A table of small cells lacks the stable phases that have large ones. Where it tells a compound's energy above the
    whole hull, the height of that hull at its composition follows, and is taken in beside the compounds themselves.

    Args:
        compounds: mappings with `composition`, `energy_per_atom` (formation energy, eV/atom) and, where it is known,
            `energy_above_hull` (eV/atom), as `cdvae_kit.io.crystals.phases.read_formation_energies` gives them.
        name: what the hull is.
        known_hull: take in the heights that follow from `energy_above_hull`.

    >>> table = [{"composition": "LiF", "energy_per_atom": -2.9, "energy_above_hull": 0.2, "name": "layered"}]
    >>> round(formation_hull(table, name="one compound").distance({3: 1, 9: 1}, -3.0).energy_above_hull, 6)
    0.1
    """
    phases = []
    for compound in compounds:
        [phase] = phases_of([compound])
        phases.append(phase)
        above = compound.get("energy_above_hull")
        if known_hull and above is not None and above > 0:
            height = phase.energy_per_atom - float(above)
            phases.append(Phase(phase.composition, height, f"the hull at {_label(phase)}"))
    return ReferenceHull(phases, name=name, energies="formation")


def phases_of(entries: Iterable[Any]) -> list[Phase]:
    """Phases of what people have: `Phase`, mappings, or pymatgen's entries (`PDEntry`, `ComputedEntry`).

    A mapping has `composition` (a formula, or counts by symbol or atomic number) and `energy_per_atom` in eV/atom, and
    may have a `name`.

    >>> phases_of([{"composition": "Fe2O3", "energy_per_atom": -6.7}])
    [Phase(composition={8: 3, 26: 2}, energy_per_atom=-6.7, name='Fe2O3')]
    """
    return [_phase(entry, i) for i, entry in enumerate(entries)]


def phases_of_relaxations(relaxations: Iterable[Relaxation], names: Sequence[str] | None = None) -> list[Phase]:
    """Phases of relaxed crystals; those that have no energy are left out."""
    relaxations = list(relaxations)
    labels = names if names is not None else [""] * len(relaxations)
    return [
        Phase(crystal.composition, crystal.energy_per_atom, label)
        for crystal, label in zip(relaxations, labels, strict=True)
        if crystal.energy_per_atom is not None
    ]


def _phase(entry: Any, index: int) -> Phase:
    from pymatgen.core import Composition

    if isinstance(entry, Phase):
        return entry
    try:
        if isinstance(entry, Mapping):
            given, energy, name = entry["composition"], entry["energy_per_atom"], entry.get("name")
        else:
            given, energy = entry.composition, entry.energy_per_atom
            name = getattr(entry, "entry_id", None) or getattr(entry, "name", None)
    except (AttributeError, KeyError) as error:
        raise ValueError(
            f"entry {index}: expected composition and energy_per_atom (eV/atom) or a pymatgen entry, "
            f"got {repr(entry)[:99]}"
        ) from error
    try:
        composition = given if isinstance(given, Composition) else Composition(_with_symbols(given))
        counts = {element.Z: _whole(count) for element, count in composition.items()}
        return Phase(dict(sorted(counts.items())), float(energy), str(name or composition.reduced_formula))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"entry {index}: {error}") from error


def _with_symbols(given: Any) -> Any:
    """Counts by atomic number become counts by symbol, which is what pymatgen reads."""
    if not isinstance(given, Mapping):
        return str(given)
    return {_symbol(key) if isinstance(key, int) else key: count for key, count in given.items()}


def _whole(count: float) -> float:
    return int(count) if float(count).is_integer() else float(count)


def _fractions(composition: Counts) -> tuple[tuple[int, float], ...]:
    """(atomic number, share of the atoms), equal for equal ratios."""
    total = sum(composition.values())
    return tuple((number, round(composition[number] / total, 10)) for number in sorted(composition))


def _subsets(elements: frozenset[int]) -> list[frozenset[int]]:
    listed = sorted(elements)
    return [
        frozenset(number for bit, number in enumerate(listed) if chosen >> bit & 1)
        for chosen in range(1, 2 ** len(listed))
    ]


def _label(phase: Phase) -> str:
    if phase.name:
        return phase.name
    return "".join(f"{_symbol(number)}{count:g}" for number, count in sorted(phase.composition.items()))


def _symbol(number: int) -> str:
    from ase.data import chemical_symbols

    return str(chemical_symbols[number])
