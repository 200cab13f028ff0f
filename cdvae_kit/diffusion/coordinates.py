"""Noise on the free parameters of orbits: points of the torus.

Every process moves the parameters u by (noise level) x (unit displacement) and lets the network predict the unit
displacement `target`. The probability-flow ODE is then the same for all, d u / d level = prediction: for the wrapped
normal since the prediction is -level x (inverse metric) x score (Song et al., arXiv 2011.13456, eq. 13, variance
exploding), for the straight path since it is the path's velocity (Lipman et al., arXiv 2210.02747). Levels are
fractions of V^(1/3) of the primitive cell, so that one level means the same noise in a small and in a large cell.

In P1 an orbit is an atom and u its fractional coordinates: noise without symmetry is the same code.
"""

import math
from itertools import product
from typing import Protocol

import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import volume, wrap_displacement, wrap_frac_coords
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.diffusion.matching import match_noise

UNIFORM_LEVEL = 0.5
"""Wrapped normals whose standard deviation is this share of the period differ from the uniform distribution by
2 exp(-2 pi^2 / 4) = 1.4 %."""
_IMAGES = 3
_SHORT = 0.4
_UNIFORM = 0.7
"""A wrapped normal of a standard deviation of this share of the period is uniform up to 2 exp(-2 pi^2 / 2) = 1e-4."""


class CoordinateProcess(Protocol):
    """A forward process on the torus. Time t runs from 0, data, to 1, noise."""

    has_score: bool
    """Whether the prediction is a score, as Langevin dynamics needs."""

    def level(self, t: Tensor, lattice: Tensor) -> Tensor:
        """(num_crystals,) noise level at time t, as a fraction of V^(1/3)."""
        ...

    def perturb(
        self,
        free: Tensor,
        level: Tensor,
        *,
        orbits: Orbits,
        elements: Tensor,
        lattice: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Noisy parameters in [0, 1) and the target of the network, each (num_orbits, 3), 0 where nothing is free."""
        ...

    def loss_weight(self, level: Tensor) -> Tensor:
        """(num_crystals,) weight that brings the target's mean square to about 1."""
        ...


class StraightPath:
    """Straight paths on the torus to uniform points, each orbit's point chosen so that the paths are short.

    Args:
        match_atoms: pair points and orbits of one element and Wyckoff position; otherwise only the drift of the whole
            crystal is removed, where the group leaves the origin free.
    """

    has_score = False

    def __init__(self, *, match_atoms: bool = True) -> None:
        self.match_atoms = match_atoms

    def level(self, t: Tensor, lattice: Tensor) -> Tensor:
        return t

    def perturb(
        self,
        free: Tensor,
        level: Tensor,
        *,
        orbits: Orbits,
        elements: Tensor,
        lattice: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        noise = torch.rand(free.shape, generator=generator, device=free.device, dtype=free.dtype)
        target = match_noise(noise, free, elements, orbits, exchange=self.match_atoms) - free
        noisy = wrap_frac_coords(free + level[orbits.batch].unsqueeze(-1) * target)
        return noisy, target

    def loss_weight(self, level: Tensor) -> Tensor:
        # paths to matched points have a mean square of 0.06 to 0.12
        return torch.full_like(level, 10.0)


class WrappedNormal:
    """Normal noise, isotropic in angstrom, wrapped around the cell, with its exact score.

    An orbit's parameters get the covariance sigma^2 (G^T M G)^-1, with M the metric tensor of the cell and G the map
    from parameters to atoms: then every atom of the orbit moves by the same isotropic noise, within what its position
    leaves free, whatever the axes of the cell. Levels are spaced geometrically from `sigma_min` to the level at which
    the longest axis is uniform, or `sigma_max` if that comes first.

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
            high = torch.minimum(high, UNIFORM_LEVEL * lattice.norm(dim=-1).amax(-1) / length)
        high = torch.maximum(high, low)
        return low * (high / low).pow(t)

    def perturb(
        self,
        free: Tensor,
        level: Tensor,
        *,
        orbits: Orbits,
        elements: Tensor,
        lattice: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        noise = torch.randn(free.shape, generator=generator, device=free.device, dtype=free.dtype)
        sigma = level[orbits.batch].unsqueeze(-1)
        metric = orbits.metric(lattice)
        displacement = sigma * in_metric(noise, metric, orbits)
        if self.exact_score:
            target = wrapped_normal_target(displacement, sigma, metric) * orbits.is_free
        else:
            target = wrap_displacement(displacement) / sigma
        return wrap_frac_coords(free + displacement), target

    def loss_weight(self, level: Tensor) -> Tensor:
        if not self.exact_score:
            # the published loss is half the mean over atoms of the square
            return torch.full_like(level, 0.5)
        # a target has three components, and is weighed as that of one atom
        return 1.0 / (3.0 * mean_square_score(level)).clamp_min(1e-2)


def in_metric(normal: Tensor, metric: Tensor, orbits: Orbits) -> Tensor:
    """(num_orbits, 3) parameters of standard normal numbers: covariance (G^T M G)^-1, 0 where nothing is free."""
    eigenvalues, vectors = torch.linalg.eigh(metric)
    root = vectors @ torch.diag_embed(eigenvalues.rsqrt()) @ vectors.transpose(-1, -2)
    return torch.matmul(root, normal.to(metric.dtype).unsqueeze(-1)).squeeze(-1) * orbits.is_free


def wrapped_normal_target(displacement: Tensor, sigma: Tensor, metric: Tensor) -> Tensor:
    """-sigma (inverse metric) d log p / d u at `displacement` (n, 3) from the centre of a wrapped normal in 3 axes.

    Args:
        displacement: (n, 3), of period 1.
        sigma: (n, 1) noise level.
        metric: (n, 3, 3): the density before wrapping is exp(-u^T metric u / (2 sigma^2)).
    """
    centred = wrap_displacement(displacement)
    images = torch.tensor(list(product(range(-_IMAGES, _IMAGES + 1), repeat=3)), device=centred.device)
    shifted = centred.unsqueeze(1) + images.to(centred.dtype)
    # along an axis much shorter than the noise, images would have no end: the density is uniform there, and what is
    # left is that of the other axes, of covariance sigma^2 (inverse metric) in these axes alone
    is_narrow = sigma < _UNIFORM * metric.diagonal(dim1=-2, dim2=-1).sqrt()
    narrow = is_narrow.unsqueeze(-1) & is_narrow.unsqueeze(-2)
    inverse = torch.linalg.inv(metric)
    precision = torch.linalg.inv(torch.where(narrow, inverse, 0.0) + torch.diag_embed((~is_narrow).to(metric.dtype)))
    precision = torch.where(narrow, precision, 0.0)
    energy = ((shifted @ precision) * shifted).sum(-1) / sigma.square()
    weights = torch.softmax(-0.5 * energy, dim=-1)
    mean = (weights.unsqueeze(-1) * shifted).sum(1)
    return torch.matmul(inverse @ precision, mean.unsqueeze(-1)).squeeze(-1) / sigma


def wrapped_normal_score(displacement: Tensor, sigma: Tensor) -> Tensor:
    """d log p / d x of a normal of standard deviation `sigma` wrapped onto period 1, `displacement` from its centre.

    Sums whichever of the two series is short: images of the normal for a small standard deviation, Fourier modes
    (Poisson's summation formula) for a large one; either is exact to single precision where it is used.

    >>> wrapped_normal_score(torch.tensor([0.1, 0.6]), torch.tensor([0.05, 0.05]))
    tensor([-40.0000, 160.0000])
    """
    centred = wrap_displacement(displacement)
    sigma = sigma.expand_as(centred)
    images = torch.arange(-_IMAGES, _IMAGES + 1, device=centred.device, dtype=centred.dtype)
    shifted = centred.unsqueeze(-1) + images
    weights = torch.softmax(-0.5 * (shifted / sigma.unsqueeze(-1)).square(), dim=-1)
    by_images = -(weights * shifted).sum(-1) / sigma.square()

    modes = torch.arange(1, 6, device=centred.device, dtype=centred.dtype)
    damping = torch.exp(-2.0 * (math.pi * modes * sigma.unsqueeze(-1)).square())
    phase = 2.0 * math.pi * modes * centred.unsqueeze(-1)
    density = 1.0 + 2.0 * (damping * phase.cos()).sum(-1)
    slope = -4.0 * math.pi * (damping * modes * phase.sin()).sum(-1)
    by_modes = slope / density.clamp_min(1e-6)
    return torch.where(sigma < _SHORT, by_images, by_modes)


def mean_square_score(sigma: Tensor) -> Tensor:
    """E |sigma score|^2 of one coordinate of a wrapped normal, by quadrature: 1 for small sigma, 0 for large."""
    grid = torch.linspace(-4.0, 4.0, 201, device=sigma.device, dtype=sigma.dtype)
    weight = torch.softmax(-0.5 * grid.square(), dim=0)
    level = sigma.unsqueeze(-1)
    return (weight * (level * wrapped_normal_score(level * grid, level)).square()).sum(-1)
