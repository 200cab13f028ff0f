"""The Wyckoff positions of all space groups, and what they do to the atoms of a primitive cell.

The standard setting of the International Tables, as moyopy has it. `wyckoff_positions.json` holds letter, multiplicity,
site symmetry and coordinates of all 1,731 positions; operations and centrings come from moyopy itself. What a crystal's
own positions are is found in `symmetric`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib import resources

import numpy as np
import torch
from torch import Tensor

NUM_POSITIONS = 1731
NUM_GROUPS = 230
_VARIABLES = "xyz"
_GENERIC = np.array([0.1372, 0.2918, 0.4261])
"""A point without symmetry: two operations that agree on it agree on all points of the position."""
_LAST_OF_FAMILY = (2, 15, 74, 142, 194, 230)
FAMILIES = ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic")
"""Crystal families, which say what parameters of the conventional cell are free."""


@dataclass(frozen=True)
class WyckoffPosition:
    """A Wyckoff position of a space group in its standard setting.

    Attributes:
        index: its number among all positions, 0 to 1730, by group and then by letter.
        space_group: 1 to 230.
        letter: a to z, and A for the 27th of Pmmm.
        multiplicity: atoms in the conventional cell.
        primitive_multiplicity: atoms in the primitive cell.
        site_symmetry: Hermann-Mauguin symbol of the site, as oriented in the cell.
        coordinates: the first point, such as `x,2x,1/4`, in the conventional cell.
    """

    index: int
    space_group: int
    letter: str
    multiplicity: int
    primitive_multiplicity: int
    site_symmetry: str
    coordinates: str

    @property
    def num_free(self) -> int:
        """Free parameters, 0 to 3.

        >>> [position.num_free for position in wyckoff_positions(221)[:6]]
        [0, 0, 0, 0, 1, 1]
        """
        return len(set(self.coordinates) & set(_VARIABLES))


@dataclass(frozen=True)
class WyckoffTable:
    """All positions as tensors, to be indexed by `WyckoffPosition.index`; atoms in the basis of the primitive cell.

    Attributes:
        space_group: (num_positions,) long.
        multiplicity: (num_positions,) long, atoms in the primitive cell.
        is_free: (num_positions, 3) bool: which of the variables x, y, z the coordinates have.
        first_entry: (num_positions,) long, the first row of its atoms in `maps` and `offsets`.
        maps: (num_entries, 3, 3) G, so that an atom stands at G u + offset for the parameters u = (x, y, z).
        offsets: (num_entries, 3).
        pulls: (num_entries, 3, 3) from vectors on the atoms to parameters: their mean over an orbit is what the average
            of the vectors over the group is a push of.
        first_pulls: (num_positions, 3, 3) the pseudo-inverse of G of the first atom, in fractions of the cell.
        is_polar: (231, 3) bool: along which axes of the conventional cell a group leaves the origin free.
        centring: (231, 3, 3): the rows of the primitive cell are `centring @ conventional`.
        order: (231,) long: primitive cells in the conventional cell.
        family: (231,) long, the index in `FAMILIES`.
    """

    space_group: Tensor
    multiplicity: Tensor
    is_free: Tensor
    first_entry: Tensor
    maps: Tensor
    offsets: Tensor
    pulls: Tensor
    first_pulls: Tensor
    is_polar: Tensor
    centring: Tensor
    order: Tensor
    family: Tensor


def family_of(number: int) -> int:
    """The index in `FAMILIES` of a space group's crystal family.

    >>> FAMILIES[family_of(166)]
    'hexagonal'
    """
    return next(i for i, last in enumerate(_LAST_OF_FAMILY) if number <= last)


def wyckoff_positions(number: int) -> tuple[WyckoffPosition, ...]:
    """The positions of a space group, letter a first.

    >>> [f"{p.multiplicity}{p.letter}" for p in wyckoff_positions(225)][:4]
    ['4a', '4b', '8c', '24d']
    """
    if not 1 <= number <= NUM_GROUPS:
        raise ValueError(f"space groups are numbered from 1 to 230, got {number}")
    first = _first_of_group()
    return tuple(all_positions()[first[number] : first[number + 1]])


def position_of(number: int, letter: str) -> WyckoffPosition:
    """The position of a space group that has this letter."""
    found = [position for position in wyckoff_positions(number) if position.letter == letter]
    if not found:
        letters = "".join(position.letter for position in wyckoff_positions(number))
        raise ValueError(f"space group {number} has the Wyckoff letters {letters}, got {letter!r}")
    return found[0]


@lru_cache(maxsize=1)
def all_positions() -> tuple[WyckoffPosition, ...]:
    """All 1,731 positions, by group and letter."""
    text = resources.files("cdvae_kit.crystal").joinpath("wyckoff_positions.json").read_text(encoding="utf-8")
    positions: list[WyckoffPosition] = []
    for number, rows in enumerate(json.loads(text), start=1):
        order = _centring(number)[1]
        for letter, multiplicity, site_symmetry, coordinates in rows:
            about = (letter, multiplicity, multiplicity // order, site_symmetry, coordinates)
            positions.append(WyckoffPosition(len(positions), number, *about))
    return tuple(positions)


@lru_cache(maxsize=1)
def _first_of_group() -> list[int]:
    groups = [position.space_group for position in all_positions()]
    return np.searchsorted(groups, np.arange(NUM_GROUPS + 2)).tolist()


@lru_cache(maxsize=8)
def wyckoff_table(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> WyckoffTable:
    """The table on a device; made once."""
    arrays = _arrays()
    moved = {
        name: torch.as_tensor(values).to(device=device, dtype=dtype if values.dtype == np.float64 else None)
        for name, values in arrays.items()
    }
    return WyckoffTable(**moved)


@lru_cache(maxsize=1)
def _arrays() -> dict[str, np.ndarray]:
    positions = all_positions()
    maps: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    pulls: list[np.ndarray] = []
    first_pulls: list[np.ndarray] = []
    first_entry, is_free = [], []
    is_polar = np.zeros((NUM_GROUPS + 1, 3), dtype=bool)
    centring = np.tile(np.eye(3), (NUM_GROUPS + 1, 1, 1))
    order = np.ones(NUM_GROUPS + 1, dtype=np.int64)
    for number in range(1, NUM_GROUPS + 1):
        rotations, translations = primitive_operations(number)
        centring[number], order[number] = _centring(number)
        # columns: x_primitive = to_primitive @ x_conventional
        to_primitive = np.linalg.inv(centring[number]).T
        in_conventional = np.linalg.inv(to_primitive) @ rotations @ to_primitive
        is_polar[number] = (np.abs(in_conventional - np.eye(3)) < 1e-9).all((0, 1))
        for position in wyckoff_positions(number):
            matrix, offset = parse_coordinates(position.coordinates)
            maps_here = rotations @ (to_primitive @ matrix)
            offsets_here = (rotations @ (to_primitive @ offset) + translations) % 1.0
            points = (maps_here @ _GENERIC + offsets_here) % 1.0
            keep = _distinct(points)
            if len(keep) != position.primitive_multiplicity:
                raise RuntimeError(f"{number}{position.letter} has {len(keep)} atoms, which the table contradicts")
            first_entry.append(len(offsets))
            is_free.append(np.abs(matrix).sum(0) > 0)
            maps.extend(maps_here[keep])
            offsets.extend(offsets_here[keep])
            # a pseudo-inverse alone would project at right angles in fractions of the cell, which axes need not have:
            # what operations that leave the first atom where it is average to is another projection
            apart = points - points[0]
            stays = np.abs(apart - np.round(apart)).max(-1) < 1e-6
            first_pulls.append(np.linalg.pinv(maps_here[0]))
            pulls.extend(first_pulls[-1] @ rotations[stays].mean(0) @ np.linalg.inv(rotations[keep]))
    return {
        "space_group": np.array([position.space_group for position in positions]),
        "multiplicity": np.array([position.primitive_multiplicity for position in positions]),
        "is_free": np.array(is_free),
        "first_entry": np.array(first_entry),
        "maps": np.array(maps),
        "offsets": np.array(offsets),
        "pulls": np.array(pulls),
        "first_pulls": np.array(first_pulls),
        "is_polar": is_polar,
        "centring": centring,
        "order": order,
        "family": np.array([0, *(family_of(number) for number in range(1, NUM_GROUPS + 1))]),
    }


def _distinct(points: np.ndarray) -> list[int]:
    """Indices of the points that are not alike with an earlier one, up to lattice vectors."""
    keep: list[int] = []
    for i, point in enumerate(points):
        apart = points[keep] - point
        if not keep or np.abs(apart - np.round(apart)).max(-1).min() > 1e-6:
            keep.append(i)
    return keep


@lru_cache(maxsize=NUM_GROUPS)
def primitive_operations(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (n, 3, 3) and translations (n, 3) of a group's standard setting, in the basis of the primitive cell."""
    from moyopy import operations_from_number

    operations = operations_from_number(number, primitive=True)
    rotations = np.array(operations.rotations, dtype=float)
    translations = np.array(operations.translations, dtype=float)
    unit = np.abs(rotations - np.eye(3)).max((1, 2)) + np.abs(translations - np.round(translations)).max(1)
    first = int(unit.argmin())
    others = np.delete(np.arange(len(rotations)), first)
    return rotations[[first, *others]], translations[[first, *others]]


@lru_cache(maxsize=NUM_GROUPS)
def _centring(number: int) -> tuple[np.ndarray, int]:
    """Rows of the primitive cell in rows of the conventional one, and how many primitive cells it holds."""
    from moyopy import operations_from_number

    operations = operations_from_number(number)
    pure = [np.abs(np.array(rotation) - np.eye(3)).max() < 1e-9 for rotation in operations.rotations]
    shifts = {
        tuple(np.round(np.array(shift) % 1.0 * 6).astype(int) % 6)
        for shift, is_pure in zip(operations.translations, pure, strict=True)
        if is_pure
    }
    # moyopy's columns: conventional = primitive @ linear
    linear = next(linear for points, linear in _centrings() if points == shifts)
    return np.linalg.inv(linear).T, len(shifts)


@lru_cache(maxsize=1)
def _centrings() -> list[tuple[set[tuple[int, ...]], np.ndarray]]:
    """Each kind of centring: its lattice points in sixths of the cell, and moyopy's change of basis."""
    from moyopy import HallSymbolEntry

    found = {}
    for hall_number in range(1, 531):
        centring = HallSymbolEntry(hall_number).centering
        points = {tuple(np.round(np.array(point) % 1.0 * 6).astype(int) % 6) for point in centring.lattice_points}
        found[str(centring)] = (points, np.array(centring.linear, dtype=float))
    return list(found.values())


def parse_coordinates(text: str) -> tuple[np.ndarray, np.ndarray]:
    """`x,2x,1/4` as a matrix (3, 3) and an offset (3,): the point is matrix @ (x, y, z) + offset.

    >>> matrix, offset = parse_coordinates("-x+1/4,2x,z")
    >>> (matrix @ [0.1, 0.2, 0.3] + offset).round(6).tolist()
    [0.15, 0.2, 0.3]
    """
    matrix, offset = np.zeros((3, 3)), np.zeros(3)
    for row, part in enumerate(text.replace(" ", "").split(",")):
        for sign, number, variable in re.findall(r"([+-]?)(\d+/\d+|\d+)?([xyz]?)", part):
            if not number and not variable:
                continue
            value = float(Fraction(number or "1")) * (-1.0 if sign == "-" else 1.0)
            if variable:
                matrix[row, _VARIABLES.index(variable)] += value
            else:
                offset[row] += value
    return matrix, offset
