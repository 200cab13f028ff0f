"""Periodic signals whose frequency is known: a heart rate under drift and noise, without a file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cdvae_kit.transforms.base import IndexedDraws, normal, uniform


@dataclass(frozen=True)
class SignalSettings:
    """What a signal is made of; the class is the bin of its frequency.

    x(t) = A (1 + m sin(2π a t + α)) (sin(2πνt + φ) + h sin(4πνt + χ)) + drift + noise, t in [0, 1) and all angles
    uniform.

    Attributes:
        num_classes: bins of equal width.
        length: points.
        fewest_cycles: the lower end of the first bin, periods in the whole series.
        most_cycles: the upper end of the last bin.
        gap: share of a bin, half of it at either end, in which no frequency lies.
        amplitude: standard deviation of log A.
        harmonic: h is uniform up to it.
        modulation: m is uniform up to it; a is uniform in [0.5, 2] periods.
        drift: root mean square over draws of the last point of a random walk from 0.
        noise: standard deviation of the white noise.
    """

    num_classes: int = 10
    length: int = 128
    fewest_cycles: float = 2.0
    most_cycles: float = 11.6
    gap: float = 0.5
    amplitude: float = 0.3
    harmonic: float = 0.6
    modulation: float = 0.5
    drift: float = 0.5
    noise: float = 0.5

    def __post_init__(self) -> None:
        if self.num_classes < 2 or not 0.0 < self.fewest_cycles < self.most_cycles <= self.length / 2:
            raise ValueError(
                "expected at least 2 classes and 0 < fewest_cycles < most_cycles <= length / 2, got "
                f"{self.num_classes}, {self.fewest_cycles}, {self.most_cycles}, length {self.length}"
            )
        if not 0.0 <= self.gap < 1.0:
            raise ValueError(f"the gap is a share of a bin, in [0, 1), got {self.gap}")


@dataclass(frozen=True)
class PeriodicSignals:
    """Signals with what they are.

    Attributes:
        series: (n, 1, length) float32.
        labels: (n,) long, the bin of the frequency.
        cycles: (n,) the frequency ν, periods in the whole series.
    """

    series: Tensor
    labels: Tensor
    cycles: Tensor


def periodic_signals(
    num_signals: int, *, seed: int, first: int = 0, settings: SignalSettings | None = None
) -> PeriodicSignals:
    """Signals number `first`, `first` + 1, ... of a seed; each depends on the seed and its number alone.

    Args:
        num_signals: at least 1.
        seed: of the set.
        first: the number of the first one; a test set goes on where the training set ends.
        settings: what a signal is made of.

    >>> signals = periodic_signals(4, seed=0)
    >>> signals.series.shape, torch.equal(periodic_signals(1, seed=0, first=3).series, signals.series[3:])
    (torch.Size([4, 1, 128]), True)
    """
    settings = settings or SignalSettings()
    if num_signals < 1 or first < 0:
        raise ValueError(f"expected at least one signal and a number from 0, got {num_signals} and {first}")
    draws = IndexedDraws(seed, torch.arange(first, first + num_signals))
    time = torch.arange(settings.length) / settings.length

    place = uniform(draws, num_signals, 1) * settings.num_classes
    # a draw may round up to the very end of the last bin
    labels = place.long().clamp_max(settings.num_classes - 1)
    within = 0.5 * settings.gap + (1.0 - settings.gap) * (place - labels)
    cycles = settings.fewest_cycles + (settings.most_cycles - settings.fewest_cycles) / settings.num_classes * (
        labels + within
    )

    angles = uniform(draws, num_signals, 3, high=2.0 * math.pi)
    amplitude = (settings.amplitude * normal(draws, num_signals, 1)).exp()
    harmonic = uniform(draws, num_signals, 1, high=settings.harmonic)
    modulation = uniform(draws, num_signals, 1, high=settings.modulation)
    pace = uniform(draws, num_signals, 1, low=0.5, high=2.0)
    steps = normal(draws, num_signals, settings.length) * (settings.drift / math.sqrt(settings.length))
    noise = normal(draws, num_signals, settings.length) * settings.noise

    turns = 2.0 * math.pi * time
    wave = (turns * cycles + angles[:, :1]).sin() + harmonic * (2.0 * turns * cycles + angles[:, 1:2]).sin()
    envelope = amplitude * (1.0 + modulation * (turns * pace + angles[:, 2:]).sin())
    series = envelope * wave + steps.cumsum(1) + noise
    return PeriodicSignals(series[:, None], labels[:, 0], cycles[:, 0])
