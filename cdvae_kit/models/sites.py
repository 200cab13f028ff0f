"""What z says of an orbit: its surroundings and where it stands.

A decoder that is told elements and Wyckoff positions still has to learn from z what stands where, and the noisy
coordinates give it away for all but the highest noise: left to itself it learns this last. So z, element and position
are asked for the orbit's surroundings and parameters directly, and what answers is what the score network starts from.
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.models.positions import PositionEmbedding, where_it_stands
from cdvae_kit.models.slots import NUM_WAVES, WaveSlots
from cdvae_kit.nn.mlp import mlp
from cdvae_kit.seeding import make_generator

NUM_BINS = 16
"""Radial bins of the surroundings."""
NUM_SIGNS = 4
"""Weighted sums of the surroundings."""
NUM_SURROUNDINGS = NUM_BINS * NUM_SIGNS
_FIRST_BIN, _LAST_BIN, _BIN_WIDTH = 1.0, 5.5, 0.3
"""Angstrom: from closer than any bond to beyond the second shell, in bins as wide as they are apart."""


class SiteEmbedding(nn.Module):
    """Features of an orbit from its element, its Wyckoff position and the crystal's code."""

    def __init__(self, latent_dim: int, width: int, num_elements: int, *, most_orbits: int | None = None) -> None:
        super().__init__()
        self.numbered = None if most_orbits is None else NumberedOrbits(latent_dim, width, most_orbits)
        self.element = nn.Embedding(num_elements + 1, width)
        self.position = PositionEmbedding(width)
        self.code = nn.Linear(latent_dim, width)
        self.join = mlp([3 * width, 2 * width, width])
        self.surroundings = nn.Sequential(nn.SiLU(), nn.Linear(width, NUM_SURROUNDINGS))
        self.place = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * NUM_WAVES))

    def forward(self, elements: Tensor, z: Tensor, orbits: Orbits, number: Tensor) -> Tensor:
        """(num_orbits, width); `number` (num_orbits,) long tells equal orbits apart, where the model does."""
        own = self.element(elements) + self.position(orbits.position)
        of_crystal = self.code(z).index_select(0, orbits.batch)
        # the product lets z say something else to each orbit
        rows = self.join(torch.cat([own, of_crystal, own * of_crystal], dim=-1))
        if self.numbered is None:
            return rows
        return rows + self.numbered(own, z, number, orbits)

    def waves(self, rows: Tensor, z: Tensor, orbits: Orbits, number: Tensor) -> Tensor:
        """(num_orbits, 6 NUM_WAVES) sines and cosines of the parameters, shorter the less sure they are."""
        guess = self.place(rows)
        return guess if self.numbered is None else guess + self.numbered.slots.read(z, number, orbits)

    def seen_from_guess(self, waves: Tensor, free: Tensor, is_free: Tensor) -> Tensor:
        """(num_orbits, 3 + 6 NUM_WAVES): where `free` is, seen from the parameters that `waves` speak of.

        First the way in periods, then sines and cosines of the way, each shorter the less sure the guess is.
        """
        here = where_it_stands(free, is_free, NUM_WAVES).view(-1, 3, 2, NUM_WAVES)
        guess = waves.view(-1, 3, 2, NUM_WAVES)
        sine = here[:, :, 0] * guess[:, :, 1] - here[:, :, 1] * guess[:, :, 0]
        cosine = here[:, :, 1] * guess[:, :, 1] + here[:, :, 0] * guess[:, :, 0]
        # an angle has no slope at the origin
        way = torch.atan2(sine[..., 0].detach(), cosine[..., 0].detach()) / (2.0 * torch.pi) * is_free
        return torch.cat([way, sine.flatten(1), cosine.flatten(1)], dim=-1)

    def loss(
        self, rows: Tensor, waves: Tensor, surroundings: Tensor, free: Tensor, orbits: Orbits, anchors: Tensor
    ) -> Tensor:
        """Mean square error of what `rows` and `waves` say of surroundings and parameters: a scalar."""
        told = orbits.is_free & ~orbits.is_polar
        if self.numbered is not None:
            free, told = orbits.seen_from(anchors, free), orbits.is_free
        truth = where_it_stands(free, told, NUM_WAVES)
        there = told.unsqueeze(-1).expand(-1, -1, 2 * NUM_WAVES).flatten(1)
        error = ((waves - truth) * there).square().sum() / there.sum().clamp_min(1)
        # of numbered orbits it is all that they are asked of z at high noise
        weight = 0.2 if self.numbered is None else 0.5
        return (self.surroundings(rows) - surroundings).square().mean() + weight * error


class NumberedOrbits(nn.Module):
    """What z says to each orbit by its number: which numbers of z one reads is learnt."""

    def __init__(self, latent_dim: int, width: int, most_orbits: int) -> None:
        super().__init__()
        self.number = nn.Embedding(most_orbits, width)
        self.ask = mlp([2 * width, 2 * width, 2 * width])
        self.code = nn.Linear(latent_dim, 2 * width)
        self.answer = mlp([2 * width, 2 * width, width])
        self.slots = WaveSlots(most_orbits, latent_dim)
        nn.init.normal_(self.slots.maps, std=0.3 / latent_dim**0.5)
        last = self.answer[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, own: Tensor, z: Tensor, number: Tensor, orbits: Orbits) -> Tensor:
        """(num_orbits, width), from features of element and position (num_orbits, width) and z of each crystal."""
        asked = self.ask(torch.cat([own, self.number(number)], dim=-1))
        return self.answer(asked * self.code(z).index_select(0, orbits.batch))


class Surroundings(nn.Module):
    """Smoothed radial distributions around each orbit's first atom: all neighbours, then neighbours weighted by signs.

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

    def forward(self, crystals: SymmetricCrystals, graph: PeriodicGraph) -> Tensor:
        """(num_orbits, NUM_SURROUNDINGS), of order 1; `graph` has the first atoms of orbits as targets."""
        source, target = graph.edge_index
        near = torch.exp(-0.5 * ((graph.distances(crystals).unsqueeze(-1) - self.bins) / _BIN_WIDTH).square())
        weighted = near.unsqueeze(-1) * self.signs[crystals.atomic_numbers[source]].unsqueeze(-2)
        orbits = crystals.orbits
        into = orbits.of_atom.index_select(0, target)
        return scatter(weighted.flatten(1), into, dim=0, dim_size=len(orbits.position), reduce="sum") / 2.0
