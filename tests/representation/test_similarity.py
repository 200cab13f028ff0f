"""Measures of similarity: oracles, what they are blind to, and what they must see."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.representation.methods.similarity import (
    derangement,
    effective_rank,
    linear_cka,
    mean_reciprocal_rank,
    neighbour_overlap,
    retrieval_overlap,
    sensitivity,
)
from cdvae_kit.seeding import make_generator


def gaussian(num: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(num, width, generator=make_generator(seed), dtype=torch.float64)


def rotation(width: int) -> Tensor:
    return torch.linalg.qr(gaussian(width, width, 99)).Q


@pytest.mark.parametrize("num", [2, 3, 10, 501])
def test_a_derangement_is_a_permutation_without_fixed_points(num: int) -> None:
    for seed in range(20):
        order = derangement(num, generator=make_generator(seed))
        assert torch.equal(order.sort().values, torch.arange(num)), seed
        assert not bool((order == torch.arange(num)).any()), seed


def test_all_derangements_come_alike() -> None:
    generator = make_generator(0)
    drawn = [tuple(derangement(4, generator=generator).tolist()) for _ in range(4500)]
    counts = [drawn.count(p) for p in itertools.permutations(range(4)) if all(p[i] != i for i in range(4))]
    assert len(counts) == 9 and sum(counts) == 4500
    assert min(counts) > 420 and max(counts) < 580  # 500 ± 21 each


def test_a_derangement_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        derangement(1, generator=make_generator(0))


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_sensitivity_is_zero_for_the_same_and_one_for_the_unrelated(metric: Any) -> None:
    a, b = gaussian(4000, 8), gaussian(4000, 8, 1)
    assert sensitivity(a, a, metric=metric, generator=make_generator(0)) == pytest.approx(0.0, abs=1e-12)
    assert sensitivity(a, b, metric=metric, generator=make_generator(0)) == pytest.approx(1.0, abs=0.03)
    assert sensitivity(a, a + 0.1 * b, metric=metric, generator=make_generator(0)) < 0.2


def test_sensitivity_does_not_change_with_the_scale_or_a_turn() -> None:
    a, b = gaussian(50, 4), gaussian(50, 4, 1)
    value = sensitivity(a, b, generator=make_generator(0))
    turned = sensitivity(3.0 * a @ rotation(4) + 1.0, 3.0 * b @ rotation(4) + 1.0, generator=make_generator(0))
    assert turned == pytest.approx(value)


def test_sensitivity_of_a_collapsed_encoder_is_no_number() -> None:
    assert math.isnan(sensitivity(torch.ones(5, 3), torch.ones(5, 3), generator=make_generator(0)))


def slow_unbiased_hsic(k: Tensor, m: Tensor) -> float:
    """The U-statistic over all ordered quadruples of different samples (Song et al. 2012, equation 4)."""
    n = len(k)
    pairs = sum(float(k[i, j] * m[i, j]) for i, j in itertools.permutations(range(n), 2))
    triples = sum(float(k[i, j] * m[i, q]) for i, j, q in itertools.permutations(range(n), 3))
    quads = sum(float(k[i, j] * m[q, r]) for i, j, q, r in itertools.permutations(range(n), 4))
    return pairs / math.perm(n, 2) - 2 * triples / math.perm(n, 3) + quads / math.perm(n, 4)


def test_cka_is_the_sum_over_quadruples() -> None:
    a, b = gaussian(7, 2), gaussian(7, 3, 1)
    k, m = a @ a.T, b @ b.T
    expected = slow_unbiased_hsic(k, m) / math.sqrt(slow_unbiased_hsic(k, k) * slow_unbiased_hsic(m, m))
    assert linear_cka(a, b) == pytest.approx(expected, rel=1e-9)


def test_cka_is_blind_to_rotation_scale_and_shift_and_not_to_a_linear_map() -> None:
    a = gaussian(60, 5)
    assert linear_cka(a, a) == pytest.approx(1.0)
    assert linear_cka(a, 7.0 * a @ rotation(5) + 1e4) == pytest.approx(1.0, abs=1e-6)
    assert linear_cka(a, a * torch.tensor([10.0, 1.0, 1.0, 1.0, 0.0])) < 0.9


def test_cka_of_unrelated_spaces_is_zero_on_average_where_the_biased_one_is_not() -> None:
    pairs = [(gaussian(20, 16, 2 * s), gaussian(20, 16, 2 * s + 1)) for s in range(60)]
    unbiased = sum(linear_cka(a, b) for a, b in pairs) / len(pairs)

    def biased(a: Tensor, b: Tensor) -> float:
        a, b = a - a.mean(0), b - b.mean(0)
        return float((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))

    assert abs(unbiased) < 0.05
    assert sum(biased(a, b) for a, b in pairs) / len(pairs) > 0.3


def test_cka_of_a_point_is_no_number_and_three_samples_are_too_few() -> None:
    assert math.isnan(linear_cka(torch.ones(6, 2), gaussian(6, 2)))
    with pytest.raises(ValueError, match="at least 4 samples"):
        linear_cka(gaussian(3, 2), gaussian(3, 2))


def test_the_effective_rank_counts_directions() -> None:
    line = torch.outer(torch.linspace(-1.0, 1.0, 30, dtype=torch.float64), torch.arange(1.0, 7.0, dtype=torch.float64))
    assert effective_rank(line) == pytest.approx(1.0)
    assert effective_rank(torch.ones(30, 6) * 0.1) == 0.0
    sphere = torch.cat([torch.eye(6), -torch.eye(6)])
    assert effective_rank(sphere) == pytest.approx(6.0)
    assert effective_rank(5.0 * sphere @ rotation(6).float() + 2.0) == pytest.approx(6.0, rel=1e-4)
    assert 1.0 < effective_rank(sphere * torch.tensor([1.0, 1.0, 1.0, 0.1, 0.1, 0.1])) < 6.0


def test_neighbours_are_those_of_a_loop_and_survive_a_turn() -> None:
    a, b = gaussian(12, 3), gaussian(12, 4, 1)
    total = 0.0
    for i in range(12):
        sets = []
        for x in (a, b):
            cosines = torch.cosine_similarity(x[i][None], x)
            cosines[i] = -2.0
            sets.append(set(cosines.argsort(descending=True)[:3].tolist()))
        total += len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert neighbour_overlap(a, b, k=3) == pytest.approx(total / 12)
    assert neighbour_overlap(a, 2.0 * a @ rotation(3), k=3) == 1.0
    assert neighbour_overlap(a, a + 5.0, k=3) < 1.0
    assert neighbour_overlap(a, a + 5.0, k=3, metric="l2") == 1.0
    for k in (0, 12):
        with pytest.raises(ValueError, match=r"1\.\.11"):
            neighbour_overlap(a, b, k=k)


def test_the_reciprocal_rank_is_one_for_the_same_and_small_for_strangers() -> None:
    a = gaussian(200, 6)
    assert mean_reciprocal_rank(a, 3.0 * a) == pytest.approx(1.0)
    assert mean_reciprocal_rank(a, gaussian(200, 6, 1)) < 0.1
    # second place for everybody: an antipode of itself among two
    pair = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert mean_reciprocal_rank(pair, -pair) == pytest.approx(0.5)
    # a collapsed space shares the ranks 1..n and does not win
    assert mean_reciprocal_rank(torch.ones(9, 2), torch.ones(9, 2)) == pytest.approx(1 / 5)


def test_retrieval_is_that_of_a_loop_and_needs_the_same_coordinates() -> None:
    a, b = gaussian(12, 3), gaussian(12, 3, 1)
    total = 0.0
    for i in range(12):
        sets = [set(torch.cosine_similarity(x[i][None], b).argsort(descending=True)[:4].tolist()) for x in (a, b)]
        total += len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert retrieval_overlap(a, b, k=4) == pytest.approx(total / 12)
    assert retrieval_overlap(a, 3.0 * a, k=4) == 1.0
    # neighbours within a space do not see the turn
    assert neighbour_overlap(a, a @ rotation(3), k=4) == 1.0 and retrieval_overlap(a, a @ rotation(3), k=4) < 0.7
    with pytest.raises(ValueError, match="same shape"):
        retrieval_overlap(a, gaussian(12, 4))
    with pytest.raises(ValueError, match=r"1\.\.12"):
        retrieval_overlap(a, b, k=13)


def test_features_that_do_not_fit_are_refused() -> None:
    a = gaussian(6, 3)
    broken = a.clone()
    broken[2, 1] = torch.nan
    with pytest.raises(ValueError, match="1 of 6 samples have features that are not finite"):
        effective_rank(broken)
    with pytest.raises(ValueError, match="same shape"):
        mean_reciprocal_rank(a, gaussian(6, 4))
    with pytest.raises(ValueError, match="same samples"):
        linear_cka(a, gaussian(5, 3))
    with pytest.raises(ValueError, match="at least 2 samples"):
        sensitivity(a[:1], a[:1], generator=make_generator(0))
