"""Synthetic ABX3 tables: labels by radii or by hidden groups."""

from __future__ import annotations

import math

import pytest
import torch

from cdvae_kit.datasets.perovskite_tables import equal_bins, perovskite_table


def test_tolerance_labels_rise_with_the_tolerance_factor() -> None:
    table = perovskite_table("tolerance", seed=1)
    a, b, x = table.radii.T
    order = ((a + x) / (math.sqrt(2.0) * (b + x))).argsort()
    assert bool((table.labels[order].diff() >= 0).all())
    # Shannon, six neighbours: Cs+ 1.67, O2- 1.40
    place = {label: number for number, label in enumerate(table.ions[2])}
    assert table.radii[table.tokens[:, 2] == place["O2-"], 2].unique().tolist() == [1.40]


def test_random_labels_hang_on_hidden_groups_and_not_on_radii() -> None:
    table = perovskite_table("random", seed=1, num_cations=12, num_groups=4)
    rows = [tuple(table.labels[table.tokens[:, 0] == ion].tolist()) for ion in range(12)]
    assert len(set(rows)) == 4 and all(rows.count(row) == 3 for row in rows)
    other = perovskite_table("random", seed=2, num_cations=12, num_groups=4)
    assert not torch.equal(other.labels, table.labels)
    # the same ions as under the other rule of the same seed
    assert perovskite_table("tolerance", seed=1, num_cations=12).ions == table.ions


def test_bins_hold_equal_numbers_and_equal_values_share_one() -> None:
    values = torch.arange(12.0).flip(0)
    assert equal_bins(values, 3).bincount().tolist() == [4, 4, 4]
    assert len(equal_bins(torch.ones(9), 3).unique()) == 1
    with pytest.raises(ValueError, match="finite values"):
        equal_bins(torch.tensor([1.0, math.nan]), 2)
    with pytest.raises(ValueError, match="2 finite values or more"):
        equal_bins(torch.tensor([1.0]), 2)


def test_bad_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="tolerance or random"):
        perovskite_table("other", seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cations"):
        perovskite_table("random", seed=0, num_cations=1000)
