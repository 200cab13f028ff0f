"""A model and crystals so small that a test can train and sample: what tests of models and generation share."""

from typing import Any

import torch
from torch import nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import lattice_from_parameters
from cdvae_kit.models import CDVAE, CDVAEConfig
from cdvae_kit.models.config import EncoderConfig, PriorConfig, ScoreNetworkConfig
from cdvae_kit.seeding import make_generator

LATENT_DIM = 5
MAX_ATOMS = 6


def tiny_config(**changes: Any) -> CDVAEConfig:
    """Widths that all differ, so that one taken for another shows."""
    settings: dict[str, Any] = {
        "max_atoms": MAX_ATOMS,
        "latent_dim": LATENT_DIM,
        "hidden_dim": 16,
        "num_steps": 4,
        "draws_per_crystal": 2,
        "encoder": EncoderConfig(
            channels=4, lmax=1, num_convolutions=1, width=14, num_frame_layers=1, num_frequencies=2, cutoff=4.0
        ),
        "score_network": ScoreNetworkConfig(width=12, num_layers=2, num_frequencies=3),
        "prior": PriorConfig(width=16, num_layers=1),
    }
    return CDVAEConfig(**{**settings, **changes})


def some_crystals(num_crystals: int = 6, *, properties: dict[str, torch.Tensor] | None = None) -> CrystalBatch:
    """Random crystals of 1, 2, ... 6, 1, ... atoms, float32."""
    generator = make_generator(num_crystals)
    num_atoms = torch.arange(num_crystals) % MAX_ATOMS + 1
    total = int(num_atoms.sum())
    return CrystalBatch(
        torch.rand(total, 3, generator=generator),
        lattice_from_parameters(
            3.0 + 2.0 * torch.rand(num_crystals, 3, generator=generator),
            75.0 + 30.0 * torch.rand(num_crystals, 3, generator=generator),
        ),
        torch.randint(1, 100, (total,), generator=generator),
        num_atoms,
        properties=properties,
        material_ids=[f"crystal-{i}" for i in range(num_crystals)],
    )


def seed_weights(model: nn.Module, seed: int = 0) -> None:
    """Weights from a seed, without the zeros that some layers start from; small, so that rounding does not grow."""
    generator = make_generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator) / fan_in**0.5)


def tiny_model(seed: int = 0, **changes: Any) -> CDVAE:
    """A model with random weights, and the statistics of `some_crystals`."""
    model = CDVAE(tiny_config(**changes))
    seed_weights(model, seed)
    names = changes.get("properties", ())
    values = {name: torch.arange(12.0) + i for i, name in enumerate(names)}
    model.fit_statistics(model.prepare(some_crystals(12, properties=values)))
    return model.eval()
