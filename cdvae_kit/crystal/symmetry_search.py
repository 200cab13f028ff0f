"""One crystal to its symmetric description: the group by moyopy, then one canonical choice of origin, axes and points.

The letters of a crystal depend on where the origin lies (a and b of Pm-3m swap), and the parameters of an orbit on
which of its points is called the first. The Euclidean normalizer lists all such choices; the one is taken whose letters
are the first, whatever the elements, then the one that gives the first letters to the most electronegative elements,
then the one with the smallest parameters. Comparisons have a tolerance, so that rounding does not choose.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from cdvae_kit.crystal.elements import pettifor_ranks
from cdvae_kit.crystal.symmetry import symmetry_of
from cdvae_kit.crystal.wyckoff import all_positions, parse_coordinates, position_of, primitive_operations, wyckoff_table

_SMALLEST_TOLERANCE = 1e-5
_FINE = 1e-4
"""Tolerance, in angstrom, for the crystal that moyopy has idealised."""
_ALIKE = 2e-4
"""Up to which parameters are taken for equal, as fractions of the cell."""


@dataclass(frozen=True)
class Description:
    """What `describe_one` finds.

    Attributes:
        space_group: 1 to 230.
        positions: `WyckoffPosition.index` of each orbit.
        elements: the atomic number of each orbit.
        free: x, y, z of each orbit, 0 where it has none.
        lattice: (3, 3) rows of the primitive cell, angstrom.
        tolerance: the one that was used, angstrom; 0 where no symmetry was looked for or found.
    """

    space_group: int
    positions: list[int]
    elements: list[int]
    free: list[list[float]]
    lattice: np.ndarray
    tolerance: float


def describe_one(
    lattice: np.ndarray, frac_coords: np.ndarray, atomic_numbers: np.ndarray, tolerance: float
) -> Description:
    """The canonical description of one crystal; P1 of the given cell where no tolerance down to 1e-5 A serves.

    Args:
        lattice: (3, 3) rows, angstrom.
        frac_coords: (num_atoms, 3).
        atomic_numbers: (num_atoms,).
        tolerance: angstrom; halved as long as moyopy finds no group at it.
    """
    elements = [int(number) for number in atomic_numbers]
    kinds = [pettifor_ranks()[element] for element in elements]
    while tolerance > _SMALLEST_TOLERANCE:
        rough = symmetry_of(lattice.tolist(), frac_coords.tolist(), kinds, tolerance)
        if rough is not None:
            cell = rough.prim_std_cell
            fine = symmetry_of(cell.basis, cell.positions, cell.numbers, _FINE)
            if fine is not None and fine.number == rough.number:
                with contextlib.suppress(_Inconsistent):
                    return _canonical(fine, tolerance)
        tolerance *= 0.5
    return Description(1, [0] * len(elements), elements, (frac_coords % 1.0).tolist(), lattice, 0.0)


class _Inconsistent(Exception):
    """What moyopy says of a crystal does not fit together; a smaller tolerance is tried."""


def _canonical(found: Any, tolerance: float) -> Description:
    number = found.number
    cell = found.prim_std_cell
    coords = np.array(cell.positions)
    lattice = np.array(cell.basis)
    kinds = np.array(cell.numbers)
    normalizer = found.normalizer_wyckoff_positions(preserve_chirality=True, primitive=True)
    # the normalizer speaks of the atoms of the conventional cell
    conventional = _in_conventional_cell(number, np.array(found.std_cell.positions), coords)
    sequences: list[tuple[tuple[list[int], list[tuple[int, int]]], list[int], Any]] = []
    for operation, positions in normalizer.coset_representatives:
        letters = [position_of(number, positions[i].letter).index for i in conventional]
        # the positions first, so that compounds of one structure type have the same ones, whatever their elements
        key = sorted(letters), sorted(zip(kinds.tolist(), letters, strict=True))
        sequences.append((key, letters, operation))
    smallest = min(sequence for sequence, _, _ in sequences)
    orbits = _orbits(number, coords, kinds)
    is_free = wyckoff_table().is_free
    # where nothing is free all choices have the same rows, and the first is the smallest
    one_will_do = not bool(is_free[smallest[0]].any())
    choices: list[tuple[list[_Row], np.ndarray]] = []
    for sequence, letters, operation in sequences:
        if sequence != smallest or (one_will_do and choices):
            continue
        for own in normalizer.stabilizer[: 1 if one_will_do else None]:
            linear = np.array(operation.linear, dtype=float) @ np.array(own.linear, dtype=float)
            shift = np.array(operation.linear, dtype=float) @ np.array(own.origin_shift) + operation.origin_shift
            moved = coords @ linear.T + shift
            choices.append((_parametrise(number, moved, kinds, letters, orbits), linear))
    chosen = _smallest([rows for rows, _ in choices])
    rows, linear = choices[chosen]
    # columns of the basis become basis @ inv(linear)
    return Description(
        number,
        [position for _, position, _ in rows],
        [pettifor_ranks().index(kind) for kind, _, _ in rows],
        [u.tolist() for _, _, u in rows],
        np.linalg.inv(linear).T @ lattice,
        tolerance,
    )


def _in_conventional_cell(number: int, conventional: np.ndarray, primitive: np.ndarray) -> list[int]:
    """For each atom of the primitive cell, the index of one of its images in the conventional cell."""
    to_primitive = np.linalg.inv(_to_conventional(number))
    apart = (conventional @ to_primitive.T)[None] - primitive[:, None]
    near = np.abs(apart - np.round(apart)).max(-1)
    if near.min(1).max() > 1e-3:
        raise _Inconsistent
    return near.argmin(1).tolist()


@lru_cache(maxsize=230)
def _to_conventional(number: int) -> np.ndarray:
    """(3, 3): x_conventional = to_conventional @ x_primitive."""
    return wyckoff_table(dtype=torch.float64).centring[number].numpy().T


def _orbits(number: int, coords: np.ndarray, elements: np.ndarray) -> list[list[int]]:
    """Atoms (indices) that the operations of the group take into each other."""
    rotations, translations = primitive_operations(number)
    left, orbits = set(range(len(coords))), []
    for atom in range(len(coords)):
        if atom not in left:
            continue
        images = rotations @ coords[atom] + translations
        apart = coords[None] - images[:, None]
        near = np.abs(apart - np.round(apart)).max(-1)
        hit = near.argmin(1)
        if near.min(1).max() > 1e-3:
            raise _Inconsistent
        members = sorted(set(hit.tolist()))
        if not left.issuperset(members) or len(set(elements[members].tolist())) > 1:
            raise _Inconsistent
        left -= set(members)
        orbits.append(members)
    return orbits


_Row = tuple[int, int, np.ndarray]
"""Element, position and parameters of an orbit."""


def _parametrise(
    number: int, coords: np.ndarray, elements: np.ndarray, letters: list[int], orbits: list[list[int]]
) -> list[_Row]:
    """The rows of all orbits, sorted; along polar axes, parameters are those seen from the first orbit."""
    is_polar = wyckoff_table().is_polar[number].numpy()
    kinds = Counter((int(elements[members[0]]), letters[members[0]]) for members in orbits)
    # the orbit that the origin is put on along polar axes: of a kind of its own where there is one
    rank = [(kinds[key], key) for members in orbits for key in [(int(elements[members[0]]), letters[members[0]])]]
    candidates = [_candidates(letters[members[0]], coords[members], is_polar) for members in orbits]
    if any(len(points) == 0 for points in candidates):
        raise _Inconsistent
    if not is_polar.any():
        rows = [
            (int(elements[members[0]]), letters[members[0]], points[0])
            for members, points in zip(orbits, candidates, strict=True)
        ]
        return _sorted(rows)
    best = []
    anchors = [i for i, value in enumerate(rank) if value == min(rank)]
    for anchor in anchors:
        for start in candidates[anchor]:
            origin = np.where(is_polar, start, 0.0)
            rows = []
            for members, points in zip(orbits, candidates, strict=True):
                seen = _wrapped(points - origin)
                rows.append((int(elements[members[0]]), letters[members[0]], seen[_first(seen)]))
            best.append(_sorted(rows))
    return best[_smallest(best)]


def _candidates(position: int, coords: np.ndarray, is_polar: np.ndarray) -> np.ndarray:
    """(n, 3) parameters of the points of an orbit that lie on the position's first set of points.

    Those that are smallest in the parameters that are not polar; of a group without polar axes, the one smallest.
    """
    matrix, offset, to_conventional, shifts, solve = _solver(position)
    points = (coords @ to_conventional.T)[:, None, :] + shifts[None] - offset
    u = _wrapped(points @ solve.T)
    apart = u @ matrix.T - points
    on_it = np.abs(apart - np.round(apart)).max(-1) < 1e-3
    found = u[on_it]
    # not the rounded ones: as they are, up to lattice vectors
    if not len(found):
        return found
    fixed = np.where(is_polar, 0.0, found)
    return found[_alike_with_first(fixed)]


@lru_cache(maxsize=1731)
def _solver(position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Matrix and offset of a position, primitive to conventional coordinates, centring, and what takes points to u."""
    about = all_positions()[position]
    matrix, offset = parse_coordinates(about.coordinates)
    to_conventional = _to_conventional(about.space_group)
    # lattice points of the primitive cell within the conventional one
    grid = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    inside = grid @ to_conventional.T
    shifts = inside[((inside > -1e-6) & (inside < 1.0 - 1e-6)).all(-1)]
    solve = np.zeros((3, 3))
    for variable in np.flatnonzero(np.abs(matrix).sum(0)):
        row = next(i for i in range(3) if abs(matrix[i, variable]) == 1.0 and np.count_nonzero(matrix[i]) == 1)
        solve[variable, row] = matrix[row, variable]
    return matrix, offset, to_conventional, shifts, solve


def _wrapped(u: np.ndarray) -> np.ndarray:
    """In [0, 1), with what is just below 1 taken for 0."""
    u = u - np.floor(u)
    return np.where(u > 1.0 - _ALIKE, 0.0, u)


def _alike_with_first(rows: np.ndarray) -> np.ndarray:
    """Indices of the rows that are smallest, column by column, up to the tolerance."""
    left = np.arange(len(rows))
    for column in rows.T:
        left = left[column[left] <= column[left].min() + _ALIKE]
    return left


def _first(rows: np.ndarray) -> int:
    return int(_alike_with_first(rows)[0])


def _sorted(rows: list[_Row]) -> list[_Row]:
    """By element, position, then parameters, compared up to the tolerance."""
    rows = sorted(rows, key=lambda row: row[:2])
    out: list[_Row] = []
    bounds = [0, *(i for i in range(1, len(rows)) if rows[i][:2] != rows[i - 1][:2]), len(rows)]
    for start, end in pairwise(bounds):
        left = rows[start:end]
        while left:
            out.append(left.pop(_first(np.array([u for _, _, u in left]))))
    return out


def _smallest(choices: list[list[_Row]]) -> int:
    """The choice with the smallest parameters; all have the same elements and positions."""
    if len(choices) == 1:
        return 0
    return _first(np.array([np.concatenate([u for _, _, u in rows]) for rows in choices]))
