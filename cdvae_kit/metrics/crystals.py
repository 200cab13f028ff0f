"""Crystals as the metrics read them: plain double-precision arrays, with the reason where one cannot be used.

A metric takes a `CrystalBatch` or a list of pymatgen structures and must not stop at a bad one; whatever asks "what is
in this crystal" goes through `as_arrays`. What judges a crystal is in `validity` and the modules beside it.
"""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from math import gcd
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cdvae_kit.crystal.arrays import MIN_VOLUME

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from cdvae_kit.crystal.batch import CrystalBatch

Crystals: TypeAlias = "CrystalBatch | Sequence[Structure | CrystalArrays | None]"
"""What every metric takes; None stands for a crystal that could not be made, and counts as one."""

Composition: TypeAlias = tuple[tuple[int, int], ...]
"""(atomic number, count) pairs by rising atomic number, counts without a common divisor."""


@dataclass(frozen=True)
class CrystalArrays:
    """One crystal.

    Attributes:
        lattice: (3, 3), angstrom, rows a, b, c.
        frac_coords: (num_atoms, 3).
        atomic_numbers: (num_atoms,) integers.
        fault: why the crystal cannot be used, in plain words; None where it can.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    fault: str | None = None

    @property
    def volume(self) -> float:
        """Cubic angstrom, never negative."""
        with np.errstate(over="ignore", invalid="ignore"):
            return abs(float(np.linalg.det(self.lattice)))

    @property
    def reduced_composition(self) -> Composition:
        counts = Counter(self.atomic_numbers.tolist())
        return reduce_composition(counts)

    def structure(self) -> Structure:
        """The crystal as a pymatgen structure."""
        from pymatgen.core import Element, Lattice, Structure

        species = [Element.from_Z(number) for number in self.atomic_numbers.tolist()]
        return Structure(Lattice(self.lattice), species, self.frac_coords)


def reduce_composition(counts: dict[int, int]) -> Composition:
    """Counts by atomic number, divided by what they have in common.

    >>> reduce_composition({8: 6, 22: 2, 56: 2})
    ((8, 3), (22, 1), (56, 1))
    """
    divisor = reduce(gcd, counts.values(), 0) or 1
    return tuple((number, counts[number] // divisor) for number in sorted(counts))


def formula(composition: Composition) -> str:
    """The reduced formula as people write it.

    >>> formula(((8, 3), (22, 1), (56, 1)))
    'BaTiO3'
    """
    from pymatgen.core import Composition as PymatgenComposition
    from pymatgen.core import Element

    with warnings.catch_warnings():
        # it orders elements by electronegativity, and warns of those that have none, which go last
        warnings.simplefilter("ignore", UserWarning)
        return PymatgenComposition({Element.from_Z(number): count for number, count in composition}).reduced_formula


@cache
def symbol(atomic_number: int) -> str:
    from pymatgen.core import Element

    return Element.from_Z(atomic_number).symbol


def as_arrays(crystals: Crystals) -> list[CrystalArrays]:
    """One entry a crystal, in order; a crystal that cannot be used keeps its place and says why."""
    # told apart without importing the batch, which brings torch: the processes that metrics start do without it
    if isinstance(crystals, Sequence):
        return [crystal if isinstance(crystal, CrystalArrays) else _from_structure(crystal) for crystal in crystals]
    return _from_batch(crystals)


def _from_batch(batch: CrystalBatch) -> list[CrystalArrays]:
    lattice = batch.lattice.detach().cpu().double().numpy()
    frac_coords = batch.frac_coords.detach().cpu().double().numpy()
    atomic_numbers = batch.atomic_numbers.cpu().numpy()
    bounds = batch.ptr.tolist()
    return [
        _with_fault(CrystalArrays(lattice[i], frac_coords[start:end], atomic_numbers[start:end]))
        for i, (start, end) in enumerate(itertools.pairwise(bounds))
    ]


def _from_structure(structure: Structure | None) -> CrystalArrays:
    if structure is None:
        return unusable("there is no crystal: it could not be built")
    lattice = np.asarray(structure.lattice.matrix, dtype=np.float64)
    try:
        species = [site.specie for site in structure]
    except AttributeError:
        return unusable("a site is shared by several elements or partly filled")
    unknown = sorted({str(s) for s in species if not isinstance(getattr(s, "Z", None), int) or not 1 <= s.Z <= 118})
    if unknown:
        return unusable(f"{', '.join(unknown)} is not an element")
    return _with_fault(
        CrystalArrays(
            lattice,
            np.asarray(structure.frac_coords, dtype=np.float64).reshape(-1, 3),
            np.array([s.Z for s in species], dtype=np.int64),
        )
    )


def unusable(fault: str) -> CrystalArrays:
    """Stands for a crystal that could not be read: no cell, no atoms, and the reason."""
    return CrystalArrays(np.zeros((3, 3)), np.zeros((0, 3)), np.zeros(0, dtype=np.int64), fault)


def _with_fault(crystal: CrystalArrays) -> CrystalArrays:
    fault = None
    if len(crystal.atomic_numbers) == 0:
        fault = "there is no atom"
    elif not (np.isfinite(crystal.lattice).all() and np.isfinite(crystal.frac_coords).all()):
        fault = "a coordinate or a cell vector is NaN or infinite"
    elif (volume := crystal.volume) < MIN_VOLUME:
        fault = f"the cell has {volume:.2g} cubic angstrom, under {MIN_VOLUME}"
    elif not np.isfinite(volume):
        fault = "the cell is too large to have a volume"
    return crystal if fault is None else replace(crystal, fault=fault)
