"""Messages that carry a scalar and a vector part: the vectors turn, and are mirrored, with the frame.

Source: Schuett et al., "Equivariant message passing for the prediction of tensorial properties" (PaiNN, ICML 2021,
arXiv 2102.03150), eq. 7 to 10. Differences: scalars are layer-normed under a condition, vectors are divided by their
root mean square before they are sent, and a vector's gate sees its length with 1e-4 added, for the slope at 0.
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.nn.mlp import mlp


class VectorMessage(nn.Module):
    """Sums over neighbours: of gated scalars, of gated vectors, and of the edges' own directions.

    Args:
        width: scalars, and vectors, of an atom.
        num_basis: radial functions, which vanish at the cutoff.
        num_neighbors: typical number of neighbours; sums are divided by its square root.
    """

    def __init__(self, width: int, num_basis: int, num_neighbors: float) -> None:
        super().__init__()
        self.num_neighbors = num_neighbors
        self.norm = nn.LayerNorm(width)
        self.modulate = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.source = mlp([width, width, 3 * width])
        # no bias: where the basis vanishes, at the cutoff, so does the message
        self.radial = nn.Linear(num_basis, 3 * width, bias=False)

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor,
        edge_index: Tensor,
        direction: Tensor,
        basis: Tensor,
        condition: Tensor,
        batch: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Scalars (num_atoms, width) and vectors (num_atoms, 3, width) after the messages.

        Args:
            scalars: (num_atoms, width).
            vectors: (num_atoms, 3, width).
            edge_index: (2, num_edges) long, source and target, sorted by target.
            direction: (num_edges, 3), unit vectors.
            basis: (num_edges, num_basis).
            condition: (num_crystals, width).
            batch: (num_atoms,) long.
        """
        source, target = edge_index
        scale, shift = self.modulate(condition)[batch].chunk(2, dim=-1)
        sent = self.source(self.norm(scalars) * (1.0 + scale) + shift)
        gates = sent.index_select(0, source) * self.radial(basis)
        scalar_part, vector_gate, direction_gate = gates.chunk(3, dim=-1)
        unit = vectors * torch.rsqrt(vectors.square().sum(1).mean(-1) + 1e-2).view(-1, 1, 1)
        vector_part = vector_gate.unsqueeze(1) * unit.index_select(0, source)
        vector_part = torch.addcmul(vector_part, direction_gate.unsqueeze(1), direction.unsqueeze(-1))
        messages = torch.cat([scalar_part, vector_part.flatten(1)], dim=-1)
        received = scatter(messages, target, dim=0, dim_size=len(scalars), reduce="sum") / self.num_neighbors**0.5
        width = scalars.shape[-1]
        return scalars + received[:, :width], vectors + received[:, width:].view_as(vectors)


class VectorUpdate(nn.Module):
    """Scalars and vectors of one atom mixed: vectors by scalar gates, scalars by lengths and products of vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.gates = mlp([2 * width, width, 3 * width])

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.mix(vectors).chunk(2, dim=-1)
        lengths = torch.sqrt(right.square().sum(1) + 1e-4)
        scalar_gate, product_gate, vector_gate = self.gates(torch.cat([self.norm(scalars), lengths], dim=-1)).chunk(
            3, dim=-1
        )
        return (
            scalars + scalar_gate + product_gate * (left * right).sum(1),
            vectors + vector_gate.unsqueeze(1) * left,
        )


class VectorReadout(nn.Module):
    """One vector an atom: its vectors mixed by gates from its scalars."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gates = mlp([width, width, width])

    def forward(self, scalars: Tensor, vectors: Tensor) -> Tensor:
        """(num_atoms, 3)."""
        return torch.einsum("nif,nf->ni", vectors, self.gates(self.norm(scalars))) / vectors.shape[-1] ** 0.5
