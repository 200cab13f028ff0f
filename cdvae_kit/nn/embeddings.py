"""Embeddings of numbers: noise levels, distances, fractional differences."""

import math

import torch
from torch import Tensor, nn


class NoiseLevelEmbedding(nn.Module):
    """Sines and cosines of a noise level in (0, 1], spaced geometrically in frequency."""

    frequencies: Tensor

    def __init__(self, width: int, max_frequency: float = 100.0) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"the width of a noise-level embedding must be even, got {width}")
        self.register_buffer("frequencies", torch.logspace(0, math.log10(max_frequency), width // 2), persistent=False)

    def forward(self, level: Tensor) -> Tensor:
        """(num_crystals,) to (num_crystals, width)."""
        phase = level.unsqueeze(-1) * self.frequencies
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class PeriodicFourier(nn.Module):
    """sin and cos of 2 pi k x for k = 1..num_frequencies, of every component: periodic in x with period 1."""

    frequencies: Tensor

    def __init__(self, num_frequencies: int) -> None:
        super().__init__()
        self.num_features = 6 * num_frequencies
        # integers, which no change of precision rounds
        self.register_buffer("frequencies", torch.arange(1, num_frequencies + 1), persistent=False)

    def forward(self, displacement: Tensor) -> Tensor:
        """(num_pairs, 3) fractional differences to (num_pairs, 6 num_frequencies)."""
        phase = (displacement.unsqueeze(-1) * (2.0 * math.pi * self.frequencies.to(displacement.dtype))).flatten(-2)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class BesselBasis(nn.Module):
    """Radial basis sqrt(2/c) sin(n pi r/c)/r times a polynomial that takes it smoothly to 0 at the cutoff.

    Source: Gasteiger et al., "Directional message passing" (ICLR 2020, arXiv 2003.03123), eq. 7 and 8 with p = 6.
    """

    roots: Tensor

    def __init__(self, num_basis: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.num_basis = num_basis
        self.register_buffer("roots", math.pi * torch.arange(1, num_basis + 1), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """(num_edges,) distances in angstrom to (num_edges, num_basis)."""
        x = (distance / self.cutoff).clamp(min=1e-6).unsqueeze(-1)
        return math.sqrt(2.0 / self.cutoff) * torch.sin(self.roots * x) / x / self.cutoff * polynomial_envelope(x)


def polynomial_envelope(x: Tensor) -> Tensor:
    """1 at x = 0, and 0 with two vanishing derivatives at x = 1 and beyond."""
    return (1.0 - 28.0 * x**6 + 48.0 * x**7 - 21.0 * x**8) * (x < 1.0)
