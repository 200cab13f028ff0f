"""Sets of local features: of the positions of an image, the atoms of a crystal, the nodes of a graph.

A sample is a set of points; the points of a batch stand one below the other, with the number of the sample that each
belongs to. A network that gives several such sets (levels) has `levels(batch)`; one that has `local_features(batch)`,
as the encoders of `encoder`, gives one level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class LocalFeatures:
    """The points of all samples of a batch, at one level.

    Attributes:
        features: (points, c).
        sample: (points,) long, ascending: the sample that a point belongs to.
        smoothed: (other points, c), means over neighbourhoods, None for the points themselves.
        smoothed_sample: (other points,) long, ascending, of `smoothed`.
    """

    features: Tensor
    sample: Tensor
    smoothed: Tensor | None = None
    smoothed_sample: Tensor | None = None

    def one_of_each(self, num_samples: int, *, generator: torch.Generator) -> Tensor:
        """(num_samples, c): the smoothed features of one point of each sample, all points equally likely."""
        features = self.features if self.smoothed is None else self.smoothed
        sample = self.sample if self.smoothed_sample is None else self.smoothed_sample
        counts = points_of_samples(sample, num_samples)
        drawn = torch.rand(num_samples, generator=generator, device=generator.device).to(counts.device)
        index = (drawn * counts).long().minimum(counts - 1)
        return features[counts.cumsum(0) - counts + index]


def points_of_samples(sample: Tensor, num_samples: int) -> Tensor:
    """(num_samples,) long: how many points each sample has; `ValueError` where one has none."""
    counts = torch.bincount(sample, minlength=num_samples)
    if len(counts) > num_samples or (num_samples and int(counts.min()) == 0):
        raise ValueError(
            f"expected points of each of {num_samples} samples, numbered from 0, got counts {counts.tolist()[:20]}"
        )
    return counts


@runtime_checkable
class LevelledEncoder(Protocol):
    """An encoder that gives local features at one level or more, the last being the deepest."""

    out_features: int
    level_features: Sequence[int]
    """The width of each level."""

    def __call__(self, batch: Any) -> Tensor: ...

    def levels(self, batch: Any) -> list[LocalFeatures]: ...


class OneLevel(nn.Module):
    """A `LocalEncoder` as a `LevelledEncoder` of one level.

    Args:
        encoder: module with `out_features` and `local_features`.
        local_width: of the local features; what the encoder says in an attribute of that name, or the width of the
            pooled features, unless given.
    """

    def __init__(self, encoder: Any, *, local_width: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_features = encoder.out_features
        self.level_features = (local_width or getattr(encoder, "local_width", encoder.out_features),)

    def forward(self, batch: Any) -> Tensor:
        return self.encoder(batch)

    def levels(self, batch: Any) -> list[LocalFeatures]:
        found = LocalFeatures(*self.encoder.local_features(batch))
        if found.features.shape[1:] != self.level_features:
            raise ValueError(
                f"the local features of {type(self.encoder).__name__} are {tuple(found.features.shape)}, expected "
                f"{self.level_features[0]} columns; where they are not as wide as the pooled ones, give the encoder an "
                "attribute local_width, or wrap it in OneLevel(encoder, local_width=...)"
            )
        return [found]


def as_levelled(encoder: Any) -> Any:
    """The encoder itself if it has `levels`, else with its `local_features` as the only level."""
    if isinstance(encoder, LevelledEncoder):
        return encoder
    if hasattr(encoder, "local_features") and hasattr(encoder, "out_features"):
        return OneLevel(encoder)
    raise TypeError(
        f"{type(encoder).__name__} gives no local features: give it local_features(batch) -> (features, sample) and "
        "out_features, or put the parts of an image network into StagedEncoder"
    )


class StagedEncoder(nn.Module):
    """An image network in stages, each a map (b, c, h, w) to the next; features are the mean over the last map.

    Local features are the positions of some stages' maps without their border, where padding shows; the smoothed ones
    are means over 3×3 positions (Gidaris et al. 2021). A map too small for that keeps its border, or is smoothed as a
    whole.

    Args:
        stages: modules in order.
        widths: channels after each stage.
        levels: which stages give local features, the last unless given.
        border: positions that are left out at each side.
        window: side of the squares whose mean is a smoothed feature.

    >>> stages = [nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 1))]
    >>> encoder = StagedEncoder(stages, widths=(8, 16), levels=(0, 1))
    >>> images = torch.zeros(2, 3, 12, 12)
    >>> encoder(images).shape, [tuple(level.features.shape) for level in encoder.levels(images)]
    (torch.Size([2, 16]), [(200, 8), (32, 16)])
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        *,
        widths: Sequence[int],
        levels: Sequence[int] = (-1,),
        border: int = 1,
        window: int = 3,
    ) -> None:
        super().__init__()
        if not stages or len(widths) != len(stages):
            raise ValueError(f"expected one width a stage and at least one, got {len(stages)} and {list(widths)}")
        if border < 0 or window < 1:
            raise ValueError(f"expected a border of at least 0 and a window of at least 1, got {border}, {window}")
        chosen = [level % len(stages) for level in levels if -len(stages) <= level < len(stages)]
        if len(chosen) != len(levels) or not chosen or chosen != sorted(set(chosen)):
            raise ValueError(f"levels are stages in ascending order, each once, of {len(stages)}, got {list(levels)}")
        self.stages = nn.ModuleList(stages)
        self.out_features = widths[-1]
        self.level_features = tuple(widths[level] for level in chosen)
        self.border = border
        self.window = window
        self._chosen = chosen

    def forward(self, batch: Tensor) -> Tensor:
        for stage in self.stages:
            batch = stage(batch)
        return batch.flatten(2).mean(-1)

    def maps(self, batch: Tensor) -> list[Tensor]:
        """The maps of the chosen stages, (b, c, h, w) each, borders included."""
        found = []
        for i, stage in enumerate(self.stages[: self._chosen[-1] + 1]):
            batch = stage(batch)
            if i in self._chosen:
                found.append(batch)
        return found

    def levels(self, batch: Tensor) -> list[LocalFeatures]:
        return [self._level(grid) for grid in self.maps(batch)]

    def _level(self, grid: Tensor) -> LocalFeatures:
        grid = self.inside(grid)
        smooth = functional.avg_pool2d(grid, tuple(min(self.window, n) for n in grid.shape[-2:]), stride=1)
        return LocalFeatures(*_as_set(grid), *_as_set(smooth))

    def inside(self, grid: Tensor) -> Tensor:
        """A map without its border, where it has an inside."""
        b = self.border
        return grid[..., b:-b, b:-b] if b and min(grid.shape[-2:]) > 2 * b else grid


def _as_set(grid: Tensor) -> tuple[Tensor, Tensor]:
    num, width, h, w = grid.shape
    sample = torch.arange(num, device=grid.device).repeat_interleave(h * w)
    return grid.flatten(2).transpose(1, 2).reshape(num * h * w, width), sample
