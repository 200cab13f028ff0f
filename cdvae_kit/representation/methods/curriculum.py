"""Augmentation that is learnt while the model learns: which change each sample gets, and how often.

MADAug of Hou, Zhang and Zhou, "When to learn what: model-adaptive data augmentation curriculum" (ICCV 2023, arXiv
2309.04747), from its equations. A policy reads the model's own features of a sample and gives each operation a
probability (*what*); it is trained to lower the loss on validation samples after one step of the model; a curriculum
lets the share of augmented samples grow (*when*). The operations are any `Transform`s, the model any encoder with a
head. It serves where the samples to come differ from the training samples, and labelled ones of their kind are few.

Where we differ, beside the sizes:

* The policy's training loss mixes the losses of the operations, sum_k p_k loss(f(op_k(x))), which is the expectation of
  the loss that is trained on; the paper mixes the images, f(sum_k p_k op_k(x)), here `relaxation="image"`.
* Magnitudes are drawn at random unless they are asked to be learnt, by their true gradient or by the paper's, which
  says that every pixel grows with the magnitude. Of an operation that has no gradient the magnitude is drawn about the
  policy's, and learnt by the score function (Williams 1992).
* The step that is differentiated is one of plain gradient descent, without the optimiser's momentum.
* The policy starts uniform, and reads the model as it is, not a snapshot of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.representation.methods.encoder import Objective, embed
from cdvae_kit.representation.methods.hypergradient import Forward, one_step_hypergradient
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import (
    Generator,
    Identity,
    RandomChoice,
    Transform,
    join_samples,
    normal,
    num_samples,
    select_samples,
    uniform,
)

Relaxation = Literal["loss", "image"]
Magnitudes = Literal["random", "learned", "straight_through"]
SampleLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(output, labels) to one loss a sample, (b,)."""

_NOISE = 0.3
"""By which a learnt magnitude is varied either way, as published."""
_STD = _NOISE / math.sqrt(3.0)
"""Of normal noise that is as wide."""


class PolicyOutput(NamedTuple):
    """What a policy says of each sample: a probability (b, k) of each operation, and its magnitude (b, k) in [0, 1]."""

    probabilities: Tensor
    magnitudes: Tensor


class AugmentationPolicy(nn.Module):
    """One linear layer from features to the probabilities and magnitudes of the operations.

    It starts from zeros: all operations alike, all magnitudes one half.

    Args:
        in_features: of the encoder.
        num_operations: the length of their list.
        temperature: divides the logits while the policy is trained (explore); see `CurriculumSettings` for the other.

    >>> policy = AugmentationPolicy(8, 4)
    >>> policy(torch.zeros(1, 8)).probabilities
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]], grad_fn=<SoftmaxBackward0>)
    """

    def __init__(self, in_features: int, num_operations: int, *, temperature: float = 1.0) -> None:
        super().__init__()
        if num_operations < 2 or not temperature > 0.0:
            raise ValueError(
                "a policy needs at least two operations to choose from and a positive temperature, got "
                f"{num_operations}, {temperature}"
            )
        self.num_operations = num_operations
        self.temperature = temperature
        self.layer = nn.Linear(in_features, 2 * num_operations)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: Tensor) -> PolicyOutput:
        """Of features (b, in_features)."""
        logits, strengths = self.layer(features).chunk(2, dim=1)
        return PolicyOutput((logits / self.temperature).softmax(1), strengths.sigmoid())


class FixedPolicy(nn.Module):
    """The same probabilities for every sample, never trained: uniform, a single operation, a tuned mixture.

    Args:
        probabilities: one for each operation, of any positive sum.
        magnitude: of all of them, where magnitudes are not drawn.
    """

    probabilities: Tensor

    def __init__(self, probabilities: Sequence[float], *, magnitude: float = 0.5) -> None:
        super().__init__()
        weights = torch.tensor(list(probabilities), dtype=torch.float32)
        if not bool((weights >= 0.0).all()) or not 0.0 < float(weights.sum()) < math.inf:
            raise ValueError(f"probabilities must not be negative, nor all zero, got {list(probabilities)}")
        self.register_buffer("probabilities", weights / weights.sum())
        self.num_operations = len(weights)
        self.magnitude = magnitude

    def forward(self, features: Tensor) -> PolicyOutput:
        """Of features (b, d), of which the number alone matters."""
        probabilities = self.probabilities.expand(len(features), -1)
        return PolicyOutput(probabilities, torch.full_like(probabilities, self.magnitude))


def curriculum_fraction(step: float, timescale: float, *, floor: float = 0.01) -> float:
    """The share of samples that are augmented: min(1, tanh(step / timescale) + floor), never falling.

    Args:
        step: from 0; in the unit of the timescale.
        timescale: after it, three quarters are augmented; the paper takes 40 of 240 epochs.
        floor: the share at the start.

    >>> [round(curriculum_fraction(step, 100.0), 2) for step in (0, 50, 100, 300)]
    [0.01, 0.47, 0.77, 1.0]
    """
    if step < 0 or not timescale > 0.0 or not 0.0 <= floor <= 1.0:
        raise ValueError(
            "a curriculum needs a step of at least 0, a positive timescale and a floor in [0, 1], got "
            f"{step}, {timescale}, {floor}"
        )
    return min(1.0, math.tanh(step / timescale) + floor)


@dataclass(frozen=True)
class CurriculumSettings:
    """How the policy is used and trained.

    Attributes:
        timescale: of the curriculum, steps.
        num_applied: operations on an augmented sample, drawn without replacement; the paper takes 2.
        magnitudes: uniform in [0, 1]; or the policy's, learnt by the gradient through the operations that are
            `differentiable` and by the score function of the others, or by the paper's gradient, for which every pixel
            grows with the magnitude.
        exploit_temperature: divides the logarithms of a learnt policy's probabilities where operations are drawn for
            the model (exploit); the paper takes 2 or 3, and 1 where the policy is trained.
        relaxation: whether the policy's training loss mixes losses, or images as published.
        policy_every: steps of the model for one of the policy; 3 or 5 in the paper.
        policy_learning_rate: of Adam.
        policy_weight_decay: of Adam, which draws the policy to the uniform one.
        inner_learning_rate: of the step that is differentiated; best that of the model's optimiser.
        validation_batch_size: samples for a step of the policy; 16 in the paper.
    """

    timescale: float
    num_applied: int = 1
    magnitudes: Magnitudes = "random"
    exploit_temperature: float = 1.0
    relaxation: Relaxation = "loss"
    policy_every: int = 3
    policy_learning_rate: float = 5e-3
    policy_weight_decay: float = 1e-3
    inner_learning_rate: float = 0.05
    validation_batch_size: int = 64

    def __post_init__(self) -> None:
        curriculum_fraction(0.0, self.timescale)
        if min(self.num_applied, self.policy_every, self.validation_batch_size) < 1:
            raise ValueError(f"numbers of operations, steps and validation samples start from 1, got {self}")
        positive = (self.policy_learning_rate, self.inner_learning_rate, self.exploit_temperature)
        if not min(positive) > 0.0 or self.policy_weight_decay < 0.0:
            raise ValueError(
                f"learning rates and the temperature must be positive, and the weight decay not negative, got {self}"
            )


class PolicyRecord(NamedTuple):
    """The policy at a step: the share that is augmented, and the mean probability of each operation over a batch."""

    step: int
    share: float
    probabilities: tuple[float, ...]


def average_records(history: Sequence[PolicyRecord], num_points: int) -> list[PolicyRecord]:
    """At most `num_points` records, each the mean of a window and named by its last step; a batch's own are noisy."""
    size = -(-len(history) // num_points)
    windows = [history[i : i + size] for i in range(0, len(history), max(1, size))]
    return [
        PolicyRecord(
            window[-1].step,
            math.fsum(record.share for record in window) / len(window),
            tuple(math.fsum(column) / len(window) for column in zip(*(r.probabilities for r in window), strict=True)),
        )
        for window in windows
    ]


class AdaptiveAugmentation(nn.Module, Objective):
    """A supervised objective for `fitting.fit` whose augmentation a policy chooses; the batch is (samples, labels).

    A policy with parameters is trained along, after every few steps of the model, by an Adam of its own. A
    `FixedPolicy` makes the arm to compare with: the same operations, curriculum and steps.

    Args:
        encoder: of samples; a module, trained along.
        head: from features to what the loss takes, trained along.
        operations: what is chosen from, `Identity` among them: it is the way out where every change hurts.
        policy: features (b, d) to a `PolicyOutput` for these operations.
        settings: of policy and curriculum.
        validation: (samples, labels) of the kind that is to come; a policy that is trained needs them.
        sample_loss: one loss a sample; cross-entropy unless given.
        seed: of what the policy's training draws.

    Attributes:
        history: a record of each step of the policy in the present fit.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        operations: Sequence[Transform[Any]],
        policy: nn.Module,
        settings: CurriculumSettings,
        *,
        validation: tuple[Any, Tensor] | None = None,
        sample_loss: SampleLoss | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        num_choices = getattr(policy, "num_operations", len(operations))
        if num_choices != len(operations):
            raise ValueError(f"the policy chooses from {num_choices} operations, but there are {len(operations)}")
        if not any(isinstance(operation, Identity) for operation in operations):
            raise ValueError("the operations lack Identity, the way out where every change hurts")
        if settings.num_applied > len(operations):
            raise ValueError(f"{settings.num_applied} operations cannot be drawn from {len(operations)}")
        self._learns = any(p.requires_grad for p in policy.parameters())
        if self._learns and (validation is None or not num_samples(validation)):
            raise ValueError("a policy that is trained needs validation samples with labels; a FixedPolicy does not")
        self.model = nn.Sequential(encoder, head)
        # no operation may change the shape of the samples: this says so
        self.choice = RandomChoice(operations)
        self.policy = policy
        self.settings = settings
        self.validation = validation
        self.sample_loss = sample_loss or _cross_entropy
        self.history: list[PolicyRecord] = []
        self._step = 0
        self._last: tuple[Any, Tensor] | None = None
        self._generator = make_generator(seed)
        if self._learns:
            self._optimizer = torch.optim.Adam(
                policy.parameters(), lr=settings.policy_learning_rate, weight_decay=settings.policy_weight_decay
            )

    @property
    def encoder(self) -> nn.Module:
        """The encoder that was given."""
        return self.model[0]

    def forward(self, batch: Any) -> Tensor:
        """What the head says, of samples as they are."""
        output: Tensor = self.model(batch)
        return output

    def loss(self, batch: Any, *, generator: Generator) -> dict[str, Tensor]:
        self._last = batch
        # the policy gets no gradient here, so that the model's optimiser passes it over
        samples, labels = self.augment(*batch, generator=generator)
        return {"loss": self.sample_loss(self(samples), labels).mean()}

    @torch.no_grad()
    def augment(self, samples: Any, labels: Tensor, *, generator: Generator) -> tuple[Any, Tensor]:
        """Samples and labels, a share of them changed: the share by the curriculum, the changes by the policy."""
        drawn = uniform(generator, num_samples(samples)) < self._share
        if not bool(drawn.any()):
            return samples, labels
        chosen, rest = (torch.nonzero(mask).flatten().to(labels.device) for mask in (drawn, ~drawn))
        changed = self._change(select_samples(samples, chosen), labels[chosen], generator)
        if not len(rest):
            return changed
        joined = join_samples([select_samples((samples, labels), rest), changed])
        result: tuple[Any, Tensor] = select_samples(joined, torch.cat([rest, chosen]).argsort())
        return result

    def _change(self, samples: Any, labels: Tensor, generator: Generator) -> tuple[Any, Tensor]:
        plan = self.plan(samples)
        count = len(plan.probabilities)
        # the largest of log p and Gumbel noise: draws without replacement
        noise = uniform(generator, count, plan.probabilities.shape[1], like=plan.probabilities)
        temperature = self.settings.exploit_temperature if self._learns else 1.0
        score = plan.probabilities.log() / temperature - (-noise.log()).log()
        for operation in score.topk(self.settings.num_applied, dim=1).indices.T:
            magnitude = uniform(generator, count, like=plan.magnitudes)
            if self.settings.magnitudes != "random":
                learned = plan.magnitudes.gather(1, operation[:, None])[:, 0]
                magnitude = (learned + _NOISE * (2.0 * magnitude - 1.0)).clamp(0.0, 1.0)
            params = self.choice.sample(samples, magnitude=magnitude, generator=generator)
            params = {**params, "choice": operation}
            samples, labels = self.choice.apply(samples, params), self.choice.act_on_target(labels, params)
        return samples, labels

    def plan(self, samples: Any) -> PolicyOutput:
        """What the policy says of samples by the model's present features, which get no gradient."""
        plan: PolicyOutput = self.policy(embed(self.encoder, samples))
        return plan

    @property
    def _share(self) -> float:
        return curriculum_fraction(self._step, self.settings.timescale)

    def after_step(self, step: int, num_steps: int) -> None:
        if step == 0:
            self.history = []
        self._step = step + 1
        if self._learns and self._step % self.settings.policy_every == 0 and self._last is not None:
            assert self.validation is not None
            total = num_samples(self.validation)
            some = torch.randperm(total, generator=self._generator)[: self.settings.validation_batch_size]
            self.policy_step(self._last, select_samples(self.validation, some))
        self._last = None

    def policy_step(self, train_batch: tuple[Any, Tensor], validation_batch: tuple[Any, Tensor]) -> PolicyOutput:
        """One step of the policy, and what it said of the training batch before."""
        samples, labels = train_batch
        plan = self.plan(samples)
        mixed = self._mixed_images if self.settings.relaxation == "image" else self._mixed_losses
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        gradients = one_step_hypergradient(
            self.model,
            mixed(samples, labels, plan),
            lambda forward: self.sample_loss(forward(validation_batch[0]), validation_batch[1]).mean(),
            parameters,
            learning_rate=self.settings.inner_learning_rate,
        )
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        shares = tuple(plan.probabilities.detach().double().mean(0).tolist())
        self.history.append(PolicyRecord(self._step, self._share, shares))
        return plan

    def _views(self, samples: Any, labels: Tensor, plan: PolicyOutput) -> tuple[list[Any], list[Tensor], Tensor]:
        """The batch under each operation, its labels, and weights (k, b).

        The magnitudes carry the gradient that the settings ask for; those of operations without one, the weights, all
        of which are 1.
        """
        views, targets, weights = [], [], []
        for k, operation in enumerate(self.choice.transforms):
            magnitude = plan.magnitudes[:, k]
            weight = torch.ones_like(magnitude)
            if self.settings.magnitudes == "random":
                magnitude = uniform(self._generator, len(magnitude), like=magnitude)
            elif self.settings.magnitudes == "straight_through":
                magnitude = magnitude.detach()
            elif not operation.differentiable:
                noise = _STD * normal(self._generator, len(magnitude), like=magnitude)
                drawn = magnitude.detach() + noise
                weight, magnitude = _score_weights(drawn, magnitude), drawn.clamp(0.0, 1.0)
            params = operation.sample(samples, magnitude=magnitude, generator=self._generator)
            view = operation.apply(samples, params)
            if self.settings.magnitudes == "straight_through":
                slope = plan.magnitudes[:, k] - magnitude
                view = _need_tensor(view, "straight-through magnitudes") + slope.reshape(-1, *[1] * (view.ndim - 1))
            views.append(view)
            targets.append(operation.act_on_target(labels, params))
            weights.append(weight)
        return views, targets, torch.stack(weights)

    def _mixed_losses(self, samples: Any, labels: Tensor, plan: PolicyOutput) -> Callable[[Forward], Tensor]:
        views, targets, weights = self._views(samples, labels, plan)
        everything, every_target = join_samples(views), torch.cat(targets)

        def loss(forward: Forward) -> Tensor:
            losses = self.sample_loss(forward(everything), every_target).reshape(len(views), -1)
            return (plan.probabilities.T * weights * losses).sum(0).mean()

        return loss

    def _mixed_images(self, samples: Any, labels: Tensor, plan: PolicyOutput) -> Callable[[Forward], Tensor]:
        views, _, weights = self._views(samples, labels, plan)
        stacked = torch.stack([_need_tensor(view, "mixed images") for view in views], dim=1)
        mixture = torch.einsum("bk,bk...->b...", plan.probabilities, stacked)
        # each weight is 1, with a gradient of its own
        weight = 1.0 + (weights - 1.0).sum(0)
        return lambda forward: (weight * self.sample_loss(forward(mixture), labels)).mean()


def _score_weights(drawn: Tensor, mean: Tensor) -> Tensor:
    """(b,) ones, whose gradient by `mean` is that of the logarithm of the normal density of what was drawn.

    Times a loss, it is the score-function estimator of the gradient of the expected loss. Less the mean over the other
    samples of the batch, which estimates nothing and takes away from the noise.
    """
    score = -(drawn - mean).square() / (2.0 * _STD**2)
    if len(score) > 1:
        score = len(score) / (len(score) - 1.0) * (score - score.mean())
    return 1.0 + (score - score.detach())


def _cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(output, labels, reduction="none")


def _need_tensor(samples: Any, what: str) -> Tensor:
    if not isinstance(samples, Tensor):
        raise TypeError(f"{what} need samples that are tensors and can be added, got {type(samples).__name__}")
    return samples
