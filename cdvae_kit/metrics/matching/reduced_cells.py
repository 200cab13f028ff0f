"""Crystals as a `StructureMatcher` compares them: in reduced primitive cells, each worked out once.

pymatgen's own reduction is used (Niggli, then `get_primitive_structure`), so that verdicts are those of its matcher.
What is done with the cells is in `match_prefilter` and `matching`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.io.results.named_arrays import decode_arrays, encode_arrays
from cdvae_kit.metrics.computing.parallel import Memory, crystal_key, map_crystals
from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore

MATCHER_ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
"""What pymatgen raises in a cell that it cannot reduce or compare."""

FAILED = "the matcher failed"
"""How the reason starts where it did."""

# angstrom, the default of pymatgen's search for a smaller cell
_TRANSLATION_TOLERANCE = 0.25
# formula units; with more, pymatgen's search through all supercells takes seconds to minutes and gigabytes
_MOST_UNITS = 100

_KIND = "reduced cell 1"
"""Raised with every change of the code that changes a cell."""


@dataclass(frozen=True)
class Prepared:
    """A crystal and its reduced cell, which is all that the matcher compares.

    Attributes:
        crystal: as it came.
        reduced: Niggli-reduced and primitive; its fault says why it could not be had.
    """

    crystal: CrystalArrays
    reduced: CrystalArrays

    @property
    def fault(self) -> str | None:
        return self.reduced.fault

    @cached_property
    def parameters(self) -> np.ndarray:
        """(6,) of the reduced cell, angstrom and degrees."""
        return cell_parameters(self.reduced.lattice)

    @cached_property
    def unit_parameters(self) -> np.ndarray:
        """(6,) likewise, of the cell of that form whose volume is 1."""
        return cell_parameters(of_unit_volume(self.reduced.lattice))


def of_unit_volume(lattice: np.ndarray) -> np.ndarray:
    """(3, 3) of the same form."""
    return lattice / abs(np.linalg.det(lattice)) ** (1 / 3)


def cell_parameters(lattice: np.ndarray) -> np.ndarray:
    """(..., 6): lengths in the lattice's unit and angles in degrees, of (..., 3, 3) rows a, b, c."""
    lengths = np.linalg.norm(lattice, axis=-1)
    following, last = np.roll(lattice, -1, axis=-2), np.roll(lattice, -2, axis=-2)
    cosines = (following * last).sum(-1) / (np.roll(lengths, -1, axis=-1) * np.roll(lengths, -2, axis=-1))
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))], axis=-1)


def prepare_all(
    crystals: Sequence[CrystalArrays],
    *,
    primitive: bool,
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> list[Prepared]:
    """One entry a crystal, in order; some 5 ms each.

    Args:
        crystals: those with a fault are handed through.
        primitive: look for a smaller cell.
        num_workers: processes; -1 takes every core.
        progress: told how many crystals are reduced.
        store: where reduced cells are kept.
    """
    function = _primitive_cell if primitive else _niggli_cell
    memory = Memory(store, f"{_KIND} {'primitive' if primitive else 'niggli'}", crystal_key, _encode, _decode)
    reduced = map_crystals(function, crystals, num_workers=num_workers, progress=progress, memory=memory)
    return [Prepared(crystal, cell) for crystal, cell in zip(crystals, reduced, strict=True)]


def _primitive_cell(crystal: CrystalArrays) -> CrystalArrays:
    return _reduce(crystal, primitive=True)


def _niggli_cell(crystal: CrystalArrays) -> CrystalArrays:
    return _reduce(crystal, primitive=False)


def _reduce(crystal: CrystalArrays, *, primitive: bool) -> CrystalArrays:
    if crystal.fault is not None:
        return crystal
    try:
        structure = crystal.structure().get_reduced_structure(reduction_algo="niggli")
        if primitive and _may_be_smaller(crystal):
            structure = structure.get_primitive_structure(tolerance=_TRANSLATION_TOLERANCE)
    except MATCHER_ERRORS as error:
        return replace(crystal, fault=f"{FAILED}: {type(error).__name__}: {error}")
    numbers = np.array([site.specie.Z for site in structure], dtype=np.int64)
    return CrystalArrays(np.array(structure.lattice.matrix), np.array(structure.frac_coords), numbers)


def _may_be_smaller(crystal: CrystalArrays) -> bool:
    """Whether pymatgen is asked for a smaller cell: always, but of a large cell that no translation maps on itself."""
    kinds, counts = np.unique(crystal.atomic_numbers, return_counts=True)
    if reduce(gcd, counts.tolist()) <= _MOST_UNITS:
        return True
    rarest = crystal.frac_coords[crystal.atomic_numbers == kinds[counts.argmin()]]
    # the tolerance with which pymatgen chooses the vectors that it tries
    tolerance = 2 * _TRANSLATION_TOLERANCE / np.linalg.norm(crystal.lattice, axis=-1)
    vectors = rarest - rarest[0]
    vectors = vectors[(np.abs(vectors - np.rint(vectors)) > tolerance).any(-1)]
    for kind in kinds[np.argsort(counts)]:
        alike = crystal.frac_coords[crystal.atomic_numbers == kind]
        for site in alike:
            if len(vectors) == 0:
                return False
            off = (site + vectors)[:, None] - alike
            off -= np.rint(off)
            vectors = vectors[(np.abs(off) <= tolerance).all(-1).any(-1)]
    return len(vectors) > 0


def _encode(cell: CrystalArrays) -> bytes:
    arrays = {"lattice": cell.lattice, "frac_coords": cell.frac_coords, "atomic_numbers": cell.atomic_numbers}
    return encode_arrays(arrays, cell.fault)


def _decode(content: bytes) -> CrystalArrays:
    arrays, fault = decode_arrays(content)
    return CrystalArrays(arrays["lattice"], arrays["frac_coords"], arrays["atomic_numbers"], fault)
