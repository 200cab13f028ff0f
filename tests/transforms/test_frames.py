"""Frames: what a basis keeps, where the bounds of a frame are attained, and that the checks can fail."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.frames import FourierBasis, Frame, HaarBasis, MorletFrame

LENGTHS = [1, 2, 3, 8, 37, 64]


def series(length: int, *, num: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(num, 2, length, generator=make_generator(length), dtype=dtype)


def energy(values: Tensor) -> Tensor:
    return values.abs().square().flatten(2).sum(-1)


def sine(cycles: float, length: int, *, turn: float = 0.0) -> Tensor:
    turns = turn + cycles * torch.arange(length, dtype=torch.float64) / length
    return (2.0 * math.pi * turns).sin()[None, None]


def gram(frame: Frame, length: int) -> Tensor:
    """Inner products of the coefficients of unit vectors: the identity for an orthonormal basis."""
    units = torch.eye(length, dtype=torch.float64)[:, None]
    found = frame.coefficients(units).flatten(1)
    return (found @ found.conj().T).real


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("basis", [FourierBasis(), HaarBasis()])
def test_a_basis_keeps_lengths_and_angles(basis: Frame, length: int) -> None:
    assert torch.allclose(gram(basis, length), torch.eye(length, dtype=torch.float64), atol=1e-12)
    x = series(length)
    assert torch.allclose(energy(basis.coefficients(x)), energy(x)) and basis.bounds(length) == (1.0, 1.0)


def test_without_the_root_of_two_parseval_fails() -> None:
    x = series(64)
    assert not torch.allclose(energy(torch.fft.rfft(x, norm="ortho")), energy(x), rtol=0.2)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("frame", [FourierBasis(), HaarBasis(), MorletFrame(num_scales=20, max_scale=64.0)])
def test_coefficients_are_linear_and_give_the_series_back(frame: Frame, length: int) -> None:
    x, y = series(length), series(length, num=6).flip(0)
    both = frame.coefficients(2.0 * x - y)
    assert torch.allclose(both, 2.0 * frame.coefficients(x) - frame.coefficients(y), atol=1e-12)
    # the mean is all but outside of the wavelets: its digits are few
    assert torch.allclose(frame.reconstruct(frame.coefficients(x), length=length), x, atol=1e-8)
    assert not torch.allclose(frame.reconstruct(frame.coefficients(x) * 1.01, length=length), x, atol=1e-8)


@pytest.mark.parametrize("frame", [FourierBasis(), HaarBasis(), MorletFrame(num_scales=4, max_scale=8.0)])
def test_float32_comes_out_as_it_came_in(frame: Frame) -> None:
    x = series(37, dtype=torch.float32)
    view = frame(x)
    assert view.dtype == torch.float32 and view.shape[0] == len(x)
    assert torch.allclose(view.double(), frame(x.double()), atol=1e-4)


@pytest.mark.parametrize("length", [37, 64])
def test_energies_lie_between_the_bounds_of_the_frame_and_sines_attain_them(length: int) -> None:
    frame = MorletFrame(num_scales=12, min_scale=2.0, max_scale=20.0)
    low, high = 0.05, 0.5
    lower, upper = frame.bounds(length, low=low, high=high)
    spectrum = torch.fft.rfft(series(length, num=50))
    frequencies = torch.fft.rfftfreq(length, dtype=torch.float64)
    x = torch.fft.irfft(spectrum * (frequencies >= low), n=length)
    ratios = energy(frame.coefficients(x)) / energy(x)
    assert float(ratios.min()) >= lower - 1e-12 and float(ratios.max()) <= upper + 1e-12
    # cosines, since the fastest sine vanishes at every point
    waves = [sine(k, length, turn=0.25) for k in range(math.ceil(low * length), length // 2 + 1)]
    alone = [float(energy(frame.coefficients(wave)) / energy(wave)) for wave in waves]
    assert min(alone) == pytest.approx(lower) and max(alone) == pytest.approx(upper)


def test_out_of_band_it_is_no_frame() -> None:
    frame = MorletFrame(num_scales=12, max_scale=16.0)
    lower, _ = frame.bounds(128)
    assert lower < 1e-6
    slow = sine(1, 128)
    assert float(energy(frame.coefficients(slow)) / energy(slow)) < 1e-3
    with pytest.raises(ValueError, match="no frequency"):
        frame.bounds(16, low=0.01, high=0.02)


def test_more_scales_make_the_frame_more_redundant_and_less_uneven() -> None:
    few, many = (MorletFrame(num_scales=n, max_scale=64.0).bounds(128, low=0.03, high=0.4) for n in (6, 48))
    assert many[0] > few[0] and many[1] / many[0] < few[1] / few[0]


@pytest.mark.parametrize("scale", [4.0, 7.3])
def test_a_scale_is_the_convolution_with_its_wavelet(scale: float) -> None:
    length, bandwidth = 64, 1.0
    frame = MorletFrame(num_scales=1, min_scale=scale, max_scale=scale, bandwidth=bandwidth)
    x = series(length, num=1)
    time = torch.arange(-5 * length, 5 * length, dtype=torch.float64) / scale
    envelope = torch.exp(-(time**2) / bandwidth) / math.sqrt(math.pi * bandwidth) / scale
    wavelet = torch.polar(envelope, 2.0 * math.pi * time)
    periodic = wavelet.reshape(-1, length).sum(0)  # of t modulo the length
    direct = torch.stack([(x * periodic.conj().roll(shift)).sum(-1) for shift in range(length)], dim=-1)
    # the root of two stands for the negative frequencies that are left out
    expected = math.sqrt(2.0) * (direct - direct.mean(-1, keepdim=True))
    found = frame.coefficients(x)[:, :, 0]
    assert torch.allclose(found - found.mean(-1, keepdim=True), expected, atol=5e-4)
    assert not torch.allclose(found, expected / math.sqrt(2.0), atol=5e-2)


def test_a_sine_has_its_largest_magnitude_at_its_own_scale_and_one_size_at_any_frequency() -> None:
    frame = MorletFrame(num_scales=60, max_scale=64.0)
    peaks = []
    for cycles in (4, 8, 16):
        view = frame(sine(cycles, 128))[0, 0]
        best = int(view.mean(-1).argmax())
        assert float(frame.scales[best]) == pytest.approx(128 / cycles, rel=0.06)
        peaks.append(float(view.mean(-1).max()))
    assert max(peaks) / min(peaks) < 1.01


@pytest.mark.parametrize(("frame", "moves"), [(FourierBasis(), False), (MorletFrame(num_scales=8), True)])
def test_a_shift_moves_the_magnitudes_of_wavelets_and_not_those_of_the_spectrum(frame: Frame, moves: bool) -> None:
    x = series(32)
    amplitudes, shifted = (frame.coefficients(y).abs() for y in (x, x.roll(5, -1)))
    assert torch.allclose(shifted, amplitudes.roll(5, -1) if moves else amplitudes)
    assert not torch.allclose(shifted, amplitudes if moves else amplitudes.roll(5, -1))


def test_views_of_bases_tell_a_series_from_its_negative_and_magnitudes_do_not() -> None:
    x = series(32)
    for basis in (FourierBasis(), HaarBasis()):
        assert not torch.allclose(basis(x), basis(-x))
    frame = MorletFrame(num_scales=8)
    assert torch.allclose(frame(x), frame(-x))


def test_a_haar_picture_holds_each_coefficient_where_its_block_lies() -> None:
    # blocks of 1, 2 and 2 + 1 points: the last point waits for the third level
    x = torch.tensor([[[1.0, 3.0, 5.0, 5.0, 2.0]]])
    view = HaarBasis()(x)[0, 0]
    root = math.sqrt
    levels = [
        [-2 / root(2), -2 / root(2), 0, 0, 0],
        [-3, -3, -3, -3, 0],
        [(root(0.2) * 7.0 - root(0.8) * 2.0)] * 5,
        [16 / root(5)] * 5,
    ]
    assert torch.allclose(view, torch.tensor(levels), atol=1e-6)


def test_frames_refuse_what_they_cannot_take() -> None:
    with pytest.raises(ValueError, match="expected series"):
        FourierBasis()(torch.zeros(3, 8))
    with pytest.raises(ValueError, match="min_scale <= max_scale"):
        MorletFrame(min_scale=8.0, max_scale=4.0)
    with pytest.raises(ValueError, match="must be positive"):
        MorletFrame(bandwidth=0.0)
    for frame in (FourierBasis(), HaarBasis(), MorletFrame(num_scales=3)):
        with pytest.raises(ValueError, match="coefficients"):
            frame.reconstruct(frame.coefficients(series(8)), length=12)
