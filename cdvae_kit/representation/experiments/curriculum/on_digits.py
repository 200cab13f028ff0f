"""The task of `curriculum` on handwritten digits: trained on centred ones, served shifted ones.

The right operation is known, a shift, and so is the one that destroys, blanking; flip and half turn change the class of
some digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cdvae_kit.datasets.digits import load_digits
from cdvae_kit.representation.experiments.curriculum.arms import ArmSizes, Task
from cdvae_kit.representation.methods.curriculum import CurriculumSettings
from cdvae_kit.representation.methods.encoder import MLPEncoder
from cdvae_kit.representation.methods.fitting import FitSettings
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import Identity, IndexedDraws, Transform
from cdvae_kit.transforms.images import Erase, FlipVertical, HalfTurn, Noise, Rotate, Translate

SHIFT = 0.2
"""Of the side, up to which the digits that are served are shifted in x and in y."""
OPERATIONS: dict[str, Transform[Tensor]] = {
    "identity": Identity(),
    "shift": Translate(SHIFT),
    "rotate": Rotate(30.0),
    "noise": Noise(1.0),
    "flip": FlipVertical(1.0),
    "half turn": HalfTurn(1.0),
    "blank": Erase(1.0, share=1.0),
}
NUM_TRAIN, NUM_VALIDATION = 300, 400
"""Of 1,797 digits; the rest are for testing."""

_FIT = FitSettings(1, batch_size=75, learning_rate=0.05, optimizer="sgd", schedule="constant")
FULL = ArmSizes(
    num_steps=1200,
    fit=_FIT,
    # the policy takes 400 steps, a hundredth of the published: its rate is higher, and its decay weaker
    curriculum=CurriculumSettings(
        timescale=300.0, policy_learning_rate=0.02, policy_weight_decay=1e-4, validation_batch_size=128
    ),
)
QUICK = ArmSizes(
    num_steps=8, fit=_FIT, curriculum=CurriculumSettings(timescale=4.0, validation_batch_size=32), num_points=2
)


def shifted_digits(seed: int, *, shift: float = SHIFT, num_test: int | None = None) -> Task:
    """Centred digits to train on, and others, shifted at random once and for all, to validate and to test on.

    >>> task = shifted_digits(0)
    >>> [len(labels) for _, labels in (task.train, task.validation, task.test)]
    [300, 400, 1097]
    """
    images, labels = load_digits()
    shifted = Translate(shift)(images, generator=IndexedDraws(seed, torch.arange(len(images))))
    order = torch.randperm(len(images), generator=make_generator(seed, 1))
    train, validation, test = order.split([NUM_TRAIN, NUM_VALIDATION, len(images) - NUM_TRAIN - NUM_VALIDATION])
    test = test[:num_test]
    return Task(
        train=(images[train], labels[train]),
        validation=(shifted[validation], labels[validation]),
        plain_validation=(images[validation], labels[validation]),
        test=(shifted[test], labels[test]),
        operations=OPERATIONS,
        right=["shift"],
        destroying="blank",
        make_encoder=lambda: MLPEncoder([64, 128, 64]),
        num_classes=10,
    )
