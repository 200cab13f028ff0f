"""Random fields: spectrum, variance, mean, reality, periodicity in distribution, seeds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import IndexedDraws
from cdvae_kit.transforms.random_field import gaussian_random_field, power_spectrum, wavenumbers


def measured_power(field: Tensor) -> Tensor:
    axes = tuple(range(1, field.ndim))
    return torch.fft.fftn(field, dim=axes, norm="ortho").abs().square().mean(0)


@pytest.mark.parametrize("exponent", [2.0, 3.0, 4.0, 6.0])
def test_the_slope_of_the_spectrum_is_minus_the_exponent(exponent: float) -> None:
    white = torch.float64
    field = gaussian_random_field(
        [64, 64], exponent=exponent, num_fields=64, generator=make_generator(0), like=torch.zeros(1, dtype=white)
    )
    k, power = wavenumbers([64, 64]), measured_power(field)
    inside = (k >= 1.0) & (k <= 31.0)
    rings = k[inside].round().long()
    # the mean of power · k^exponent over a ring is flat; its slope is the error of the fitted one
    flat = torch.zeros(32).double().index_add(0, rings, power[inside] * k[inside] ** exponent) / rings.bincount()
    x, y = torch.arange(1, 32).double().log(), flat[1:].log()
    weight = rings.bincount()[1:].double()
    x_mean, y_mean = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
    slope = (weight * (x - x_mean) * (y - y_mean)).sum() / (weight * (x - x_mean) ** 2).sum()
    assert abs(float(slope)) < 0.02, f"fitted slope {float(slope) - exponent}"


@pytest.mark.parametrize(
    ("shape", "exponent", "largest", "num"),
    [
        ([64], 2.0, None, 20000),
        ([32, 32], 4.0, None, 8000),
        ([32, 32], 0.0, None, 100),
        ([17, 24], 3.0, 4, 4000),
        ([9, 12, 10], 4.0, 3, 3000),
        ([6, 5, 4, 7], 2.0, None, 800),
    ],
)
def test_the_variance_is_one_and_the_mean_is_zero_in_any_dimension(
    shape: list[int], exponent: float, largest: int | None, num: int
) -> None:
    field = gaussian_random_field(
        shape, exponent=exponent, num_fields=num, max_wavenumber=largest, generator=make_generator(1)
    )
    assert field.shape == (num, *shape)
    assert field.square().mean().item() == pytest.approx(1.0, abs=0.02)
    axes = tuple(range(1, field.ndim))
    assert field.mean(axes).abs().max().item() < 1e-6
    # a single draw keeps a variance of its own: nothing is normalised sample by sample
    assert field.square().mean(axes).std().item() > 0.0


def test_no_wave_is_shorter_than_the_band_allows() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    field = gaussian_random_field(
        [32, 32], exponent=1.0, num_fields=8, max_wavenumber=5, generator=make_generator(0), like=like
    )
    k, power = wavenumbers([32, 32]), measured_power(field)
    assert power[(k > 5.0)].max() < 1e-20 and power[0, 0] < 1e-20
    assert power[(k >= 1.0) & (k <= 5.0)].min() > 1e-3


def test_the_law_knows_no_place_not_even_the_border() -> None:
    field = gaussian_random_field([16, 16], exponent=3.0, num_fields=20000, generator=make_generator(0))
    variance = field.square().mean(0)
    assert variance.max() - variance.min() < 0.15
    # neighbours across the seam are as alike as neighbours within
    within = (field[:, :, 7] * field[:, :, 8]).mean().item()
    across = (field[:, :, 0] * field[:, :, 15]).mean().item()
    far = (field[:, :, 0] * field[:, :, 8]).mean().item()
    assert across == pytest.approx(within, abs=0.03) and far < 0.2 < within


def test_a_larger_exponent_is_smoother() -> None:
    def roughness(exponent: float) -> float:
        field = gaussian_random_field([32, 32], exponent=exponent, num_fields=200, generator=make_generator(0))
        return float((field - field.roll(1, 2)).square().mean())

    assert roughness(0.0) > roughness(2.0) > roughness(4.0) > roughness(6.0)


def test_white_noise_has_no_memory() -> None:
    field = gaussian_random_field([32, 32], exponent=0.0, num_fields=200, generator=make_generator(0))
    assert abs((field * field.roll(1, 2)).mean().item()) < 0.01


def test_the_seed_decides_the_field_and_an_index_does_in_any_batch() -> None:
    def draw(seed: int) -> Tensor:
        return gaussian_random_field([8, 8], num_fields=3, generator=make_generator(seed))

    assert torch.equal(draw(0), draw(0)) and not torch.allclose(draw(0), draw(1))
    whole = gaussian_random_field([8, 8], num_fields=3, generator=IndexedDraws(0, torch.arange(3)))
    last = gaussian_random_field([8, 8], num_fields=1, generator=IndexedDraws(0, torch.tensor([2])))
    assert torch.allclose(whole[2], last[0], atol=1e-6)


def test_no_field_at_all_is_an_empty_tensor() -> None:
    assert gaussian_random_field([8, 6], num_fields=0, generator=make_generator(0)).shape == (0, 8, 6)


def test_the_spectrum_is_normalised_by_its_sum() -> None:
    for shape in ([8], [7, 10], [4, 5, 6]):
        assert power_spectrum(shape, exponent=3.0).mean().item() == pytest.approx(1.0)
        assert power_spectrum(shape, exponent=3.0).flatten()[0] == 0.0


@pytest.mark.parametrize(
    ("shape", "exponent", "largest", "words"),
    [
        ([], 4.0, None, "two points"),
        ([1, 1], 4.0, None, "two points"),
        ([8, 0], 4.0, None, "two points"),
        ([8, 8], float("nan"), None, "exponent"),
        ([8, 8], 4.0, 0.5, "wave number"),
    ],
)
def test_a_field_that_cannot_be_is_refused(
    shape: list[int], exponent: float, largest: float | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        gaussian_random_field(
            shape, exponent=exponent, num_fields=1, max_wavenumber=largest, generator=make_generator(0)
        )
