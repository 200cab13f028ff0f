"""Prototype structures as functions from ionic radii to a cell: geometry alone, in closed form.

Each cell is the primitive one in Niggli's form, so nothing has to be reduced and the numbers are the same on every
machine. Distances between neighbours are the sums of their radii, or, where one bond length cannot be had, their mean
is. Which ions go into the cells is decided in `ionic_prototypes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import acos, degrees, sqrt
from typing import NamedTuple

import numpy as np

IDEAL_HEXAGONAL = sqrt(8.0 / 3.0)
"""c/a of close-packed spheres."""


class Cell(NamedTuple):
    """A primitive cell: lengths in angstrom, angles in degrees, fractions of the cell by atom."""

    lengths: tuple[float, float, float]
    angles: tuple[float, float, float]
    frac_coords: np.ndarray


class Prototype(NamedTuple):
    """A structure type.

    Attributes:
        name: of the prototype, as it stands in the crystals' names.
        space_group: its number in the International Tables.
        counts: ions of each kind in the primitive cell, cations first, the anion last; atoms stand in this order.
        coordination: coordination numbers of these kinds, with which the radii are looked up.
        cell: the cell for the radii of these kinds, None where the radii do not suit the structure.
        anions: symbols of the anions that form it.
    """

    name: str
    space_group: int
    counts: tuple[int, ...]
    coordination: tuple[int, ...]
    cell: Callable[[Sequence[float]], Cell | None]
    anions: str = "N O F S Cl Se Br Te I"

    @property
    def num_atoms(self) -> int:
        return sum(self.counts)


_FACE_CENTRED = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


def _face_centred(length: float, sites: Sequence[Sequence[float]]) -> Cell:
    """The primitive cell of a face-centred cubic one; `sites` in fractions of the cubic cell."""
    edge = length / sqrt(2.0)
    return Cell((edge, edge, edge), (60.0, 60.0, 60.0), _in_basis(sites, _FACE_CENTRED))


def _cubic(length: float, sites: Sequence[Sequence[float]]) -> Cell:
    return Cell((length, length, length), (90.0, 90.0, 90.0), _in_basis(sites, np.eye(3)))


def _hexagonal(a: float, c: float, sites: Sequence[Sequence[float]]) -> Cell:
    return Cell((a, a, c), (90.0, 90.0, 120.0), _in_basis(sites, np.eye(3)))


def _rhombohedral(a: float, c: float, sites: Sequence[Sequence[float]]) -> Cell:
    """The Niggli cell of a rhombohedral lattice with c > sqrt(6) a; `sites` in fractions of the hexagonal cell."""
    basis = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [2.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]])
    slanted = sqrt(a * a / 3.0 + c * c / 9.0)
    angle = degrees(acos(a / (2.0 * slanted)))
    return Cell((a, a, slanted), (angle, angle, 60.0), _in_basis(sites, basis))


def _in_basis(sites: Sequence[Sequence[float]], basis: np.ndarray) -> np.ndarray:
    """Fractions of the vectors `basis`, in [0, 1); rounded, so that 1/3 - 1e-17 is the same number everywhere."""
    fractions = np.round(np.asarray(sites) @ np.linalg.inv(basis), 12)
    return np.round(fractions - np.floor(fractions), 12) % 1.0


def _within(ratio: float, low: float, high: float) -> bool:
    # the slack keeps a ratio on the limit on the same side of it everywhere
    return low - 1e-9 <= ratio <= high + 1e-9


def _rock_salt(radii: Sequence[float]) -> Cell | None:
    cation, anion = radii
    if not _within(cation / anion, 0.33, 1.0):
        return None
    return _face_centred(2.0 * (cation + anion), [(0, 0, 0), (0.5, 0.5, 0.5)])


def _caesium_chloride(radii: Sequence[float]) -> Cell | None:
    cation, anion = radii
    if not _within(cation / anion, 0.7, 1.05):
        return None
    return _cubic(2.0 * (cation + anion) / sqrt(3.0), [(0, 0, 0), (0.5, 0.5, 0.5)])


def _zinc_blende(radii: Sequence[float]) -> Cell | None:
    cation, anion = radii
    if not _within(cation / anion, 0.15, 0.46):
        return None
    return _face_centred(4.0 * (cation + anion) / sqrt(3.0), [(0, 0, 0), (0.25, 0.25, 0.25)])


def _wurtzite(radii: Sequence[float]) -> Cell | None:
    cation, anion = radii
    if not _within(cation / anion, 0.15, 0.46):
        return None
    a = (cation + anion) * IDEAL_HEXAGONAL
    sites = [(1 / 3, 2 / 3, 0), (2 / 3, 1 / 3, 0.5), (1 / 3, 2 / 3, 0.375), (2 / 3, 1 / 3, 0.875)]
    return _hexagonal(a, a * IDEAL_HEXAGONAL, sites)


def _nickel_arsenide(radii: Sequence[float]) -> Cell | None:
    cation, anion = radii
    if not _within(cation / anion, 0.3, 0.46):
        return None
    a = (cation + anion) * sqrt(2.0)
    return _hexagonal(a, a * IDEAL_HEXAGONAL, [(0, 0, 0), (0, 0, 0.5), (1 / 3, 2 / 3, 0.25), (2 / 3, 1 / 3, 0.75)])


def _fluorite(radii: Sequence[float]) -> Cell | None:
    cation, anion = radii
    if not _within(cation / anion, 0.58, 1.1):
        return None
    length = 4.0 * (cation + anion) / sqrt(3.0)
    return _face_centred(length, [(0, 0, 0), (0.25, 0.25, 0.25), (0.75, 0.75, 0.75)])


def _antifluorite(radii: Sequence[float]) -> Cell | None:
    cation, anion = radii
    if not _within(cation / anion, 0.25, 0.98):
        return None
    length = 4.0 * (cation + anion) / sqrt(3.0)
    return _face_centred(length, [(0.25, 0.25, 0.25), (0.75, 0.75, 0.75), (0, 0, 0)])


def _rutile(radii: Sequence[float]) -> Cell | None:
    """All six bonds alike: then u = 1/4 + (c/a)^2 / 8."""
    cation, anion = radii
    if not _within(cation / anion, 0.36, 0.66):
        return None
    ratio = 0.644
    u = 0.25 + ratio**2 / 8.0
    a = (cation + anion) / (sqrt(2.0) * u)
    # the short axis comes first
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0, u, u), (0, -u, -u), (0.5, 0.5 + u, 0.5 - u), (0.5, 0.5 - u, 0.5 + u)]
    return Cell((ratio * a, a, a), (90.0, 90.0, 90.0), _in_basis(sites, np.eye(3)))


def _anatase(radii: Sequence[float]) -> Cell | None:
    """All six bonds alike, which sets c/a for the z of TiO2."""
    cation, anion = radii
    if not _within(cation / anion, 0.4, 0.52):
        return None
    z = 0.208
    ratio = 0.5 / sqrt(z**2 - (0.25 - z) ** 2)
    a = (cation + anion) / (z * ratio)
    sites = [(0, 0, 0), (0, 0.5, 0.25), (0, 0, z), (0, 0, -z), (0, 0.5, 0.25 + z), (0, 0.5, 0.25 - z)]
    basis = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-0.5, -0.5, 0.5]])
    slanted = a * sqrt(0.5 + ratio**2 / 4.0)
    angle = degrees(acos(-a / (2.0 * slanted)))
    return Cell((a, a, slanted), (angle, angle, 90.0), _in_basis(sites, basis))


def _cadmium_iodide(radii: Sequence[float]) -> Cell | None:
    cation, anion = radii
    if not _within(cation / anion, 0.3, 0.56):
        return None
    a = (cation + anion) * sqrt(2.0)
    return _hexagonal(a, a * IDEAL_HEXAGONAL, [(0, 0, 0), (1 / 3, 2 / 3, 0.25), (2 / 3, 1 / 3, 0.75)])


def _corundum(radii: Sequence[float]) -> Cell | None:
    """c/a and positions of Al2O3, where three bonds are longer than the other three; their mean is the radii's sum."""
    cation, anion = radii
    if not _within(cation / anion, 0.36, 0.6):
        return None
    ratio, z, x = 2.73, 0.352, 0.306
    # from the cation at (0, 0, z) to anions at z = 1/4, (x, 0) off the axis, and at z = 5/12, (1/3 - x, -1/3) off it
    off = 1.0 / 3.0 - x
    far = sqrt(x * x + ((z - 0.25) * ratio) ** 2)
    near = sqrt(off * off + off / 3.0 + 1.0 / 9.0 + ((5.0 / 12.0 - z) * ratio) ** 2)
    a = (cation + anion) / (0.5 * (far + near))
    sites: list[tuple[float, float, float]] = [(0, 0, z), (0, 0, -z), (0, 0, z + 0.5), (0, 0, 0.5 - z)]
    sites += [(x, 0, 0.25), (0, x, 0.25), (-x, -x, 0.25), (-x, 0, 0.75), (0, -x, 0.75), (x, x, 0.75)]
    return _rhombohedral(a, ratio * a, sites)


def _rhenium_trioxide(radii: Sequence[float]) -> Cell | None:
    cation, anion = radii
    if not _within(cation / anion, 0.4, 0.75):
        return None
    return _cubic(2.0 * (cation + anion), [(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)])


def _perovskite(radii: Sequence[float]) -> Cell | None:
    """Goldschmidt's tolerance factor and the octahedral factor say which radii suit."""
    large, small, anion = radii
    tolerance = (large + anion) / (sqrt(2.0) * (small + anion))
    if not (_within(tolerance, 0.88, 1.06) and _within(small / anion, 0.41, 0.8)):
        return None
    length = max(2.0 * (small + anion), sqrt(2.0) * (large + anion))
    return _cubic(length, [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)])


def _elpasolite(radii: Sequence[float]) -> Cell | None:
    """The double perovskite A2BB'X6, B and B' as in rock salt."""
    large, first, second, anion = radii
    tolerance = (large + anion) / (sqrt(2.0) * (0.5 * (first + second) + anion))
    octahedral = _within(first / anion, 0.41, 0.75) and _within(second / anion, 0.41, 0.75)
    if not (octahedral and _within(tolerance, 0.93, 1.0)):
        return None
    length = 2.0 * (first + second + 2.0 * anion)
    u = (first + anion) / length
    sites = [(0.25, 0.25, 0.25), (0.75, 0.75, 0.75), (0, 0, 0), (0.5, 0.5, 0.5)]
    sites += [(u, 0, 0), (-u, 0, 0), (0, u, 0), (0, -u, 0), (0, 0, u), (0, 0, -u)]
    return _face_centred(length, sites)


def _potassium_chloroplatinate(radii: Sequence[float]) -> Cell | None:
    """A2BX6 with octahedra BX6 apart from each other; both A-X and B-X are sums of radii."""
    large, small, anion = radii
    to_large, to_small = large + anion, small + anion
    square = 0.75 * to_large**2 - 0.5 * to_small**2
    if square <= 0.0 or not _within(small / anion, 0.28, 0.75):
        return None
    length = (0.5 * to_small + sqrt(square)) / 0.375
    u = to_small / length
    if not _within(u, 0.2, 0.27):
        return None
    sites = [(0.25, 0.25, 0.25), (0.75, 0.75, 0.75), (0, 0, 0)]
    sites += [(u, 0, 0), (-u, 0, 0), (0, u, 0), (0, -u, 0), (0, 0, u), (0, 0, -u)]
    return _face_centred(length, sites)


def _spinel(radii: Sequence[float]) -> Cell | None:
    """AB2X4; edge and anion parameter follow from the two bond lengths."""
    tetrahedral, octahedral, anion = radii
    to_a, to_b = tetrahedral + anion, octahedral + anion
    square = 33.0 * to_b**2 - 8.0 * to_a**2
    if square <= 0.0:
        return None
    length = 8.0 / (11.0 * sqrt(3.0)) * (5.0 * to_a + sqrt(square))
    x = 0.125 + to_a / (sqrt(3.0) * length)
    fits = _within(tetrahedral / anion, 0.19, 0.5) and _within(octahedral / anion, 0.3, 0.7)
    if not (fits and _within(x, 0.248, 0.275)):
        return None
    sites = [(0.125, 0.125, 0.125), (0.875, 0.875, 0.875)]
    sites += [(0.5, 0.5, 0.5), (0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.25, 0.25, 0.5)]
    half = [(x, x, x), (0.75 - x, 0.25 - x, x + 0.5), (0.25 - x, x + 0.5, 0.75 - x), (x + 0.5, 0.75 - x, 0.25 - x)]
    sites += half + [(-p, -q, -r) for p, q, r in half]
    return _face_centred(length, sites)


def _sodium_ferrite(radii: Sequence[float]) -> Cell | None:
    """Layered alpha-NaFeO2, ABX2: both bond lengths are sums of radii, the layers' edge is that of their mean."""
    large, small, anion = radii
    fits = _within(small / anion, 0.3, 0.65) and _within(large / anion, 0.3, 0.85)
    if not fits or large - small < 0.09:
        return None
    to_large, to_small = large + anion, small + anion
    a = (to_large + to_small) / sqrt(2.0)
    if min(to_large, to_small) <= a / sqrt(3.0):
        return None
    below, above = sqrt(to_large**2 - a * a / 3.0), sqrt(to_small**2 - a * a / 3.0)
    c = 6.0 * (below + above)
    # an anion stands `below` over an A layer (z = 1/6) and `above` under a B layer (z = 1/3)
    z = 1.0 / 6.0 + below / c
    return _rhombohedral(a, c, [(0, 0, 0.5), (0, 0, 0), (0, 0, z), (0, 0, -z)])


PROTOTYPES: tuple[Prototype, ...] = (
    Prototype("rock_salt", 225, (1, 1), (6, 6), _rock_salt),
    Prototype("caesium_chloride", 221, (1, 1), (8, 8), _caesium_chloride),
    Prototype("zinc_blende", 216, (1, 1), (4, 4), _zinc_blende),
    Prototype("wurtzite", 186, (2, 2), (4, 4), _wurtzite),
    Prototype("nickel_arsenide", 194, (2, 2), (6, 6), _nickel_arsenide, anions="S Se Te"),
    Prototype("fluorite", 225, (1, 2), (8, 4), _fluorite),
    Prototype("antifluorite", 225, (2, 1), (4, 8), _antifluorite),
    Prototype("rutile", 136, (2, 4), (6, 3), _rutile, anions="O F"),
    Prototype("anatase", 141, (2, 4), (6, 3), _anatase, anions="O"),
    Prototype("cadmium_iodide", 164, (1, 2), (6, 3), _cadmium_iodide, anions="S Cl Se Br Te I"),
    Prototype("corundum", 167, (4, 6), (6, 4), _corundum, anions="O"),
    Prototype("rhenium_trioxide", 221, (1, 3), (6, 2), _rhenium_trioxide, anions="O F"),
    Prototype("perovskite", 221, (1, 1, 3), (12, 6, 6), _perovskite),
    Prototype("elpasolite", 225, (2, 1, 1, 6), (12, 6, 6, 6), _elpasolite, anions="O F Cl Br"),
    Prototype("potassium_chloroplatinate", 225, (2, 1, 6), (12, 6, 6), _potassium_chloroplatinate, anions="F Cl Br I"),
    Prototype("spinel", 227, (2, 4, 8), (4, 6, 4), _spinel, anions="O S Se"),
    Prototype("sodium_ferrite", 166, (1, 1, 2), (6, 6, 6), _sodium_ferrite, anions="O S Se"),
)
