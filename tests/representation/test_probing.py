"""Probes: what they read, what they cannot, and what they say when there is too little."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.representation.methods.probing import (
    ProbeScore,
    TooFewSamplesError,
    draw_labels,
    knn_probe,
    linear_probe,
    over_label_draws,
    prototype_probe,
    ridge_probe,
    split_samples,
)
from cdvae_kit.seeding import make_generator

CLASSIFIERS = [linear_probe, knn_probe, prototype_probe]


def clusters(num: int, seed: int = 0, *, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Three clusters in eight dimensions; labels are 3, 5 and 9."""
    labels = torch.arange(num) % 3
    noise = torch.randn(num, 8, generator=make_generator(seed))
    return 2.0 * torch.eye(3, 8)[labels] + spread * noise, torch.tensor([3, 5, 9])[labels]


@pytest.mark.parametrize("probe", CLASSIFIERS)
def test_clusters_are_read_and_noise_is_not(probe: Any) -> None:
    (x, y), (x_test, y_test) = clusters(300), clusters(300, 1)
    assert probe(x, y, x_test, y_test) > 0.98
    generator = make_generator(2)
    noise, noise_test = (torch.randn(300, 8, generator=generator) for _ in range(2))
    assert probe(noise, y, noise_test, y_test) == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize("probe", CLASSIFIERS)
def test_a_class_that_was_not_seen_counts_as_wrong(probe: Any) -> None:
    (x, y), (x_test, y_test) = clusters(300), clusters(300, 1)
    seen = y != 9
    assert probe(x[seen], y[seen], x_test, y_test) == pytest.approx(2 / 3, abs=0.02)


def test_a_linear_reader_is_blind_to_scales_and_to_the_exclusive_or() -> None:
    x, y = clusters(200)
    scales = torch.logspace(-3, 3, 8)
    assert linear_probe(x * scales + 7.0, y, x * scales + 7.0, y) == linear_probe(x, y, x, y)
    corners = torch.rand(400, 2, generator=make_generator(0)) - 0.5
    exclusive = ((corners[:, 0] > 0) ^ (corners[:, 1] > 0)).long()
    assert linear_probe(corners, exclusive, corners, exclusive) < 0.65
    assert knn_probe(corners, exclusive, corners, exclusive, k=5) > 0.9


def test_a_constant_feature_says_nothing() -> None:
    x, y = clusters(90)
    constant = torch.cat([x, torch.full((90, 1), 0.1)], dim=1)
    jumps = constant.clone()
    jumps[:, -1] = 1e6  # only in the test
    assert linear_probe(constant, y, jumps, y) == linear_probe(x, y, x, y)


def test_ridge_reads_a_plane_and_nothing_from_noise() -> None:
    x = torch.randn(300, 5, generator=make_generator(0))
    y = x @ torch.arange(5.0) + 3.0
    assert ridge_probe(x[:200], y[:200], x[200:], y[200:], penalty=1e-6) == pytest.approx(1.0, abs=1e-4)
    noise = torch.randn(300, generator=make_generator(1))
    assert ridge_probe(x[:200], noise[:200], x[200:], noise[200:]) < 0.1


def test_the_nearest_neighbour_is_the_nearest_and_ties_go_to_the_closer() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    near_first = torch.tensor([[1.0, 0.2]])
    for k in (1, 2):
        assert knn_probe(x, torch.tensor([4, 7]), near_first, torch.tensor([4]), k=k) == 1.0
    three = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.1]])
    assert knn_probe(three, torch.tensor([4, 7, 7]), near_first, torch.tensor([7]), k=3) == 1.0


def test_draws_are_the_same_for_every_encoder_and_differ_among_each_other() -> None:
    labels = torch.arange(60) % 3
    first = draw_labels(labels, 4, generator=make_generator(0, 0))
    assert torch.equal(first, draw_labels(labels, 4, generator=make_generator(0, 0)))
    assert not torch.equal(first, draw_labels(labels, 4, generator=make_generator(0, 1)))
    assert labels[first].bincount().tolist() == [4, 4, 4] and len(first.unique()) == 12


def test_more_labels_are_better_and_the_error_is_that_of_the_mean() -> None:
    (x, y), (x_test, y_test) = clusters(300, spread=1.5), clusters(600, 1, spread=1.5)
    scores = [
        over_label_draws(prototype_probe, x, y, x_test, y_test, labels_per_class=n, num_draws=10) for n in (1, 5, 50)
    ]
    assert scores[0].mean < scores[1].mean < scores[2].mean
    assert 0.0 < scores[2].standard_error < scores[0].standard_error
    assert ProbeScore((0.2, 0.4)).standard_error == pytest.approx(0.1)
    assert math.isnan(ProbeScore((0.2,)).standard_error)


def test_too_few_samples_are_told_with_their_number() -> None:
    x, y = clusters(9)
    with pytest.raises(TooFewSamplesError, match="class 3 has 3 samples, 4 labels"):
        over_label_draws(prototype_probe, x, y, x, y, labels_per_class=4)
    with pytest.raises(TooFewSamplesError, match="10 neighbours among 9"):
        knn_probe(x, y, x, y, k=10)
    with pytest.raises(TooFewSamplesError, match="two classes"):
        linear_probe(x, torch.zeros(9).long(), x, y)
    with pytest.raises(TooFewSamplesError, match="no training samples"):
        prototype_probe(x[:0], y[:0], x, y)
    with pytest.raises(TooFewSamplesError, match="at least 2"):
        ridge_probe(x[:1], x[:1, 0], x, x[:, 0])
    with pytest.raises(TooFewSamplesError, match="one side"):
        split_samples(3, test_share=0.1, seed=0)
    with pytest.raises(TooFewSamplesError, match="no labelled"):
        draw_labels(y[:0], 1, generator=make_generator(0))


def test_features_and_labels_that_do_not_fit_are_refused() -> None:
    x, y = clusters(9)
    broken = x.clone()
    broken[0] = torch.inf
    with pytest.raises(ValueError, match="1 of 9 test samples have features not finite"):
        linear_probe(x, y, broken, y)
    with pytest.raises(ValueError, match="1 of 9 training samples have labels not finite"):
        ridge_probe(x, torch.where(y == 3, torch.nan, 1.0).index_fill(0, torch.tensor([3, 6]), 0.0), x, x[:, 0])
    with pytest.raises(ValueError, match="8 columns, test features 7"):
        knn_probe(x, y, x[:, :7], y)
    with pytest.raises(ValueError, match="with labels"):
        prototype_probe(x, y[:8], x, y)
    with pytest.raises(ValueError, match="at least one label"):
        over_label_draws(prototype_probe, x, y, x, y, labels_per_class=0)


def test_a_split_is_fixed_whole_and_without_overlap() -> None:
    train, test = split_samples(100, test_share=0.2, seed=3)
    assert len(test) == 20 and torch.equal(torch.cat([train, test]).sort().values, torch.arange(100))
    assert torch.equal(split_samples(100, test_share=0.2, seed=3)[1], test)
    assert not torch.equal(split_samples(100, test_share=0.2, seed=4)[1], test)
