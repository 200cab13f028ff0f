"""Gaussian random fields: smooth noise with a power-law spectrum, on a periodic grid of any dimension.

Mansfield et al., "Random field augmentations for self-supervised representation learning" (NeurReps 2023, PMLR 228,
arXiv 2311.03629) let the parameters of an augmentation be such fields. The spectrum is ours: the one that makes the
ordinary augmentation its limit. The transforms that use the fields stand with their kind of data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cdvae_kit.transforms.base import Generator, normal


def wavenumbers(shape: Sequence[int], *, device: torch.device | str = "cpu") -> Tensor:
    """(*shape) float64: the length |k| of the integer wave vector of each entry of a full FFT."""
    axes = [torch.fft.fftfreq(n, d=1.0 / n, device=device, dtype=torch.float64) for n in shape]
    squares = torch.zeros(tuple(shape), dtype=torch.float64, device=device)
    for i, axis in enumerate(axes):
        squares = squares + axis.square().reshape([-1 if j == i else 1 for j in range(len(shape))])
    return squares.sqrt()


def power_spectrum(shape: Sequence[int], *, exponent: float, max_wavenumber: float | None = None) -> Tensor:
    """(*shape) float64: the mean square of each Fourier coefficient under `norm="ortho"`.

    P(k) = |k|^−exponent for 1 ≤ |k| ≤ max_wavenumber, 0 elsewhere, over its mean, so that the field has the variance 1
    by expectation. A single draw keeps a variance of its own.
    """
    shape = tuple(shape)
    if not shape or min(shape) < 1 or math.prod(shape) < 2:
        raise ValueError(f"a field needs a grid of at least two points, got the shape {list(shape)}")
    if not math.isfinite(exponent):
        raise ValueError(f"the exponent of a spectrum must be finite, got {exponent}")
    if max_wavenumber is not None and not max_wavenumber >= 1.0:
        raise ValueError(f"the largest wave number must be at least 1, the longest wave, got {max_wavenumber}")
    k = wavenumbers(shape)
    inside = (k >= 1.0) if max_wavenumber is None else (k >= 1.0) & (k <= max_wavenumber)
    power = torch.where(inside, k.clamp_min(1.0) ** -exponent, 0.0)
    return power / power.mean()


def gaussian_random_field(
    shape: Sequence[int],
    *,
    exponent: float = 4.0,
    num_fields: int,
    max_wavenumber: float | None = None,
    generator: Generator,
    like: Tensor | None = None,
) -> Tensor:
    """(num_fields, *shape): independent periodic fields of mean 0 exactly and variance 1 by expectation.

    White noise through a real, even filter, so that the field is real and its distribution is the same everywhere.

    Args:
        shape: of the grid, any dimension.
        exponent: of the spectrum |k|^−exponent; 0 is white, above d + 2 the field is differentiable.
        num_fields: one row each; with `IndexedDraws` the number of samples.
        max_wavenumber: no waves shorter than the side over this; None for all that the grid holds.
        generator: of the white noise.
        like: a tensor whose device and float type the fields take.

    >>> from cdvae_kit.seeding import make_generator
    >>> field = gaussian_random_field([8, 8], num_fields=2, generator=make_generator(0))
    >>> field.shape, bool(field.mean((1, 2)).abs().max() < 1e-6)
    (torch.Size([2, 8, 8]), True)
    """
    shape = tuple(shape)
    amplitude = power_spectrum(shape, exponent=exponent, max_wavenumber=max_wavenumber).sqrt()
    noise = normal(generator, num_fields, *shape, like=like)
    if not len(noise):
        return noise  # some FFTs refuse an empty batch
    axes = tuple(range(1, len(shape) + 1))
    # a real transform holds half of the last axis
    half = amplitude[..., : shape[-1] // 2 + 1].to(device=noise.device, dtype=noise.dtype)
    field = torch.fft.irfftn(torch.fft.rfftn(noise, dim=axes) * half, s=shape, dim=axes)
    # what rounding leaves of the mean
    return field - field.mean(axes, keepdim=True)
