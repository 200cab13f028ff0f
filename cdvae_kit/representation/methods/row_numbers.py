"""Rows of integers by number: equal rows get equal numbers."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

_LARGEST_TABLE = 20_000_000


def numbered(rows: Array) -> Array:
    """The same number for equal rows, from 0 without gaps, in the order of the rows."""
    sizes = rows.max(axis=0).astype(np.int64) + 1 if len(rows) else np.ones(rows.shape[1], dtype=np.int64)
    if float(np.prod(sizes.astype(float))) < 2.0**62:
        return without_gaps(np.ravel_multi_index(tuple(rows.T), tuple(sizes)))
    return np.unique(rows, axis=0, return_inverse=True)[1].ravel()


def without_gaps(numbers: Array) -> Array:
    """The rank of each number among the different ones."""
    if not len(numbers) or int(numbers.max()) > _LARGEST_TABLE:
        return np.unique(numbers, return_inverse=True)[1].ravel()
    # a table of what occurs is ten times faster than sorting
    occurs = np.zeros(int(numbers.max()) + 1, dtype=np.int32)
    occurs[numbers] = 1
    ranks: Array = (occurs.cumsum() - 1)[numbers]
    return ranks


def find_rows(known: Array, rows: Array) -> Array:
    """The index of each row among `known`, −1 where it is not there."""
    number = numbered(np.concatenate([known, rows]))
    index = np.full(int(number.max()) + 1 if len(number) else 0, -1)
    index[number[: len(known)]] = np.arange(len(known))
    return index[number[len(known) :]]
