"""The nearest vector of another set for each vector of one, both ways at once, and which pairs are within a cutoff.

All pairs go through one matrix product, |a|² - 2 a·b + |b|², which is quick but loses digits where two vectors are
close. It only tells which pairs can be nearest or lie at the cutoff; these few are measured again, coordinate by
coordinate. Nothing here knows of crystals.
"""

from __future__ import annotations

import numpy as np

# rounding of the product, per dimension and relative to |a|² + |b|²; the proven bound is below half of it
_ROUNDING = 4 * np.finfo(np.float64).eps
_PAIRS_AT_ONCE = 20_000


class NearestVectors:
    """Distances between two sets, a block of rows at a time.

    Attributes:
        of_rows: (num_rows,) distance to the nearest column vector; infinite until the row was in a block.
        of_columns: (num_columns,) distance to the nearest row vector of the blocks until now.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, cutoff: float) -> None:
        for name, vectors in (("row", rows), ("column", columns)):
            if not np.isfinite(vectors).all():
                broken = int((~np.isfinite(vectors).all(axis=1)).sum())
                raise ValueError(f"{broken} {name} vectors have a NaN or an infinite number; leave these crystals out")
        self.of_rows = np.full(len(rows), np.inf)
        self._cutoff = cutoff
        self._rows = rows
        # equal vectors, of one composition say, are measured once
        self._columns, self._column_of = _distinct(columns)
        self._nearest_column = np.full(len(self._columns), np.inf)
        self._column_bound = np.full(len(self._columns), np.inf)
        slack = _ROUNDING * (rows.shape[1] + 8)
        squares = np.einsum("ij,ij->i", self._columns, self._columns)
        self._slack, self._column_slack = slack, slack * squares
        ones = np.ones_like(squares)
        self._factor = np.column_stack([self._columns, ones, squares - self._column_slack]).T.copy()

    @property
    def of_columns(self) -> np.ndarray:
        return self._nearest_column[self._column_of]

    def measure(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, num_columns) which pairs are within the cutoff; brings the nearest distances up to date."""
        rows, row_of = _distinct(self._rows[start:stop])
        squares = np.einsum("ij,ij->i", rows, rows)
        row_slack = self._slack * squares
        # never above the true squared distance, nor below it by more than twice the slack of both
        lowest = np.column_stack([-2.0 * rows, squares - row_slack, np.ones_like(squares)]) @ self._factor
        nearest = self._nearest_in_block(lowest, rows, row_slack)
        self.of_rows[start:stop] = nearest[row_of]
        near = self._near_in_block(lowest, rows, row_slack)
        if len(rows) < stop - start:
            near = near[row_of]
        return near if len(self._columns) == len(self._column_of) else near[:, self._column_of]

    def _nearest_in_block(self, lowest: np.ndarray, rows: np.ndarray, row_slack: np.ndarray) -> np.ndarray:
        """Distance of each row to the nearest column; those of the columns to these rows are kept."""
        best = lowest.argmin(axis=1)
        row_bound = np.take_along_axis(lowest, best[:, None], axis=1)[:, 0] + 2 * (row_slack + self._column_slack[best])
        best = lowest.argmin(axis=0)
        bound = np.take_along_axis(lowest, best[None, :], axis=0)[0] + 2 * (row_slack[best] + self._column_slack)
        np.minimum(self._column_bound, bound, out=self._column_bound)
        candidates = lowest <= row_bound[:, None]
        candidates |= lowest <= self._column_bound
        row, column = np.nonzero(candidates)
        distances = _distances(rows, self._columns, row, column)
        nearest = np.full(len(rows), np.inf)
        np.minimum.at(nearest, row, distances)
        np.minimum.at(self._nearest_column, column, distances)
        return nearest

    def _near_in_block(self, lowest: np.ndarray, rows: np.ndarray, row_slack: np.ndarray) -> np.ndarray:
        square = self._cutoff**2
        # the square is rounded as well
        near = lowest <= square * (1 + _ROUNDING)
        row, column = np.nonzero(near)
        unsure = lowest[row, column] + 2 * (row_slack[row] + self._column_slack[column]) > square * (1 - _ROUNDING)
        row, column = row[unsure], column[unsure]
        near[row, column] = _distances(rows, self._columns, row, column) <= self._cutoff
        return np.asarray(near)


def _distinct(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different vectors by first appearance, and which of them each one is."""
    numbers: dict[bytes, int] = {}
    which = np.array([numbers.setdefault(vector.tobytes(), len(numbers)) for vector in vectors], dtype=np.int64)
    if len(numbers) == len(vectors):
        return vectors, which
    first = np.unique(which, return_index=True)[1]
    return vectors[first], which


def _distances(rows: np.ndarray, columns: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Of the pairs (row, column), to the last digits."""
    distances = np.empty(len(row))
    for start in range(0, len(row), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        difference = rows[row[part]] - columns[column[part]]
        distances[part] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return distances
