"""From a crystal, as orbits, to the mean and variance of its latent code.

All atoms of an orbit have the same surroundings: features live on orbits, and an orbit is looked at from its first atom
alone. What is left out would be the same number again, so this costs as many times less as orbits have atoms, and
changes nothing in what is seen.
"""

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.models.config import EncoderConfig
from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.models.positions import GroupEmbedding, PositionEmbedding, where_it_stands
from cdvae_kit.models.slots import NUM_WAVES, WaveSlots
from cdvae_kit.nn.embeddings import BesselBasis, PeriodicFourier
from cdvae_kit.nn.equivariant import EquivariantConvolution
from cdvae_kit.nn.fractional import FractionalLayer
from cdvae_kit.nn.mlp import mlp

LOG_VAR_BOUNDS = (-12.0, 4.0)
"""Standard deviations of a code between exp(-6) = 0.0025 and exp(2) = 7.4, where the prior's is 1: exp(log_var) and the
divergence from N(0, I) stay finite whatever an untrained network says. Our choice; the published code has no bounds."""
_FIRST_LOG_VAR = -4.0
"""Of an untrained encoder: a standard deviation of exp(-2) = 0.14, so that codes tell crystals apart from the start.
A linear layer's own start gives about 1, as in the published code. Our choice, not tuned."""


class EquivariantEncoder(nn.Module):
    """Equivariant convolutions of which the invariants are kept, then messages in the frame of the cell, then means.

    Exact under rotation, reflection of the graph part, translation, order of atoms and orbits, and choice of cell: the
    cell and the points that it sees are those of the canonical description.
    """

    def __init__(self, config: EncoderConfig, *, latent_dim: int, max_atoms: int, is_numbered: bool = False) -> None:
        super().__init__()
        channels, width = config.channels, config.width
        self.num_frequencies = config.num_frequencies
        self.channels = channels
        self.harmonics = o3.Irreps.spherical_harmonics(config.lmax)
        self.basis = BesselBasis(config.num_basis, config.cutoff)
        self.element = nn.Embedding(NUM_ELEMENTS + 1, channels)
        self.element_wide = nn.Embedding(NUM_ELEMENTS + 1, width)
        self.position = PositionEmbedding(width)
        self.place = nn.Linear(6 * config.num_frequencies, width, bias=False)
        scalars = o3.Irreps([(channels, (0, 1))])
        self.convolutions = nn.ModuleList(
            EquivariantConvolution(
                scalars,
                (channels,) * (config.lmax + 1),
                lmax=config.lmax,
                num_basis=config.num_basis,
                num_neighbors=config.max_neighbors,
            )
            for _ in range(config.num_convolutions)
        )
        self.join = mlp([width + channels * config.num_convolutions, width, width])
        self.group = GroupEmbedding(width)
        self.condition = mlp([6 + 2 * width, width, width])
        self.count = nn.Embedding(max_atoms + 1, width)
        self.fourier = PeriodicFourier(config.num_frequencies)
        self.frame_layers = nn.ModuleList(
            FractionalLayer(width, self.fourier.num_features) for _ in range(config.num_frame_layers)
        )
        self.readout = nn.Linear(width, 2 * width)
        self.what = nn.Embedding(NUM_ELEMENTS + 1, width)
        self.where = nn.Linear(width, width)
        self.number = None
        if is_numbered:
            # which orbit one is, by its place in the canonical description
            self.number, self.slots = nn.Embedding(max_atoms, width), WaveSlots(max_atoms, latent_dim)
            nn.init.zeros_(self.number.weight)
        pooled = 4 * width + width
        self.mu = nn.Linear(pooled, latent_dim)
        self.log_var = nn.Linear(pooled, latent_dim)
        self.of_bound = nn.Linear(width, latent_dim, bias=False)
        nn.init.zeros_(self.of_bound.weight)
        nn.init.zeros_(self.log_var.weight)
        nn.init.constant_(self.log_var.bias, _FIRST_LOG_VAR)

    def forward(
        self, crystals: SymmetricCrystals, graph: PeriodicGraph, lattice_parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """mu and log_var, each (num_crystals, latent_dim).

        Args:
            crystals: the crystals.
            graph: edges whose targets are the first atoms of orbits.
            lattice_parameters: (num_crystals, 6), standardised.
        """
        orbits, elements = crystals.orbits, crystals.elements
        batch, of_atom = orbits.batch, orbits.of_atom
        s = self._surroundings(crystals, graph, elements, of_atom)
        position = self.position(orbits.position)
        if self.number is None:
            told = orbits.is_free & ~orbits.is_polar
            # parameters are bound to what they belong to, as positions are
            position = position + self.place(where_it_stands(crystals.free, told, self.num_frequencies))
            s, slots = s + position, None
        else:
            free, number = orbits.seen_from(orbits.anchors(elements), crystals.free), orbits.numbers(elements)
            s = s + position + self.place(where_it_stands(free, orbits.is_free, self.num_frequencies))
            s = s + self.number(number)
            slots = self.slots.write(where_it_stands(free, orbits.is_free, NUM_WAVES), number, orbits)
        condition = self.condition(
            torch.cat([lattice_parameters, self.count(orbits.num_atoms), self.group(orbits.space_group)], dim=-1)
        )
        atoms, seen_from = orbits.pairs()
        frac_coords = crystals.frac_coords
        first = orbits.first_atom.index_select(0, seen_from)
        pair_features = self.fourier(frac_coords.index_select(0, atoms) - frac_coords.index_select(0, first))
        pairs = torch.stack([of_atom.index_select(0, atoms), seen_from])
        for layer in self.frame_layers:
            s = layer(s, pairs, pair_features, condition, batch)
        left, right = self.readout(s).chunk(2, dim=-1)
        rows = torch.cat([left, torch.nn.functional.silu(right)], dim=-1)
        size = len(orbits.num_orbits)
        by_orbit = scatter(rows, batch, dim=0, dim_size=size, reduce="mean")
        share = orbits.multiplicity.to(rows.dtype) / orbits.num_atoms.index_select(0, batch).to(rows.dtype)
        by_atom = scatter(rows * share.unsqueeze(-1), batch, dim=0, dim_size=size, reduce="sum")
        # what stands where, bound together by a product: the symmetry head takes it apart again
        bound = scatter(self.what(elements) * self.where(position), batch, dim=0, dim_size=size, reduce="sum")
        pooled = torch.cat([by_orbit, by_atom, condition], dim=-1)
        mu = self.mu(pooled) + self.of_bound(bound)
        return mu if slots is None else mu + slots, self.log_var(pooled).clamp(*LOG_VAR_BOUNDS)

    def _surroundings(
        self, crystals: SymmetricCrystals, graph: PeriodicGraph, elements: Tensor, of_atom: Tensor
    ) -> Tensor:
        """(num_orbits, width): the element, and invariants of what lies around the first atom of each orbit."""
        edge_vectors = graph.vectors(crystals)
        basis = self.basis(edge_vectors.norm(dim=-1))
        harmonics = o3.spherical_harmonics(self.harmonics, edge_vectors, normalize=True, normalization="component")
        edges = of_atom.index_select(0, graph.edge_index.flatten()).view(2, -1)
        h = self.element(elements)
        scalars = []
        for convolution in self.convolutions:
            h = convolution(h, edges, harmonics, basis)[:, : self.channels]
            scalars.append(h)
        wide = self.element_wide(elements)
        return wide + self.join(torch.cat([wide, *scalars], dim=-1))
