"""Automatic augmentation of digits: the part of `invariance_constrained` that is the paper's own use.

A space of strong operations, most of which nobody would choose for digits, and 64 labelled pictures. Either it is left
alone, or every picture gets a uniform draw from it, or the constraint decides how much of it there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cdvae_kit.datasets.digits import load_digits
from cdvae_kit.representation.experiments.invariance_constrained.on_gaussians import class_losses
from cdvae_kit.representation.methods.encoder import ConvEncoder
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, accuracy, fit
from cdvae_kit.representation.methods.invariance_constrained import InvarianceConstraint, PrimalDual
from cdvae_kit.representation.panels import Pictures
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Identity, RandomChoice
from cdvae_kit.transforms.images import (
    Brightness,
    Contrast,
    Erase,
    GaussianBlur,
    Invert,
    Posterize,
    Rotate,
    Scale,
    Sharpen,
    Shear,
    Translate,
)
from cdvae_kit.typing import ShareDone

NONE, UNIFORM, CONSTRAINED = "no augmentation", "uniform augmentation", "constrained augmentation"
PLAIN_DRAWS, ONE_FORWARD = "constrained, draws not by loss", "constrained, one forward pass"
TOLERANCE = 0.5
"""A number of choice, as in the paper, some 1.2 times the loss without augmentation."""
_DUAL_LR = 0.01
_SIDE, _WIDTHS = 16, (16, 32, 64)
_SPLIT = 5  # key of the draw
# arm: proposals of the chain, and passes
_CONSTRAINED: dict[str, tuple[int, Literal["all", "one"]]] = {
    CONSTRAINED: (2, "all"),
    PLAIN_DRAWS: (1, "all"),
    ONE_FORWARD: (2, "one"),
}


@dataclass(frozen=True)
class ImageSizes:
    """How much is trained and tested.

    Attributes:
        num_train: labelled digits.
        num_test: others.
        fit: of each arm.
    """

    num_train: int
    num_test: int
    fit: FitSettings


FULL = ImageSizes(64, 1400, FitSettings(300, batch_size=64))
QUICK = ImageSizes(32, 50, FitSettings(2, batch_size=32))


def wide_space() -> RandomChoice[Tensor]:
    """One of twelve operations at a strength drawn uniformly up to more than is good for digits.

    The paper's "wide" space has fourteen; colour, equalisation and automatic contrast mean little for grey digits.
    """
    return RandomChoice(
        [
            Identity(),
            Rotate(135.0),
            Shear(50.0),
            Translate(0.4),
            Scale(0.4, 1.4),
            Brightness(0.1, 2.0),
            Contrast(0.1, 2.0),
            Posterize(),
            Invert(),
            Sharpen(),
            GaussianBlur(),
            Erase(),
        ]
    )


def augment_digits(sizes: ImageSizes, seed: int, progress: ShareDone | None) -> PartResult:
    """Test accuracy of each arm, all from the same weights and in the same order of digits."""
    images, labels = load_digits(side=_SIDE)
    order = torch.randperm(len(images), generator=make_generator(seed, _SPLIT))
    train, test = order[: sizes.num_train], order[sizes.num_train :][: sizes.num_test]
    values: dict[str, float] = {}
    details: dict[str, Any] = {}
    arms = [NONE, UNIFORM, *_CONSTRAINED]
    for place, arm in enumerate(arms):
        learner = _learner(arm, seed)
        fit(learner, (images[train], labels[train]), sizes.fit, seed=seed)
        values[arm] = accuracy(learner, (images[test], labels[test]))
        if isinstance(learner, PrimalDual):
            details[arm] = {"duals": learner.dual_history[:: max(1, sizes.fit.num_epochs // 60), 0].tolist()}
        if progress is not None:
            progress((place + 1) / len(arms))
    return PartResult(values, details)


def _learner(arm: str, seed: int) -> Supervision | PrimalDual:
    with seeded_weights(seed):
        encoder, head = ConvEncoder(in_channels=1, widths=_WIDTHS), nn.Linear(_WIDTHS[-1], 10)
    if arm in (NONE, UNIFORM):
        return Supervision(encoder, 10, head=head, augmentation=None if arm == NONE else wide_space())
    num_proposals, forward = _CONSTRAINED[arm]
    return PrimalDual(
        nn.Sequential(encoder, head),
        class_losses,
        [InvarianceConstraint(wide_space(), TOLERANCE, name="wide")],
        dual_lr=_DUAL_LR,
        num_proposals=num_proposals,
        forward=forward,
    )


def pictures() -> Pictures:
    """Some digits as they are, and under draws from the wide space."""
    images = load_digits(side=40)[0][:6]
    rows = [images, *(wide_space()(images, generator=make_generator(0, row)) for row in range(3))]
    return Pictures("digits, and draws from the wide space", torch.stack(rows), ["as they are", "draws", "", ""])
