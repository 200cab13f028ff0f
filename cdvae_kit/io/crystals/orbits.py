"""Sites of a file under its symmetry operations: all their positions in the cell, each once.

A site on a symmetry element has fewer positions than there are operations. Its coordinates are rounded in the file, so
that its images do not coincide: those that the file's own digits cannot tell apart are one atom. Which operations keep
the site is settled first, as a group; the site is then moved onto what they leave fixed, so that the number of its
positions always divides that of the operations.
"""

from __future__ import annotations

import numpy as np

from cdvae_kit.io.crystals.operations import PARTS, Operations

LEAST_TOLERANCE = 0.05
"""Angstrom. Images of one atom that are nearer are one: no two atoms are."""

LARGEST_TOLERANCE = 0.5
"""Angstrom. However few digits a file has, images farther apart are two atoms: hydrogen's bond is 0.74."""

# rounding is wrong by half a unit of the last digit, cutting two thirds off 0.666 by two thirds of one
_UNITS = 0.7


def positions_of(
    site: np.ndarray, operations: Operations, lattice: np.ndarray, unit: float
) -> tuple[np.ndarray, float]:
    """The (num_positions, 3) fractional positions of a site, and how far it was moved, in angstrom.

    Args:
        site: (3,) fractions.
        operations: a group.
        lattice: (3, 3), angstrom.
        unit: what one in the last digit of the file's coordinates is worth.
    """
    rotations = operations.rotations.astype(np.float64)
    images = rotations @ site + operations.translations / PARTS
    shifts = np.rint(images - site)
    distances = np.linalg.norm((images - site - shifts) @ lattice, axis=1)
    reach = np.abs(rotations - np.eye(3)).sum(2) @ np.linalg.norm(lattice, axis=1)
    tolerances = np.clip(_UNITS * unit * reach, LEAST_TOLERANCE, LARGEST_TOLERANCE)
    near = distances <= tolerances
    if near.sum() == 1:
        return images % 1.0, 0.0
    keeping = _largest_group(operations, near, distances, 2.0 * tolerances)
    fixed = (images - shifts)[keeping].mean(0)
    moved = float(np.linalg.norm((fixed - site) @ lattice))
    return _once((rotations @ fixed + operations.translations / PARTS) % 1.0), moved


def _largest_group(operations: Operations, near: np.ndarray, distances: np.ndarray, most: np.ndarray) -> np.ndarray:
    """(num_kept,) indices of the operations that keep a site: those near it, completed to a group or thinned to one."""
    table = operations.multiplication_table
    members = near.copy()
    order = [i for i in np.argsort(-distances, kind="stable") if near[i]]
    for farthest in order:
        kept = members.copy()
        while True:
            inside = np.flatnonzero(kept)
            grown = kept.copy()
            grown[table[np.ix_(inside, inside)].ravel()] = True
            if (grown == kept).all():
                break
            kept = grown
        if (distances[kept] <= most[kept]).all():
            return np.flatnonzero(kept)
        members[farthest] = False
    return np.flatnonzero(distances <= 0.0)


def _once(positions: np.ndarray) -> np.ndarray:
    """The positions without those that come twice, in their order."""
    gaps = positions[:, None] - positions[None]
    same = (np.abs(gaps - np.rint(gaps)) < 1e-5).all(2)
    return positions[same.argmax(1) == np.arange(len(positions))]
