"""Random changes of vectors (b, d): turns in a plane, shifts, other signs and other scales of coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from cdvae_kit.transforms.base import Generator, Params, Transform, check_probability, chosen, per_sample, uniform


def _check(batch: Tensor, *coordinates: int) -> None:
    if batch.ndim != 2 or not batch.is_floating_point() or not all(0 <= i < batch.shape[1] for i in coordinates):
        raise ValueError(
            f"expected vectors (b, d), float, with coordinates {list(coordinates)}, got {tuple(batch.shape)} "
            f"{batch.dtype}"
        )


@dataclass(frozen=True)
class PlaneRotation(Transform[Tensor]):
    """A turn of two coordinates, uniform up to `most` degrees either way; parameter `angle` (b,), radians.

    >>> import torch
    >>> turned = PlaneRotation(0, 1).apply(torch.tensor([[1.0, 0.0, 5.0]]), {"angle": torch.tensor([math.pi / 2])})
    >>> [round(x, 6) + 0.0 for x in turned[0].tolist()]
    [0.0, 1.0, 5.0]
    """

    first: int
    second: int
    most: float = 180.0
    differentiable = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        most = math.radians(self.most)
        drawn = uniform(generator, len(batch), low=-most, high=most, like=batch)
        return {"angle": drawn * per_sample(magnitude, len(batch), like=batch)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        _check(batch, self.first, self.second)
        cos, sin = params["angle"].cos(), params["angle"].sin()
        x, y = batch[:, self.first], batch[:, self.second]
        changed = batch.clone()
        changed[:, self.first], changed[:, self.second] = cos * x - sin * y, sin * x + cos * y
        return changed


@dataclass(frozen=True)
class CoordinateShift(Transform[Tensor]):
    """A shift of one coordinate, uniform up to `most` either way; parameter `shift` (b,)."""

    coordinate: int
    most: float
    differentiable = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        drawn = uniform(generator, len(batch), low=-self.most, high=self.most, like=batch)
        return {"shift": drawn * per_sample(magnitude, len(batch), like=batch)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        _check(batch, self.coordinate)
        changed = batch.clone()
        changed[:, self.coordinate] = changed[:, self.coordinate] + params["shift"]
        return changed


@dataclass(frozen=True)
class SignFlip(Transform[Tensor]):
    """The other sign of one coordinate, for a share `probability` times the magnitude; parameter `on` (b,) bool."""

    coordinate: int
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.probability)

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        return {"on": chosen(batch, self.probability, magnitude=magnitude, generator=generator)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        _check(batch, self.coordinate)
        changed = batch.clone()
        changed[params["on"], self.coordinate] *= -1.0
        return changed


@dataclass(frozen=True)
class CoordinateScale(Transform[Tensor]):
    """Some coordinates times one factor, its logarithm uniform up to `most` either way; parameter `log_factor` (b,)."""

    coordinates: tuple[int, ...]
    most: float
    differentiable = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        drawn = uniform(generator, len(batch), low=-self.most, high=self.most, like=batch)
        return {"log_factor": drawn * per_sample(magnitude, len(batch), like=batch)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        _check(batch, *self.coordinates)
        changed = batch.clone()
        where = list(self.coordinates)
        changed[:, where] = changed[:, where] * params["log_factor"].exp()[:, None]
        return changed
