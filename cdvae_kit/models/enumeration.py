"""Compositions in order of probability."""

from __future__ import annotations

import numpy as np

_NEGLIGIBLE = -30.0
"""An element whose every count above 0 is so much less probable than 0, in natural logarithms, is left out."""


def most_probable_compositions(log_p: np.ndarray, total: int, num: int) -> list[tuple[float, np.ndarray]]:
    """The `num` most probable count vectors that add up to `total`, the most probable first.

    Dynamic programming over the elements that keeps the `num` best partial sums of every size: exact, but for elements
    that are left out as negligible. There may be fewer than `num`, or none.

    Args:
        log_p: (num_elements, most + 1) log p of 0, 1, ... atoms of each element, -inf where it is impossible.
        total: atoms in all, at most `most`.
        num: how many.

    >>> log_p = np.log(np.array([[0.5, 0.4, 0.1], [0.6, 0.4, 1e-9]]))
    >>> [counts.tolist() for _, counts in most_probable_compositions(log_p, 2, 2)]
    [[1, 1], [2, 0]]
    """
    gain = log_p[:, 1:].max(1, initial=-np.inf)
    elements = np.flatnonzero((gain > log_p[:, 0] + _NEGLIGIBLE) | ~np.isfinite(log_p[:, 0]))
    rest = float(log_p[np.setdiff1d(np.arange(len(log_p)), elements), 0].sum())
    # best[s, k]: the k-th best partial sum with s atoms
    best = np.full((total + 1, num), -np.inf)
    best[0, 0] = rest
    steps = []
    for element in elements:
        counts = np.arange(min(total, log_p.shape[1] - 1) + 1)
        left = np.arange(total + 1)[:, None] - counts
        value = np.where((left >= 0)[..., None], best[left.clip(0)] + log_p[element, counts][None, :, None], -np.inf)
        flat = value.reshape(total + 1, -1)
        order = np.argsort(-flat, axis=1, kind="stable")[:, :num]
        best = np.take_along_axis(flat, order, axis=1)
        if best.shape[1] < num:
            best = np.pad(best, ((0, 0), (0, num - best.shape[1])), constant_values=-np.inf)
            order = np.pad(order, ((0, 0), (0, num - order.shape[1])))
        steps.append((element, order))
    found = []
    for k in range(num):
        if not np.isfinite(best[total, k]):
            break
        counts_of = np.zeros(len(log_p), dtype=np.int64)
        size, rank = total, k
        for element, order in reversed(steps):
            count, rank = divmod(int(order[size, rank]), num)
            counts_of[element] = count
            size -= count
        found.append((float(best[total, k]), counts_of))
    return found
