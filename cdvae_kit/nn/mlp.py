"""Multilayer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(widths: Sequence[int], *, final_activation: bool = False) -> nn.Sequential:
    """Linear layers of the given widths with SiLU between them.

    >>> [tuple(p.shape) for p in mlp([4, 8, 2]).parameters()]
    [(8, 4), (8,), (2, 8), (2,)]
    """
    if len(widths) < 2:
        raise ValueError(f"an MLP needs the widths of its input and its output, got {list(widths)}")
    layers: list[nn.Module] = []
    for i, (width_in, width_out) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(width_in, width_out))
        if final_activation or i < len(widths) - 2:
            layers.append(nn.SiLU())
    return nn.Sequential(*layers)


def dropout(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Sets a random share of the numbers to 0 and makes up for it in the others; randomness comes from the generator.

    >>> dropped = dropout(torch.ones(1000), 0.25, torch.Generator().manual_seed(0))
    >>> sorted(set(dropped.tolist()))
    [0.0, 1.3333333730697632]
    """
    kept = torch.rand(x.shape, generator=generator, device=x.device) >= share
    return x * kept / (1.0 - share)


class ResidualMLP(nn.Module):
    """A linear map plus an MLP: what is linear in the input need not be learnt through a nonlinearity."""

    def __init__(self, width_in: int, hidden: int, width_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width_out)
        self.nonlinear = mlp([width_in, hidden, hidden, width_out])
        # starts as the linear map alone
        last = self.nonlinear[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.nonlinear(x)
