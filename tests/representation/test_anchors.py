"""Anchors: every way gives as many as were asked for, none twice, where it says."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.representation.methods.anchors import select_anchors
from cdvae_kit.seeding import make_generator

METHODS = ("uniform", "stratified", "farthest", "kmeans")


def gaussian(num: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(num, width, generator=make_generator(seed))


def covering_radius(features: Tensor, chosen: Tensor) -> float:
    return float(torch.cdist(features, features[chosen]).min(1).values.max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("num_anchors", [1, 7, 30])
def test_anchors_are_as_many_as_asked_for_and_sorted_and_depend_on_the_seed(method: Any, num_anchors: int) -> None:
    features, labels = gaussian(30, 4), torch.arange(30) % 3

    def chosen(seed: int) -> Tensor:
        return select_anchors(features, num_anchors, method=method, labels=labels, generator=make_generator(seed))

    assert chosen(0).shape == (num_anchors,)
    assert torch.equal(chosen(0), chosen(0).unique()) and 0 <= int(chosen(0)[0]) and int(chosen(0)[-1]) < 30
    assert torch.equal(chosen(0), chosen(0))
    # the sample nearest to the one mean is always the same, and so are all samples
    if num_anchors == 7:
        assert len({tuple(chosen(seed).tolist()) for seed in range(8)}) > 1


def test_uniform_anchors_need_no_features_and_are_uniform() -> None:
    counts = torch.zeros(10)
    for seed in range(2000):
        counts[select_anchors(10, 3, generator=make_generator(seed))] += 1
    assert float(counts.min()) > 520 and float(counts.max()) < 680  # 600 ± 20


def test_strata_keep_their_shares() -> None:
    labels = torch.tensor([5] * 50 + [2] * 30 + [9] * 20)
    chosen = select_anchors(100, 10, method="stratified", labels=labels, generator=make_generator(0))
    assert [int((labels[chosen] == label).sum()) for label in (5, 2, 9)] == [5, 3, 2]


def test_a_rare_stratum_is_not_left_out_while_there_is_room() -> None:
    labels = torch.tensor([0] * 500 + [1] * 497 + [2, 3, 4])
    for seed in range(5):
        chosen = select_anchors(1000, 8, method="stratified", labels=labels, generator=make_generator(seed))
        assert set(labels[chosen].tolist()) == {0, 1, 2, 3, 4}, seed
    # fewer anchors than strata: the large ones, and of those alike not always the first
    few = [
        tuple(labels[select_anchors(1000, 2, method="stratified", labels=labels, generator=make_generator(s))].tolist())
        for s in range(5)
    ]
    assert set(few) == {(0, 1)}
    alike = torch.arange(4)
    first = {
        int(select_anchors(4, 1, method="stratified", labels=alike, generator=make_generator(s))) for s in range(20)
    }
    assert len(first) > 2


def test_farthest_points_are_those_of_a_loop_and_cover_better_than_chance() -> None:
    features = gaussian(40, 3).double()
    chosen = set(select_anchors(features, 5, method="farthest", generator=make_generator(1)).tolist())
    for start in chosen:
        found = [start]
        while len(found) < 5:
            gaps = [min(float((x - features[i]).norm()) for i in found) for x in features]
            found.append(gaps.index(max(gaps)))
        if set(found) == chosen:
            break
    else:
        pytest.fail("no start gives these points")
    uniform = [covering_radius(features, select_anchors(40, 5, generator=make_generator(s))) for s in range(9)]
    assert covering_radius(features, torch.tensor(sorted(chosen))) < sorted(uniform)[4]


def test_k_means_finds_the_clusters() -> None:
    centres = 20.0 * torch.eye(4)
    features = torch.cat([centre + 0.1 * gaussian(10, 4, i) for i, centre in enumerate(centres)])
    chosen = select_anchors(features, 4, method="kmeans", generator=make_generator(0))
    assert (chosen // 10).tolist() == [0, 1, 2, 3]
    for place, i in enumerate(chosen.tolist()):
        own = features[10 * place : 10 * place + 10]
        assert i - 10 * place == int((own - own.mean(0)).norm(dim=1).argmin())


@pytest.mark.parametrize("method", ["farthest", "kmeans"])
def test_samples_that_coincide_are_not_taken_twice(method: Any) -> None:
    features = torch.tensor([[0.0, 0.0]] * 6 + [[3.0, 4.0]] * 2)
    chosen = select_anchors(features, 5, method=method, generator=make_generator(0))
    assert len(chosen.unique()) == 5 and int((chosen >= 6).sum()) >= 1


@pytest.mark.parametrize("num_anchors", [0, 11, -1])
def test_a_number_that_cannot_be_is_refused(num_anchors: int) -> None:
    with pytest.raises(ValueError, match="there must be 1 to 10"):
        select_anchors(10, num_anchors, generator=make_generator(0))


def test_what_a_method_needs_is_asked_for() -> None:
    generator = make_generator(0)
    for method in ("farthest", "kmeans"):
        with pytest.raises(ValueError, match="not from a number of samples"):
            select_anchors(10, 2, method=method, generator=generator)  # type: ignore[arg-type]
    for labels in (None, torch.zeros(9)):
        with pytest.raises(ValueError, match="a label for each of 10 samples"):
            select_anchors(10, 2, method="stratified", labels=labels, generator=generator)
    broken = gaussian(10, 2)
    broken[3, 1] = torch.nan
    with pytest.raises(ValueError, match="1 samples have features not finite"):
        select_anchors(broken, 2, method="farthest", generator=generator)
    with pytest.raises(ValueError, match="method must be"):
        select_anchors(10, 2, method="nonsense", generator=generator)  # type: ignore[arg-type]


def test_methods_differ() -> None:
    features, labels = gaussian(60, 4), torch.arange(60) % 2
    found = [
        tuple(select_anchors(features, 9, method=m, labels=labels, generator=make_generator(0)).tolist())
        for m in METHODS
    ]
    assert all(a != b for a, b in combinations(found, 2))
