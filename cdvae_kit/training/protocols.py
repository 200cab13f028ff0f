"""What training asks of a model. Models stand on the same floor and are handed in; `cdvae_kit.models.CDVAE` fits."""

from __future__ import annotations

import os
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.typing import Progress


class TrainablePrior(Protocol):
    """A module that learns the distribution of codes."""

    def set_statistics(self, codes: Tensor) -> None: ...

    def loss(self, codes: Tensor, *, generator: torch.Generator | None = None) -> Tensor: ...


class TrainableNetwork(Protocol):
    """A module (`torch.nn.Module`) with a loss on crystals: what stage one trains."""

    config: Any
    """A pydantic model: it is compared when a run is resumed, and stored beside it."""
    card: dict[str, Any]
    """What is known of the weights; training adds to it."""
    known_elements: Tensor
    """(num_elements,) long: atomic numbers of the training crystals."""

    def prepare(self, crystals: CrystalBatch, *, progress: Progress | None = None) -> CrystalBatch:
        """The crystals as the network sees them, in the form that all other methods take."""
        ...

    def fit_statistics(self, crystals: CrystalBatch) -> None: ...

    def graph(self, crystals: CrystalBatch) -> PeriodicGraph: ...

    def loss(
        self, crystals: CrystalBatch, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]: ...

    def total_loss(self, terms: dict[str, Tensor]) -> Tensor: ...

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None: ...


@runtime_checkable
class TrainableModel(TrainableNetwork, Protocol):
    """A network with codes, and perhaps a prior on them, which stage two fits."""

    encoder: Any
    """Compiled if asked for."""
    score_network: Any
    """Compiled if asked for."""
    conditions: Any
    """What the prior can be told of a crystal, `facts(crystals)` of (num_crystals, width), or None."""
    prior: Any
    """A module that is a `TrainablePrior`, or None: stage one leaves the parameters under this name alone."""

    def posterior(self, crystals: CrystalBatch, graph: PeriodicGraph) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Critical(Protocol):
    """A model with a critic of the compositions that its prior gives, which stage three fits."""

    critic: Any
    """From counts (num, num_elements) to log-odds, or None: stage one leaves the parameters under this name alone."""

    def element_counts(self, crystals: CrystalBatch) -> Tensor:
        """(num_crystals, num_elements) long."""
        ...

    def drawn_counts(self, crystal_ids: Tensor, *, seed: int) -> Tensor:
        """(num_crystals, num_elements) long: compositions read from codes of the prior, all that come."""
        ...


_FITTED_LATER = ("prior.", "critic.")
"""Beginnings of the names of parameters that stage one leaves alone."""


def is_trained(name: str, codes: Literal["learned", "kept"]) -> bool:
    """Whether stage one trains the parameter of this name; see `TrainingConfig.codes`."""
    return name.startswith("score_network.") if codes == "kept" else not name.startswith(_FITTED_LATER)


@runtime_checkable
class Decoding(Protocol):
    """A model whose score network can be trained alone."""

    def decoder_loss(
        self, crystals: CrystalBatch, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]: ...


def as_module(model: TrainableNetwork) -> nn.Module:
    """The same object; a `TypeError` if it is no `torch.nn.Module`."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module with the methods of TrainableNetwork, got {type(model).__name__}")
    return model
