"""Whether crystals are valid as the field counts it: atoms far enough apart, a composition that can be neutral.

The published rule (Xie et al., ICLR 2022, arXiv 2110.06197) also asks that every site has a CrystalNN fingerprint;
that part is in `fingerprints`. The rules on compositions are in `composition_rules`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.composition_rules import CompositionRule, check_composition
from cdvae_kit.metrics.crystals import CrystalArrays, Crystals, as_arrays, symbol
from cdvae_kit.metrics.metric import COUNT, SHARE, Columns, Family, Measured, Metric, number, rate

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence

MIN_DISTANCE = 0.5
"""Angstrom; atoms nearer than this make a structure invalid."""

_PAIRS_AT_ONCE = 500_000


@dataclass(frozen=True)
class Verdict:
    """One judgement; `reason` says in plain words why not, None where `valid`."""

    reason: str | None = None

    @property
    def valid(self) -> bool:
        return self.reason is None

    def __bool__(self) -> bool:
        return self.valid


@dataclass(frozen=True)
class Validity:
    """Both judgements on one crystal.

    Attributes:
        structure: atoms far enough apart in a cell that has a volume.
        composition: neutral by the rule.
        reason: why not, for both, None where both hold.
    """

    structure: bool
    composition: bool
    reason: str | None = None

    @property
    def valid(self) -> bool:
        return self.structure and self.composition


def validity(crystals: Crystals, *, rule: CompositionRule = "smact-2014", strict: bool = False) -> list[Validity]:
    """One `Validity` a crystal; options are those of `structure_validity` and `composition_validity`.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> crushed = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0, 0, 0.1]])
    >>> validity([salt, crushed])
    [Validity(structure=True, composition=True, reason=None),
     Validity(structure=False, composition=True, reason='Cs and Cl 0.40 A apart')]
    """
    return validity_of(as_arrays(crystals), rule=rule, strict=strict)


def validity_of(
    arrays: Sequence[CrystalArrays], *, rule: CompositionRule = "smact-2014", strict: bool = False
) -> list[Validity]:
    """`validity` of crystals that are arrays already."""
    both = zip(_structure_validity(arrays, strict=strict), _composition_validity(arrays, rule), strict=True)
    return [
        Validity(
            structure.valid,
            composition.valid,
            # a crystal that cannot be used gives one reason, not two
            "; ".join(dict.fromkeys(r for r in (structure.reason, composition.reason) if r is not None)) or None,
        )
        for structure, composition in both
    ]


def structure_validity(crystals: Crystals, *, strict: bool = False) -> list[Verdict]:
    """One verdict a crystal: different atoms at least `MIN_DISTANCE` apart, cell of at least 0.1 cubic angstrom.

    The published rule does not see an atom that is too near its own periodic image; `strict` does.
    """
    return _structure_validity(as_arrays(crystals), strict=strict)


def composition_validity(crystals: Crystals, *, rule: CompositionRule = "smact-2014") -> list[Verdict]:
    """One verdict a crystal by `composition_rules.check_composition`, at the reduced counts."""
    return _composition_validity(as_arrays(crystals), rule)


def _composition_validity(arrays: Sequence[CrystalArrays], rule: CompositionRule) -> list[Verdict]:
    return [
        Verdict(check_composition(crystal.reduced_composition, rule))
        if len(crystal.atomic_numbers)
        else Verdict(crystal.fault)
        for crystal in arrays
    ]


def _structure_validity(arrays: Sequence[CrystalArrays], *, strict: bool) -> list[Verdict]:
    reasons: list[str | None] = [crystal.fault for crystal in arrays]
    usable = [i for i, reason in enumerate(reasons) if reason is None]
    if not usable:
        return [Verdict(reason) for reason in reasons]
    lattices = np.stack([arrays[i].lattice for i in usable])
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, spacing in zip(usable, _plane_spacings(lattices).min(-1).tolist(), strict=True):
        if strict and spacing < MIN_DISTANCE and (own := _shortest_lattice_vector(arrays[i])) < MIN_DISTANCE:
            reasons[i] = f"every atom {_rounded_down(own)} A from its own periodic image"
        elif spacing > 2.001 * MIN_DISTANCE:
            by_size[len(arrays[i].atomic_numbers)].append(i)
        else:
            reasons[i] = _thin_cell_reason(arrays[i])
    for num_atoms, members in by_size.items():
        step = max(1, _PAIRS_AT_ONCE // num_atoms**2)
        for start in range(0, len(members), step):
            chunk = members[start : start + step]
            for i, reason in zip(chunk, _wide_cell_reasons([arrays[j] for j in chunk]), strict=True):
                reasons[i] = reason
    return [Verdict(reason) for reason in reasons]


def _plane_spacings(lattices: np.ndarray) -> np.ndarray:
    """(num_crystals, 3) distances between the faces of each cell."""
    normals = np.cross(np.roll(lattices, -1, axis=1), np.roll(lattices, -2, axis=1))
    volumes = np.abs((normals[:, 0] * lattices[:, 0]).sum(-1))
    return volumes[:, None] / np.linalg.norm(normals, axis=-1)


def _wide_cell_reasons(crystals: Sequence[CrystalArrays]) -> list[str | None]:
    """Reasons for crystals of one size whose cells are everywhere wider than twice the shortest allowed distance.

    In such a cell only the image that is nearest along every axis can be too near, so no other one is looked at.
    """
    frac_coords = np.stack([crystal.frac_coords for crystal in crystals])
    lattices = np.stack([crystal.lattice for crystal in crystals])
    num_atoms = frac_coords.shape[1]
    rows = max(1, _PAIRS_AT_ONCE // num_atoms)
    reasons: list[str | None] = [None] * len(crystals)
    nearest = np.full(len(crystals), MIN_DISTANCE)
    for start in range(0, num_atoms, rows):
        block = frac_coords[:, start : start + rows]
        separation = block[:, :, None] - frac_coords[:, None]
        separation -= np.round(separation)
        distances = np.linalg.norm(np.einsum("bijk,bkl->bijl", separation, lattices), axis=-1)
        own = np.arange(block.shape[1])
        distances[:, own, own + start] = np.inf
        shortest = distances.min(axis=(1, 2))
        for b in np.flatnonzero(shortest < nearest).tolist():
            i, j = np.unravel_index(int(distances[b].argmin()), distances[b].shape)
            nearest[b] = shortest[b]
            reasons[b] = _too_near(crystals[b], int(i) + start, int(j), float(shortest[b]))
    return reasons


def _thin_cell_reason(crystal: CrystalArrays) -> str | None:
    """The same for one crystal in any cell: pymatgen's periodic distances, which the published rule reads."""
    from pymatgen.core import Lattice

    distances = Lattice(crystal.lattice).get_all_distances(crystal.frac_coords, crystal.frac_coords)
    np.fill_diagonal(distances, np.inf)
    i, j = np.unravel_index(int(distances.argmin()), distances.shape)
    shortest = float(distances[i, j])
    return _too_near(crystal, int(i), int(j), shortest) if shortest < MIN_DISTANCE else None


def _too_near(crystal: CrystalArrays, i: int, j: int, distance: float) -> str:
    first, second = (symbol(int(crystal.atomic_numbers[k])) for k in sorted((i, j)))
    return f"{first} and {second} {_rounded_down(distance)} A apart"


def _rounded_down(distance: float) -> str:
    """0.497 must not read as 0.50, which would be allowed."""
    return f"{math.floor(distance * 100) / 100:.2f}"


def _shortest_lattice_vector(crystal: CrystalArrays) -> float:
    from pymatgen.core import Lattice

    # the shortest vector of a reduced basis is among the sums of its own vectors
    reduced = Lattice(crystal.lattice).get_lll_reduced_lattice().matrix
    steps = np.array([s for s in np.ndindex(3, 3, 3) if s != (1, 1, 1)]) - 1
    return float(np.linalg.norm(steps @ reduced, axis=-1).min())


# The numbers of an evaluation

_CDVAE = "Xie et al., ICLR 2022, arXiv:2110.06197"


def _num_generated(evidence: Evidence) -> Measured:
    crystals = evidence.generated
    return number(len(crystals), len(crystals), note=f"{crystals.num_unread} could not be read")


def _strict(evidence: Evidence) -> list[Verdict]:
    return structure_validity(evidence.ours, strict=True)


def _structure_rate(evidence: Evidence) -> Measured:
    flags = [verdict.structure for verdict in evidence.verdicts]
    return rate(flags, seed=evidence.seed, note="different atoms at least 0.5 A apart, as published")


def _composition_rate(evidence: Evidence) -> Measured:
    flags = [verdict.composition for verdict in evidence.verdicts]
    return rate(flags, seed=evidence.seed, note=f"rule {evidence.settings.rule}")


def _valid_rate(evidence: Evidence) -> Measured:
    note = "both" + (", and every site has a fingerprint, as published" if evidence.vectors is not None else "")
    return rate(evidence.valid_flags, seed=evidence.seed, note=note)


def _strict_rate(evidence: Evidence) -> Measured:
    flags = [verdict.valid for verdict in evidence.once(_strict)]
    return rate(flags, seed=evidence.seed, note="ours: an atom's own periodic image counts too")


def _columns(evidence: Evidence) -> Columns:
    verdicts, vectors, strict = evidence.verdicts, evidence.vectors, evidence.once(_strict)
    reasons = [
        verdict.reason or (None if vectors is None else vectors[i].reason) or own.reason
        for i, (verdict, own) in enumerate(zip(verdicts, strict, strict=True))
    ]
    flags = {
        "struct_valid": [verdict.structure for verdict in verdicts],
        "comp_valid": [verdict.composition for verdict in verdicts],
        "valid": evidence.valid_flags,
        "struct_valid_strict": [verdict.valid for verdict in strict],
    }
    return Columns(flags, {}, reasons)


FAMILY = Family(
    "validity",
    (
        Metric("n_gen", "generated crystals", "validity", None, COUNT, _CDVAE, (), _num_generated),
        Metric("struct_valid", "structure valid", "validity", "higher", SHARE, _CDVAE, (), _structure_rate),
        Metric("comp_valid", "composition valid", "validity", "higher", SHARE, _CDVAE, (), _composition_rate),
        Metric("valid", "valid", "validity", "higher", SHARE, _CDVAE, (), _valid_rate),
        Metric(
            "struct_valid_strict",
            "structure valid, own images too",
            "validity",
            "higher",
            SHARE,
            "this package",
            (),
            _strict_rate,
        ),
    ),
    columns=_columns,
)
