"""How far the sites of one reduced cell are from those of many others: pymatgen's `StructureMatcher`, all at once.

pymatgen (doi 10.1016/j.commatsci.2012.10.028) goes through all ways to lay one cell on the other, and for each of them
through every site that the first site may be laid on. Here all ways of all pairs are done at once, by the same
operations in the same order, so that even ties between assignments are broken alike; displacements are the same to the
last digit (`tests/metrics/test_displacements.py`). What is too near a tolerance to be sure is left to pymatgen. Which
ways there are, and which pairs have none, is found in `prefilter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from cdvae_kit.metrics.matching.reduced_bases import reduced_bases
from cdvae_kit.metrics.matching.reduced_cells import Prepared

# how near a tolerance is too near: a part of a length, degrees, a displacement. Rounding is some 1e-14
_LENGTH_MARGIN = 1e-8
_ANGLE_MARGIN = 1e-6
_MARGIN = 1e-9
# pymatgen looks no further once a displacement is under 1e-5, and the order in which it looks is its own
_ALMOST_NONE = 1e-4
# numbers in an array that compares every site with every other one
_MOST_NUMBERS = 3_000_000
_MOST_NUMBERS_A_PAIR = 10_000_000


@dataclass(frozen=True)
class Tolerances:
    """Of a matcher: fractions of a length and of (volume / atom)^(1/3), degrees, whether to scale to one volume."""

    ltol: float
    stol: float
    angle_tol: float
    scale: bool


def smallest_displacements(
    first: Prepared,
    others: Sequence[Prepared],
    cells: Sequence[np.ndarray],
    tolerances: Tolerances,
    *,
    distances: bool,
) -> np.ndarray:
    """(num_others,) smallest displacements between sites, in (volume / atom)^(1/3); NaN where pymatgen must be asked.

    Infinite where no cell can be laid on the other; where it is not under stol, the two do not match.

    Args:
        first: its lattice is mapped.
        others: each with as many sites of each element as `first`.
        cells: one (num_cells, 3, 3) array an other, as `prefilter.near_cells` finds them.
        tolerances: of the matcher.
        distances: root mean square displacements, as `StructureMatcher.get_rms_dist`; else the largest of a crystal, as
            `fit`.
    """
    found = np.full(len(others), np.nan)
    sizes = 3 * len(first.reduced.atomic_numbers) ** 3 * np.array([len(part) for part in cells], dtype=np.int64)
    # as many at once as the memory holds; the largest are left to pymatgen, which needs none
    part: list[int] = []
    for i in np.flatnonzero(sizes <= _MOST_NUMBERS_A_PAIR).tolist():
        if part and sizes[part].sum() + sizes[i] > _MOST_NUMBERS:
            found[part] = _of_some(first, [others[j] for j in part], [cells[j] for j in part], tolerances, distances)
            part = []
        part.append(i)
    if part:
        found[part] = _of_some(first, [others[j] for j in part], [cells[j] for j in part], tolerances, distances)
    return found


@dataclass(frozen=True)
class _Ways:
    """Ways to lay one cell on another.

    Attributes:
        owners: (num_ways,) which pair each is of.
        ours: (num_ways, num_sites, 3) fractional coordinates of the first crystal, in the mean cell.
        theirs: (num_ways, num_shifts, num_sites, 3) of the other, each time with its first site on another one.
        forbidden: (num_ways, num_sites, num_sites) 1 where two sites, theirs and ours, are of different elements.
        lattice: (num_ways, 3, 3) of the mean cell.
        units: (num_ways,) 1 / angstrom, (number of sites / volume)^(1/3).
    """

    owners: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    forbidden: np.ndarray
    lattice: np.ndarray
    units: np.ndarray


def _of_some(
    first: Prepared, others: Sequence[Prepared], cells: Sequence[np.ndarray], tolerances: Tolerances, distances: bool
) -> np.ndarray:
    ways, unsure = _ways(first, others, cells, tolerances)
    reach = _reach(ways.lattice, tolerances.stol, ways.units)
    off = ways.theirs[:, :, :, None] - ways.ours[:, None, None]
    near = (np.abs(off - np.rint(off)) <= reach[:, None, None, None]).all(-1) & (ways.forbidden == 0)[:, None]
    possible = near.any(-1).all(-1)
    found = np.full(len(others), np.inf)
    at = np.nonzero(possible)[0]
    if len(at):
        assigned = _assigned(ways, possible, tolerances.stol)
        common = assigned.mean(axis=1, keepdims=True)
        lengths = ((assigned - common) ** 2).sum(-1) ** 0.5 * ways.units[at][:, None]
        values = np.sqrt((lengths**2).mean(-1)) if distances else lengths.max(-1)
        np.minimum.at(found, ways.owners[at], values)
        if distances:
            unsure |= found < _ALMOST_NONE
            found = _as_pymatgen_adds(found, ways.owners[at], values, lengths)
    unsure |= np.abs(found - tolerances.stol) < _MARGIN
    found[unsure] = np.nan
    return found


def _as_pymatgen_adds(about: np.ndarray, owners: np.ndarray, values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(num_pairs,) smallest root mean squares, from those whose sums in another order are the smallest."""
    found = np.full(len(about), np.inf)
    for i in np.flatnonzero(values <= about[owners] + _MARGIN).tolist():
        found[owners[i]] = min(found[owners[i]], float(np.linalg.norm(lengths[i]) / len(lengths[i]) ** 0.5))
    return found


def _ways(
    first: Prepared, others: Sequence[Prepared], cells: Sequence[np.ndarray], tolerances: Tolerances
) -> tuple[_Ways, np.ndarray]:
    """All ways within the tolerances, and (num_others,) where one is too near them to be sure."""
    ours = np.repeat(first.reduced.lattice[None], len(others), axis=0)
    theirs = np.array([other.reduced.lattice for other in others])
    if tolerances.scale:
        volume = float(_volumes(first.reduced.lattice))
        ratios = np.array([(float(other) / volume) ** (1 / 6) for other in _volumes(theirs)])[:, None, None]
        ours, theirs = ours * ratios, theirs / ratios
    cart = (first.reduced.frac_coords[:, None] @ ours[:, None])[:, :, 0]
    owners = np.repeat(np.arange(len(others)), [len(part) for part in cells])
    aligned = np.concatenate(cells).astype(np.float64) @ ours[owners]
    (lengths, angles), (their_lengths, their_angles) = _parameters(aligned), _parameters(theirs)
    # positive where it is within
    length_room = (1 + tolerances.ltol) - np.maximum(lengths / their_lengths[owners], their_lengths[owners] / lengths)
    angle_room = tolerances.angle_tol - np.abs(angles - their_angles[owners])
    unsure = np.zeros(len(others), dtype=bool)
    unsure[owners[((np.abs(length_room) < _LENGTH_MARGIN) | (np.abs(angle_room) < _ANGLE_MARGIN)).any(-1)]] = True
    kept = (length_room > 0).all(-1) & (angle_room > 0).all(-1) & ~unsure[owners]
    owners, aligned = owners[kept], aligned[kept]
    coords = cart[owners] @ np.linalg.inv(aligned)
    coords -= np.floor(coords)
    lattice = _lattices((lengths[kept] + their_lengths[owners]) / 2, (angles[kept] + their_angles[owners]) / 2)
    units = np.array([(coords.shape[1] / float(volume)) ** (1 / 3) for volume in _volumes(lattice)])
    kinds = np.array([other.reduced.atomic_numbers for other in others])
    forbidden = kinds[:, :, None] != first.reduced.atomic_numbers
    # the element with the fewest sites leaves the fewest shifts
    rarest = forbidden.sum(-1).argmax(-1)
    laid_on = np.array([np.flatnonzero(~rows[site]) for rows, site in zip(forbidden, rarest, strict=True)])
    their_coords = np.array([other.reduced.frac_coords for other in others])[owners]
    ways = np.arange(len(owners))
    shifts = coords[ways[:, None], laid_on[owners]] - their_coords[ways, rarest[owners]][:, None]
    shifted = their_coords[:, None] + shifts[:, :, None]
    return _Ways(owners, coords, shifted, forbidden[owners].astype(np.int64), lattice, units), unsure


class _InReducedBasis:
    """Stands for a lattice to `pbc_shortest_vectors`, which would transform each set of coordinates anew."""

    pbc = (True, True, True)

    def __init__(self, matrix: np.ndarray) -> None:
        self.lll_matrix = matrix

    def get_lll_frac_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords


def _assigned(ways: _Ways, possible: np.ndarray, stol: float) -> np.ndarray:
    """(num_possible, num_sites, 3) vectors, angstrom, from each site to its partner, for each shift that is possible.

    Sites are assigned to each other so that the sum of squares is least.
    """
    from pymatgen.util.coord_cython import pbc_shortest_vectors

    found = []
    asked = np.flatnonzero(possible.any(-1))
    lattices, mappings = reduced_bases(ways.lattice[asked])
    bases = np.linalg.inv(mappings)
    ours = ways.ours[asked] @ bases
    reach = _reach(lattices, stol, ways.units[asked])
    for i, way in enumerate(asked.tolist()):
        theirs = ways.theirs[way, possible[way]] @ bases[i]
        num_shifts, num_sites = theirs.shape[:2]
        forbidden = ways.forbidden[way]
        vectors, squares = pbc_shortest_vectors(
            _InReducedBasis(lattices[i]),
            theirs.reshape(-1, 3),
            ours[i],
            np.tile(forbidden, (num_shifts, 1)) if forbidden.any() else None,
            return_d2=True,
            lll_frac_tol=reach[i],
        )
        sites = np.arange(num_sites)
        vectors = vectors.reshape(num_shifts, num_sites, num_sites, 3)
        for these, costs in zip(vectors, squares.reshape(num_shifts, num_sites, num_sites), strict=True):
            found.append(these[sites, linear_sum_assignment(costs)[1]])
    return np.array(found)


def _reach(lattice: np.ndarray, stol: float, units: np.ndarray) -> np.ndarray:
    """(num_ways, 3) fractions of a cell that sites may be apart along each axis: twice stol, as they are shifted yet.

    A little more, so that of two sites just as far apart the displacement, which is then stol, has to say.
    """
    reciprocal = np.linalg.inv(lattice).swapaxes(-2, -1) * 2 * np.pi
    return np.sqrt(np.sum(reciprocal**2, axis=-1)) * stol / (np.pi * units)[:, None] * (1 + _MARGIN)


def _volumes(lattice: np.ndarray) -> np.ndarray:
    a, b, c = (lattice[..., i, :] for i in range(3))
    return np.abs((np.cross(a, b)[..., None, :] @ c[..., None])[..., 0, 0])


def _parameters(lattice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 3) lengths and (..., 3) angles in degrees, of (..., 3, 3) rows a, b, c."""
    lengths = np.sqrt(np.sum(lattice**2, axis=-1))
    following, last = lattice[..., [1, 2, 0], :], lattice[..., [2, 0, 1], :]
    products = (following[..., None, :] @ last[..., None])[..., 0, 0]
    cosines = np.clip(products / (lengths[..., [1, 2, 0]] * lengths[..., [2, 0, 1]]), -1, 1)
    return lengths, np.rad2deg(np.arccos(cosines))


def _lattices(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(..., 3, 3) from lengths and angles in degrees, c along z as pymatgen has it."""
    cos, sin = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    (a, b, c), (cos_a, cos_b, cos_c), (sin_a, sin_b, _) = (np.moveaxis(x, -1, 0) for x in (lengths, cos, sin))
    reciprocal = np.arccos(np.clip((cos_a * cos_b - cos_c) / (sin_a * sin_b), -1, 1))
    zero = np.zeros_like(a)
    rows = [
        [a * sin_b, zero, a * cos_b],
        [-b * sin_a * np.cos(reciprocal), b * sin_a * np.sin(reciprocal), b * cos_a],
        [zero, zero, c],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
