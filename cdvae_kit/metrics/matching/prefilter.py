"""Which pairs of crystals a `StructureMatcher` cannot match, found without calling it, and the cells of the others.

Only what the matcher itself demands is asked here, with a little more room than it gives, so a pair that is turned away
is one that it would turn away too. Of two reduced crystals of one composition it demands

1. as many sites in both, since neither supercells nor subsets are tried;
2. three lattice vectors of the first, of determinant +1 or -1, whose lengths lie within a factor 1 + ltol of the
   second's and whose angles within angle_tol, once both cells have the same volume.

That leaves one pair in sixty of Carbon-24, most of which match; `displacements` goes on with their cells. Nothing is
made of distances between atoms here: an atom may be off by 0.3 to 0.5 of the mean spacing, so no bound that follows
from it would turn many pairs away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdvae_kit.metrics.matching.reduced_cells import Prepared, of_unit_volume

# room beyond the matcher's own limits, against rounding: a part of a length, degrees
_LENGTH_SLACK = 1e-6
_ANGLE_SLACK = 1e-3

# a cell with more lattice vectors than this within reach is a needle or a plate: the matcher judges it alone
_MOST_VECTORS = 1500
_MOST_GRID_POINTS = 200_000

_NO_CELL = np.zeros((0, 3, 3), dtype=np.int64)


@dataclass(frozen=True)
class _ShortVectors:
    """Lattice vectors by rising length.

    Attributes:
        coefficients: (num_vectors, 3) integers, in rows of the lattice.
        lengths: (num_vectors,).
        cosines: (num_vectors, num_vectors), of the angles between them.
        upper: (num_vectors,) whether it is the one of v and -v that is kept where one is enough.
    """

    coefficients: np.ndarray
    lengths: np.ndarray
    cosines: np.ndarray
    upper: np.ndarray


def may_match(first: Prepared, others: Sequence[Prepared], *, ltol: float, angle_tol: float, scale: bool) -> np.ndarray:
    """(num_others,) False where `StructureMatcher.fit` and `get_rms_dist` of `first` and the other find no match."""
    found = near_cells(first, others, ltol=ltol, angle_tol=angle_tol, scale=scale)
    return np.array([cells is None or len(cells) > 0 for cells in found], dtype=bool)


def near_cells(
    first: Prepared, others: Sequence[Prepared], *, ltol: float, angle_tol: float, scale: bool
) -> list[np.ndarray | None]:
    """Which cells of the first crystal are near the cell of each other one.

    One (num_cells, 3, 3) array of integers an entry, in rows of the first's lattice, none where the two cannot match; a
    few may be just outside the tolerances. None where the first is a needle or a plate, and has too many vectors.

    Args:
        first: reduced as the matcher reduces; it is the one whose lattice is mapped.
        others: reduced likewise, of the reduced composition of `first`.
        ltol: of the matcher.
        angle_tol: likewise, degrees.
        scale: whether the matcher scales both cells to one volume.
    """
    found: list[np.ndarray | None] = [_NO_CELL] * len(others)
    num_sites = len(first.reduced.atomic_numbers)
    asked = np.array([len(other.reduced.atomic_numbers) == num_sites for other in others], dtype=bool).nonzero()[0]
    if len(asked) == 0:
        return found
    lattice = of_unit_volume(first.reduced.lattice) if scale else first.reduced.lattice
    targets = np.array([others[j].unit_parameters if scale else others[j].parameters for j in asked.tolist()])
    # by the power of two of the longest edge, so that one needle does not make all of them look far
    reach = np.ceil(np.log2(targets[:, :3].max(-1)))
    for exponent in np.unique(reach):
        chosen = np.flatnonzero(reach == exponent)
        for j, cells in zip(chosen, _near_cells(lattice, targets[chosen], ltol, angle_tol), strict=True):
            found[asked[j]] = cells
    return found


def _near_cells(lattice: np.ndarray, targets: np.ndarray, ltol: float, angle_tol: float) -> list[np.ndarray | None]:
    """The lattice's cells near each of the (num_targets, 6) others, as of `near_cells`."""
    factor = (1 + ltol) * (1 + _LENGTH_SLACK)
    vectors = _short_vectors(lattice, targets[:, :3].max() * factor)
    if vectors is None:
        return [None if near else _NO_CELL for near in _has_shortest_edge(lattice, targets, factor)]
    starts = np.searchsorted(vectors.lengths, targets[:, :3] / factor, side="left")
    ends = np.searchsorted(vectors.lengths, targets[:, :3] * factor, side="right")
    most, least = (
        np.cos(np.radians(np.clip(targets[:, 3:] + shift, 0.0, 180.0)))
        for shift in (-angle_tol - _ANGLE_SLACK, angle_tol + _ANGLE_SLACK)
    )
    found: list[np.ndarray | None] = [_NO_CELL] * len(targets)
    for j in np.flatnonzero(np.all(starts < ends, axis=-1)).tolist():
        found[j] = _cells_near(vectors, starts[j], ends[j], least[j], most[j])
    return found


def _has_shortest_edge(lattice: np.ndarray, targets: np.ndarray, factor: float) -> np.ndarray:
    """(num_targets,) whether a lattice vector is as long as the shortest edge; all that is asked of needles."""
    shortest = targets[:, :3].min(-1)
    vectors = _short_vectors(lattice, shortest.max() * factor)
    if vectors is None:
        return np.ones(len(targets), dtype=bool)
    lengths = vectors.lengths
    return np.searchsorted(lengths, shortest / factor, "left") < np.searchsorted(lengths, shortest * factor, "right")


def _short_vectors(lattice: np.ndarray, radius: float) -> _ShortVectors | None:
    """The lattice vectors within `radius`; None where they are too many to be tried."""
    # |n_i| <= radius / (distance of the planes that the other two vectors span)
    reach = np.floor(radius * np.linalg.norm(np.linalg.inv(lattice), axis=0)).astype(int)
    if np.prod(2.0 * reach + 1) > _MOST_GRID_POINTS:
        return None
    axes = [np.arange(-most, most + 1) for most in reach]
    coefficients = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    cart = coefficients @ lattice
    lengths = np.linalg.norm(cart, axis=-1)
    kept = (lengths <= radius) & (coefficients != 0).any(-1)
    if kept.sum() > _MOST_VECTORS:
        return None
    order = np.flatnonzero(kept)[np.argsort(lengths[kept], kind="stable")]
    coefficients, lengths, cart = coefficients[order], lengths[order], cart[order]
    directions = cart / lengths[:, None]
    # v and -v: keep the one whose first coefficient that is not 0 is positive
    leading = coefficients[np.arange(len(coefficients)), (coefficients != 0).argmax(-1)]
    return _ShortVectors(coefficients, lengths, directions @ directions.T, leading > 0)


def _cells_near(
    vectors: _ShortVectors, starts: np.ndarray, ends: np.ndarray, least: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """(num_cells, 3, 3) every three of the vectors that make a near cell.

    Args:
        vectors: of the first crystal.
        starts: (3,) for a, b, c, where the vectors of about that length start.
        ends: (3,) and end.
        least: (3,) of the cosines of alpha, beta, gamma.
        most: likewise.
    """
    a, b, c = (slice(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
    cosines = vectors.cosines
    # M and -M make one cell
    a_b = (cosines[a, b] >= least[2]) & (cosines[a, b] <= most[2]) & vectors.upper[a][:, None]
    pairs = np.argwhere(a_b)
    if len(pairs) == 0:
        return _NO_CELL
    a_c = (cosines[a, c] >= least[1]) & (cosines[a, c] <= most[1])
    b_c = (cosines[b, c] >= least[0]) & (cosines[b, c] <= most[0])
    pair, third = np.nonzero(a_c[pairs[:, 0]] & b_c[pairs[:, 1]])
    if len(pair) == 0:
        return _NO_CELL
    x = vectors.coefficients[pairs[pair, 0] + starts[0]]
    y = vectors.coefficients[pairs[pair, 1] + starts[1]]
    z = vectors.coefficients[third + starts[2]]
    whole = np.abs((_cross(x, y) * z).sum(-1)) == 1
    cells = np.stack([x[whole], y[whole], z[whole]], axis=1)
    return np.concatenate([cells, -cells])


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`np.cross` of (..., 3) integers, without its overhead."""
    return x[:, [1, 2, 0]] * y[:, [2, 0, 1]] - x[:, [2, 0, 1]] * y[:, [1, 2, 0]]
