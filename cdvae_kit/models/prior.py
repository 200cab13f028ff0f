"""The learned prior: where the codes of real crystals lie.

A weak KL term keeps reconstruction sharp and leaves the codes of the training set somewhere else than N(0, I); a flow
fitted to them afterwards makes up for it (two-stage VAE: Dai and Wipf, arXiv 1903.05789; flow matching: Lipman et al.,
arXiv 2210.02747). Straight paths z_t = (1 - t) z + t e from codes z to normal e; the network predicts e - z.
"""

import torch
from torch import Tensor, nn

from cdvae_kit.models.config import PriorConfig
from cdvae_kit.nn.embeddings import NoiseLevelEmbedding
from cdvae_kit.nn.mlp import mlp


class LatentPrior(nn.Module):
    """A flow from N(0, I) to the codes, integrated with Heun's method."""

    mean: Tensor
    whiten: Tensor
    colour: Tensor

    def __init__(self, config: PriorConfig, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.level = NoiseLevelEmbedding(64)
        self.start = nn.Linear(latent_dim + 64, config.width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(config.width), mlp([config.width, config.width, config.width]))
            for _ in range(config.num_layers)
        )
        self.end = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, latent_dim))
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("whiten", torch.eye(latent_dim))
        self.register_buffer("colour", torch.eye(latent_dim))

    def set_statistics(self, codes: Tensor) -> None:
        """Centre and principal axes of the codes (num_codes, latent_dim) that the flow is fitted to.

        The flow works on whitened codes: a few directions hold most of the variance, but what tells one element from
        another can lie in the others.
        """
        if codes.ndim != 2 or len(codes) < 2 or codes.shape[1] != self.latent_dim:
            raise ValueError(f"expected codes (2 or more, {self.latent_dim}), got {tuple(codes.shape)}")
        self.mean.copy_(codes.mean(0))
        centred = (codes - self.mean).double().cpu()
        variances, axes = torch.linalg.eigh(centred.T @ centred / (len(codes) - 1))
        scales = variances.clamp_min(1e-6).sqrt()
        self.whiten.copy_(axes / scales)
        self.colour.copy_((axes * scales).T)

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """(num_crystals, latent_dim) of standardised codes at time t (num_crystals,)."""
        h = self.start(torch.cat([z, self.level(t)], dim=-1))
        for block in self.blocks:
            h = h + block(h)
        return self.end(h)

    def loss(self, codes: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean square error of the velocity, a scalar."""
        z = (codes - self.mean) @ self.whiten
        noise = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        # middle times are the hardest: logit-normal
        t = torch.sigmoid(torch.randn(len(z), generator=generator, device=z.device, dtype=z.dtype))
        noisy = z + t.unsqueeze(-1) * (noise - z)
        return (self.velocity(noisy, t) - (noise - z)).square().mean()

    def transport(self, noise: Tensor, *, num_steps: int = 20) -> Tensor:
        """Codes (num_crystals, latent_dim) from standard normal noise of the same shape."""
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        z = noise
        for step in range(num_steps):
            t = torch.full((len(z),), 1.0 - step / num_steps, device=z.device, dtype=z.dtype)
            here = self.velocity(z, t)
            there = self.velocity(z - here / num_steps, t - 1.0 / num_steps)
            z = z - 0.5 * (here + there) / num_steps
        return z @ self.colour + self.mean
