"""The published encoder: DimeNet++ on the periodic graph, from the blocks of torch_geometric.

Source: Gasteiger et al., "Fast and uncertainty-aware directional message passing" (arXiv 2011.14115), in the sizes of
Xie et al. (arXiv 2110.06197). Exact under rotation, reflection, translation, permutation, choice of periodic image
and choice of the cell's vectors: it sees lengths and angles of edges alone.
"""

import math

import torch
from torch import Tensor, nn
from torch_geometric.nn.models.dimenet import (
    BesselBasisLayer,
    EmbeddingBlock,
    InteractionPPBlock,
    OutputPPBlock,
)
from torch_geometric.utils import scatter

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import PeriodicGraph, triplets
from cdvae_kit.models.config import EncoderConfig
from cdvae_kit.models.encoder import LOG_VAR_BOUNDS
from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.nn.spherical import SphericalBasis

_HIDDEN, _NUM_BLOCKS = 128, 4
_INTERACTION, _BASIS, _OUTPUT = 64, 8, 256
_NUM_SPHERICAL, _NUM_RADIAL = 7, 6
_ENVELOPE_EXPONENT = 5
_SHORTEST = 0.5
"""Angstrom. No valid crystal has shorter edges, and the basis grows as one over the distance."""


class DimeNetEncoder(nn.Module):
    """DimeNet++ with a mean over atoms, then mu and log_var, linear.

    All sizes are the published ones; of the configuration it takes the cutoff (and the model's graph its number of
    neighbours). It does not see the lattice parameters, nor pairs beyond its edges.
    """

    def __init__(self, config: EncoderConfig, *, latent_dim: int, max_atoms: int) -> None:
        super().__init__()
        activation = nn.functional.silu
        self.radial = BesselBasisLayer(_NUM_RADIAL, config.cutoff, _ENVELOPE_EXPONENT)
        self.spherical = SphericalBasis(_NUM_SPHERICAL, _NUM_RADIAL, config.cutoff)
        self.embedding = EmbeddingBlock(_NUM_RADIAL, _HIDDEN, activation)
        # torch_geometric's own ends at plutonium
        self.embedding.emb = nn.Embedding(NUM_ELEMENTS + 1, _HIDDEN)
        nn.init.uniform_(self.embedding.emb.weight, -math.sqrt(3.0), math.sqrt(3.0))
        self.interactions = nn.ModuleList(
            InteractionPPBlock(_HIDDEN, _INTERACTION, _BASIS, _NUM_SPHERICAL, _NUM_RADIAL, 1, 2, activation)
            for _ in range(_NUM_BLOCKS)
        )
        self.outputs = nn.ModuleList(
            OutputPPBlock(_NUM_RADIAL, _HIDDEN, _OUTPUT, latent_dim, 3, activation) for _ in range(_NUM_BLOCKS + 1)
        )
        self.mu = nn.Linear(latent_dim, latent_dim)
        self.log_var = nn.Linear(latent_dim, latent_dim)

    def forward(
        self, crystals: CrystalBatch, graph: PeriodicGraph, lattice_parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """mu and log_var, each (num_crystals, latent_dim).

        Args:
            crystals: the crystals.
            graph: their edges.
            lattice_parameters: not used: the edges tell of the lattice.
        """
        source, target = graph.edge_index
        incoming, outgoing = triplets(graph, crystals.num_atoms)
        vectors = graph.vectors(crystals)
        distance = torch.linalg.vector_norm(vectors, dim=-1).clamp_min(_SHORTEST)
        # of the angle between the directions k -> j and j -> i
        direction = nn.functional.normalize(vectors, dim=-1)
        cosine = (direction.index_select(0, incoming) * direction.index_select(0, outgoing)).sum(-1)
        radial = self.radial(distance)
        spherical = self.spherical(distance, cosine, incoming)

        num_atoms = len(crystals.atomic_numbers)
        x = self.embedding(crystals.atomic_numbers, radial, target, source)
        atoms = self.outputs[0](x, radial, target, num_nodes=num_atoms)
        for interaction, output in zip(self.interactions, self.outputs[1:], strict=True):
            x = interaction(x, radial, spherical, incoming, outgoing)
            atoms = atoms + output(x, radial, target, num_nodes=num_atoms)
        pooled = scatter(atoms, crystals.batch, dim=0, dim_size=len(crystals), reduce="mean")
        return self.mu(pooled), self.log_var(pooled).clamp(*LOG_VAR_BOUNDS)
