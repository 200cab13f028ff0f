"""What the transforms of images have in common: checks, sampling between pixels, opacity, and two distributions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.transforms.base import Generator, Params, Transform, check_probability, chosen, per_sample, uniform

Padding = Literal["zeros", "border", "reflection"]


def check_images(batch: Tensor, *, color: bool = False) -> None:
    """`ValueError` unless the batch is (b, c, h, w) float of 1, 3 or 4 channels; `color` asks for 3 or 4."""
    allowed = (3, 4) if color else (1, 3, 4)
    if batch.ndim != 4 or not batch.is_floating_point() or batch.shape[1] not in allowed:
        raise ValueError(
            f"expected images (b, c, h, w), float, with {' or '.join(map(str, allowed))} channels, "
            f"got {tuple(batch.shape)} {batch.dtype}"
        )


def pixel_positions(batch: Tensor) -> Tensor:
    """(h, w, 2): x and y of each pixel in pixels, from the middle of the image."""
    h, w = batch.shape[-2:]
    y, x = (torch.arange(n, device=batch.device, dtype=batch.dtype) - (n - 1) / 2 for n in (h, w))
    return torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1)


def look_up(batch: Tensor, positions: Tensor, *, padding: Padding = "zeros") -> Tensor:
    """(b, c, p, q): each image at `positions` (b, p, q, 2), pixels from the middle, bilinear."""
    size = positions.new_tensor([batch.shape[-1], batch.shape[-2]])
    return functional.grid_sample(batch, 2.0 * positions / size, padding_mode=padding, align_corners=False)


def on_colors(batch: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` on all channels but opacity, the result kept in [0, 1]."""
    if batch.shape[1] != 4:
        return change(batch).clamp(0.0, 1.0)
    return torch.cat([change(batch[:, :3]).clamp(0.0, 1.0), batch[:, 3:]], dim=1)


def per_image(values: Tensor) -> Tensor:
    """(b,) as (b, 1, 1, 1)."""
    return values[:, None, None, None]


@dataclass(frozen=True)
class RandomFactor(Transform[Tensor]):
    """A factor uniform in [`smallest`, `largest`], 1 the identity; parameter `factor` (b,)."""

    smallest: float = 0.0
    largest: float = 2.0
    differentiable = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        drawn = uniform(generator, len(batch), low=self.smallest, high=self.largest, like=batch)
        return {"factor": 1.0 + (drawn - 1.0) * per_sample(magnitude, len(batch), like=batch)}


@dataclass(frozen=True)
class Sometimes(Transform[Tensor]):
    """One fixed change, or none; parameter `on` (b,) bool, true for a share `probability` times the magnitude."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.probability)

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        return {"on": chosen(batch, self.probability, magnitude=magnitude, generator=generator)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_images(batch)
        return torch.where(per_image(params["on"]), self.change(batch, params), batch)

    @abstractmethod
    def change(self, batch: Tensor, params: Params) -> Tensor:
        """The batch with all samples changed."""
