"""The most probable assignment of Wyckoff positions that is possible, exactly.

Given a space group, how many atoms of each element there are, and log p(e, w, c) that c orbits of element e stand on
position w, the counts c[e, w] are found that maximise sum log p under

* sum_w multiplicity[w] c[e, w] = number of atoms of e, for each element;
* sum_e c[e, w] <= 1 for a position without a free parameter: its points are taken once at most.

Elements meet in the second condition alone. So each element gets a table over the sets of such positions that it may
take, filled by dynamic programming over its other positions, and the tables are joined by dynamic programming over
disjoint sets. The cost grows with 3^(number of positions without freedom that fit), at most 3^8 in the 230 groups.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_IMPOSSIBLE = -np.inf


def most_probable_assignment(
    log_p: np.ndarray, multiplicity: np.ndarray, is_free: np.ndarray, counts: np.ndarray
) -> tuple[float, np.ndarray] | None:
    """The best sum of log p and the counts (num_elements, num_positions) that have it; None if nothing is possible.

    Args:
        log_p: (num_elements, num_positions, most + 1), log p of 0, 1, ... orbits.
        multiplicity: (num_positions,) atoms of an orbit.
        is_free: (num_positions,) bool: whether the position has a free parameter.
        counts: (num_elements,) atoms of each element, all positive.

    >>> log_p = np.log(np.array([[[0.5, 0.5], [0.5, 0.5]], [[0.1, 0.9], [0.9, 0.1]]]))
    >>> most_probable_assignment(log_p, np.array([1, 1]), np.array([False, False]), np.array([1, 1]))[1].tolist()
    [[0, 1], [1, 0]]
    """
    fixed = np.flatnonzero(~is_free & (multiplicity <= counts.max()))
    free = np.flatnonzero(is_free & (multiplicity <= counts.max()))
    # what no element can take is taken by none
    rest = log_p[:, :, 0].sum(1) - log_p[:, fixed, 0].sum(1) - log_p[:, free, 0].sum(1)
    sizes = _subset_sums(multiplicity[fixed])
    tables, choices = [], []
    for element, count in enumerate(counts.tolist()):
        best, chosen = _fill(log_p[element, free], multiplicity[free], count)
        gain = _subset_sums(log_p[element, fixed, 1] - log_p[element, fixed, 0])
        left = count - sizes
        value = np.where(left >= 0, gain + best[left.clip(0)], _IMPOSSIBLE)
        tables.append(value + log_p[element, fixed, 0].sum() + rest[element])
        choices.append((left, chosen))
    total, sets = _disjoint(tables, len(fixed))
    if not np.isfinite(total):
        return None
    assignment = np.zeros(log_p.shape[:2], dtype=np.int64)
    for element, subset in enumerate(sets):
        left, chosen = choices[element]
        assignment[element, fixed] = (subset >> np.arange(len(fixed))) & 1
        remaining = int(left[subset])
        for k in reversed(range(len(free))):
            taken = int(chosen[k, remaining])
            assignment[element, free[k]] = taken
            remaining -= taken * int(multiplicity[free[k]])
    return float(total), assignment


def _subset_sums(values: np.ndarray) -> np.ndarray:
    """(2^n,) the sum over the members of every set, a set being the bits of its index."""
    sums = np.zeros(1, dtype=values.dtype)
    for value in values:
        sums = np.concatenate([sums, sums + value])
    return sums


def _fill(log_p: np.ndarray, multiplicity: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best sum of log p that fills n = 0..count atoms, and (num_positions, count + 1) the orbits taken for it."""
    best = np.full(count + 1, _IMPOSSIBLE)
    best[0] = 0.0
    chosen = np.zeros((len(multiplicity), count + 1), dtype=np.int64)
    for k, size in enumerate(multiplicity.tolist()):
        most = min(count // size, log_p.shape[1] - 1)
        value = best + log_p[k, 0]
        for orbits in range(1, most + 1):
            shifted = np.full(count + 1, _IMPOSSIBLE)
            shifted[orbits * size :] = best[: count + 1 - orbits * size] + log_p[k, orbits]
            better = shifted > value
            value = np.where(better, shifted, value)
            chosen[k, better] = orbits
        best = value
    return best, chosen


@lru_cache(maxsize=9)
def _splits(num_fixed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs (whole, part) of sets with the part within the whole, sorted by the whole; where each whole starts."""
    sets = np.arange(1 << num_fixed)
    whole, part = np.nonzero((sets[None, :] & ~sets[:, None]) == 0)
    return whole, part, np.searchsorted(whole, sets)


def _disjoint(tables: list[np.ndarray], num_fixed: int) -> tuple[float, list[int]]:
    """The best sum of one entry a table whose sets are disjoint, and these sets."""
    whole, part, starts = _splits(num_fixed)
    best = tables[0]
    taken = []
    for table in tables[1:]:
        value = best[whole - part] + table[part]
        joined = np.maximum.reduceat(value, starts)
        # the first entry that has the best value
        hit = np.flatnonzero(value == joined[whole])
        first = hit[np.searchsorted(whole[hit], np.arange(len(starts)))] if len(hit) else hit
        taken.append(part[first])
        best = joined
    union = int(best.argmax())
    total = float(best[union])
    sets: list[int] = []
    for parts in reversed(taken):
        sets.append(int(parts[union]))
        union -= sets[-1]
    sets.append(union)
    return total, sets[::-1]
