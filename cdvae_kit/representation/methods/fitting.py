"""A training loop for networks that take minutes: seeded, on one device, without files.

What takes hours belongs to `cdvae_kit.training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.representation.methods.encoder import Objective, embed
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import Transform, num_samples, select_samples
from cdvae_kit.typing import ShareDone


class FitDivergedError(RuntimeError):
    """The loss is not a number, or not finite."""


@dataclass(frozen=True)
class FitSettings:
    """How long and how fast.

    Attributes:
        num_epochs: passes over the data.
        batch_size: samples a step; what is left over at the end of an epoch waits for another one.
        learning_rate: the highest of the schedule.
        optimizer: AdamW, or SGD with momentum 0.9.
        weight_decay: decoupled for AdamW.
        schedule: one cycle (a warm-up of 30 %, then a cosine to zero; Smith and Topin 2019), a cosine, or constant.
        clip_norm: largest norm of the gradient, None for any.
    """

    num_epochs: int
    batch_size: int = 128
    learning_rate: float = 3e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float = 0.0
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.num_epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0.0:
            raise ValueError(f"epochs, batch size and learning rate must be positive, got {self}")


def fit(
    objective: Objective, data: Any, settings: FitSettings, *, seed: int, progress: ShareDone | None = None
) -> list[float]:
    """Trains in place and returns the mean loss of each epoch.

    Args:
        objective: a module with a loss; make it within `seeding.seeded_weights` for the same start.
        data: a tensor, crystals, or a tuple (samples, labels); the batch has the same form.
        settings: how long and how fast.
        seed: of the order of samples and of what the loss draws.
        progress: told the share of steps that are done, after each epoch.
    """
    total = num_samples(data)
    if total < 1:
        raise ValueError("there are no samples to train on")
    size = min(settings.batch_size, total)
    steps_per_epoch = total // size
    num_steps = settings.num_epochs * steps_per_epoch
    optimizer, rate = _optimizer(objective, settings, num_steps)
    order, draws = make_generator(seed, 0), make_generator(seed, 1)
    objective.train()
    losses = []
    for epoch in range(settings.num_epochs):
        shuffled = torch.randperm(total, generator=order)
        summed = 0.0
        for i in range(steps_per_epoch):
            step = epoch * steps_per_epoch + i
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            batch = select_samples(data, shuffled[i * size : (i + 1) * size])
            summed += _step(objective, optimizer, batch, draws, settings.clip_norm, step)
            objective.after_step(step, num_steps)
        losses.append(summed / steps_per_epoch)
        if progress is not None:
            progress((epoch + 1) / settings.num_epochs)
    return losses


def _step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    generator: torch.Generator,
    clip_norm: float | None,
    step: int,
) -> float:
    loss = objective.loss(batch, generator=generator)["loss"]
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FitDivergedError(f"the loss is {value} at step {step}; a lower learning rate may help")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(objective.parameters(), clip_norm)
    optimizer.step()
    return value


def _optimizer(
    objective: Objective, settings: FitSettings, num_steps: int
) -> tuple[torch.optim.Optimizer, Callable[[int], float]]:
    parameters = [p for p in objective.parameters() if p.requires_grad]
    highest, decay = settings.learning_rate, settings.weight_decay
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=highest, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(parameters, lr=highest, momentum=0.9, weight_decay=decay)
    warm_up = 0.3 * num_steps if settings.schedule == "one_cycle" else 0.0

    def rate(step: int) -> float:
        if settings.schedule == "constant":
            return highest
        if step < warm_up:
            start = highest / 25.0
            return start + (highest - start) * 0.5 * (1.0 - math.cos(math.pi * step / warm_up))
        return highest * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1.0, num_steps - warm_up)))

    return optimizer, rate


class Supervision(nn.Module, Objective):
    """The error of a head on an encoder, trained together; the batch is (samples, labels).

    Args:
        encoder: trained along.
        num_classes: labels run from 0; not needed where a head is given.
        augmentation: changes the samples, and the labels as it says.
        head: from features to outputs; a linear layer unless given.
        error: of outputs and labels, a mean over samples.
    """

    def __init__(
        self,
        encoder: Any,
        num_classes: int | None = None,
        *,
        augmentation: Transform[Any] | None = None,
        head: nn.Module | None = None,
        error: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
    ) -> None:
        super().__init__()
        if head is None:
            if num_classes is None:
                raise ValueError("supervision needs the number of classes, or a head of its own")
            head = nn.Linear(encoder.out_features, num_classes)
        self.encoder = encoder
        self.head = head
        self.augmentation = augmentation
        self.error = error

    def forward(self, batch: Any) -> Tensor:
        """Logits (b, num_classes), or what the head gives."""
        return self.head(self.encoder(batch))

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        samples, labels = batch
        if self.augmentation is not None:
            params = self.augmentation.sample(samples, generator=generator)
            samples = self.augmentation.apply(samples, params)
            labels = self.augmentation.act_on_target(labels, params)
        return {"loss": self.error(self(samples), labels)}


def accuracy(model: nn.Module, data: tuple[Any, Tensor]) -> float:
    """The share of (samples, labels) whose label the model's largest output names."""
    samples, labels = data
    return float((embed(model, samples).argmax(1) == labels).double().mean())
