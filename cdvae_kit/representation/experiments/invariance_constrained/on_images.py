"""Automatic augmentation of images: the parts of `invariance_constrained` that are the paper's own use.

A space of strong operations, most of which nobody would choose for digits, and few labelled pictures. Either it is left
alone, or every picture gets a uniform draw from it, or the constraint decides how much of it there is. On upright
digits uniform draws do as well (64 of scikit-learn's). On MNIST turned by any angle a uniform draw takes most pictures
beyond what the task needs, and there the arms can differ; these come with another package (`datasets.bundled`), without
which that part says so and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cdvae_kit.datasets.bundled import bundled_info, load_mnist_sample
from cdvae_kit.datasets.digits import load_digits
from cdvae_kit.representation.experiments.invariance_constrained.on_gaussians import class_losses
from cdvae_kit.representation.methods.encoder import ConvEncoder
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, accuracy, fit
from cdvae_kit.representation.methods.invariance_constrained import InvarianceConstraint, PrimalDual
from cdvae_kit.representation.panels import Pictures
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Identity, IndexedDraws, RandomChoice
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
ALL_ARMS = (NONE, UNIFORM, CONSTRAINED, PLAIN_DRAWS, ONE_FORWARD)
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
        tolerance: ε of the constraint.
        arms: which of them.
    """

    num_train: int
    num_test: int
    fit: FitSettings
    tolerance: float = TOLERANCE
    arms: tuple[str, ...] = ALL_ARMS


FULL = ImageSizes(64, 1400, FitSettings(300, batch_size=64))
QUICK = ImageSizes(32, 50, FitSettings(2, batch_size=32))
ROTATED = ImageSizes(300, 2000, FitSettings(100, batch_size=60), tolerance=1.0, arms=(NONE, UNIFORM, CONSTRAINED))
QUICK_ROTATED = ImageSizes(40, 50, FitSettings(1, batch_size=20), tolerance=1.0, arms=(NONE, UNIFORM, CONSTRAINED))
PREFIX = "rotated MNIST: "
"""Before the names of the arms on MNIST."""


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
    """Test accuracy of each arm on upright digits, all from the same weights and in the same order of digits."""
    images, labels = load_digits(side=_SIDE)
    return _compare(images, labels, sizes, seed, progress, prefix="")


def augment_rotated_mnist(sizes: ImageSizes, seed: int, progress: ShareDone | None) -> PartResult:
    """The same on MNIST's digits, each turned once and for all by any angle, in training and in the test."""
    if reason := bundled_info("mnist_5k").reason:
        return PartResult({}, {"skipped": reason})
    images, labels = load_mnist_sample(side=_SIDE)
    turned = Rotate(180.0)(images, generator=IndexedDraws(seed, torch.arange(len(images))))
    return _compare(turned, labels, sizes, seed, progress, prefix=PREFIX)


def _compare(
    images: Tensor, labels: Tensor, sizes: ImageSizes, seed: int, progress: ShareDone | None, *, prefix: str
) -> PartResult:
    order = torch.randperm(len(images), generator=make_generator(seed, _SPLIT))
    train, test = order[: sizes.num_train], order[sizes.num_train :][: sizes.num_test]
    values: dict[str, float] = {}
    details: dict[str, Any] = {}
    for place, arm in enumerate(sizes.arms):
        learner = _learner(arm, sizes.tolerance, seed)
        fit(learner, (images[train], labels[train]), sizes.fit, seed=seed)
        values[prefix + arm] = accuracy(learner, (images[test], labels[test]))
        if isinstance(learner, PrimalDual):
            details[arm] = {"duals": learner.dual_history[:: max(1, sizes.fit.num_epochs // 60), 0].tolist()}
        if progress is not None:
            progress((place + 1) / len(sizes.arms))
    return PartResult(values, details)


def _learner(arm: str, tolerance: float, seed: int) -> Supervision | PrimalDual:
    with seeded_weights(seed):
        encoder, head = ConvEncoder(in_channels=1, widths=_WIDTHS), nn.Linear(_WIDTHS[-1], 10)
    if arm in (NONE, UNIFORM):
        return Supervision(encoder, 10, head=head, augmentation=None if arm == NONE else wide_space())
    num_proposals, forward = _CONSTRAINED[arm]
    return PrimalDual(
        nn.Sequential(encoder, head),
        class_losses,
        [InvarianceConstraint(wide_space(), tolerance, name="wide")],
        dual_lr=_DUAL_LR,
        num_proposals=num_proposals,
        forward=forward,
    )


def pictures() -> Pictures:
    """Some digits as they are, and under draws from the wide space."""
    images = load_digits(side=40)[0][:6]
    rows = [images, *(wide_space()(images, generator=make_generator(0, row)) for row in range(3))]
    return Pictures("digits, and draws from the wide space", torch.stack(rows), ["as they are", "draws", "", ""])
