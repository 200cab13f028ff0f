"""What z says of an element's place in the crystal: its surroundings.

A decoder that is told which elements there are still has to learn from z which of them sits where, and the noisy
coordinates give it away for all but the highest noise: left to itself it learns this last. So z and the element are
asked for the atom's surroundings directly, and what answers is what the score network starts from.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch_geometric.utils import scatter

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.nn.mlp import mlp
from cdvae_kit.seeding import make_generator

NUM_BINS = 16
NUM_SIGNS = 4
NUM_SURROUNDINGS = NUM_BINS * NUM_SIGNS
_FIRST_BIN, _LAST_BIN, _BIN_WIDTH = 1.0, 5.5, 0.3


class SiteEmbedding(nn.Module):
    """Features of an atom from its element and the crystal's code."""

    def __init__(self, latent_dim: int, width: int, num_elements: int) -> None:
        super().__init__()
        self.element = nn.Embedding(num_elements + 1, width)
        self.code = nn.Linear(latent_dim, width)
        self.join = mlp([3 * width, 2 * width, width])
        self.surroundings = nn.Sequential(nn.SiLU(), nn.Linear(width, NUM_SURROUNDINGS))

    def forward(self, atomic_numbers: Tensor, z: Tensor, batch: Tensor) -> Tensor:
        """(num_atoms, width)."""
        # the product lets z say something else to each element
        of_crystal = self.code(z)
        product = self.element(atomic_numbers) * of_crystal.index_select(0, batch)
        # the first layer of `join` in its parts, so that element and crystal pay once a row and not once an atom
        first, rest = self.join[0], self.join[1:]
        assert isinstance(first, nn.Linear)
        for_element, for_crystal, for_product = first.weight.chunk(3, dim=1)
        hidden = linear(self.element.weight, for_element, first.bias).index_select(0, atomic_numbers)
        hidden += linear(of_crystal, for_crystal).index_select(0, batch)
        hidden += linear(product, for_product)
        return rest(hidden)


class Surroundings(nn.Module):
    """Smoothed radial distributions around each atom: all neighbours, then neighbours weighted by signs.

    Each element has a few fixed random signs, so that the weighted counts say which elements are near, in few numbers.
    """

    signs: Tensor
    bins: Tensor

    def __init__(self, num_elements: int) -> None:
        super().__init__()
        signs = torch.randint(0, 2, (num_elements + 1, NUM_SIGNS), generator=make_generator(0)) * 2.0 - 1.0
        signs[:, 0] = 1.0
        self.register_buffer("signs", signs, persistent=False)
        self.register_buffer("bins", torch.linspace(_FIRST_BIN, _LAST_BIN, NUM_BINS), persistent=False)

    def forward(self, crystals: CrystalBatch, graph: PeriodicGraph) -> Tensor:
        """(num_atoms, NUM_SURROUNDINGS), of order 1."""
        source, target = graph.edge_index
        near = torch.exp(-0.5 * ((graph.distances(crystals).unsqueeze(-1) - self.bins) / _BIN_WIDTH).square())
        weighted = near.unsqueeze(-1) * self.signs[crystals.atomic_numbers[source]].unsqueeze(-2)
        return scatter(weighted.flatten(1), target, dim=0, dim_size=len(crystals.batch), reduce="sum") / 2.0
