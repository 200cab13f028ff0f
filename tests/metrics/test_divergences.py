"""Distances between whole sets: closed forms, limits, and that draws of two distributions are told apart."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import jensenshannon

from cdvae_kit.metrics.computing.divergences import (
    binned,
    expected_divergence,
    frechet_distance,
    jensen_shannon,
    quantile_edges,
    vendi_score,
)


def random_labels(num: int, probabilities: list[float], seed: int) -> list[int]:
    return np.random.default_rng(seed).choice(len(probabilities), num, p=probabilities).tolist()


def test_jensen_shannon_agrees_with_scipy():
    ours, theirs = random_labels(300, [0.1, 0.2, 0.7], 1), random_labels(200, [0.5, 0.3, 0.2], 2)
    counts = [np.bincount(labels, minlength=3) for labels in (ours, theirs)]
    assert jensen_shannon(ours, theirs) == pytest.approx(jensenshannon(*counts, base=2) ** 2)


def test_jensen_shannon_does_not_care_which_set_comes_first():
    ours, theirs = ["a", "a", "b"], ["b", "c"]
    assert jensen_shannon(ours, theirs) == pytest.approx(jensen_shannon(theirs, ours))


def test_labels_that_are_missing_are_left_out():
    assert jensen_shannon(["a", None, "b"], ["b", "a", None, None]) == 0.0
    assert jensen_shannon([None], ["a"]) is None and jensen_shannon([], []) is None
    assert expected_divergence([None], num_generated=3) is None and expected_divergence(["a"], num_generated=0) is None


def test_two_draws_of_one_law_diverge_as_much_as_expected_and_other_laws_more():
    probabilities = [0.4, 0.3, 0.2, 0.1]
    reference = random_labels(2000, probabilities, 3)
    same = np.mean([jensen_shannon(random_labels(200, probabilities, seed), reference) for seed in range(50)])
    other = jensen_shannon(random_labels(200, probabilities[::-1], 4), reference)
    expected = expected_divergence(reference, num_generated=200)
    assert expected == pytest.approx(same, rel=0.25)
    assert other > 10 * expected


def test_labels_that_come_together_are_expected_to_diverge_more():
    crystals = np.repeat(np.arange(100), 10)
    together = random_labels(100, [0.5, 0.5], 6)
    labels = np.repeat(together, 10).tolist()
    alone = expected_divergence(labels, num_generated=1000)
    assert expected_divergence(labels, num_generated=100, crystals=crystals) > 5 * alone
    assert expected_divergence(labels, num_generated=100, crystals=crystals) == pytest.approx(
        expected_divergence(together, num_generated=100), rel=0.3
    )


def test_bins_hold_the_same_share_of_the_reference():
    reference = np.random.default_rng(0).normal(size=10_000)
    edges = quantile_edges(reference, 10)
    assert len(edges) == 9
    np.testing.assert_allclose(np.bincount(binned(reference, edges)) / 10_000, 0.1, atol=0.002)
    assert binned([-1e9, float("nan"), 1e9], edges) == [0, None, 9]


def test_a_reference_of_one_value_has_one_edge():
    assert len(quantile_edges(np.full(50, 2.0))) == 1 and len(quantile_edges(np.zeros(0))) == 0


def test_vendi_counts_the_kinds():
    kinds = np.repeat(100.0 * np.eye(5), 8, axis=0)
    assert vendi_score(kinds, length_scale=1.0) == pytest.approx(5.0)
    assert vendi_score(np.zeros((7, 3)), length_scale=1.0) == pytest.approx(1.0)
    assert vendi_score(100.0 * np.eye(6), length_scale=1.0) == pytest.approx(6.0)


def test_vendi_of_nothing_is_zero_and_of_one_is_one():
    assert vendi_score(np.zeros((0, 3)), length_scale=1.0) == 0.0
    assert vendi_score(np.ones((1, 3)), length_scale=1.0) == pytest.approx(1.0)


def test_a_longer_scale_sees_fewer_kinds():
    vectors = np.random.default_rng(0).normal(size=(100, 4))
    scores = [vendi_score(vectors, length_scale=scale) for scale in (0.1, 0.5, 2.0, 10.0)]
    assert scores == sorted(scores, reverse=True) and scores[0] > 90 and scores[-1] < 2


def test_vendi_of_a_large_set_is_that_of_a_seeded_draw():
    vectors = np.random.default_rng(0).normal(size=(400, 4))
    assert vendi_score(vectors, length_scale=1.0, max_vectors=100) == vendi_score(
        vectors, length_scale=1.0, max_vectors=100
    )
    assert vendi_score(vectors, length_scale=1e-6, max_vectors=100) == pytest.approx(100.0)


def test_a_length_scale_must_be_positive():
    with pytest.raises(ValueError, match="length_scale"):
        vendi_score(np.zeros((2, 2)), length_scale=0.0)


def test_frechet_of_shifted_gaussians_is_the_squared_shift():
    codes = np.random.default_rng(0).normal(size=(500, 6))
    shift = np.arange(6.0)
    assert frechet_distance(codes, codes) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(codes + shift, codes) == pytest.approx(float(shift @ shift))


def test_frechet_agrees_with_the_matrix_square_root():
    generator = np.random.default_rng(1)
    ours, theirs = generator.normal(size=(300, 5)) @ generator.normal(size=(5, 5)), generator.normal(size=(200, 5))
    s, t = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    expected = ((ours.mean(0) - theirs.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet_distance(ours, theirs) == pytest.approx(float(expected))


def test_frechet_of_one_code_has_no_value():
    assert frechet_distance(np.zeros((1, 3)), np.zeros((9, 3))) is None


def test_frechet_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="one width"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="NaN"):
        frechet_distance(np.full((4, 2), np.nan), np.zeros((4, 2)))
