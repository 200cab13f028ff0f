"""Training: configuration and presets, data, the Lightning module, averages of weights, the prior, the whole run.

Names are loaded on first use: reading a preset costs neither torch nor Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvae_kit.training.config import (
        SettingsError,
        TrainingConfig,
        apply_overrides,
        describe_presets,
        load_preset,
        preset_names,
    )
    from cdvae_kit.training.errors import TrainingDivergedError
    from cdvae_kit.training.prior import PriorFit, fit_prior
    from cdvae_kit.training.run import FitResult, fit, seeded_weights

_HOMES = {
    "FitResult": "run",
    "PriorFit": "prior",
    "SettingsError": "config",
    "TrainingConfig": "config",
    "TrainingDivergedError": "errors",
    "apply_overrides": "config",
    "describe_presets": "config",
    "fit": "run",
    "fit_prior": "prior",
    "load_preset": "config",
    "preset_names": "config",
    "seeded_weights": "run",
}

__all__ = [
    "FitResult",
    "PriorFit",
    "SettingsError",
    "TrainingConfig",
    "TrainingDivergedError",
    "apply_overrides",
    "describe_presets",
    "fit",
    "fit_prior",
    "load_preset",
    "preset_names",
    "seeded_weights",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"cdvae_kit.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cdvae_kit.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
