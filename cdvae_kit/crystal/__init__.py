"""What a crystal is: lattice, coordinates, elements, the batch, conversion and symmetry.

Names are loaded on first use: records of arrays and elements pay for no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvae_kit.crystal.batch import CrystalBatch, concatenate, ragged_index

__all__ = ["CrystalBatch", "concatenate", "ragged_index"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("cdvae_kit.crystal.batch"), name)
    raise AttributeError(f"module 'cdvae_kit.crystal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
