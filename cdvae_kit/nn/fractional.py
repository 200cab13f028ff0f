"""Message passing between all atoms of a cell, on features of their fractional differences.

The layers see h (one row an atom), pair features and a condition (one row a crystal); they know no chemistry.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch_geometric.utils import scatter

from cdvae_kit.nn.mlp import mlp


def set_precision(module: nn.Module, *, half: bool) -> None:
    """Whether the wide products of the message layers within `module` run in bfloat16; all else stays as it is.

    Geometry, sums over pairs and weights keep their precision. It pays on CUDA, and on CPUs with AVX-512 BF16.
    """
    for layer in module.modules():
        if isinstance(layer, FractionalLayer | PairwiseReadout):
            layer.in_bfloat16 = half


class FractionalLayer(nn.Module):
    """One round of messages over all pairs of atoms, then an update of every atom.

    The first layer of the message MLP is split into its parts (target, source, pair), so that the wide
    products run once an atom and not once a pair.
    """

    in_bfloat16 = False

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
        scale, shift = self.modulate(condition).index_select(0, batch).chunk(2, dim=-1)
        normed = self.norm(h) * (1.0 + scale) + shift
        with torch.autocast(h.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            hidden = _hidden(self.target_and_source(normed), pairs, self.pair(pair_features))
            messages = silu(self.message(hidden), inplace=not torch.is_grad_enabled())
        received = scatter(messages.to(h.dtype), pairs[1], dim=0, dim_size=len(h), reduce="mean")
        return h + self.update(torch.cat([normed, received], dim=-1))


class PairwiseReadout(nn.Module):
    """A vector an atom: the mean over its pairs of a Fourier series in the fractional difference.

    The coefficients come from both atoms. The series of the sawtooth x - d, wrapped, with any d of a pair's own, is
    among the functions of the first rank, so that "go to where you should stand as seen from me" is one product away.
    """

    decay: Tensor
    in_bfloat16 = False

    def __init__(self, width: int, num_frequencies: int) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        features = 6 * num_frequencies
        self.target_and_source = nn.Linear(width, 2 * width)
        self.pair = nn.Linear(features, width, bias=False)
        self.coefficients = nn.Linear(width, features)
        harmonic = torch.arange(1, num_frequencies + 1).repeat(6).to(torch.float32)
        self.register_buffer("decay", 1.0 / harmonic, persistent=False)

    def forward(self, h: Tensor, pairs: Tensor, pair_features: Tensor) -> Tensor:
        """(num_atoms, 3); `pair_features` are those of `PeriodicFourier`."""
        with torch.autocast(h.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            hidden = _hidden(self.target_and_source(h), pairs, self.pair(pair_features))
            coefficients = self.coefficients(hidden)
        terms = coefficients.to(h.dtype) * (self.decay * pair_features)
        terms = scatter(terms, pairs[1], dim=0, dim_size=len(h), reduce="mean")
        return terms.view(-1, 2, 3, self.num_frequencies).sum(dim=(1, 3))


def _hidden(target_and_source: Tensor, pairs: Tensor, of_pair: Tensor) -> Tensor:
    """(num_pairs, width): silu of what target, source and pair say, added up in place."""
    target, source = target_and_source.chunk(2, dim=-1)
    total = target.index_select(0, pairs[1])
    total += source.index_select(0, pairs[0])
    total += of_pair
    return silu(total, inplace=not torch.is_grad_enabled())
