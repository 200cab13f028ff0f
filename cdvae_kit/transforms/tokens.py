"""Random changes of tokens (b, l), long: masking, and other tokens in their place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cdvae_kit.transforms.base import Generator, Params, Transform, per_sample, uniform


def check_tokens(batch: Tensor) -> None:
    """`ValueError` unless the batch is (b, l) of integers."""
    if batch.ndim != 2 or batch.is_floating_point() or batch.dtype == torch.bool:
        raise ValueError(f"expected tokens (b, l) of integers, got {tuple(batch.shape)} {batch.dtype}")


@dataclass(frozen=True)
class MaskTokens(Transform[Tensor]):
    """A share of the tokens becomes `mask_token`; parameter `masked` (b, l) bool.

    Attributes:
        mask_token: of no other meaning.
        probability: of each token at magnitude 1.
        keep: a token that is never masked, for instance the padding, or None.
    """

    mask_token: int
    probability: float = 0.15
    keep: int | None = None

    def __post_init__(self) -> None:
        _check_probability(self.probability)

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_tokens(batch)
        share = self.probability * per_sample(magnitude, len(batch)).to(batch.device)[:, None]
        masked = uniform(generator, *batch.shape, like=batch) < share
        return {"masked": masked if self.keep is None else masked & (batch != self.keep)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        return batch.masked_fill(params["masked"], self.mask_token)


@dataclass(frozen=True)
class SubstituteTokens(Transform[Tensor]):
    """A share of the tokens becomes another one, uniform among the rest; parameter `step` (b, l) long.

    The step is added in the circle of tokens, 0 where nothing changes, so that a token never becomes itself.

    Attributes:
        num_tokens: tokens run from 0 to one less.
        probability: of each token at magnitude 1.
    """

    num_tokens: int
    probability: float = 0.15

    def __post_init__(self) -> None:
        _check_probability(self.probability)
        if self.num_tokens < 2:
            raise ValueError(f"a substitution needs at least 2 tokens, got {self.num_tokens}")

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_tokens(batch)
        share = self.probability * per_sample(magnitude, len(batch)).to(batch.device)[:, None]
        changed = uniform(generator, *batch.shape, like=batch) < share
        other = 1 + (uniform(generator, *batch.shape, like=batch) * (self.num_tokens - 1)).long()
        return {"step": torch.where(changed, other.clamp_max(self.num_tokens - 1), 0)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_tokens(batch)
        if batch.numel() and not (0 <= int(batch.min()) and int(batch.max()) < self.num_tokens):
            raise ValueError(f"tokens must lie in 0..{self.num_tokens - 1}, got {int(batch.min())}..{int(batch.max())}")
        return (batch + params["step"]) % self.num_tokens


@dataclass(frozen=True)
class Relabel(Transform[Tensor]):
    """One permutation of all tokens throughout a sample, for a share of samples; parameter `names` (b, num_tokens).

    What is left of a sample is its pattern.

    Attributes:
        num_tokens: tokens run from 0 to one less.
        probability: of a sample at magnitude 1.
    """

    num_tokens: int
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_probability(self.probability)

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_tokens(batch)
        order = uniform(generator, len(batch), self.num_tokens, like=batch).argsort(dim=1)
        share = self.probability * per_sample(magnitude, len(batch)).to(batch.device)[:, None]
        chosen = uniform(generator, len(batch), 1, like=batch) < share
        return {"names": torch.where(chosen, order, torch.arange(self.num_tokens, device=batch.device))}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_tokens(batch)
        return params["names"].gather(1, batch)


def _check_probability(probability: float) -> None:
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"a probability must lie in [0, 1], got {probability}")
