"""Predictors so small that a test can train them, and crystals whose properties are known in closed form."""

from __future__ import annotations

from typing import Any

import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import volume
from cdvae_kit.models.predictor_config import LatentPredictorConfig, PropertyPredictorConfig
from cdvae_kit.models.property_predictor import PropertyPredictor
from cdvae_kit.seeding import make_generator
from cdvae_kit.training import TrainingConfig, seeded_weights

ELEMENTS = (3, 8, 14, 26)


def predictor_config(**changes: Any) -> PropertyPredictorConfig:
    settings: dict[str, Any] = {
        "properties": ("room",),
        "units": ("A^3",),
        "num_members": 2,
        "channels": 6,
        "cutoff": 3.6,
        "num_basis": 4,
        "width": 12,
        "training_noise": 0.02,
    }
    return PropertyPredictorConfig.model_validate(settings | changes)


def latent_config(**changes: Any) -> LatentPredictorConfig:
    settings: dict[str, Any] = {
        "properties": ("height",),
        "units": ("eV",),
        "num_members": 2,
        "latent_dim": 5,
        "width": 16,
    }
    return LatentPredictorConfig.model_validate(settings | changes)


def training_config(**changes: Any) -> TrainingConfig:
    settings: dict[str, Any] = {
        "max_steps": 30,
        "batch_size": 8,
        "learning_rate": 0.01,
        "warmup_steps": 3,
        "ema_decay": 0.9,
        "check_every": 10,
        "log_every": 5,
    }
    return TrainingConfig.model_validate(settings | changes)


def known_crystals(count: int, seed: int) -> CrystalBatch:
    """Crystals of one to four atoms of four elements, with `room`, the volume of an atom, and `oxygen`, a share."""
    generator = make_generator(seed)
    num_atoms = torch.randint(1, 5, (count,), generator=generator)
    total = int(num_atoms.sum())
    # on the points of a cube, moved a little, no two atoms overlap
    corner = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0.5]])
    place = torch.cat([torch.arange(int(n)) for n in num_atoms])
    numbers = torch.tensor(ELEMENTS)[torch.randint(len(ELEMENTS), (total,), generator=generator)]
    crystals = CrystalBatch(
        corner[place] + 0.05 * torch.rand(total, 3, generator=generator),
        3.5 * torch.eye(3) + 0.5 * torch.rand(count, 3, 3, generator=generator),
        numbers,
        num_atoms,
        material_ids=[f"known-{seed}-{i}" for i in range(count)],
    )
    oxygen = torch.zeros(count).index_add_(0, crystals.batch, (numbers == 8).float()) / num_atoms
    return crystals.replace(properties={"room": volume(crystals.lattice) / num_atoms, "oxygen": oxygen})


def fresh_predictor(config: PropertyPredictorConfig | None = None, seed: int = 0) -> PropertyPredictor:
    with seeded_weights(seed):
        return PropertyPredictor(config or predictor_config())


def ready_predictor(crystals: CrystalBatch, config: PropertyPredictorConfig | None = None) -> PropertyPredictor:
    """With the statistics of `crystals`, not trained."""
    predictor = fresh_predictor(config)
    for member in predictor.members:
        member.fit_statistics(crystals)  # type: ignore[operator]
    return predictor.eval()
