"""Networks that learn labels of token tuples: one wired as the task, and a small transformer that is not.

What they are compared on is in `functional_coverage`; any `torch.nn.Module` from tokens (b, m) to (b, d) does too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WiredMLP(nn.Module):
    """A small network for each table of a task, joined as the tables are.

    The way from x₁ and x₂ to the bridge is built in; what a pair of tokens means is learnt.

    Args:
        wiring: `TwoHopTask.wiring`: the arguments of each table, −1 the first table, −2 the second.
        num_tokens: at each position.
        width: of a token's embedding.
        state: features that a table hands on, and `out_features`.

    >>> WiredMLP(((0, 1), (-1, 2)), num_tokens=5)(torch.tensor([[0, 4, 2]])).shape
    torch.Size([1, 128])
    """

    def __init__(self, wiring: Sequence[Sequence[int]], *, num_tokens: int, width: int = 96, state: int = 128) -> None:
        super().__init__()
        self.wiring = [tuple(arguments) for arguments in wiring]
        arity = 1 + max(position for arguments in wiring for position in arguments)
        self.embeddings = nn.ModuleList(nn.Embedding(num_tokens, width) for _ in range(arity))
        self.tables = nn.ModuleList(
            nn.Sequential(
                nn.Linear(sum(width if position >= 0 else state for position in arguments), 2 * state),
                nn.GELU(),
                nn.Linear(2 * state, state),
            )
            for arguments in self.wiring
        )
        self.out_features = state

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (b, state) of tokens (b, m) long."""
        embedded = [embedding(tokens[:, position]) for position, embedding in enumerate(self.embeddings)]
        values: list[Tensor] = []
        for arguments, table in zip(self.wiring, self.tables, strict=True):
            known = [embedded[position] if position >= 0 else values[-position - 1] for position in arguments]
            values.append(table(torch.cat(known, dim=1)))
        return values[-1]


class TokenTransformer(nn.Module):
    """A decoder as GPT-2's: learnt positions, causal attention, normalisation first; the features of the last token.

    Args:
        arity: tokens of an input.
        num_tokens: at each position.
        width: of the residual stream, and `out_features`.
        num_layers: of attention and a perceptron four times as wide.
        num_heads: a divisor of `width`.

    >>> TokenTransformer(arity=3, num_tokens=5, width=8, num_heads=2)(torch.tensor([[0, 4, 2]])).shape
    torch.Size([1, 8])
    """

    mask: Tensor

    def __init__(
        self, *, arity: int, num_tokens: int, width: int = 64, num_layers: int = 2, num_heads: int = 4
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.positions = nn.Embedding(arity, width)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        )
        self.last = nn.LayerNorm(width)
        self.register_buffer("mask", torch.full((arity, arity), -torch.inf).triu(1), persistent=False)
        self.out_features = width

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (b, width) of tokens (b, arity) long."""
        return self.states(tokens)[:, -1]

    def states(self, tokens: Tensor) -> Tensor:
        """(b, arity, width), a state for each position that has seen the positions up to it."""
        x = self.tokens(tokens) + self.positions.weight
        for layer in self.layers:
            x = layer(x, src_mask=self.mask)
        states: Tensor = self.last(x)
        return states
