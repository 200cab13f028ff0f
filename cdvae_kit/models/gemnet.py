"""The score network with angles: messages on edges, as the published decoder, GemNet-dT, has them.

Which symmetry holds: rotation, reflection, translation, permutation of atoms and choice of periodic image, exactly:
it sees types, lengths, angles and rotation-invariant lattice parameters, and its vectors are sums over edges.
Written from the paper (arXiv 2106.08903), with the published sizes when `width` is 128, `num_layers` 3 and
`num_basis` 128; where it differs is said in `cdvae_kit.nn.directional`. Its radial functions are also Bessel's, not
Gaussians, and it has no outputs on atoms but the last, which the published decoder computes and does not use.
"""

import torch
from torch import Tensor, nn

from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.graph import triplets
from cdvae_kit.models.config import ScoreNetworkConfig
from cdvae_kit.models.noisy_graph import Conditioning, ScoreHeads, noisy_edges
from cdvae_kit.nn.directional import DirectionalLayer, DirectionalReadout, angular_table
from cdvae_kit.nn.embeddings import BesselBasis

NUM_ANGULAR = 7
"""Legendre polynomials of an angle."""
_NUM_RADIAL = 16
"""What the radial functions are brought down to, once for all layers."""


class GemNetScoreNetwork(nn.Module):
    """Messages between edges that meet in an atom; z, noise level and lattice are joined to the atoms at the start."""

    def __init__(self, config: ScoreNetworkConfig, *, latent_dim: int, max_atoms: int) -> None:
        super().__init__()
        width, neighbors = config.width, config.max_neighbors
        self.cutoff = config.cutoff
        self.max_neighbors = neighbors
        self.conditioning = Conditioning(config, latent_dim=latent_dim, max_atoms=max_atoms)
        self.basis = BesselBasis(config.num_basis, config.cutoff)
        self.radial = nn.Linear(config.num_basis, _NUM_RADIAL, bias=False)
        self.mixed = nn.Linear(config.num_basis, _NUM_RADIAL * NUM_ANGULAR, bias=False)
        self.start = nn.Linear(2 * width + config.num_basis, width)
        self.layers = nn.ModuleList(
            DirectionalLayer(width, max(1, width // 2), _NUM_RADIAL, _NUM_RADIAL, neighbors)
            for _ in range(config.num_layers)
        )
        self.readouts = nn.ModuleList(
            DirectionalReadout(width, _NUM_RADIAL, neighbors) for _ in range(config.num_layers + 1)
        )
        self.heads = ScoreHeads(width)

    def forward(self, crystals: NoisyCrystals, z: Tensor, level: Tensor) -> ScoreOutput:
        """
        Args:
            crystals: the noisy crystals.
            z: (num_crystals, latent_dim).
            level: (num_crystals,) noise level in [0, 1].
        """
        graph, distance, direction = noisy_edges(crystals, self.cutoff, self.max_neighbors)
        source, target = graph.edge_index
        table = angular_table(direction, *triplets(graph, crystals.num_atoms), NUM_ANGULAR)
        basis = self.basis(distance) * self.cutoff
        radial = self.radial(basis)
        mixed = self.mixed(basis).unflatten(-1, (_NUM_RADIAL, NUM_ANGULAR))

        h, condition, level_features = self.conditioning(crystals, z, level)
        ends = torch.cat([h.index_select(0, source), h.index_select(0, target), basis], dim=-1)
        m = nn.functional.silu(self.start(ends))
        vectors = self.readouts[0](m, target, direction, radial, len(h))
        for layer, readout in zip(self.layers, self.readouts[1:], strict=True):
            h, m = layer(h, m, graph.edge_index, radial, table, mixed)
            vectors = vectors + readout(m, target, direction, radial, len(h))
        return self.heads(crystals, h, vectors, condition, level_features)
