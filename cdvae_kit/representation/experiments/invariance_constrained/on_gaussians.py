"""Discovery on vectors whose symmetries are known: two parts of `invariance_constrained`.

Five normal numbers; the label, of four classes, is whether the first two lie outside a circle, and the sign of the
third. Of four transforms the rotation of the first two and a shift of the fourth leave it as it is; the other sign of
the third and another scale of the first two do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.representation.methods.encoder import MLPEncoder
from cdvae_kit.representation.methods.fitting import FitSettings, accuracy, fit
from cdvae_kit.representation.methods.invariance_constrained import InvarianceConstraint, PrimalDual
from cdvae_kit.representation.methods.invariance_discovery import (
    TOLERANCES,
    discover_invariances,
    mean_loss,
    read_multiplier,
)
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Transform
from cdvae_kit.transforms.vectors import CoordinateScale, CoordinateShift, PlaneRotation, SignFlip
from cdvae_kit.typing import ShareDone

TRUE: dict[str, Transform[Tensor]] = {"rotate": PlaneRotation(0, 1), "shift": CoordinateShift(3, 2.0)}
FALSE: dict[str, Transform[Tensor]] = {"flip": SignFlip(2), "scale": CoordinateScale((0, 1), 1.0)}
UNCONSTRAINED = "no constraint"
JOINT_TOLERANCE = TOLERANCES[-1]
_MEDIAN_RADIUS = 1.177
_DUAL_LR = 0.02
_TRAIN, _VALIDATION, _TEST = 1, 2, 3  # keys of draws


@dataclass(frozen=True)
class GaussianSizes:
    """How much is trained and tested.

    Attributes:
        num_train: samples.
        num_others: of the validation and of the test set.
        fit: of each training.
    """

    num_train: int
    num_others: int
    fit: FitSettings


FULL = GaussianSizes(1000, 4000, FitSettings(150, learning_rate=4e-3, schedule="constant"))
QUICK = GaussianSizes(256, 200, FitSettings(4, learning_rate=4e-3, schedule="constant"))


def gaussian_classes(num_samples: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Vectors (n, 5) and labels (n,) in 0..3.

    >>> vectors, labels = gaussian_classes(3, generator=make_generator(0))
    >>> vectors.shape, labels.dtype
    (torch.Size([3, 5]), torch.int64)
    """
    x = torch.randn(num_samples, 5, generator=generator)
    return x, 2 * (x[:, :2].norm(dim=1) > _MEDIAN_RADIUS).long() + (x[:, 2] > 0.0).long()


def class_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """(b,) cross-entropies."""
    return functional.cross_entropy(logits, labels, reduction="none")


def make_network() -> nn.Module:
    """A perceptron of two hidden layers."""
    return MLPEncoder([5, 64, 64, 4])


def multiplier_arm(name: str, share: float) -> str:
    """The arm of a transform's final multiplier where it stands alone."""
    return f"{name}, ε {share:g}: multiplier"


def accuracy_arm(name: str, share: float) -> str:
    """The arm of the test accuracy under that constraint."""
    return f"{name}, ε {share:g}: accuracy"


def _data(sizes: GaussianSizes, seed: int) -> list[tuple[Tensor, Tensor]]:
    counts = {_TRAIN: sizes.num_train, _VALIDATION: sizes.num_others, _TEST: sizes.num_others}
    return [gaussian_classes(count, generator=make_generator(seed, key)) for key, count in counts.items()]


def discover_one_by_one(sizes: GaussianSizes, seed: int, progress: ShareDone | None) -> PartResult:
    """Final multiplier and test accuracy of each transform alone, at both tolerances."""
    train, validation, test = _data(sizes, seed)
    found = discover_invariances(
        make_network,
        train,
        validation,
        {**TRUE, **FALSE},
        loss_fn=class_losses,
        settings=sizes.fit,
        dual_lr=_DUAL_LR,
        seed=seed,
        progress=progress,
    )
    values = {f"{UNCONSTRAINED}: accuracy": accuracy(found.model, test)}
    for (name, share), reading in found.readings.items():
        values[multiplier_arm(name, share)] = reading.dual
        values[accuracy_arm(name, share)] = accuracy(reading.model, test)
    details: dict[str, Any] = {
        f"{name}, ε {share:g}": reading.as_details() for (name, share), reading in found.readings.items()
    }
    return PartResult(values, details | {"validation loss": found.validation_loss, "steps": _num_steps(sizes)})


def discover_jointly(sizes: GaussianSizes, seed: int, progress: ShareDone | None) -> PartResult:
    """The same multipliers where one training bears all constraints, and where it bears the two true ones alone."""
    train, validation, test = _data(sizes, seed)

    def trained(names: list[str], tolerance: float, told: ShareDone | None) -> PrimalDual:
        constraints = [InvarianceConstraint({**TRUE, **FALSE}[name], tolerance, name=name) for name in names]
        with seeded_weights(seed):
            learner = PrimalDual(make_network(), class_losses, constraints, dual_lr=_DUAL_LR)
        fit(learner, train, sizes.fit, seed=seed, progress=told)
        return learner

    plain = trained([], 1.0, None)
    tolerance = JOINT_TOLERANCE * mean_loss(plain.model, validation, class_losses)
    values: dict[str, float] = {}
    details: dict[str, Any] = {}
    for what, names in (("true pair", [*TRUE]), ("all four", [*TRUE, *FALSE])):
        learner = trained(names, tolerance, progress)
        values[f"{what} at once: accuracy"] = accuracy(learner.model, test)
        for place, name in enumerate(names):
            reading = read_multiplier(learner, place)
            values[f"{what} at once: {name}"] = reading.dual
            details[f"{what}: {name}"] = reading.as_details()
    return PartResult(values, details)


def _num_steps(sizes: GaussianSizes) -> int:
    return sizes.fit.num_epochs * (sizes.num_train // min(sizes.fit.batch_size, sizes.num_train))
