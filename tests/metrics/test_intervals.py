"""Confidence intervals: how often they hold the truth, and what happens at the ends."""

import numpy as np
import pytest
from scipy.stats import binomtest

from cdvae_kit.metrics import bootstrap_interval, wilson_interval


def test_a_rate_lies_in_its_interval_as_often_as_promised():
    generator = np.random.default_rng(0)
    rate, held = 0.7, 0
    for trial in range(400):
        interval = bootstrap_interval(generator.random(200) < rate, level=0.9, num_resamples=400, seed=trial)
        held += interval.low <= rate <= interval.high
    # 0.9 +- 3 standard deviations of 400 trials
    assert abs(held / 400 - 0.9) < 0.05


def test_a_mean_lies_in_its_interval_as_often_as_promised():
    generator = np.random.default_rng(1)
    held = 0
    for trial in range(400):
        interval = bootstrap_interval(generator.exponential(size=200), level=0.9, num_resamples=200, seed=trial)
        held += interval.low <= 1.0 <= interval.high
    assert abs(held / 400 - 0.9) < 0.055


def test_the_width_shrinks_with_the_root_of_the_number():
    few, many = (bootstrap_interval([True, False] * n, num_resamples=20_000) for n in (100, 1600))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4.0, rel=0.1)


def test_flags_and_the_same_numbers_agree():
    flags = [True] * 30 + [False] * 70
    as_flags = bootstrap_interval(flags, num_resamples=20_000)
    # 1e-9 takes the way of general values
    as_values = bootstrap_interval(np.array(flags) + 1e-9, num_resamples=20_000)
    assert as_flags.low == pytest.approx(as_values.low, abs=0.011)
    assert as_flags.high == pytest.approx(as_values.high, abs=0.011)


@pytest.mark.parametrize(("successes", "number"), [(0, 50), (50, 50), (3, 40), (1, 1), (777, 1000)])
def test_wilson_is_scipys(successes, number):
    theirs = binomtest(successes, number).proportion_ci(method="wilson")
    ours = wilson_interval(successes, number)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("flag", [True, False])
def test_a_rate_at_an_end_still_has_a_width(flag):
    interval = bootstrap_interval([flag] * 20)
    assert interval.value == float(flag)
    assert interval.high - interval.low > 0.1


def test_seeds_repeat_and_differ():
    values = np.random.default_rng(2).normal(size=50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_missing_values_leave_the_denominator():
    assert bootstrap_interval([1.0, float("nan"), 0.0]).num_crystals == 2


def test_no_crystals_have_no_interval():
    assert str(bootstrap_interval([])) == str(wilson_interval(0, 0)) == "no value"


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        bootstrap_interval([True], level=95)
    with pytest.raises(ValueError, match=r"successes must lie in 0\.\.10"):
        wilson_interval(11, 10)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        bootstrap_interval([True], num_resamples=0)
    with pytest.raises(ValueError, match="one value a crystal"):
        bootstrap_interval(np.ones((2, 2)))
