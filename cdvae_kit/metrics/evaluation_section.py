"""One part of an evaluation while it is put together: its numbers, and a verdict or a value for each crystal.

The parts themselves are in `evaluation_sections`; what they add up to is `evaluation_result.Evaluation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cdvae_kit.metrics.evaluation_result import Distribution, MetricValue, SectionName
from cdvae_kit.metrics.intervals import bootstrap_interval


@dataclass(frozen=True)
class Section:
    """What one part found.

    Attributes:
        metrics: in the order in which they are shown.
        verdicts: name to one flag a generated crystal, None where it was not judged.
        values: name to (num_generated,) numbers, NaN where there is none.
        reasons: what is wrong with each generated crystal, None where nothing is; () where the part gives none.
        distributions: of both sets.
    """

    metrics: Sequence[MetricValue] = ()
    verdicts: Mapping[str, Sequence[bool | None]] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    reasons: Sequence[str | None] = ()
    distributions: Sequence[Distribution] = ()


def rate(
    name: str, flags: Sequence[bool] | np.ndarray, section: SectionName, *, seed: int, note: str = ""
) -> MetricValue:
    """Share of crystals with a flag, over all of them, with its bootstrap interval; 0 of no crystals, as published."""
    interval = bootstrap_interval(np.asarray(flags, dtype=bool), seed=seed)
    if interval.value is None:
        return MetricValue(name, 0.0, None, None, 0, section, note or "there is no crystal")
    return MetricValue(name, interval.value, interval.low, interval.high, interval.num_crystals, section, note)


def mean(name: str, values: Sequence[float] | np.ndarray, section: SectionName, *, seed: int, note: str) -> MetricValue:
    """Mean over the crystals that have a value, with its bootstrap interval; `note` is kept where there is one."""
    interval = bootstrap_interval(np.asarray(values, dtype=np.float64), seed=seed)
    return MetricValue(name, interval.value, interval.low, interval.high, interval.num_crystals, section, note)


def number(name: str, value: float | None, num_crystals: int, section: SectionName, *, note: str = "") -> MetricValue:
    """A number without an interval."""
    return MetricValue(name, value, None, None, num_crystals, section, note)


def missing(name: str, section: SectionName, reason: str) -> MetricValue:
    """A number that there is none of, and why."""
    return MetricValue(name, None, None, None, 0, section, reason)
