"""Whether two crystals are the same one, by pymatgen's `StructureMatcher` (doi 10.1016/j.commatsci.2012.10.028).

Every metric that asks this asks it here, with one of the published sets of tolerances (`MATCHERS`) or its own. Pairs
that cannot match are found first, by `prefilter`, and the others are done many at once, by `displacements`. What is
made of the answers is in `reconstruction`, `uniqueness`, `novelty` and `polymorphs`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from cdvae_kit.metrics.crystals import Composition, CrystalArrays, formula
from cdvae_kit.metrics.matching.displacements import Tolerances, smallest_displacements
from cdvae_kit.metrics.matching.prefilter import near_cells
from cdvae_kit.metrics.matching.reduced_cells import FAILED, MATCHER_ERRORS, Prepared, prepare_all

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

ANOTHER_STRUCTURE = "another structure"
"""The reason that a `MatchResult` has where composition is not what tells the two apart."""

MAX_RADIUS_DIFFERENCE = 0.3
"""Of the mean atomic radius, up to which two elements may take each other's place (MatterGen, from the ICSD)."""

MAX_ELECTRONEGATIVITY_DIFFERENCE = 1.0
"""Likewise, Pauling's scale."""


# others that one crystal is compared with at once: few at first, as the first match may be all that is asked
_FEWEST = 4
_MOST = 256


@dataclass(frozen=True)
class Matcher:
    """When two crystals count as the same; the defaults are CDVAE's.

    Attributes:
        ltol: fraction that a length may differ by.
        stol: displacement that a site may have, as a fraction of (volume / atom)^(1/3).
        angle_tol: degrees.
        scale: bring both cells to one volume first.
        primitive: reduce both cells to primitive ones first.
        disordered: elements that may take each other's place count as one (MatterGen): crystals of one composition that
            differ only in how an alloy is ordered are the same.
    """

    ltol: float = 0.3
    stol: float = 0.5
    angle_tol: float = 10.0
    scale: bool = True
    primitive: bool = True
    disordered: bool = False

    def __post_init__(self) -> None:
        if not (self.ltol > 0 and self.stol > 0 and self.angle_tol > 0):
            raise ValueError(f"tolerances must be positive, got {self}")

    def describe(self) -> str:
        """The convention in words, to stand beside a rate.

        >>> Matcher().describe()
        'StructureMatcher, ltol 0.3, stol 0.5, angle_tol 10, primitive cells, scaled'
        """
        return ", ".join(
            [
                f"StructureMatcher, ltol {self.ltol:g}, stol {self.stol:g}, angle_tol {self.angle_tol:g}",
                "primitive cells" if self.primitive else "cells as given",
                "scaled" if self.scale else "not scaled",
                *(["alloys disordered"] if self.disordered else []),
            ]
        )


MatcherName: TypeAlias = Literal["cdvae", "mattergen", "mattergen-disordered", "lemat"]

MATCHERS: MappingProxyType[str, Matcher] = MappingProxyType(
    {
        "cdvae": Matcher(),
        "mattergen": Matcher(ltol=0.2, stol=0.3, angle_tol=5.0),
        "mattergen-disordered": Matcher(ltol=0.2, stol=0.3, angle_tol=5.0, disordered=True),
        "lemat": Matcher(ltol=0.1, stol=0.3, angle_tol=5.0),
    }
)
"""Tolerances that published numbers rest on.

* `cdvae`: Xie et al., ICLR 2022 (arXiv 2110.06197), for reconstruction, and DiffCSP, FlowMM and others after it.
* `mattergen`: Zeni et al., Nature 639, 624 (2025), `OrderedStructureMatcher` of github.com/microsoft/mattergen:
  pymatgen's own defaults.
* `mattergen-disordered`: its `DisorderedStructureMatcher`, the default of its evaluation.
* `lemat`: the `structure-matcher` option of LeMat-GenBench (arXiv 2512.04562; github.com/LeMaterial/lemat-genbench).
  **Not its default**, which is equality of BAWL fingerprints (a hash of the bond graph, the space group and the
  composition, by the material-hasher package): no matcher gives the numbers of its leaderboard.
"""


@dataclass(frozen=True)
class MatchResult:
    """What the matcher says of a pair.

    Attributes:
        matches: the two are the same.
        rms: root mean square displacement as a fraction of (volume / atom)^(1/3); None where they do not match, or
            where no distance was asked for.
        reason: why they do not match; None where they do.
        asked: it took the matcher to say so.
    """

    matches: bool
    rms: float | None = None
    reason: str | None = None
    asked: bool = True

    @property
    def failed(self) -> bool:
        """The matcher raised an error, so nobody knows."""
        return self.reason is not None and self.reason.startswith(FAILED)


def matcher_of(matcher: MatcherName | Matcher) -> Matcher:
    """The matcher of that name.

    >>> matcher_of("mattergen").stol
    0.3
    """
    if isinstance(matcher, Matcher):
        return matcher
    if matcher not in MATCHERS:
        raise ValueError(f"there is no matcher {matcher!r}: choose {', '.join(MATCHERS)}, or give a Matcher")
    return MATCHERS[matcher]


def match(first: CrystalArrays, second: CrystalArrays, matcher: Matcher) -> MatchResult:
    """Whether two crystals, neither with a fault, are the same, and how far apart."""
    ours, theirs = first.reduced_composition, second.reduced_composition
    if ours != theirs:
        return MatchResult(
            False, reason=f"another composition: {formula(ours)} instead of {formula(theirs)}", asked=False
        )
    prepared = prepare_all([first, second], primitive=matcher.primitive)
    for crystal in prepared:
        if crystal.fault is not None:
            return MatchResult(False, reason=crystal.fault, asked=False)
    return next(iter(compare(prepared[0], prepared[1:], matcher, distances=True)))


def compare(
    first: Prepared, others: Sequence[Prepared], matcher: Matcher, *, distances: bool = False
) -> Iterator[MatchResult]:
    """One result a crystal of `others`, worked out as it is asked for.

    The verdict is that of `StructureMatcher.fit(first, other)` (no site farther than stol), or, with `distances`, of
    `get_rms_dist(first, other)` (root mean square under stol). Both depend a little on which of the two comes first.

    Args:
        first: without a fault.
        others: likewise, and of the reduced composition of `first`; the caller sees to that.
        matcher: whose tolerances hold.
        distances: compute `rms` as well, which takes longer.
    """
    cells = near_cells(first, others, ltol=matcher.ltol, angle_tol=matcher.angle_tol, scale=matcher.scale)
    mixed = _disordered(first.crystal) if matcher.disordered and len(others) else None
    asked = [j for j, those in enumerate(cells) if those is None or len(those)]
    values = _values(first, others, cells, asked, matcher, distances)
    for other, those in zip(others, cells, strict=True):
        result = MatchResult(False, reason=ANOTHER_STRUCTURE, asked=False)
        if those is None or len(those):
            value = next(values)
            if np.isnan(value):
                ordered = _matcher(matcher.ltol, matcher.stol, matcher.angle_tol, matcher.scale)
                result = _ask(ordered, first.reduced.structure(), other.reduced.structure(), distances)
            elif value < matcher.stol:
                result = MatchResult(True, value if distances else None)
            else:
                result = MatchResult(False, reason=ANOTHER_STRUCTURE)
        if mixed is not None and not result.matches:
            result = _ask(_disordered_matcher(matcher), mixed, other.crystal.structure(), distances)
        yield result


def _values(
    first: Prepared,
    others: Sequence[Prepared],
    cells: Sequence[np.ndarray | None],
    asked: Sequence[int],
    matcher: Matcher,
    distances: bool,
) -> Iterator[float]:
    """Displacements of those that are asked, worked out a few at a time; NaN where pymatgen has to say."""
    tolerances = Tolerances(matcher.ltol, matcher.stol, matcher.angle_tol, matcher.scale)
    done, step = 0, _FEWEST
    while done < len(asked):
        part = asked[done : done + step]
        listed = [j for j in part if cells[j] is not None]
        found = dict.fromkeys(part, np.nan)
        # pymatgen then tells what is wrong with which
        with contextlib.suppress(*MATCHER_ERRORS), np.errstate(all="ignore"):
            values = smallest_displacements(
                first, [others[j] for j in listed], [_listed(cells[j]) for j in listed], tolerances, distances=distances
            )
            found.update(zip(listed, values.tolist(), strict=True))
        yield from found.values()
        done, step = done + step, min(_MOST, 4 * step)


def _listed(cells: np.ndarray | None) -> np.ndarray:
    assert cells is not None
    return cells


def _ask(pymatgen_matcher: StructureMatcher, first: Structure, second: Structure, distances: bool) -> MatchResult:
    try:
        if not distances:
            same = pymatgen_matcher.fit(first, second)
            return MatchResult(True) if same else MatchResult(False, reason=ANOTHER_STRUCTURE)
        distance = pymatgen_matcher.get_rms_dist(first, second)
    except MATCHER_ERRORS as error:
        return MatchResult(False, reason=f"{FAILED}: {type(error).__name__}: {error}")
    if distance is None:
        return MatchResult(False, reason=ANOTHER_STRUCTURE)
    return MatchResult(True, float(distance[0]))


@cache
def _matcher(ltol: float, stol: float, angle_tol: float, scale: bool) -> StructureMatcher:
    """A matcher of reduced structures.

    pymatgen reduces both structures of every pair anew, which costs more than the comparison. Here they are reduced
    already; were the method that is replaced called otherwise one day, they would be reduced twice, and nothing else.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import IStructure, Structure

    class ReducedMatcher(StructureMatcher):
        @classmethod
        def _get_reduced_structure(
            cls, struct: Structure | IStructure, primitive_cell: bool = True, niggli: bool = True
        ) -> Structure:
            return Structure.from_sites(struct)

    return ReducedMatcher(ltol=ltol, stol=stol, angle_tol=angle_tol, scale=scale)


@cache
def _disordered_matcher(matcher: Matcher) -> StructureMatcher:
    from pymatgen.analysis.structure_matcher import OrderDisorderElementComparator, StructureMatcher

    return StructureMatcher(
        ltol=matcher.ltol,
        stol=matcher.stol,
        angle_tol=matcher.angle_tol,
        scale=matcher.scale,
        primitive_cell=matcher.primitive,
        attempt_supercell=True,
        allow_subset=True,
        comparator=OrderDisorderElementComparator(),
    )


def alloy_groups(composition: Composition) -> tuple[tuple[int, ...], ...]:
    """Elements of a composition that may take each other's place, at least two in each group.

    MatterGen's form of the rule of Hume-Rothery: atomic radii within `MAX_RADIUS_DIFFERENCE` of their mean and
    electronegativities within `MAX_ELECTRONEGATIVITY_DIFFERENCE`; what may replace a common third goes together. An
    element without a radius or an electronegativity replaces none (MatterGen's code stops there).

    >>> alloy_groups(((8, 2), (38, 1), (56, 1)))  # oxygen apart, strontium with barium
    ((38, 56),)
    """
    groups: list[set[int]] = []
    for one, other in combinations([number for number, _ in composition], 2):
        if not _replace_each_other(one, other):
            continue
        touched = [group for group in groups if one in group or other in group]
        groups = [group for group in groups if group not in touched] + [{one, other}.union(*touched)]
    return tuple(sorted(tuple(sorted(group)) for group in groups))


@cache
def _replace_each_other(one: int, other: int) -> bool:
    first, second = _radius_and_electronegativity(one), _radius_and_electronegativity(other)
    if first is None or second is None:
        return False
    difference = abs(first[0] - second[0]) / ((first[0] + second[0]) / 2)
    return difference <= MAX_RADIUS_DIFFERENCE and abs(first[1] - second[1]) <= MAX_ELECTRONEGATIVITY_DIFFERENCE


@cache
def _radius_and_electronegativity(number: int) -> tuple[float, float] | None:
    """In angstrom and on Pauling's scale, of pymatgen; None where it has only one of them."""
    import warnings

    from pymatgen.core import Element

    element = Element.from_Z(number)
    with warnings.catch_warnings():
        # it warns of an element without an electronegativity, and gives NaN
        warnings.simplefilter("ignore")
        radius, electronegativity = element.atomic_radius, element.X
    if radius is None or electronegativity is None or not np.isfinite(electronegativity):
        return None
    return float(radius), float(electronegativity)


def _disordered(crystal: CrystalArrays) -> Structure | None:
    """The crystal with the sites of an alloy shared by its elements in their proportion; None where it has no alloy."""
    from pymatgen.core import Element, Structure

    composition = crystal.reduced_composition
    groups = alloy_groups(composition)
    if not groups:
        return None
    counts = dict(composition)
    shared = {
        number: {Element.from_Z(n).symbol: counts[n] / sum(counts[m] for m in group) for n in group}
        for group in groups
        for number in group
    }
    species = [shared.get(n, {Element.from_Z(n).symbol: 1.0}) for n in crystal.atomic_numbers.tolist()]
    return Structure(crystal.lattice, species, crystal.frac_coords)
