"""The learned prior: where the codes of real crystals lie.

A weak KL term keeps reconstruction sharp and leaves the codes of the training set somewhere else than N(0, I); a flow
fitted to them afterwards makes up for it (two-stage VAE: Dai and Wipf, arXiv 1903.05789; flow matching: Lipman et al.,
arXiv 2210.02747). Straight paths z_t = (1 - t) z + t e from codes z to normal e; the network predicts e - z.
"""

import torch
from torch import Tensor, nn

from cdvae_kit.models.condition_kinds import ConditionSpace
from cdvae_kit.models.config import PriorConfig
from cdvae_kit.nn.embeddings import NoiseLevelEmbedding
from cdvae_kit.nn.mlp import dropout, mlp

_DROPOUT = 0.2
"""In training, of what is read off the conditions: a few thousand compositions are soon learnt by heart."""


class LatentPrior(nn.Module):
    """A flow from N(0, I) to the codes, integrated with Heun's method."""

    mean: Tensor
    whiten: Tensor
    colour: Tensor
    farthest: Tensor
    """Distance of the farthest training code from the centre, see `distance`."""

    def __init__(self, config: PriorConfig, latent_dim: int, conditions: ConditionSpace | None = None) -> None:
        super().__init__()
        self.conditions = conditions or ConditionSpace(())
        self.latent_dim = latent_dim
        self.level = NoiseLevelEmbedding(64)
        self.start = nn.Linear(latent_dim + 64, config.width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(config.width), mlp([config.width, config.width, config.width]))
            for _ in range(config.num_layers)
        )
        # what is told shifts the input of every block; untold, it shifts nothing
        hint = config.hint or max(1, config.width // 4)
        self.told = nn.Linear(max(1, self.conditions.width), hint, bias=False)
        self.read = mlp([hint, hint, hint]) if config.hint else None
        self.shifts = nn.ModuleList(nn.Linear(hint, config.width, bias=False) for _ in range(config.num_layers))
        self.end = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, latent_dim))
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("whiten", torch.eye(latent_dim))
        self.register_buffer("colour", torch.eye(latent_dim))
        self.register_buffer("farthest", torch.tensor(torch.inf))

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
        # turned back from the axes, whose signs and order are arbitrary: codes that move a little stay where they are
        self.whiten.copy_((axes / scales) @ axes.T)
        self.colour.copy_((axes * scales) @ axes.T)
        self.farthest.copy_(self.distance(codes).max())

    def distance(self, codes: Tensor) -> Tensor:
        """(num_codes,) from the centre of the training codes, each principal axis in units of their own spread."""
        return ((codes - self.mean) @ self.whiten).norm(dim=-1)

    def blurred(self, codes: Tensor, level: Tensor, normal: Tensor) -> Tensor:
        """(num_codes, latent_dim): codes as far on their way to noise as `level` (num_codes,) in [0, 1] says.

        A decoder that is trained on blurred codes, and told how blurred they are, takes less of what codes from the
        prior have wrong for certain (conditioning augmentation: Ho et al., arXiv 2106.15282). `normal`
        (num_codes, latent_dim) is standard normal.
        """
        s = level.unsqueeze(-1)
        return ((1.0 - s) * ((codes - self.mean) @ self.whiten) + s * normal) @ self.colour + self.mean

    def velocity(
        self, z: Tensor, t: Tensor, told: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """(num_crystals, latent_dim) of standardised codes at time t (num_crystals,).

        `told` (num_crystals, width of the conditions) is what is known of the crystals; None tells nothing. In training
        randomness comes from the generator; without one nothing is dropped.
        """
        h = self.start(torch.cat([z, self.level(t)], dim=-1))
        hint = None if told is None else self._hint(told, generator)
        for block, shift in zip(self.blocks, self.shifts, strict=True):
            h = h + block(h if hint is None else h + shift(hint))
        return self.end(h)

    def _hint(self, told: Tensor, generator: torch.Generator | None) -> Tensor:
        """(num_crystals, width of the hint) from what is told; 0 where nothing is."""
        hint = torch.nn.functional.silu(self.told(told))
        if self.read is None:
            return hint
        if generator is not None:
            hint = dropout(hint, _DROPOUT, generator)
        hint = torch.nn.functional.silu(hint + self.read(hint))
        if generator is not None:
            hint = dropout(hint, _DROPOUT, generator)
        return hint * (told != 0.0).any(-1, keepdim=True)

    def loss(self, codes: Tensor, *, facts: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Mean square error of the velocity, a scalar.

        `facts` are all that is known of each code's crystal, of which the network is told a random part.
        """
        z = (codes - self.mean) @ self.whiten
        noise = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        # middle times are the hardest: logit-normal
        t = torch.sigmoid(torch.randn(len(z), generator=generator, device=z.device, dtype=z.dtype))
        noisy = z + t.unsqueeze(-1) * (noise - z)
        told = None if facts is None else self.conditions.hide(facts, generator=generator)
        seen = self.velocity(noisy, t, told, generator=generator if self.training else None)
        return (seen - (noise - z)).square().mean()

    def transport(
        self, noise: Tensor, *, told: Tensor | None = None, guidance: float = 1.0, num_steps: int = 4
    ) -> Tensor:
        """Codes (num_crystals, latent_dim) from standard normal noise of the same shape.

        Args:
            noise: where the codes come from.
            told: (num_crystals, width of the conditions) what is asked for.
            guidance: weight w of v = v(untold) + w (v(told) - v(untold)): 1 is the conditional prior, above 1 keeps
                closer to what is asked for (Ho and Salimans, arXiv 2207.12598, in the form for velocities).
            num_steps: of Heun's method.
        """

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            with_it = self.velocity(z, t, told)
            if told is None or guidance == 1.0:
                return with_it
            without = self.velocity(z, t)
            return without + guidance * (with_it - without)

        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        z = noise
        for step in range(num_steps):
            t = torch.full((len(z),), 1.0 - step / num_steps, device=z.device, dtype=z.dtype)
            here = velocity(z, t)
            there = velocity(z - here / num_steps, t - 1.0 / num_steps)
            z = z - 0.5 * (here + there) / num_steps
        return z @ self.colour + self.mean
