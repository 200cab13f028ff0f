"""The arms of `curriculum`, for any task that trains on one kind of samples and serves another.

All arms are the same objective with another policy, so that operations, curriculum and steps are alike. The validation
samples, labelled and of the kind that is served, train the policies alone; because they are labels all the same, three
arms train on them directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.representation.methods.curriculum import (
    AdaptiveAugmentation,
    AugmentationPolicy,
    CurriculumSettings,
    FixedPolicy,
    Magnitudes,
    Relaxation,
    average_records,
)
from cdvae_kit.representation.methods.encoder import embed
from cdvae_kit.representation.methods.fitting import FitSettings, accuracy, fit
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.transforms.base import Transform, join_samples, num_samples
from cdvae_kit.typing import ShareDone

Labelled = tuple[Any, Tensor]
"""Samples and their classes (n,)."""


@dataclass(frozen=True)
class Task:
    """Samples to train on, others to serve, and what they may be changed by.

    Attributes:
        train: as they are to be had.
        validation: of the kind that is served, few.
        plain_validation: the same samples of the kind that is trained on, for a control.
        test: of the kind that is served.
        operations: by name, `Identity` the first.
        right: names of those that make the one kind from the other.
        destroying: the name of one that leaves nothing of the class.
        make_encoder: anew for each arm, under seeded weights.
        num_classes: labels run from 0.
    """

    train: Labelled
    validation: Labelled
    plain_validation: Labelled
    test: Labelled
    operations: Mapping[str, Transform[Any]]
    right: Sequence[str]
    destroying: str
    make_encoder: Callable[[], nn.Module]
    num_classes: int


@dataclass(frozen=True)
class ArmSizes:
    """How each arm is trained.

    Attributes:
        num_steps: of the model, whatever the number of samples.
        fit: the rest; its number of epochs is set by the steps.
        curriculum: of the policies that say nothing else.
        label_smoothing: of the loss, of model and policy, as published. Without it the loss of a sample of which
            nothing is left knows no bound, and its gradient leads the policy astray.
        num_points: of the curves over training.
    """

    num_steps: int
    fit: FitSettings
    curriculum: CurriculumSettings
    label_smoothing: float = 0.1
    num_points: int = 20


@dataclass(frozen=True)
class Arm:
    """What sets an arm apart.

    Attributes:
        policy: no change at all, each operation alike, the right ones alone, or learnt.
        labels: what the model trains on.
        validation: what the policy is trained on, samples as they are served or as they are trained on.
        relaxation: of the learnt policy.
        magnitudes: of the learnt policy.
        exploit_temperature: of the learnt policy, where it draws for the model.
    """

    policy: Literal["none", "uniform", "right", "learned"]
    labels: Literal["train", "train and validation"] = "train"
    validation: Literal["served", "plain"] = "served"
    relaxation: Relaxation = "loss"
    magnitudes: Magnitudes = "learned"
    exploit_temperature: float = 1.0


NONE, UNIFORM, RIGHT, POLICY = "none", "uniform", "right operations alone", "policy"
RANDOM = "policy, random magnitudes"
IMAGES = "policy, mixed images as published"
WARM = "policy, drawn at temperature 3 as published"
PLAIN = "policy, validated on training samples' kind"
ALL_LABELS = "train and validation labels"
ARMS: dict[str, Arm] = {
    NONE: Arm("none"),
    UNIFORM: Arm("uniform"),
    RIGHT: Arm("right"),
    POLICY: Arm("learned"),
    RANDOM: Arm("learned", magnitudes="random"),
    IMAGES: Arm("learned", relaxation="image", magnitudes="straight_through"),
    "policy, mixed images": Arm("learned", relaxation="image", magnitudes="random"),
    WARM: Arm("learned", exploit_temperature=3.0),
    PLAIN: Arm("learned", validation="plain"),
    ALL_LABELS: Arm("none", labels="train and validation"),
    f"{ALL_LABELS}, uniform": Arm("uniform", labels="train and validation"),
    f"{ALL_LABELS}, right operations": Arm("right", labels="train and validation"),
}
"""By name; samples that cannot be added, as crystals, have no arm with mixed images."""


def weight_name(arm: str, operation: str) -> str:
    """The name under which the final weight of an operation stands among the values."""
    return f"{arm}: weight of {operation}"


def train_arm(
    task: Task,
    name: str,
    sizes: ArmSizes,
    *,
    seed: int,
    prefix: str = "",
    progress: ShareDone | None = None,
) -> PartResult:
    """The accuracy on the test samples, of a learnt policy the mean weights on the training samples, and both by step.

    Args:
        task: samples and operations.
        name: of `ARMS`.
        sizes: the length of the training.
        seed: of weights, batches and draws.
        prefix: before the names of values.
        progress: told the share of steps that are done.
    """
    arm = ARMS[name]
    data = task.train
    if arm.labels == "train and validation":
        data = join_samples([task.train, task.validation])
    # the same start for every arm
    with seeded_weights(seed):
        encoder = task.make_encoder()
        head = nn.Linear(int(encoder.out_features), task.num_classes)  # type: ignore[arg-type]
    objective = AdaptiveAugmentation(
        encoder,
        head,
        list(task.operations.values()),
        _policy(task, arm, int(encoder.out_features)),  # type: ignore[arg-type]
        replace(
            sizes.curriculum,
            relaxation=arm.relaxation,
            magnitudes=arm.magnitudes,
            exploit_temperature=arm.exploit_temperature,
        ),
        sample_loss=partial(functional.cross_entropy, reduction="none", label_smoothing=sizes.label_smoothing),
        validation=task.validation if arm.validation == "served" else task.plain_validation,
        seed=seed,
    )
    curve: list[tuple[float, float]] = []

    def look(share: float) -> None:
        if share * sizes.num_points >= len(curve) + 1:
            curve.append((share * sizes.num_steps, accuracy(objective, task.test)))
        if progress is not None:
            progress(share)

    steps_an_epoch = num_samples(data) // min(sizes.fit.batch_size, num_samples(data))
    settings = replace(sizes.fit, num_epochs=max(1, round(sizes.num_steps / steps_an_epoch)))
    fit(objective, data, settings, seed=seed, progress=look)
    values = {prefix + name: accuracy(objective, task.test)}
    details: dict[str, Any] = {"accuracy": curve, "by class": accuracy_by_class(objective, task.test)}
    if objective.history:
        weights = objective.plan(task.train[0]).probabilities.detach().double().mean(0).tolist()
        values |= {
            prefix + weight_name(name, operation): weight
            for operation, weight in zip(task.operations, weights, strict=True)
        }
        details["policy"] = [
            {"step": record.step, "share": record.share, "weights": list(record.probabilities)}
            for record in average_records(objective.history, sizes.num_points)
        ]
    return PartResult(values, details)


def accuracy_by_class(model: nn.Module, data: Labelled) -> list[list[float]]:
    """The accuracy on each class, on the samples of even index and on those of odd index.

    On two halves, so that how hard a class is and how much it gains can be asked of different samples.
    """
    samples, labels = data
    right = embed(model, samples).argmax(1) == labels
    parity = torch.arange(len(labels)) % 2
    return [
        [float(right[(labels == label) & (parity == half)].double().mean()) for label in labels.unique().tolist()]
        for half in (0, 1)
    ]


def _policy(task: Task, arm: Arm, width: int) -> nn.Module:
    if arm.policy == "learned":
        return AugmentationPolicy(width, len(task.operations))
    names = list(task.operations)
    used = {"none": names[:1], "uniform": names, "right": task.right}[arm.policy]
    return FixedPolicy([float(name in used) for name in names])
