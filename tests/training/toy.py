"""A model that training takes for a real one, and that costs next to nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch_geometric.utils import scatter

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import metric_tensor
from cdvae_kit.graph import PeriodicGraph, neighbor_list
from cdvae_kit.io.checkpoint import save_checkpoint
from cdvae_kit.seeding import make_generator
from cdvae_kit.training import TrainingConfig, seeded_weights


class ToyConfig(BaseModel):
    width: int = 3


class ToyPrior(nn.Module):
    """Where the codes lie: a Gaussian of learned mean."""

    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def set_statistics(self, codes: Tensor) -> None:
        self.scale.copy_(codes.std(0).clamp_min(1e-3))

    def loss(self, codes: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return ((codes - self.mean) / self.scale).square().mean()


class ToyModel(nn.Module):
    """Learns to tell lattices and elements from noisy versions of themselves."""

    known_elements: Tensor
    scale: Tensor

    def __init__(self, config: ToyConfig, *, with_prior: bool = False) -> None:
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}
        self.encoder = nn.Linear(7, 2 * config.width)
        self.score_network = nn.Linear(config.width, 7)
        self.unused = nn.Linear(2, 2)
        self.prior = ToyPrior(config.width) if with_prior else None
        self.conditions = None
        self.register_buffer("known_elements", torch.zeros(0, dtype=torch.long))
        self.register_buffer("scale", torch.ones(()))
        self.training_calls = 0

    def prepare(self, crystals: CrystalBatch, *, progress: Callable[[int, int], None] | None = None) -> CrystalBatch:
        return crystals

    def fit_statistics(self, crystals: CrystalBatch) -> None:
        self.known_elements = torch.unique(crystals.atomic_numbers)
        self.scale.fill_(float(crystals.lattice.abs().max()))

    def graph(self, crystals: CrystalBatch) -> PeriodicGraph:
        return neighbor_list(crystals, 3.0, max_neighbors=2)

    def features(self, crystals: CrystalBatch) -> Tensor:
        squares = metric_tensor(crystals.lattice) / self.scale**2
        six = squares.flatten(1)[:, [0, 4, 8, 5, 2, 1]]
        numbers = crystals.atomic_numbers.to(six.dtype) / 50.0
        mean = scatter(numbers, crystals.batch, dim=0, dim_size=len(crystals), reduce="mean")
        return torch.cat([six, mean.unsqueeze(-1)], dim=-1)

    def posterior(self, crystals: CrystalBatch, graph: PeriodicGraph) -> tuple[Tensor, Tensor]:
        mu, log_var = self.encoder(self.features(crystals)).chunk(2, dim=-1)
        return mu, log_var

    def loss(
        self, crystals: CrystalBatch, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        if torch.is_grad_enabled():
            self.training_calls += 1
        assert graph.num_crystals == len(crystals)
        mu, log_var = self.posterior(crystals, graph)
        noise = torch.randn(mu.shape, generator=generator, device=mu.device)
        error = self.score_network(mu + torch.exp(0.5 * log_var) * noise) - self.features(crystals)
        return {
            "kl": 0.5 * (mu.square() + log_var.exp() - 1.0 - log_var).sum(-1).mean(),
            "reconstruction": error.square().mean(),
        }

    def total_loss(self, terms: dict[str, Tensor]) -> Tensor:
        return 0.01 * terms["kl"] + terms["reconstruction"]

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        save_checkpoint(folder, self.state_dict(), {"card": self.card}, overwrite=overwrite)


def make_toy(seed: int = 0, *, with_prior: bool = False, kind: type[ToyModel] = ToyModel) -> ToyModel:
    with seeded_weights(seed):
        return kind(ToyConfig(), with_prior=with_prior)


def make_crystals(count: int, seed: int) -> CrystalBatch:
    """Crystals of one to four atoms."""
    generator = make_generator(seed)
    num_atoms = torch.randint(1, 5, (count,), generator=generator)
    total = int(num_atoms.sum())
    return CrystalBatch(
        torch.rand(total, 3, generator=generator),
        3.0 * torch.eye(3) + torch.rand(count, 3, 3, generator=generator),
        torch.randint(1, 90, (total,), generator=generator),
        num_atoms,
        properties={"energy": torch.randn(count, generator=generator)},
        material_ids=[f"toy-{i}" for i in range(count)],
    )


def toy_config(**changes: Any) -> TrainingConfig:
    settings: dict[str, Any] = {
        "max_steps": 12,
        "batch_size": 4,
        "warmup_steps": 3,
        "learning_rate": 0.02,
        "check_every": 5,
        "log_every": 1,
        "prior_steps": 20,
        "prior_check_every": 10,
        "ema_decay": 0.9,
    }
    return TrainingConfig.model_validate(settings | changes)
