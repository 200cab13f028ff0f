"""From a crystal to the mean and variance of its latent code."""

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.models.config import EncoderConfig
from cdvae_kit.models.fractional import NUM_ELEMENTS
from cdvae_kit.nn.embeddings import BesselBasis, PeriodicFourier
from cdvae_kit.nn.equivariant import EquivariantConvolution
from cdvae_kit.nn.fractional import FractionalLayer
from cdvae_kit.nn.mlp import mlp


class EquivariantEncoder(nn.Module):
    """Equivariant convolutions on the periodic graph, then messages in the frame of the cell, then a mean over atoms.

    Exact under rotation, reflection of the graph part, translation, permutation and choice of periodic image.
    The frame layers and the lattice parameters see the cell's own vectors (Niggli-reduced crystals); with
    `num_frame_layers = 0` only the lattice parameters do.
    """

    def __init__(self, config: EncoderConfig, *, latent_dim: int, max_atoms: int) -> None:
        super().__init__()
        channels, width = config.channels, config.width
        self.harmonics = o3.Irreps.spherical_harmonics(config.lmax)
        self.basis = BesselBasis(config.num_basis, config.cutoff)
        self.element = nn.Embedding(NUM_ELEMENTS + 1, channels)
        self.element_wide = nn.Embedding(NUM_ELEMENTS + 1, width)
        irreps = o3.Irreps([(channels, (0, 1))])
        convolutions = []
        for i in range(config.num_convolutions):
            degrees = 1 if i == config.num_convolutions - 1 else config.lmax + 1
            convolutions.append(
                EquivariantConvolution(
                    irreps,
                    (channels,) * degrees,
                    lmax=config.lmax,
                    num_basis=config.num_basis,
                    num_neighbors=config.max_neighbors,
                )
            )
            irreps = convolutions[-1].irreps_out
        self.convolutions = nn.ModuleList(convolutions)
        self.channels = channels
        self.join = mlp([width + channels * config.num_convolutions, width, width])
        self.condition = mlp([6 + width, width, width])
        self.count = nn.Embedding(max_atoms + 1, width)
        self.fourier = PeriodicFourier(config.num_frequencies)
        self.frame_layers = nn.ModuleList(
            FractionalLayer(width, self.fourier.num_features) for _ in range(config.num_frame_layers)
        )
        self.readout = nn.Linear(width, 2 * width)
        self.mu = nn.Linear(2 * width + width, latent_dim)
        self.log_var = nn.Linear(2 * width + width, latent_dim)
        nn.init.zeros_(self.log_var.weight)
        nn.init.constant_(self.log_var.bias, -4.0)

    def forward(
        self, crystals: CrystalBatch, graph: PeriodicGraph, lattice_parameters: Tensor, pairs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """mu and log_var, each (num_crystals, latent_dim).

        Args:
            crystals: the crystals.
            graph: their edges.
            lattice_parameters: (num_crystals, 6), standardised.
            pairs: (2, num_pairs) long, all pairs of different atoms of a crystal, sorted by target.
        """
        batch, num_atoms = crystals.batch, crystals.num_atoms
        edge_vectors = graph.vectors(crystals)
        basis = self.basis(edge_vectors.norm(dim=-1))
        harmonics = o3.spherical_harmonics(self.harmonics, edge_vectors, normalize=True, normalization="component")
        h = self.element(crystals.atomic_numbers)
        scalars = []
        for convolution in self.convolutions:
            h = convolution(h, graph.edge_index, harmonics, basis)
            scalars.append(h[:, : self.channels])
        wide = self.element_wide(crystals.atomic_numbers)
        s = wide + self.join(torch.cat([wide, *scalars], dim=-1))
        condition = self.condition(torch.cat([lattice_parameters, self.count(num_atoms)], dim=-1))
        frac_coords = crystals.frac_coords
        pair_features = self.fourier(frac_coords.index_select(0, pairs[0]) - frac_coords.index_select(0, pairs[1]))
        for layer in self.frame_layers:
            s = layer(s, pairs, pair_features, condition, batch)
        left, right = self.readout(s).chunk(2, dim=-1)
        atoms = torch.cat([left, torch.nn.functional.silu(right)], dim=-1)
        pooled = torch.cat([scatter(atoms, batch, dim=0, dim_size=len(num_atoms), reduce="mean"), condition], dim=-1)
        return self.mu(pooled), self.log_var(pooled).clamp(-12.0, 4.0)
