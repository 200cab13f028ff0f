"""Nearest vectors by one matrix product, against scipy's distances of all pairs."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cdvae_kit.metrics.computing.nearest import NearestVectors


def measured(rows: np.ndarray, columns: np.ndarray, cutoff: float, at_once: int = 64) -> tuple[np.ndarray, ...]:
    nearest = NearestVectors(rows, columns, cutoff)
    starts = range(0, len(rows), at_once)
    near = np.concatenate([nearest.measure(start, min(start + at_once, len(rows))) for start in starts])
    return nearest.of_rows, nearest.of_columns, near


def vectors(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = rng.random((150, 61)), rng.random((170, 61))
    if kind == "shared":
        columns[:40], columns[100:120], rows[70:75] = rows[:40], rows[:20], rows[:5]
    elif kind == "close":
        columns[:100] = rows[:100] + 1e-9 * rng.random((100, 61))
    elif kind == "far from the origin":
        rows, columns = rows + 1e4, columns + 1e4
        columns[:30] = rows[:30] + 1e-7
    elif kind == "one far out":
        rows[3], columns[5] = 1e8, 1e8
        columns[:3] = rows[:3]
    elif kind == "all equal":
        rows, columns = np.ones((150, 61)), np.ones((170, 61))
    elif kind == "one each":
        rows, columns = rows[:1], columns[:1]
    return rows, columns


KINDS = ["random", "shared", "close", "far from the origin", "one far out", "all equal", "one each"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cutoff", [0.0, 1e-9, 3.0, 3.2])
def test_distances_and_cutoffs_are_those_of_all_pairs(kind, cutoff):
    rows, columns = vectors(kind, np.random.default_rng(0))
    pairs = cdist(rows, columns)
    of_rows, of_columns, near = measured(rows, columns, cutoff)
    np.testing.assert_allclose(of_rows, pairs.min(axis=1), rtol=1e-13, atol=0)
    np.testing.assert_allclose(of_columns, pairs.min(axis=0), rtol=1e-13, atol=0)
    assert np.array_equal(near, pairs <= cutoff)


def test_the_product_alone_would_miss_equal_vectors():
    """The negative control: without the second measurement the far-off vectors below have no equal."""
    rows, _ = vectors("far from the origin", np.random.default_rng(0))
    squares = (rows**2).sum(axis=1)
    product = squares[:, None] - 2 * rows @ rows.T + squares
    assert np.abs(np.diag(product)).max() > 1e-7
    assert np.array_equal(measured(rows, rows, 0.0)[0], np.zeros(len(rows)))


def test_both_directions_agree_when_the_sets_are_exchanged():
    rows, columns = vectors("shared", np.random.default_rng(1))
    there, back = measured(rows, columns, 3.0), measured(columns, rows, 3.0)
    assert np.array_equal(there[0], back[1]) and np.array_equal(there[1], back[0])
    assert np.array_equal(there[2], back[2].T)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(wrong):
    columns = np.ones((2, 3))
    columns[1, 1] = wrong
    with pytest.raises(ValueError, match="1 column vectors have a NaN"):
        NearestVectors(np.ones((2, 3)), columns, 1.0)
