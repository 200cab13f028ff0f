"""What the score networks share: noisy crystals' edges, what conditions them, their outputs."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import plane_spacings, volume
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.periodic_images import pairs_within
from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.graph import PeriodicGraph, nearest_neighbors
from cdvae_kit.models.config import ScoreNetworkConfig
from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.models.positions import GroupEmbedding
from cdvae_kit.models.sites import SiteEmbedding
from cdvae_kit.nn.embeddings import NoiseLevelEmbedding
from cdvae_kit.nn.mlp import mlp

_LEVEL_WIDTH = 32
_MOST_IN_REACH = 1000.0
"""Atoms expected within the search radius: about four times what the densest crystals have within 7 angstrom."""
_MOST_CELLS = 1e5
"""A cell with more repeats in reach than this is all but flat."""


class NoisyEdges(NamedTuple):
    """The edges of noisy crystals, sorted by target."""

    graph: PeriodicGraph
    distance: Tensor  # (num_edges,), angstrom
    direction: Tensor  # (num_edges, 3), unit vectors from target to source; 0 where two atoms coincide


def noisy_edges(crystals: NoisyCrystals, cutoff: float, max_neighbors: int) -> NoisyEdges:
    """The nearest `max_neighbors` of each atom within `cutoff` angstrom, ties kept, masked atoms among them.

    A cell that the noise has squeezed is searched less far, so that no crystal can fill the memory: the radius is
    then that of a ball with `_MOST_IN_REACH` atoms. It depends on the density alone, which keeps every symmetry.
    A cell that is flat up to rounding gets no edges.
    """
    # a batch wants elements; distances do not depend on them
    batch = CrystalBatch(
        crystals.frac_coords, crystals.lattice, torch.ones_like(crystals.atomic_numbers), crystals.num_atoms
    )
    pairs = pairs_within(batch, _reach(crystals.lattice.detach(), crystals.num_atoms, cutoff))
    assert pairs.squared_distances is not None
    near = nearest_neighbors(
        pairs.edge_index[1],
        pairs.squared_distances.clamp_min(0.0).sqrt(),
        len(crystals.frac_coords),
        max_neighbors,
    )
    edge_index = torch.stack([row.index_select(0, near) for row in pairs.edge_index])
    graph = PeriodicGraph(
        edge_index, pairs.cell_offsets.index_select(0, near), torch.searchsorted(edge_index[1], batch.ptr).diff()
    )
    vectors = graph.vectors(batch)
    distance = torch.linalg.vector_norm(vectors, dim=-1)
    return NoisyEdges(graph, distance, vectors / distance.clamp_min(1e-6).unsqueeze(-1))


def _reach(lattice: Tensor, num_atoms: Tensor, cutoff: float) -> Tensor:
    """(num_crystals,) the radius within which edges are looked for."""
    per_atom = volume(lattice) / num_atoms
    reach = (_MOST_IN_REACH * per_atom * (0.75 / math.pi)).pow(1.0 / 3.0).clamp_max(cutoff)
    spacings = plane_spacings(lattice)
    cells = (2.0 * reach.unsqueeze(-1) / spacings + 1.0).prod(-1)
    return torch.where(cells <= _MOST_CELLS, reach, 1e-3 * spacings.amin(-1))


def to_fractional(vectors: Tensor, lattice: Tensor, batch: Tensor) -> Tensor:
    """Cartesian vectors (num_atoms, 3) as fractions of the cell times V^(1/3): no unit, and turned with the lattice.

    >>> to_fractional(torch.tensor([[1.0, 2.0, 3.0]]), 4.0 * torch.eye(3)[None], torch.tensor([0]))
    tensor([[1., 2., 3.]])
    """
    a, b, c = lattice.unbind(-2)
    reciprocal = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-2)
    signed = (a * reciprocal[:, 0]).sum(-1)
    size = signed.abs().clamp_min(1e-9)
    scale = torch.where(signed < 0.0, -1.0, 1.0) * size.pow(-2.0 / 3.0)
    return torch.einsum("nj,nij->ni", vectors, (reciprocal * scale.view(-1, 1, 1))[batch])


class Conditioning(nn.Module):
    """First features of orbits or atoms, and what is known of their crystal: z, noise level, lattice, number of atoms.

    It sees rotation-invariant numbers alone.

    Args:
        config: the settings.
        latent_dim: of z.
        max_atoms: the most that a crystal can have.
        knows_group: whether the space group is among what is known.
        most_orbits: how many orbits are told apart by their numbers; None where equal orbits stay equal.
    """

    def __init__(
        self,
        config: ScoreNetworkConfig,
        *,
        latent_dim: int,
        max_atoms: int,
        knows_group: bool = False,
        most_orbits: int | None = None,
    ) -> None:
        super().__init__()
        width = config.width
        self.knows_noise_level = config.knows_noise_level
        self.level = NoiseLevelEmbedding(_LEVEL_WIDTH)
        self.sites = SiteEmbedding(latent_dim, width, NUM_ELEMENTS, most_orbits=most_orbits)
        self.count = nn.Embedding(max_atoms + 1, width)
        self.group = GroupEmbedding(width) if knows_group else None
        known = latent_dim + _LEVEL_WIDTH + 6 + width + (width if knows_group else 0)
        self.condition = mlp([known, 2 * width, width])
        self.blur = nn.Linear(_LEVEL_WIDTH, width, bias=False) if config.knows_blur else None
        if self.blur is not None:
            nn.init.zeros_(self.blur.weight)

    def forward(self, crystals: NoisyCrystals, z: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Atoms' features (num_atoms, width), the condition (num_crystals, width) and the embedded noise level."""
        sites, condition, level_features = self.of_orbits(crystals, z, level)
        h = sites.index_select(0, crystals.orbits.of_atom) + condition[crystals.batch]
        return h, condition, level_features

    def of_orbits(
        self, crystals: NoisyCrystals, z: Tensor, level: Tensor, blur: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, for orbits: features (num_orbits, width), to which the condition is not added yet.

        `blur` (num_crystals,) says how blurred z is, to a network that knows; None: not at all.
        """
        orbits = crystals.orbits
        level_features = self.level(level if self.knows_noise_level else torch.zeros_like(level))
        known = [z, level_features, crystals.lattice_parameters, self.count(crystals.num_atoms)]
        if self.group is not None:
            known.append(self.group(orbits.space_group))
        condition = self.condition(torch.cat(known, dim=-1))
        if self.blur is not None and blur is not None:
            # a sharp code shifts nothing
            condition = condition + self.blur(self.level(blur) - self.level(torch.zeros_like(blur)))
        return self.sites(crystals.elements, z, orbits, crystals.number), condition, level_features


class ScoreHeads(nn.Module):
    """From invariant features, and what was read of the way, to the scores and logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gain = mlp([_LEVEL_WIDTH, width, 1])
        self.types_out = nn.Linear(width, NUM_ELEMENTS)
        self.lattice_out = mlp([2 * width, width, 6])

    def forward(
        self, crystals: NoisyCrystals, h: Tensor, vectors: Tensor, condition: Tensor, level_features: Tensor
    ) -> ScoreOutput:
        """
        Args:
            crystals: the noisy crystals.
            h: (num_atoms, width), invariant.
            vectors: (num_atoms, 3), Cartesian.
            condition: (num_crystals, width).
            level_features: (num_crystals, level features).
        """
        batch, orbits = crystals.batch, crystals.orbits
        h = self.norm(h)
        moved = to_fractional(vectors, crystals.lattice, batch) * self._gains(level_features, batch)
        logits = scatter(self.types_out(h), orbits.of_atom, dim=0, dim_size=len(orbits.position), reduce="mean")
        # what the atoms of an orbit say together: the average over the group
        return ScoreOutput(orbits.pull(moved), logits, self._lattice(h, batch, condition))

    def of_orbits(
        self, orbits: Orbits, h: Tensor, moved: Tensor, condition: Tensor, level_features: Tensor
    ) -> ScoreOutput:
        """As `forward`, of a network on orbits.

        Args:
            orbits: of the noisy crystals.
            h: (num_orbits, width), invariant, `norm` applied already: the way is read from it, too.
            moved: (num_orbits, 3), how the parameters should move; what is not free is taken out.
            condition: (num_crystals, width).
            level_features: (num_crystals, level features).
        """
        free = moved * self._gains(level_features, orbits.batch) * orbits.is_free
        return ScoreOutput(free, self.types_out(h), self._lattice(h, orbits.batch, condition))

    def _gains(self, level_features: Tensor, batch: Tensor) -> Tensor:
        return torch.exp(self.gain(level_features)).index_select(0, batch)

    def _lattice(self, h: Tensor, batch: Tensor, condition: Tensor) -> Tensor:
        pooled = scatter(h, batch, dim=0, dim_size=len(condition), reduce="mean")
        return self.lattice_out(torch.cat([pooled, condition], dim=-1))
