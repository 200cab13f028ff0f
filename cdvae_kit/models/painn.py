"""The equivariant score network: scalars and vectors on the periodic graph of the noisy crystal.

Which symmetry holds: rotation, reflection, translation, permutation of atoms and choice of periodic image, exactly:
it sees types, edges as vectors, and rotation-invariant lattice parameters, and its Cartesian output is written as
fractions of the cell at the very end. Another choice of the cell's vectors changes the lattice parameters alone.
"""

from torch import Tensor, nn

from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.models.config import ScoreNetworkConfig
from cdvae_kit.models.noisy_graph import Conditioning, ScoreHeads, noisy_edges
from cdvae_kit.models.sites import SiteEmbedding
from cdvae_kit.nn.embeddings import BesselBasis
from cdvae_kit.nn.vector_messages import VectorMessage, VectorReadout, VectorUpdate


class PaiNNScoreNetwork(nn.Module):
    """PaiNN messages (arXiv 2102.03150) between near atoms, conditioned in each layer on z, noise level and lattice."""

    def __init__(self, config: ScoreNetworkConfig, *, latent_dim: int, max_atoms: int) -> None:
        super().__init__()
        width = config.width
        self.cutoff = config.cutoff
        self.max_neighbors = config.max_neighbors
        self.conditioning = Conditioning(config, latent_dim=latent_dim, max_atoms=max_atoms)
        self.basis = BesselBasis(config.num_basis, config.cutoff)
        self.messages = nn.ModuleList(
            VectorMessage(width, config.num_basis, config.max_neighbors) for _ in range(config.num_layers)
        )
        self.updates = nn.ModuleList(VectorUpdate(width) for _ in range(config.num_layers))
        self.readout = VectorReadout(width)
        self.heads = ScoreHeads(width)

    @property
    def sites(self) -> SiteEmbedding:
        """What the atoms start from; it can be asked for their surroundings."""
        return self.conditioning.sites

    def forward(self, crystals: NoisyCrystals, z: Tensor, level: Tensor) -> ScoreOutput:
        """
        Args:
            crystals: the noisy crystals.
            z: (num_crystals, latent_dim).
            level: (num_crystals,) noise level in [0, 1].
        """
        graph, distance, direction = noisy_edges(crystals, self.cutoff, self.max_neighbors)
        basis = self.basis(distance) * self.cutoff
        scalars, condition, level_features = self.conditioning(crystals, z, level)
        vectors = scalars.new_zeros(len(scalars), 3, scalars.shape[-1])
        for message, update in zip(self.messages, self.updates, strict=True):
            scalars, vectors = message(scalars, vectors, graph.edge_index, direction, basis, condition, crystals.batch)
            scalars, vectors = update(scalars, vectors)
        return self.heads(crystals, scalars, self.readout(scalars, vectors), condition, level_features)
