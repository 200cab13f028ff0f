"""Intervals that hold what they promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cdvae_kit.models.calibration import Calibration, typical_error
from cdvae_kit.seeding import make_generator


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, spread and truth of an ensemble that is too sure of itself, with heavy tails and uneven errors."""
    generator = make_generator(seed)
    scale = 0.1 + torch.rand(count, 1, generator=generator)
    errors = torch.randn(count, 1, generator=generator) * scale / torch.rand(count, 1, generator=generator).sqrt()
    mean = torch.randn(count, 1, generator=generator)
    return mean, 0.05 * scale, mean + errors


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_intervals_hold_the_share_that_they_were_calibrated_for(coverage: float) -> None:
    shares = []
    for seed in range(40):
        calibration = Calibration(1)
        calibration.fit(*drawn(100, seed), offset=torch.tensor([0.01]), coverage=coverage)
        mean, spread, truth = drawn(1000, 1000 + seed)
        shares.append(float(((truth - mean).abs() <= calibration.half_width(spread)).float().mean()))
    # the distribution of the mean share is a Beta with mean ceil(101 coverage) / 101
    assert coverage - 0.01 <= sum(shares) / len(shares) <= coverage + 0.03


def test_the_spread_alone_would_have_held_far_less() -> None:
    mean, spread, truth = drawn(1000, 5)
    assert ((truth - mean).abs() <= 1.645 * spread).float().mean() < 0.2


def test_the_interval_is_wider_where_the_members_disagree() -> None:
    calibration = Calibration(1)
    calibration.fit(*drawn(100, 0), offset=torch.tensor([0.01]), coverage=0.9)
    width = calibration.half_width(torch.tensor([[0.0], [0.1], [0.2]])).squeeze(1)
    assert (width.diff() > 0).all() and width[0] > 0


def test_too_few_calibration_crystals_are_refused_with_the_number_that_is_needed() -> None:
    mean, spread, truth = drawn(18, 0)
    with pytest.raises(ValueError, match=r"18 calibration crystals.*at least 19"):
        Calibration(1).fit(mean, spread, truth, offset=torch.ones(1), coverage=0.95)
    mean, spread, truth = drawn(19, 0)
    Calibration(1).fit(mean, spread, truth, offset=torch.ones(1), coverage=0.95)


def test_crystals_without_a_value_do_not_calibrate() -> None:
    mean, spread, truth = drawn(60, 0)
    full, holes = Calibration(1), Calibration(1)
    full.fit(mean[:40], spread[:40], truth[:40], offset=torch.ones(1), coverage=0.9)
    truth[40:] = float("nan")
    holes.fit(mean, spread, truth, offset=torch.ones(1), coverage=0.9)
    assert torch.equal(full.quantile, holes.quantile) and holes.num_calibrated.tolist() == [40]


def test_the_typical_error_is_a_median_that_is_never_zero() -> None:
    errors = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [float("nan"), 0.0], [2.0, 0.0]])
    assert typical_error(errors).tolist() == pytest.approx([2.0, 1e-6])
