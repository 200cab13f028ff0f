"""Periodic signals: the seed and the number decide each, and the label is the frequency that is in it."""

from __future__ import annotations

import pytest
import torch

from cdvae_kit.datasets.signals import SignalSettings, periodic_signals

CLEAN = SignalSettings(harmonic=0.0, modulation=0.0, drift=0.0, noise=0.0)


def test_a_signal_depends_on_the_seed_and_its_number_alone() -> None:
    whole, part = periodic_signals(20, seed=3), periodic_signals(5, seed=3, first=12)
    assert torch.equal(whole.series[12:17], part.series) and torch.equal(whole.labels[12:17], part.labels)
    assert not torch.equal(periodic_signals(20, seed=4).series, whole.series)


def test_the_label_is_the_bin_of_the_frequency_and_all_bins_occur() -> None:
    signals = periodic_signals(500, seed=0)
    bins = ((signals.cycles - 2.0) / 0.96).floor().long()
    assert torch.equal(bins, signals.labels) and signals.labels.unique().tolist() == list(range(10))
    place = ((signals.cycles - 2.0) / 0.96).frac()
    assert float(place.min()) > 0.24 and float(place.max()) < 0.76
    close = periodic_signals(500, seed=0, settings=SignalSettings(gap=0.0))
    assert torch.equal(close.labels, signals.labels) and float(((close.cycles - 2.0) / 0.96).frac().min()) < 0.05


def test_the_highest_amplitude_of_a_clean_signal_is_at_its_frequency() -> None:
    signals = periodic_signals(200, seed=0, settings=CLEAN)
    spectrum = torch.fft.rfft(signals.series[:, 0], n=1280).abs()
    assert (spectrum.argmax(1) / 10.0 - signals.cycles).abs().max() < 0.35
    # what the label is not: a signal with another one
    assert (spectrum.argmax(1) / 10.0 - signals.cycles.roll(1)).abs().max() > 2.0


def test_each_ingredient_adds_what_its_settings_say() -> None:
    plain = periodic_signals(400, seed=0, settings=CLEAN).series
    noisy = periodic_signals(
        400, seed=0, settings=SignalSettings(harmonic=0.0, modulation=0.0, drift=0.0, noise=0.7)
    ).series
    drifting = periodic_signals(
        400, seed=0, settings=SignalSettings(harmonic=0.0, modulation=0.0, drift=1.5, noise=0.0)
    ).series
    assert float((noisy - plain).std()) == pytest.approx(0.7, rel=0.02)
    assert float((drifting - plain)[..., -1].square().mean().sqrt()) == pytest.approx(1.5, rel=0.1)


def test_a_law_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="length / 2"):
        SignalSettings(most_cycles=80.0)
    with pytest.raises(ValueError, match="share of a bin"):
        SignalSettings(gap=1.0)
    with pytest.raises(ValueError, match="at least one signal"):
        periodic_signals(0, seed=0)
