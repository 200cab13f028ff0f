"""Noise on fractional coordinates: points of the torus.

Every process moves a point by (noise level) x (unit displacement) and lets the network predict the unit displacement
`target`. The probability-flow ODE is then the same for all, d x / d level = prediction: for the wrapped normal since
the prediction is -level x score (Song et al., arXiv 2011.13456, eq. 13, variance exploding), for the straight path
since it is the path's velocity (Lipman et al., arXiv 2210.02747). Levels are fractions of the cell: an angstrom is
1 / V^(1/3) of them, so that one level means the same noise in a small and in a large cell.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import volume, wrap_displacement, wrap_frac_coords
from cdvae_kit.diffusion.matching import match_noise

UNIFORM_LEVEL = 0.5
"""Wrapped normals of this deviation differ from the uniform law by 2 exp(-2 pi^2 / 4) = 1.4 %."""


class CoordinateProcess(Protocol):
    """A forward process on the torus. Time t runs from 0, data, to 1, noise."""

    has_score: bool
    """Whether the prediction is a score, as Langevin dynamics needs."""

    def level(self, t: Tensor, lattice: Tensor) -> Tensor:
        """(num_crystals,) noise level at time t, as a fraction of the cell."""
        ...

    def perturb(
        self,
        frac_coords: Tensor,
        level: Tensor,
        *,
        lattice: Tensor,
        atomic_numbers: Tensor,
        num_atoms: Tensor,
        batch: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Noisy coordinates in [0, 1) and the target of the network, each (num_atoms, 3)."""
        ...

    def loss_weight(self, level: Tensor) -> Tensor:
        """(num_crystals,) weight that brings the target's mean square to about 1."""
        ...


class StraightPath:
    """Straight paths on the torus to uniform points, each atom's point chosen so that the paths are short.

    Args:
        match_atoms: pair points and atoms of one element; otherwise only the drift of the whole crystal is removed.
    """

    has_score = False

    def __init__(self, *, match_atoms: bool = True) -> None:
        self.match_atoms = match_atoms

    def level(self, t: Tensor, lattice: Tensor) -> Tensor:
        return t

    def perturb(
        self,
        frac_coords: Tensor,
        level: Tensor,
        *,
        lattice: Tensor,
        atomic_numbers: Tensor,
        num_atoms: Tensor,
        batch: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        noise = torch.rand(frac_coords.shape, generator=generator, device=frac_coords.device, dtype=frac_coords.dtype)
        labels = atomic_numbers if self.match_atoms else torch.arange(len(atomic_numbers), device=batch.device)
        target = match_noise(noise, frac_coords, labels, num_atoms) - frac_coords
        return wrap_frac_coords(frac_coords + level[batch].unsqueeze(-1) * target), target

    def loss_weight(self, level: Tensor) -> Tensor:
        # paths to matched points have a mean square of 0.06 to 0.12
        return torch.full_like(level, 10.0)


class WrappedNormal:
    """Normal noise wrapped around the cell, with its exact score.

    Levels are spaced geometrically from `sigma_min` to the level at which the cell is uniform, or `sigma_max` if that
    comes first: none is spent on noise that can no longer grow.

    Args:
        sigma_min: angstrom.
        sigma_max: angstrom.
        exact_score: False takes the score of the nearest image's normal alone, as published.
    """

    has_score = True

    def __init__(self, *, sigma_min: float, sigma_max: float, exact_score: bool = True) -> None:
        if not 0.0 < sigma_min < sigma_max:
            raise ValueError(f"expected 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.exact_score = exact_score

    def level(self, t: Tensor, lattice: Tensor) -> Tensor:
        length = volume(lattice).pow(1.0 / 3.0)
        low = self.sigma_min / length
        high = self.sigma_max / length
        if self.exact_score:
            high = high.clamp_max(UNIFORM_LEVEL)
        high = torch.maximum(high, low)
        return low * (high / low).pow(t)

    def perturb(
        self,
        frac_coords: Tensor,
        level: Tensor,
        *,
        lattice: Tensor,
        atomic_numbers: Tensor,
        num_atoms: Tensor,
        batch: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        noise = torch.randn(frac_coords.shape, generator=generator, device=frac_coords.device, dtype=frac_coords.dtype)
        sigma = level[batch].unsqueeze(-1)
        displacement = sigma * noise
        if self.exact_score:
            target = -sigma * wrapped_normal_score(displacement, sigma)
        else:
            target = wrap_displacement(displacement) / sigma
        return wrap_frac_coords(frac_coords + displacement), target

    def loss_weight(self, level: Tensor) -> Tensor:
        if not self.exact_score:
            # the published loss is half the mean over atoms of the square
            return torch.full_like(level, 0.5)
        return 1.0 / (3.0 * mean_square_score(level)).clamp_min(1e-2)


def wrapped_normal_score(displacement: Tensor, sigma: Tensor) -> Tensor:
    """d log p / d x of the normal of deviation `sigma` wrapped onto period 1, at `displacement` from its centre.

    Sums whichever of the two series is short: images of the normal for a small deviation, Fourier modes
    (Poisson's summation formula) for a large one; either is exact to single precision where it is used.

    >>> wrapped_normal_score(torch.tensor([0.1, 0.6]), torch.tensor([0.05, 0.05]))
    tensor([-40.0000, 160.0000])
    """
    centred = wrap_displacement(displacement)
    sigma = sigma.expand_as(centred)
    images = torch.arange(-3, 4, device=centred.device, dtype=centred.dtype)
    shifted = centred.unsqueeze(-1) + images
    weights = torch.softmax(-0.5 * (shifted / sigma.unsqueeze(-1)).square(), dim=-1)
    by_images = -(weights * shifted).sum(-1) / sigma.square()

    modes = torch.arange(1, 6, device=centred.device, dtype=centred.dtype)
    damping = torch.exp(-2.0 * (math.pi * modes * sigma.unsqueeze(-1)).square())
    phase = 2.0 * math.pi * modes * centred.unsqueeze(-1)
    density = 1.0 + 2.0 * (damping * phase.cos()).sum(-1)
    slope = -4.0 * math.pi * (damping * modes * phase.sin()).sum(-1)
    by_modes = slope / density.clamp_min(1e-6)
    return torch.where(sigma < 0.4, by_images, by_modes)


def mean_square_score(sigma: Tensor) -> Tensor:
    """E |sigma score|^2 of one coordinate of a wrapped normal, by quadrature: 1 for small sigma, 0 for large."""
    grid = torch.linspace(-4.0, 4.0, 201, device=sigma.device, dtype=sigma.dtype)
    weight = torch.softmax(-0.5 * grid.square(), dim=0)
    level = sigma.unsqueeze(-1)
    return (weight * (level * wrapped_normal_score(level * grid, level)).square()).sum(-1)
