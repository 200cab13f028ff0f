"""Where the codes of real crystals lie, and how to stay there.

A decoder is good where it was trained. The region is a ball in whitened coordinates, in which the codes of real
crystals have mean zero and unit covariance; within it, the learned prior tells which way the codes are dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdvae_kit.models import decoding
from cdvae_kit.seeding import CrystalNoise

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE
    from cdvae_kit.models.prior import LatentPrior

_NUM_PRIOR_DRAWS = 512
_REGION_SEED = 11
_DENOISE_STREAM = 1 << 44


@dataclass(frozen=True)
class LatentRegion:
    """A ball of whitened codes.

    Attributes:
        mean: (latent_dim,), centre of the codes.
        whiten: (latent_dim, latent_dim), from centred codes to whitened ones.
        colour: (latent_dim, latent_dim), its inverse.
        radius: of the ball; a Gaussian cloud of codes has most of them near sqrt(latent_dim).
        prior: the flow that knows the codes' density, in the same coordinates; None for a normal distribution.

    >>> region = LatentRegion(torch.zeros(2), torch.eye(2), torch.eye(2), radius=1.0)
    >>> region.project(torch.tensor([[3.0, 4.0], [0.1, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.1000, 0.0000]])
    """

    mean: Tensor
    whiten: Tensor
    colour: Tensor
    radius: float
    prior: LatentPrior | None = None

    @classmethod
    @torch.no_grad()
    def of_model(cls, model: CDVAE, *, quantile: float = 0.9) -> LatentRegion:
        """The region of a model's prior: the ball that holds the share `quantile` of the codes drawn from it."""
        ids = torch.arange(_NUM_PRIOR_DRAWS, device=model.device)
        codes = decoding.sample_codes(model, ids, seed=_REGION_SEED)
        prior = model.prior
        if prior is None:
            eye = torch.eye(model.config.latent_dim, device=model.device)
            mean, whiten, colour = torch.zeros_like(eye[0]), eye, eye
        else:
            mean, whiten, colour = prior.mean, prior.whiten, prior.colour
        distances = ((codes - mean) @ whiten).norm(dim=-1)
        return cls(mean, whiten, colour, float(distances.quantile(quantile)), prior)

    @classmethod
    @torch.no_grad()
    def of_codes(cls, codes: Tensor, *, quantile: float = 0.9) -> LatentRegion:
        """The region of codes (num_codes, latent_dim), 2 or more; without a density of its own."""
        if codes.ndim != 2 or len(codes) < 2:
            raise ValueError(f"expected 2 or more codes, got {tuple(codes.shape)}")
        mean = codes.mean(0)
        centred = (codes - mean).double()
        variances, axes = torch.linalg.eigh(centred.T @ centred / (len(codes) - 1))
        scales = variances.clamp_min(1e-6).sqrt()
        whiten, colour = (axes / scales).to(codes), (axes * scales).T.to(codes)
        return cls(mean, whiten, colour, float(((codes - mean) @ whiten).norm(dim=-1).quantile(quantile)))

    def whitened(self, z: Tensor) -> Tensor:
        """(num_crystals, latent_dim) whitened coordinates."""
        return (z - self.mean) @ self.whiten

    def codes(self, whitened: Tensor) -> Tensor:
        """The inverse of `whitened`."""
        return whitened @ self.colour + self.mean

    def distance(self, z: Tensor) -> Tensor:
        """(num_crystals,) distance from the centre, in standard deviations along each axis."""
        return self.whitened(z).norm(dim=-1)

    def project(self, whitened: Tensor) -> Tensor:
        """The nearest point of the ball."""
        norms = whitened.norm(dim=-1, keepdim=True)
        return whitened * (self.radius / norms.clamp_min(1e-12)).clamp_max(1.0)

    @torch.no_grad()
    def refreshed(self, whitened: Tensor, level: float, noise: Tensor, *, num_steps: int = 6) -> Tensor:
        """Codes of the prior near the given ones: noise of a level from 0 to 1, then the flow back (SDEdit).

        At level 0 the codes stay as they are. Source: Meng et al., arXiv 2108.01073.
        """
        if not level:
            return whitened
        w = (1.0 - level) * whitened + level * noise
        if self.prior is None:
            return w / ((1.0 - level) ** 2 + level**2) ** 0.5
        for step in range(num_steps):
            t = torch.full((len(w),), level * (1.0 - step / num_steps), device=w.device, dtype=w.dtype)
            here = self.prior.velocity(w, t)
            there = self.prior.velocity(w - level * here / num_steps, t - level / num_steps)
            w = w - 0.5 * level * (here + there) / num_steps
        return w


def path_noise(seed: int, crystal_ids: Tensor, latent_dim: int, step: int) -> Tensor:
    """Standard normal (num_crystals, latent_dim) of each crystal's own at a step of its path."""
    return CrystalNoise(seed, crystal_ids).normal_per_crystal(latent_dim, stream=_DENOISE_STREAM + step)
