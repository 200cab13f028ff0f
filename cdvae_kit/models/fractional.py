"""The fully connected score network on fractional coordinates.

Which symmetry holds: permutation of atoms, translation, periodic images and rotation of the crystal are exact, since
it sees types, differences of fractional coordinates through functions of period 1, and rotation-invariant lattice
parameters alone. Another choice of the cell's vectors gives other outputs: crystals are Niggli-reduced first.
The idea of messages on Fourier features of fractional differences is CSPNet's (Jiao et al., arXiv 2309.04475).
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.models.config import ScoreNetworkConfig
from cdvae_kit.models.sites import SiteEmbedding
from cdvae_kit.nn.embeddings import NoiseLevelEmbedding, PeriodicFourier
from cdvae_kit.nn.fractional import FractionalLayer, PairwiseReadout
from cdvae_kit.nn.mlp import mlp

NUM_ELEMENTS = 100


class FractionalScoreNetwork(nn.Module):
    """Messages between all atoms of a cell, conditioned on z, the noise level and the lattice."""

    def __init__(self, config: ScoreNetworkConfig, *, latent_dim: int, max_atoms: int) -> None:
        super().__init__()
        width = config.width
        self.knows_noise_level = config.knows_noise_level
        self.level = NoiseLevelEmbedding(32)
        self.sites = SiteEmbedding(latent_dim, width, NUM_ELEMENTS)
        self.count = nn.Embedding(max_atoms + 1, width)
        self.condition = mlp([latent_dim + 32 + 6 + width, 2 * width, width])
        self.fourier = PeriodicFourier(config.num_frequencies)
        self.layers = nn.ModuleList(FractionalLayer(width, self.fourier.num_features) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width)
        self.coords_out = PairwiseReadout(width, config.num_frequencies)
        self.gain = mlp([32, width, 1])
        self.types_out = nn.Linear(width, NUM_ELEMENTS)
        self.lattice_out = mlp([2 * width, width, 6])

    def forward(self, crystals: NoisyCrystals, z: Tensor, level: Tensor) -> ScoreOutput:
        """
        Args:
            crystals: the noisy crystals.
            z: (num_crystals, latent_dim).
            level: (num_crystals,) noise level in [0, 1].
        """
        batch = crystals.batch
        told = level if self.knows_noise_level else torch.zeros_like(level)
        embedded = self.level(told)
        condition = self.condition(
            torch.cat([z, embedded, crystals.lattice_parameters, self.count(crystals.num_atoms)], dim=-1)
        )
        h = self.sites(crystals.atomic_numbers, z, batch) + condition.index_select(0, batch)
        source, target = crystals.pairs
        pair_features = self.fourier(
            crystals.frac_coords.index_select(0, source) - crystals.frac_coords.index_select(0, target)
        )
        for layer in self.layers:
            h = layer(h, crystals.pairs, pair_features, condition, batch)
        h = self.norm(h)
        pooled = scatter(h, batch, dim=0, dim_size=len(z), reduce="mean")
        gain = torch.exp(self.gain(embedded)).index_select(0, batch)
        return ScoreOutput(
            coords=self.coords_out(h, crystals.pairs, pair_features) * gain,
            type_logits=self.types_out(h),
            lattice=self.lattice_out(torch.cat([pooled, condition], dim=-1)),
        )
