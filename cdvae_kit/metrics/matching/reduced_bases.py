"""Short bases of many lattices at once, as pymatgen's distances between sites are taken in them.

The reduction is that of Lenstra, Lenstra and Lovász (Math. Ann. 261, 515 (1982), doi 10.1007/BF01457454), delta 0.75.
Rows are subtracted in pymatgen's order, so that the bases are the same to the last digit; a lattice in which one of the
decisions hangs on rounding, as many of high symmetry do, is reduced by pymatgen.
"""

from __future__ import annotations

import math

import numpy as np

_DELTA = 0.75
# of a projection or of a squared length, relative; rounding is some 1e-14
_MARGIN = 1e-9


def reduced_bases(lattices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(num_lattices, 3, 3) reduced rows, in the unit of the lattices, and integers that make them of the given rows.

    >>> lattices, mappings = reduced_bases(np.array([[[1.0, 0, 0], [1.2, 1, 0], [0, 0, 1]]]))
    >>> mappings[0].tolist()
    [[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    reduced, mappings = lattices.copy(), np.repeat(np.eye(3)[None], len(lattices), axis=0)
    for i in np.flatnonzero(~_surely_reduced(lattices)).tolist():
        found = _reduce(lattices[i].tolist())
        reduced[i], mappings[i] = _by_pymatgen(lattices[i]) if found is None else found
    return reduced, mappings


def _surely_reduced(lattices: np.ndarray) -> np.ndarray:
    """(num_lattices,) where nothing is to be done, and rounding has no say in it."""
    a, b, c = lattices[:, 0], lattices[:, 1], lattices[:, 2]
    first = (a**2).sum(-1)
    b_a = (b * a).sum(-1) / first
    rest = b - b_a[:, None] * a
    second = (rest**2).sum(-1)
    c_a, c_b = (c * a).sum(-1) / first, (c * rest).sum(-1) / second
    third = ((c - c_a[:, None] * a - c_b[:, None] * rest) ** 2).sum(-1)
    short = (np.abs(np.stack([b_a, c_a, c_b])) < 0.5 - _MARGIN).all(0)
    in_order = (second > (_DELTA + _MARGIN - b_a**2) * first) & (third > (_DELTA + _MARGIN - c_b**2) * second)
    return short & in_order


def _by_pymatgen(lattice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from pymatgen.core import Lattice

    given = Lattice(lattice)
    return given.lll_matrix, given.lll_mapping


def _reduce(rows: list[list[float]]) -> tuple[list[list[float]], list[list[float]]] | None:
    """Reduced rows and the mapping; None where a decision hangs on rounding."""
    mapping = np.eye(3).tolist()
    k = 1
    while k < 3:
        orthogonal = _orthogonal(rows)
        for i in range(k - 1, -1, -1):
            projection = _dot(rows[k], orthogonal[i]) / _dot(orthogonal[i], orthogonal[i])
            if abs(projection - math.floor(projection) - 0.5) < _MARGIN * max(1.0, abs(projection)):
                return None
            times = round(projection)
            if times != 0:
                rows[k] = [x - times * y for x, y in zip(rows[k], rows[i], strict=True)]
                mapping[k] = [x - times * y for x, y in zip(mapping[k], mapping[i], strict=True)]
        before, here = _dot(orthogonal[k - 1], orthogonal[k - 1]), _dot(orthogonal[k], orthogonal[k])
        projection = _dot(rows[k], orthogonal[k - 1]) / before
        excess = here / before - (_DELTA - projection**2)
        if abs(excess) < _MARGIN:
            return None
        if excess > 0:
            k += 1
        else:
            rows[k - 1], rows[k] = rows[k], rows[k - 1]
            mapping[k - 1], mapping[k] = mapping[k], mapping[k - 1]
            k = max(1, k - 1)
    return rows, mapping


def _orthogonal(rows: list[list[float]]) -> list[list[float]]:
    """Each row without its part along those before it."""
    found: list[list[float]] = []
    for row in rows:
        rest = row
        for earlier in found:
            part = _dot(row, earlier) / _dot(earlier, earlier)
            rest = [x - part * y for x, y in zip(rest, earlier, strict=True)]
        found.append(rest)
    return found


def _dot(one: list[float], other: list[float]) -> float:
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
