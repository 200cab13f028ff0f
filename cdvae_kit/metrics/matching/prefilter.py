"""Which pairs of crystals a `StructureMatcher` cannot match, found without calling it.

Only what the matcher itself demands is asked here, with a little more room than it gives, so a pair that is turned away
is one that it would turn away too. Of two reduced crystals of one composition it demands

1. as many sites in both, since neither supercells nor subsets are tried;
2. three lattice vectors of the first, of determinant +1 or -1, whose lengths lie within a factor 1 + ltol of the
   second's and whose angles within angle_tol, once both cells have the same volume.

That leaves one pair in sixty of Carbon-24, most of which match. Nothing is made of distances between atoms: an atom
may be off by 0.3 to 0.5 of the mean spacing, so no bound that follows from it would turn many pairs away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays

# room beyond the matcher's own limits, against rounding: a part of a length, degrees
_LENGTH_SLACK = 1e-6
_ANGLE_SLACK = 1e-3

# a cell with more lattice vectors than this within reach is a needle or a plate: the matcher judges it alone
_MOST_VECTORS = 1500
_MOST_GRID_POINTS = 200_000


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


def may_match(
    first: CrystalArrays, others: Sequence[CrystalArrays], *, ltol: float, angle_tol: float, scale: bool
) -> np.ndarray:
    """(num_others,) False where `StructureMatcher.fit` and `get_rms_dist` of `first` and the other find no match.

    Args:
        first: reduced as the matcher reduces; it is the one whose lattice is mapped.
        others: reduced likewise, of the reduced composition of `first`.
        ltol: of the matcher.
        angle_tol: likewise, degrees.
        scale: whether the matcher scales both cells to one volume.
    """
    possible = np.array([len(other.atomic_numbers) == len(first.atomic_numbers) for other in others], dtype=bool)
    asked = np.flatnonzero(possible)
    if len(asked) == 0:
        return possible
    lattice = _scaled(first.lattice, scale)
    targets = cell_parameters(np.array([_scaled(others[int(j)].lattice, scale) for j in asked]))
    # by the power of two of the longest edge, so that one needle does not make all of them look far
    reach = np.ceil(np.log2(targets[:, :3].max(-1)))
    for exponent in np.unique(reach):
        chosen = reach == exponent
        possible[asked[chosen]] = _near_cells(lattice, targets[chosen], ltol, angle_tol)
    return possible


def _near_cells(lattice: np.ndarray, targets: np.ndarray, ltol: float, angle_tol: float) -> np.ndarray:
    """(num_targets,) whether the lattice has a cell near each of the (num_targets, 6) others."""
    factor = (1 + ltol) * (1 + _LENGTH_SLACK)
    vectors = _short_vectors(lattice, targets[:, :3].max() * factor)
    if vectors is None:
        return _has_shortest_edge(lattice, targets, factor)
    starts = np.searchsorted(vectors.lengths, targets[:, :3] / factor, side="left")
    ends = np.searchsorted(vectors.lengths, targets[:, :3] * factor, side="right")
    near = np.all(starts < ends, axis=-1)
    most, least = (
        np.cos(np.radians(np.clip(targets[:, 3:] + shift, 0.0, 180.0)))
        for shift in (-angle_tol - _ANGLE_SLACK, angle_tol + _ANGLE_SLACK)
    )
    for j in np.flatnonzero(near):
        near[j] = _is_near(vectors, starts[j], ends[j], least[j], most[j])
    return near


def _has_shortest_edge(lattice: np.ndarray, targets: np.ndarray, factor: float) -> np.ndarray:
    """(num_targets,) whether a lattice vector is as long as the shortest edge; all that is asked of needles."""
    shortest = targets[:, :3].min(-1)
    vectors = _short_vectors(lattice, shortest.max() * factor)
    if vectors is None:
        return np.ones(len(targets), dtype=bool)
    lengths = vectors.lengths
    return np.searchsorted(lengths, shortest / factor, "left") < np.searchsorted(lengths, shortest * factor, "right")


def cell_parameters(lattice: np.ndarray) -> np.ndarray:
    """(..., 6): lengths in the lattice's unit and angles in degrees, of (..., 3, 3) rows a, b, c."""
    lengths = np.linalg.norm(lattice, axis=-1)
    following, last = np.roll(lattice, -1, axis=-2), np.roll(lattice, -2, axis=-2)
    cosines = (following * last).sum(-1) / (np.roll(lengths, -1, axis=-1) * np.roll(lengths, -2, axis=-1))
    return np.concatenate([lengths, np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))], axis=-1)


def _scaled(lattice: np.ndarray, scale: bool) -> np.ndarray:
    return lattice / abs(np.linalg.det(lattice)) ** (1 / 3) if scale else lattice


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


def _is_near(vectors: _ShortVectors, starts: np.ndarray, ends: np.ndarray, least: np.ndarray, most: np.ndarray) -> bool:
    """Whether three of the vectors make a near cell.

    Args:
        vectors: of the first crystal.
        starts: (3,) for a, b, c, where the vectors of about that length start.
        ends: (3,) and end.
        least: (3,) of the cosines of alpha, beta, gamma.
        most: likewise.
    """
    a, b, c = (slice(start, end) for start, end in zip(starts, ends, strict=True))
    cosines = vectors.cosines
    # M and -M make one cell
    a_b = (cosines[a, b] >= least[2]) & (cosines[a, b] <= most[2]) & vectors.upper[a][:, None]
    pairs = np.argwhere(a_b)
    if len(pairs) == 0:
        return False
    a_c = (cosines[a, c] >= least[1]) & (cosines[a, c] <= most[1])
    b_c = (cosines[b, c] >= least[0]) & (cosines[b, c] <= most[0])
    pair, third = np.nonzero(a_c[pairs[:, 0]] & b_c[pairs[:, 1]])
    x = vectors.coefficients[pairs[pair, 0] + starts[0]]
    y = vectors.coefficients[pairs[pair, 1] + starts[1]]
    z = vectors.coefficients[third + starts[2]]
    return bool((np.abs((np.cross(x, y) * z).sum(-1)) == 1).any())
