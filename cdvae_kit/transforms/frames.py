"""Frames: fixed linear maps of series (b, c, t) to coefficients, and the picture of them that an encoder is shown.

No parameters and no randomness: they are views of one sample, not changes of it. A basis keeps the length of a vector,
a frame keeps it between two bounds, A‖x‖² ≤ Σ|c|² ≤ B‖x‖², and both can be undone. Random changes of series are in
`time_series`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from cdvae_kit.transforms.time_series import check_series


class Frame(ABC):
    """A linear map of series to coefficients; called with series, it gives the real view of them.

    A view may hold less than the coefficients do: magnitudes have no phase.
    """

    @abstractmethod
    def coefficients(self, series: Tensor) -> Tensor:
        """Series (b, c, t) to coefficients (b, c, ...), linear in them."""

    @abstractmethod
    def reconstruct(self, coefficients: Tensor, *, length: int) -> Tensor:
        """The series (b, c, t) of that length with these coefficients; where there is none, the nearest one's."""

    @abstractmethod
    def bounds(self, length: int) -> tuple[float, float]:
        """The largest A and the smallest B with A‖x‖² ≤ Σ|c|² ≤ B‖x‖² for every real series of that length."""

    @abstractmethod
    def __call__(self, series: Tensor) -> Tensor:
        """Series (b, c, t) to their view (b, ...), real, for an encoder."""


class FourierBasis(Frame):
    """The orthonormal Fourier basis of real series; the view is amplitude and phase (b, 2c, t // 2 + 1).

    Coefficients (b, c, t // 2 + 1) are complex, one for each frequency from 0. Those that stand for two frequencies of
    opposite sign are √2 times what `torch.fft.rfft(norm="ortho")` gives, so that Σ|c|² = ‖x‖² (Parseval). The phase is
    in (−π, π], and noise where the amplitude vanishes.

    >>> x = torch.tensor([[[3.0, -1.0, 2.0, 0.5]]])
    >>> FourierBasis().coefficients(x).abs().square().sum(-1), x.square().sum(-1)
    (tensor([[14.2500]]), tensor([[14.2500]]))
    """

    def coefficients(self, series: Tensor) -> Tensor:
        check_series(series)
        return torch.fft.rfft(series, norm="ortho") * _multiplicity(series.shape[-1], like=series).sqrt()

    def reconstruct(self, coefficients: Tensor, *, length: int) -> Tensor:
        if coefficients.shape[-1] != length // 2 + 1:
            raise ValueError(
                f"a series of {length} points has {length // 2 + 1} coefficients, got {coefficients.shape[-1]}"
            )
        weights = _multiplicity(length, like=coefficients.real).rsqrt()
        return torch.fft.irfft(coefficients * weights, n=length, norm="ortho")

    def bounds(self, length: int) -> tuple[float, float]:
        return 1.0, 1.0

    def __call__(self, series: Tensor) -> Tensor:
        coefficients = self.coefficients(series)
        return torch.cat([coefficients.abs(), coefficients.angle()], dim=1)


def _multiplicity(length: int, *, like: Tensor) -> Tensor:
    """How many frequencies of the full transform each one of the half transform stands for: 1 at its ends, else 2."""
    weights = like.new_full((length // 2 + 1,), 2.0)
    weights[0] = 1.0
    if length % 2 == 0:
        weights[-1] = 1.0
    return weights


class MorletFrame(Frame):
    """An overcomplete frame of complex Morlet wavelets; the view is their magnitude (b, c, num_scales, t).

    The wavelet is ψ(t) = (πB)^(−1/2) exp(−t²/B) exp(2πiCt) with bandwidth B and centre C, its transform
    exp(−π²B(f − C)²). It is shifted to each point and stretched to each scale s, where it sees the frequency C/s.
    Series are taken as periodic. What differs from a textbook's continuous wavelet transform: wavelets are divided by s
    and not by √s, so that a sine gives one magnitude whatever its frequency and the bounds do not part with the number
    of octaves; negative frequencies, where ψ of centre 1 and bandwidth 1 is below 1e-4, are left out.

    Whether it is a frame depends on the frequencies that a series has: the mean lies outside of all wavelets, and so
    does what is slower than the last scale. `bounds` may be asked for a band. The magnitude alone does not tell x from
    −x.

    Args:
        num_scales: geometric from the least to the largest.
        min_scale: in points; scales below 2C look beyond the highest frequency that a series has.
        max_scale: in points.
        bandwidth: B.
        center: C.

    >>> MorletFrame(num_scales=24, max_scale=64.0)(torch.zeros(2, 1, 128)).shape
    torch.Size([2, 1, 24, 128])
    """

    def __init__(
        self,
        *,
        num_scales: int = 48,
        min_scale: float = 2.0,
        max_scale: float = 128.0,
        bandwidth: float = 1.0,
        center: float = 1.0,
    ) -> None:
        if num_scales < 1 or not 0.0 < min_scale <= max_scale < math.inf:
            raise ValueError(
                f"expected a scale or more and 0 < min_scale <= max_scale, got {num_scales}, {min_scale}, {max_scale}"
            )
        if not (bandwidth > 0.0 and center > 0.0):
            raise ValueError(f"bandwidth and centre must be positive, got {bandwidth} and {center}")
        self.scales = torch.logspace(math.log10(min_scale), math.log10(max_scale), num_scales, dtype=torch.float64)
        self.bandwidth = bandwidth
        self.center = center

    def responses(self, length: int) -> Tensor:
        """(scales, f) float64: what a scale makes of each frequency k / length, k from 0 to length // 2; at most 1."""
        frequencies = torch.arange(length // 2 + 1, dtype=torch.float64) / length
        offset = self.scales[:, None] * frequencies - self.center
        return (-(math.pi**2) * self.bandwidth * offset.square()).exp()

    def coefficients(self, series: Tensor) -> Tensor:
        """Series (b, c, t) to complex (b, c, num_scales, t)."""
        spectrum = FourierBasis().coefficients(series)
        length = series.shape[-1]
        filtered = spectrum[:, :, None] * self.responses(length).to(series)
        # zeros stand for the negative frequencies
        return torch.fft.ifft(filtered, n=length, norm="ortho")

    def reconstruct(self, coefficients: Tensor, *, length: int) -> Tensor:
        """The series by the canonical dual frame; what no wavelet sees comes back as zero."""
        if coefficients.ndim != 4 or coefficients.shape[2:] != (len(self.scales), length):
            raise ValueError(
                f"expected coefficients (b, c, {len(self.scales)}, {length}), got {tuple(coefficients.shape)}"
            )
        responses = self.responses(length).to(coefficients.real)
        spectra = torch.fft.fft(coefficients, norm="ortho")[..., : length // 2 + 1]
        total = responses.square().sum(0)
        floor = torch.finfo(total.dtype).eps * total.max()
        spectrum = (spectra * responses).sum(2) / total.where(total > floor, torch.inf)
        return FourierBasis().reconstruct(spectrum, length=length)

    def bounds(self, length: int, *, low: float = 0.0, high: float = 0.5) -> tuple[float, float]:
        """The bounds A and B for series whose frequencies all lie in [low, high], in cycles a point.

        Shifts by every point make the frame operator diagonal in the Fourier basis: the bounds are its smallest and
        its largest entry, and a sine of that frequency attains them.
        """
        frequencies = torch.arange(length // 2 + 1, dtype=torch.float64) / length
        inside = (frequencies >= low) & (frequencies <= high)
        if not bool(inside.any()):
            raise ValueError(f"a series of {length} points has no frequency in [{low}, {high}]")
        total = self.responses(length).square().sum(0)[inside]
        return float(total.min()), float(total.max())

    def __call__(self, series: Tensor) -> Tensor:
        return self.coefficients(series).abs()


class HaarBasis(Frame):
    """The orthonormal Haar wavelet basis; the view is a picture (b, c, levels + 1, t) of the signed coefficients.

    Coefficients (b, c, t) stand from coarse to fine: the mean, then the differences. Where a number of blocks is odd
    the last one waits for the next level, and blocks of unequal length are weighted as in the unbalanced Haar basis
    (Fryzlewicz, J. Am. Stat. Assoc. 102, 2007), so that any length will do. In the picture each coefficient fills the
    time that its block covers, fine levels first, the mean last; nothing is lost.

    >>> HaarBasis().coefficients(torch.tensor([[[1.0, 3.0, 0.0, 0.0]]]))
    tensor([[[ 2.0000,  2.0000, -1.4142,  0.0000]]])
    """

    def coefficients(self, series: Tensor) -> Tensor:
        check_series(series)
        means, details = self._levels(series)
        return torch.cat([means, *reversed(details)], dim=-1)

    def reconstruct(self, coefficients: Tensor, *, length: int) -> Tensor:
        if coefficients.shape[-1] != length:
            raise ValueError(f"a series of {length} points has as many coefficients, got {coefficients.shape[-1]}")
        levels = _haar_blocks(length)
        merged, start = coefficients[..., :1], 1
        for blocks in reversed(levels):
            pairs = len(blocks) // 2
            detail, start = coefficients[..., start : start + pairs], start + pairs
            first, second = (share.to(coefficients) for share in _shares(blocks))
            parent = merged[..., :pairs]
            halves = torch.stack([first * parent + second * detail, second * parent - first * detail], dim=-1)
            merged = torch.cat([halves.flatten(-2), merged[..., pairs:]], dim=-1)
        return merged

    def bounds(self, length: int) -> tuple[float, float]:
        return 1.0, 1.0

    def __call__(self, series: Tensor) -> Tensor:
        check_series(series)
        means, details = self._levels(series)
        rows = []
        for blocks, detail in zip(_haar_blocks(series.shape[-1]), details, strict=True):
            pairs = len(blocks) // 2
            covered = blocks[: 2 * pairs].reshape(pairs, 2).sum(1).to(series.device)
            row = detail.repeat_interleave(covered, dim=-1)
            rows.append(torch.nn.functional.pad(row, (0, series.shape[-1] - row.shape[-1])))
        return torch.stack([*rows, means.expand_as(series)], dim=2)

    @staticmethod
    def _levels(series: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What is left of the series after all levels (b, c, 1), and the differences of each, fine first."""
        merged, details = series, []
        for blocks in _haar_blocks(series.shape[-1]):
            pairs = len(blocks) // 2
            first, second = (share.to(series) for share in _shares(blocks))
            left, right = merged[..., 0 : 2 * pairs : 2], merged[..., 1 : 2 * pairs : 2]
            details.append(second * left - first * right)
            merged = torch.cat([first * left + second * right, merged[..., 2 * pairs :]], dim=-1)
        return merged, details


def _haar_blocks(length: int) -> list[Tensor]:
    """The lengths of the blocks that come into each level, fine first."""
    blocks, levels = torch.ones(length, dtype=torch.long), []
    while len(blocks) > 1:
        levels.append(blocks)
        pairs = len(blocks) // 2
        blocks = torch.cat([blocks[: 2 * pairs].reshape(pairs, 2).sum(1), blocks[2 * pairs :]])
    return levels


def _shares(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The roots of the shares that the first and the second block of each pair have in the length of both."""
    pairs = blocks[: len(blocks) // 2 * 2].reshape(-1, 2).double()
    shares = (pairs / pairs.sum(1, keepdim=True)).sqrt()
    return shares[:, 0], shares[:, 1]
