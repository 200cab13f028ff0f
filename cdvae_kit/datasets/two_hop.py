"""Tables of random facts composed in two and three hops: what a pattern matcher can and cannot know of unseen inputs.

Chang et al., "The coverage principle" (2025, arXiv 2505.20278; its second version is named "Characterizing pattern
matching and its limits on compositional task structures"). With tables f₁, f₂, f₃ of uniform random tokens:

- `two_hop`: f₂(f₁(x₁, x₂), x₃)
- `parallel`: f₃(f₁(x₁, x₂), f₂(x₃, x₄))
- `three_hop`: f₃(f₂(f₁(x₁, x₂), x₃), x₄)
- `non_tree`: f₂(f₁(x₁, x₂), x₂, x₃), where x₂ acts twice

A share of each table is seen; training inputs are compositions of seen facts alone. Theirs draw with replacement from
one stream; here the inputs are ranked by a hash of (seed, input), so that a smaller training set lies within a larger
one. Coverage itself is in `cdvae_kit.representation.methods.functional_coverage`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import IndexedDraws, uniform

Structure: TypeAlias = Literal["two_hop", "parallel", "three_hop", "non_tree"]

# each table: its arguments, inputs by index and earlier tables by −1 (the first), −2 ...
_TABLES: dict[Structure, tuple[tuple[int, ...], ...]] = {
    "two_hop": ((0, 1), (-1, 2)),
    "parallel": ((0, 1), (2, 3), (-1, -2)),
    "three_hop": ((0, 1), (-1, 2), (-2, 3)),
    "non_tree": ((0, 1), (-1, 1, 2)),
}
_MOST_INPUTS = 50_000_000
_CONTENT, _SEEN, _ORDER = 0, 1, 2  # keys of the draws


@dataclass(frozen=True)
class Split:
    """Training inputs and all others that are made of facts, in random order.

    Attributes:
        train_tokens: (n, arity) long.
        train_labels: (n,) long.
        test_tokens: (q, arity) long.
        test_labels: (q,) long.
        unseen_facts: (q,) long, how many of a test input's facts occur in no training input; 0 is in-domain.
    """

    train_tokens: Tensor
    train_labels: Tensor
    test_tokens: Tensor
    test_labels: Tensor
    unseen_facts: Tensor


@dataclass(frozen=True)
class TwoHopTask:
    """One set of random tables; named after the simplest structure.

    Attributes:
        num_tokens: tokens and labels run from 0 to one less.
        structure: how the tables are composed.
        seed: of the tables, of the facts that are seen and of the order of inputs.
        seen_share: of each table.

    >>> task = TwoHopTask(4, "two_hop", seed=0)
    >>> split = task.split(8)
    >>> split.train_tokens.shape, len(split.train_labels) + len(split.test_labels)
    (torch.Size([8, 3]), 64)
    >>> bool((task.labels(split.test_tokens) == split.test_labels).all())
    True
    """

    num_tokens: int
    structure: Structure
    seed: int
    seen_share: float = 0.7

    def __post_init__(self) -> None:
        if self.structure not in get_args(Structure):
            raise ValueError(f"expected a structure of {', '.join(get_args(Structure))}, got {self.structure!r}")
        if self.num_tokens < 2 or self.num_tokens**self.arity > _MOST_INPUTS:
            raise ValueError(
                f"expected 2 tokens or more and at most {_MOST_INPUTS:,} inputs, got {self.num_tokens}^{self.arity}"
            )
        if not 0.0 < self.seen_share <= 1.0:
            raise ValueError(f"the share of seen facts must lie in (0, 1], got {self.seen_share}")

    @property
    def arity(self) -> int:
        """Tokens of an input."""
        return 1 + max(index for arguments in _TABLES[self.structure] for index in arguments)

    @property
    def wiring(self) -> tuple[tuple[int, ...], ...]:
        """The arguments of each table: indices of the input, and earlier tables as −1 (the first), −2 and so on.

        >>> TwoHopTask(4, "non_tree", seed=0).wiring
        ((0, 1), (-1, 1, 2))
        """
        return _TABLES[self.structure]

    def table(self, which: int) -> Tensor:
        """Long, table f_(which + 1), one axis of `num_tokens` an argument."""
        shape = (self.num_tokens,) * len(_TABLES[self.structure][which])
        draws = self._draws(torch.Size(shape).numel(), _CONTENT, which)
        return (draws * self.num_tokens).long().clamp_max(self.num_tokens - 1).reshape(shape)

    def facts(self, tokens: Tensor) -> Tensor:
        """(b, tables) long, the index that each table is looked up at, in the order of its flat entries."""
        return self._looked_up(tokens)[0]

    def labels(self, tokens: Tensor) -> Tensor:
        """(b,) long, the last table's entry for tokens (b, arity)."""
        return self._looked_up(tokens)[1][-1]

    def bridges(self, tokens: Tensor) -> Tensor:
        """(b,) long, f₁(x₁, x₂), the first hidden value: what a network should find a state for."""
        return self._looked_up(tokens)[1][0]

    def all_inputs(self) -> Tensor:
        """(num_tokens^arity, arity) long, every input, the last token running fastest."""
        axes = [torch.arange(self.num_tokens)] * self.arity
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, self.arity)

    def seen_facts(self, which: int) -> Tensor:
        """(entries,) bool, which entries of a table training inputs may be made of."""
        size = self.num_tokens ** len(_TABLES[self.structure][which])
        return _lowest(self._draws(size, _SEEN, which), round(self.seen_share * size))

    @functools.cached_property
    def _ordered(self) -> tuple[Tensor, Tensor]:
        """All inputs in the order of their hashes, and which of them are made of seen facts alone."""
        tokens = self.all_inputs()
        tokens = tokens[self._draws(len(tokens), _ORDER, 0).argsort(stable=True)]
        facts = self.facts(tokens)
        allowed = torch.stack([self.seen_facts(which)[facts[:, which]] for which in range(facts.shape[1])]).all(0)
        return tokens, allowed

    @property
    def largest_training_set(self) -> int:
        """How many inputs are made of seen facts."""
        return int(self._ordered[1].sum())

    def split(self, num_train: int) -> Split:
        """The first `num_train` inputs made of seen facts, and every other input."""
        tokens, allowed = self._ordered
        if not 1 <= num_train <= self.largest_training_set:
            raise ValueError(
                f"{num_train} training inputs were asked for, {self.largest_training_set} are made of seen facts; ask "
                "for 1 up to that many, or raise seen_share or num_tokens"
            )
        chosen = allowed & (allowed.cumsum(0) <= num_train)
        train, test = tokens[chosen], tokens[~chosen]
        train_facts, test_facts = self.facts(train), self.facts(test)
        unseen = torch.zeros(len(test), dtype=torch.long)
        for which in range(train_facts.shape[1]):
            occurs = torch.zeros(self.num_tokens ** len(_TABLES[self.structure][which]), dtype=torch.bool)
            occurs[train_facts[:, which]] = True
            unseen += (~occurs[test_facts[:, which]]).long()
        return Split(train, self.labels(train), test, self.labels(test), unseen)

    def _looked_up(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        facts: list[Tensor] = []
        values: list[Tensor] = []
        for which, arguments in enumerate(_TABLES[self.structure]):
            fact = torch.zeros(len(tokens), dtype=torch.long)
            for index in arguments:
                fact = fact * self.num_tokens + (tokens[:, index] if index >= 0 else values[-index - 1])
            facts.append(fact)
            values.append(self.table(which).flatten()[fact])
        return torch.stack(facts, dim=1), values

    def _draws(self, size: int, *key: int) -> Tensor:
        return uniform(IndexedDraws(make_generator(self.seed, *key).initial_seed(), torch.arange(size)), size)


def _lowest(values: Tensor, count: int) -> Tensor:
    chosen = torch.zeros(len(values), dtype=torch.bool)
    chosen[values.argsort(stable=True)[:count]] = True
    return chosen
