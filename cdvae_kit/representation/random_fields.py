"""The experiment `random-fields`: how strong a field may be, and whether it beats the ordinary augmentation.

Mansfield et al., "Random field augmentations for self-supervised representation learning" (NeurReps 2023, PMLR 228,
arXiv 2311.03629), on the handwritten digits of scikit-learn instead of ImageNet. The method is a transform
(`transforms.image_fields`) and any contrastive objective; here SimCLR. Two claims of theirs are looked at: mild fields
help and strong ones destroy, and fields (`local`) serve better than the ordinary augmentation (`shift`, `affine`) of the
same root mean square, in displacement and in brightness. Their spectra, ranges and networks are not known to us.

For data of one's own, hand `augmentation` to `contrastive.SimCLR` with any encoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.representation.contrastive import SimCLR
from cdvae_kit.representation.encoder import ConvEncoder, embed
from cdvae_kit.representation.experiments import Claim, Experiment, ExperimentResult, PartResult, ShareDone
from cdvae_kit.representation.fitting import FitSettings, fit
from cdvae_kit.representation.panels import Bars, Curve, Lines, Panel, Pictures
from cdvae_kit.representation.probing import linear_probe, over_label_draws, split_samples
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Compose, IndexedDraws
from cdvae_kit.transforms.image_fields import FieldLaw, RandomFieldColor, RandomFieldNoise, RandomFieldWarp

Kind = Literal["local", "shift", "affine"]

SIDE = 20
"""Pixels; the digits have 8."""
_FRESH_WEIGHTS, _PROJECTOR, _MEASURED, _SHOWN = 1, 2, 3, 4  # keys of the draws


@dataclass(frozen=True)
class Strength:
    """How strong the views are.

    Attributes:
        displacement: root mean square of each component, shares of the side.
        brightness: root mean square of the logarithm of the factor.
    """

    displacement: float
    brightness: float


STRENGTHS = {
    "none": Strength(0.0, 0.0),
    "mild": Strength(0.03, 0.2),
    "mid": Strength(0.06, 0.4),
    "strong": Strength(0.12, 0.8),
}


def warp_of(kind: Kind, displacement: float, *, exponent: float = 4.0) -> RandomFieldWarp:
    """A warp whose displacement has the same root mean square whatever the kind, to first order.

    Args:
        kind: `local`, two translation fields; `shift`, one translation for the whole picture; `affine`, one rotation,
            scale, shear and translation, each with a quarter of the mean square.
        displacement: root mean square of each component over draws and pixels, shares of the side.
        exponent: of the fields.
    """
    most = math.sqrt(3.0) * displacement
    if kind == "local":
        return RandomFieldWarp(translation=FieldLaw(local=displacement), exponent=exponent)
    if kind == "shift":
        return RandomFieldWarp(translation=FieldLaw(most=most))
    # a coordinate that is uniform over the side has the mean square 1/12
    slope = 0.5 * math.sqrt(12.0) * most
    return RandomFieldWarp(
        translation=FieldLaw(most=0.5 * most),
        rotation=FieldLaw(most=math.degrees(slope)),
        scale=FieldLaw(most=slope),
        shear=FieldLaw(most=slope),
    )


def augmentation(kind: Kind, strength: Strength, *, noise: float = 0.05) -> Compose[Tensor]:
    """Displacement, brightness and white noise for images (b, c, h, w), of one kind and strength.

    >>> from cdvae_kit.seeding import make_generator
    >>> views = augmentation("local", Strength(0.03, 0.2))
    >>> views(torch.zeros(2, 1, 20, 20), generator=make_generator(0)).shape
    torch.Size([2, 1, 20, 20])
    """
    brightness = strength.brightness
    law = FieldLaw(local=brightness) if kind == "local" else FieldLaw(most=math.sqrt(3.0) * brightness)
    return Compose(
        [
            warp_of(kind, strength.displacement),
            RandomFieldColor(brightness=law),
            RandomFieldNoise(law=FieldLaw(local=noise)),
        ]
    )


def digits(*, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """The 1797 handwritten digits of scikit-learn: images (n, 1, side, side) in [0, 1] and labels (n,) long."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.as_tensor(found.images, dtype=torch.float32)[:, None] / 16.0
    return functional.interpolate(images, (side, side), mode="bilinear"), torch.as_tensor(found.target)


@dataclass(frozen=True)
class Sizes:
    """How much is trained and tested.

    Attributes:
        num_digits: of the 1797, the first ones.
        num_epochs: of SimCLR, on batches of 100.
        labels_per_class: of the logistic probe.
        num_draws: of these labels.
    """

    num_digits: int | None = None
    num_epochs: int = 15
    labels_per_class: int = 10
    num_draws: int = 10


FULL, QUICK = Sizes(), Sizes(num_digits=300, num_epochs=1, labels_per_class=5, num_draws=2)
