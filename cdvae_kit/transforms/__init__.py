"""Data to data, seeded, without a trainable parameter: a law over parameters plus a pure function of both.

Names are loaded on first use, so that users of one kind of data do not pay for the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvae_kit.transforms.base import Compose, Identity, IndexedDraws, Params, RandomChoice, Transform
    from cdvae_kit.transforms.crystal_fields import RandomFieldDisplacement
    from cdvae_kit.transforms.crystals import ElementMask, ElementSubstitution, RandomStrain
    from cdvae_kit.transforms.frames import FourierBasis, HaarBasis, MorletFrame
    from cdvae_kit.transforms.image_fields import FieldLaw, RandomFieldColor, RandomFieldNoise, RandomFieldWarp

_HOMES = {
    "Compose": "base",
    "ElementMask": "crystals",
    "ElementSubstitution": "crystals",
    "FieldLaw": "image_fields",
    "FourierBasis": "frames",
    "HaarBasis": "frames",
    "Identity": "base",
    "IndexedDraws": "base",
    "MorletFrame": "frames",
    "Params": "base",
    "RandomChoice": "base",
    "RandomFieldColor": "image_fields",
    "RandomFieldDisplacement": "crystal_fields",
    "RandomFieldNoise": "image_fields",
    "RandomFieldWarp": "image_fields",
    "RandomStrain": "crystals",
    "Transform": "base",
}

__all__ = [
    "Compose",
    "ElementMask",
    "ElementSubstitution",
    "FieldLaw",
    "FourierBasis",
    "HaarBasis",
    "Identity",
    "IndexedDraws",
    "MorletFrame",
    "Params",
    "RandomChoice",
    "RandomFieldColor",
    "RandomFieldDisplacement",
    "RandomFieldNoise",
    "RandomFieldWarp",
    "RandomStrain",
    "Transform",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"cdvae_kit.transforms.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cdvae_kit.transforms' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
