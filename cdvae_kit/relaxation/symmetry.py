"""Relaxation that keeps the space group: an idealised start, and forces and stress that have its symmetry.

What has exactly the symmetry of the group keeps it when it moves along such forces; without them rounding, a potential
that is not quite symmetric, or a saddle point breaks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.crystal.arrays import CrystalArrays
from cdvae_kit.crystal.symmetry import symmetry_of

if TYPE_CHECKING:
    from moyopy import MoyoDataset

_EXACT = 1e-4
"""Angstrom; an idealised crystal has its symmetry far better than that."""


@dataclass(frozen=True)
class Operations:
    """The space group as it acts on the atoms of one crystal.

    Attributes:
        rotations: (num_operations, 3, 3) integers, on columns of fractional coordinates.
        permutations: (num_operations, num_atoms) the atom that each atom goes to.
    """

    rotations: np.ndarray
    permutations: np.ndarray


def idealised(start: CrystalArrays, symprec: float) -> CrystalArrays:
    """The primitive standard cell of the crystal, with exactly the symmetry that it has within `symprec` (angstrom)."""
    if start.fault is not None:
        return start
    found = _symmetry(start, symprec)
    if found is None:
        return CrystalArrays(
            start.lattice,
            start.frac_coords,
            start.atomic_numbers,
            fault=f"no space group found at {symprec:g} A",
        )
    cell = found.prim_std_cell
    return CrystalArrays(
        np.array(cell.basis, dtype=np.float64),
        np.array(cell.positions, dtype=np.float64),
        np.array(cell.numbers, dtype=np.int64),
    )


def operations_of(start: CrystalArrays) -> Operations:
    """The operations of an idealised crystal."""
    found = _symmetry(start, _EXACT)
    if found is None:
        raise ValueError("an idealised crystal has a space group; give one that `idealised` made")
    rotations = np.array(found.operations.rotations, dtype=np.int64).reshape(-1, 3, 3)
    translations = np.array(found.operations.translations, dtype=np.float64).reshape(-1, 3)
    permutations = np.empty((len(rotations), len(start.atomic_numbers)), dtype=np.int64)
    other_kind = start.atomic_numbers[:, None] != start.atomic_numbers
    for g, (rotation, translation) in enumerate(zip(rotations, translations, strict=True)):
        separation = (start.frac_coords @ rotation.T + translation)[:, None] - start.frac_coords
        separation -= np.round(separation)
        distances = np.linalg.norm(separation @ start.lattice, axis=-1)
        permutations[g] = np.where(other_kind, np.inf, distances).argmin(1)
    return Operations(rotations, permutations)


def symmetrise(
    forces: np.ndarray, stress: np.ndarray, lattice: np.ndarray, operations: Operations
) -> tuple[np.ndarray, np.ndarray]:
    """The part of forces and stress that has the symmetry of the crystal: the mean over the group.

    Args:
        forces: (num_atoms, 3), cartesian.
        stress: (3, 3), cartesian.
        lattice: (3, 3), rows a, b, c, of the crystal now.
        operations: of the crystal.
    """
    # on rows of cartesian vectors
    turns = np.linalg.inv(lattice) @ operations.rotations.transpose(0, 2, 1) @ lattice
    turned = forces @ turns
    mean = np.zeros_like(forces)
    for permutation, rows in zip(operations.permutations, turned, strict=True):
        mean[permutation] += rows
    return mean / len(turns), (turns.transpose(0, 2, 1) @ stress @ turns).mean(0)


def _symmetry(start: CrystalArrays, symprec: float) -> MoyoDataset | None:
    return symmetry_of(start.lattice.tolist(), start.frac_coords.tolist(), start.atomic_numbers.tolist(), symprec)
