"""Which compositions the prior draws too often: a classifier between real compositions and those read from its codes.

The odds of the best classifier of two samples are the ratio of their densities. Codes whose composition is accepted
with a probability in proportion to this ratio come in the proportions of the real ones, as far as the classifier tells
them apart (discriminator rejection sampling: Azadi et al., arXiv 1810.06758). What a flow over codes learns last,
balanced charges for one, is easily seen in a composition: the features of its elements, weighted by share, add up.
"""

import torch
from torch import Tensor, nn

from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.nn.mlp import dropout, mlp

_ELEMENT_WIDTH = 64
_DROPOUT = 0.1


class CompositionCritic(nn.Module):
    """Log-odds that a composition is a real one: features of elements and counts, summed, then a function of the sums.

    >>> critic = CompositionCritic(8)
    >>> counts = torch.zeros(1, NUM_ELEMENTS, dtype=torch.long)
    >>> counts[0, 10], counts[0, 16] = 1, 1
    >>> critic(counts).tolist()  # before it is fitted all are as probable
    [0.0]
    """

    ceiling = 2.0
    """A composition that is so many times more frequent among real ones is always accepted."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.element = nn.Embedding(NUM_ELEMENTS, _ELEMENT_WIDTH)
        self.of_element = mlp([_ELEMENT_WIDTH + 2, hidden, hidden])
        self.out = mlp([hidden + 2 * _ELEMENT_WIDTH + 1, hidden, hidden, 1])
        last = self.out[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, counts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(num_crystals,) of counts (num_crystals, num_elements) long, hydrogen first; in training with a generator."""
        total = counts.sum(1, keepdim=True).clamp_min(1).to(self.element.weight.dtype)
        row, element = counts.nonzero(as_tuple=True)
        count = counts[row, element].unsqueeze(-1).to(total)
        share = count / total.index_select(0, row)
        own = self.element(element)
        features = self.of_element(torch.cat([own, share, count.log()], dim=-1))

        def summed(values: Tensor) -> Tensor:
            return values.new_zeros(len(counts), values.shape[1]).index_add(0, row, values)

        balance = summed(share * own)
        pooled = torch.cat([summed(features), balance, balance.abs(), total.log()], dim=-1)
        if generator is not None:
            pooled = dropout(pooled, _DROPOUT, generator)
        return self.out(pooled).squeeze(-1)

    def accepts(self, counts: Tensor, uniform: Tensor) -> Tensor:
        """(num_crystals,) bool, for draws `uniform` (num_crystals,) from [0, 1)."""
        return uniform < self(counts).exp() / self.ceiling
