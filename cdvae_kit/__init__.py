"""Generate crystals with the Crystal Diffusion Variational Autoencoder, and go beyond it.

Names are loaded on first use, so that ``import cdvae_kit`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch
    from cdvae_kit.models import CDVAE

__version__ = "0.1.0"

_HOMES = {"CDVAE": "cdvae_kit.models", "CrystalBatch": "cdvae_kit.crystal"}

__all__ = ["CDVAE", "CrystalBatch", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cdvae_kit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
