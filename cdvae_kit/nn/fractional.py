"""Message passing between all atoms of a cell, on features of their fractional differences.

The layers see h (one row an atom), pair features and a condition (one row a crystal); they know no chemistry.
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.nn.mlp import mlp


class FractionalLayer(nn.Module):
    """One round of messages over all pairs of atoms, then an update of every atom.

    The first layer of the message MLP is split into its parts (target, source, pair), so that the wide
    products run once an atom and not once a pair.
    """

    def __init__(self, width: int, pair_features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.target_and_source = nn.Linear(width, 2 * width)
        self.pair = nn.Linear(pair_features, width, bias=False)
        self.message = nn.Linear(width, width)
        self.update = mlp([2 * width, width, width])
        self.modulate = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, h: Tensor, pairs: Tensor, pair_features: Tensor, condition: Tensor, batch: Tensor) -> Tensor:
        """
        Args:
            h: (num_atoms, width).
            pairs: (2, num_pairs) long, source and target, sorted by target.
            pair_features: (num_pairs, pair_features).
            condition: (num_crystals, width).
            batch: (num_atoms,) long.
        """
        scale, shift = self.modulate(condition)[batch].chunk(2, dim=-1)
        normed = self.norm(h) * (1.0 + scale) + shift
        target, source = self.target_and_source(normed).chunk(2, dim=-1)
        hidden = torch.nn.functional.silu(
            target.index_select(0, pairs[1]) + source.index_select(0, pairs[0]) + self.pair(pair_features)
        )
        messages = torch.nn.functional.silu(self.message(hidden))
        received = scatter(messages, pairs[1], dim=0, dim_size=len(h), reduce="mean")
        return h + self.update(torch.cat([normed, received], dim=-1))
