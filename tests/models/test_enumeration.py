"""Compositions by probability, against going through all of them."""

from itertools import product

import numpy as np
import pytest

from cdvae_kit.models.enumeration import most_probable_compositions


def by_brute_force(log_p: np.ndarray, total: int) -> list[tuple[float, tuple[int, ...]]]:
    rows = [
        (sum(log_p[e, c] for e, c in enumerate(counts)), counts)
        for counts in product(range(log_p.shape[1]), repeat=len(log_p))
        if sum(counts) == total
    ]
    return sorted((row for row in rows if np.isfinite(row[0])), key=lambda row: -row[0])


@pytest.mark.parametrize("seed", range(20))
def test_they_come_in_the_order_of_going_through_all_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_p = np.log(rng.dirichlet(np.ones(6), size=4))
    log_p[rng.random(log_p.shape) < 0.1] = -np.inf
    total = int(rng.integers(1, 6))
    expected = by_brute_force(log_p, total)[:10]
    found = most_probable_compositions(log_p, total, 10)
    assert len(found) == len(expected), f"seed {seed}"
    np.testing.assert_allclose([value for value, _ in found], [value for value, _ in expected], err_msg=f"seed {seed}")
    for value, counts in found:
        assert counts.sum() == total
        assert value == pytest.approx(sum(log_p[e, c] for e, c in enumerate(counts)))


def test_there_is_none_where_nothing_adds_up() -> None:
    log_p = np.log(np.array([[1.0, 1e-300, 1e-300], [1.0, 1e-300, 1e-300]]))
    log_p[:, 1:] = -np.inf
    assert most_probable_compositions(log_p, 2, 5) == []
