"""How far a rate or a mean over crystals may be off because the set is finite.

The percentile bootstrap (Efron, Ann. Stat. 7, 1 (1979), doi 10.1214/aos/1176344552) over crystals, and Wilson's
interval for rates near 0 or 1, where resampling sees no spread at all. What differs between runs (training seeds,
sampling seeds) is not in either: repeat the run for that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_VALUES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        value: of the set as it is; None without a value in it.
        low: lower end, None likewise.
        high: upper end.
        num_crystals: that the estimate rests on.
        level: share of sets of this size whose interval holds the true value.
    """

    value: float | None
    low: float | None
    high: float | None
    num_crystals: int
    level: float = 0.95

    def __str__(self) -> str:
        if self.value is None:
            return "no value"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(
    values: Sequence[float] | Sequence[bool] | np.ndarray,
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of one value a crystal (a flag for a rate) with its percentile bootstrap interval; NaN is left out.

    A rate of exactly 0 or 1 has no spread to resample: its interval is `wilson_interval`'s.

    >>> print(bootstrap_interval([True] * 90 + [False] * 10))
    0.900 [0.840, 0.960]
    """
    _check_level(level)
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    raw = np.asarray(values)
    if raw.ndim != 1:
        raise ValueError(f"one value a crystal is expected, got an array {raw.shape}")
    data = raw.astype(np.float64)
    data = data[~np.isnan(data)]
    if not len(data):
        return Interval(None, None, None, 0, level)
    generator = np.random.default_rng(seed)
    tails = [50 * (1 - level), 50 * (1 + level)]
    if np.isin(data, (0.0, 1.0)).all():
        successes = int(data.sum())
        if successes in (0, len(data)):
            return wilson_interval(successes, len(data), level=level)
        # the sum over a resample of flags is a binomial number
        means = generator.binomial(len(data), successes / len(data), num_resamples) / len(data)
    else:
        rows = max(1, _VALUES_AT_ONCE // len(data))
        means = np.concatenate(
            [
                data[generator.integers(len(data), size=(min(rows, num_resamples - start), len(data)))].mean(axis=1)
                for start in range(0, num_resamples, rows)
            ]
        )
    low, high = np.percentile(means, tails)
    return Interval(float(data.mean()), float(low), float(high), len(data), level)


def wilson_interval(successes: int, num_crystals: int, *, level: float = 0.95) -> Interval:
    """A rate with Wilson's score interval (J. Am. Stat. Assoc. 22, 209 (1927)).

    >>> print(wilson_interval(100, 100))
    1.000 [0.963, 1.000]
    """
    _check_level(level)
    if not 0 <= successes <= num_crystals:
        raise ValueError(f"successes must lie in 0..{num_crystals}, the number of crystals, got {successes}")
    if num_crystals == 0:
        return Interval(None, None, None, 0, level)
    from scipy.special import ndtri

    z = float(ndtri(0.5 + level / 2))
    rate = successes / num_crystals
    shrink = 1 + z**2 / num_crystals
    center = (rate + z**2 / (2 * num_crystals)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / num_crystals + z**2 / (4 * num_crystals**2)) / shrink
    # at both ends the formula is exact but rounding is not
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == num_crystals else min(1.0, center + half)
    return Interval(rate, low, high, num_crystals, level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
