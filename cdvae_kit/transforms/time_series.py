"""Random changes of series (b, c, t): noise, size, order, pace, shift, gaps.

Which of them is harmless depends on the task: a change of pace is fatal where the frequency is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cdvae_kit.transforms.base import Generator, Params, Transform, normal, per_sample, uniform


def check_series(batch: Tensor) -> None:
    """`ValueError` unless the batch is (b, c, t) float with at least one point in time."""
    if batch.ndim != 3 or not batch.is_floating_point() or not batch.shape[-1]:
        raise ValueError(f"expected series (b, c, t), float, t at least 1, got {tuple(batch.shape)} {batch.dtype}")


def interpolate_at(batch: Tensor, times: Tensor) -> Tensor:
    """(b, c, q): each series at `times` (b, q), points from 0, linear between them and constant outside."""
    last = batch.shape[-1] - 1
    times = times.clamp(0.0, float(last))
    left = times.detach().floor().long().clamp_max(max(last - 1, 0))
    share = (times - left)[:, None]
    index = left[:, None].expand(-1, batch.shape[1], -1)
    before, after = batch.gather(2, index), batch.gather(2, (index + 1).clamp_max(last))
    return before + share * (after - before)


@dataclass(frozen=True)
class Jitter(Transform[Tensor]):
    """Plus white noise of this standard deviation, in the series' own unit; parameter `noise` (b, c, t)."""

    standard_deviation: float = 0.1
    differentiable = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_series(batch)
        strength = self.standard_deviation * per_sample(magnitude, len(batch), like=batch)
        return {"noise": normal(generator, *batch.shape, like=batch) * strength[:, None, None]}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        return batch + params["noise"]


@dataclass(frozen=True)
class Amplify(Transform[Tensor]):
    """Each channel times exp(`standard_deviation` · normal); parameter `log_factor` (b, c)."""

    standard_deviation: float = 0.3
    differentiable = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_series(batch)
        strength = self.standard_deviation * per_sample(magnitude, len(batch), like=batch)
        return {"log_factor": normal(generator, *batch.shape[:2], like=batch) * strength[:, None]}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        return batch * params["log_factor"].exp()[:, :, None]


@dataclass(frozen=True)
class PermuteSegments(Transform[Tensor]):
    """`num_segments` pieces in another order; parameter `keys` (b, num_segments), by which they are sorted.

    A magnitude between 0 and 1 mixes: keys are indices plus that much disorder. Pieces differ by one point in length
    where the number of points does not divide.
    """

    num_segments: int = 4

    def __post_init__(self) -> None:
        if self.num_segments < 1:
            raise ValueError(f"a series falls into at least one piece, got {self.num_segments}")

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_series(batch)
        if batch.shape[-1] < self.num_segments:
            raise ValueError(f"{batch.shape[-1]} points in time do not fall into {self.num_segments} pieces")
        strength = per_sample(magnitude, len(batch), like=batch)[:, None]
        indices = torch.arange(self.num_segments, device=batch.device, dtype=batch.dtype)
        disorder = uniform(generator, len(batch), self.num_segments, high=float(self.num_segments), like=batch)
        return {"keys": (1.0 - strength) * indices + strength * disorder}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_series(batch)
        length = batch.shape[-1]
        piece = torch.arange(length, device=batch.device) * self.num_segments // length
        # sorted by the key of its piece, each point keeps its place within
        order = params["keys"][:, piece].argsort(dim=1, stable=True)
        return batch.gather(2, order[:, None].expand_as(batch))


@dataclass(frozen=True)
class Resample(Transform[Tensor]):
    """Played faster or slower by a factor uniform in [1/`most`, `most`] on the log scale; parameter `pace` (b,).

    About the middle, linear between points; a slow series shows less of itself, a fast one ends in its last value.
    """

    most: float = 1.5
    differentiable = True

    def __post_init__(self) -> None:
        if not self.most >= 1.0:
            raise ValueError(f"the largest factor of pace must be at least 1, got {self.most}")

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_series(batch)
        drawn = uniform(generator, len(batch), low=-1.0, high=1.0, like=batch)
        return {"pace": self.most ** (drawn * per_sample(magnitude, len(batch), like=batch))}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_series(batch)
        middle = (batch.shape[-1] - 1) / 2
        offset = torch.arange(batch.shape[-1], device=batch.device, dtype=batch.dtype) - middle
        return interpolate_at(batch, middle + offset * params["pace"][:, None])


@dataclass(frozen=True)
class Shift(Transform[Tensor]):
    """Moved in a circle by whole points, uniform up to `most` of the length; parameter `points` (b,) long."""

    most: float = 0.5

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_series(batch)
        drawn = uniform(generator, len(batch), low=-self.most, high=self.most, like=batch)
        strength = per_sample(magnitude, len(batch), like=batch)
        return {"points": (drawn * strength * batch.shape[-1]).round().long()}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_series(batch)
        length = batch.shape[-1]
        source = (torch.arange(length, device=batch.device) - params["points"][:, None]) % length
        return batch.gather(2, source[:, None].expand_as(batch))


@dataclass(frozen=True)
class MaskInterval(Transform[Tensor]):
    """One gap of zeros, up to `most` of the length; parameter `gap` (b, 2), start and end as shares of the length."""

    most: float = 0.3

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_series(batch)
        strength = per_sample(magnitude, len(batch), like=batch)
        length = uniform(generator, len(batch), high=self.most, like=batch) * strength
        start = uniform(generator, len(batch), like=batch) * (1.0 - length)
        return {"gap": torch.stack([start, start + length], dim=1)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_series(batch)
        length = batch.shape[-1]
        time = (torch.arange(length, device=batch.device, dtype=batch.dtype) + 0.5) / length
        start, end = params["gap"][:, :1], params["gap"][:, 1:]
        return batch.masked_fill(((time >= start) & (time < end))[:, None], 0.0)
