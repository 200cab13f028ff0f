"""What a transform is: a distribution over parameters, and a pure function of data and parameters.

The parameters lie open, so that two views can differ in them alone, a search can walk through them, and a gradient can
reach them. One protocol for images (b c h w), series (b c t), tokens (b l) and crystals (`CrystalBatch`). Here stand
the protocol, the draws and the transforms made of other transforms; each kind of data has its own module.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from cdvae_kit.seeding import CrystalNoise

Data = TypeVar("Data")

Params: TypeAlias = Mapping[str, Tensor]
"""The drawn parameters of a transform by name; the leading dimension is one row a sample."""


class IndexedDraws:
    """Stands in for a `torch.Generator` where sample i must depend on (seed, indices[i]) alone.

    The k-th draw of a sample is a hash of seed, index and k, so that it is the same in any batch and any order of work.

    Args:
        seed: of the data set.
        indices: (b,) long, the number of each sample within the data set.

    >>> both = uniform(IndexedDraws(0, torch.tensor([4, 7])), 2, 3)
    >>> alone = uniform(IndexedDraws(0, torch.tensor([7])), 1, 3)
    >>> torch.equal(both[1], alone[0])
    True
    """

    def __init__(self, seed: int, indices: Tensor) -> None:
        self._noise = CrystalNoise(seed, indices)
        self._num_samples = len(indices)
        self._num_draws = 0

    def draw(self, shape: Sequence[int], *, normal: bool) -> Tensor:
        """`shape` float32, standard normal or uniform in (0, 1)."""
        if shape[0] != self._num_samples:
            raise ValueError(f"these draws are for {self._num_samples} samples, got a batch of {shape[0]}")
        self._num_draws += 1
        width = torch.Size(shape[1:]).numel()
        draw = self._noise.normal_per_crystal if normal else self._noise.uniform_per_crystal
        return draw(width, stream=self._num_draws).reshape(tuple(shape))


Generator: TypeAlias = torch.Generator | IndexedDraws


def uniform(
    generator: Generator, num_samples: int, *shape: int, low: float = 0.0, high: float = 1.0, like: Tensor | None = None
) -> Tensor:
    """(num_samples, *shape) uniform in [low, high), of the device and float type of `like`."""
    if isinstance(generator, IndexedDraws):
        drawn = generator.draw((num_samples, *shape), normal=False)
    else:
        drawn = torch.rand(
            num_samples, *shape, generator=generator, device=generator.device, dtype=_float_type_of(like)
        )
    return low + (high - low) * _as(drawn, like)


def normal(generator: Generator, num_samples: int, *shape: int, like: Tensor | None = None) -> Tensor:
    """(num_samples, *shape) standard normal, of the device and float type of `like`."""
    if isinstance(generator, IndexedDraws):
        drawn = generator.draw((num_samples, *shape), normal=True)
    else:
        drawn = torch.randn(
            num_samples, *shape, generator=generator, device=generator.device, dtype=_float_type_of(like)
        )
    return _as(drawn, like)


def _float_type_of(like: Tensor | None) -> torch.dtype:
    return like.dtype if like is not None and like.is_floating_point() else torch.float32


def _as(drawn: Tensor, like: Tensor | None) -> Tensor:
    return drawn if like is None else drawn.to(device=like.device, dtype=_float_type_of(like))


def per_sample(magnitude: Tensor | float, num_samples: int, *, like: Tensor | None = None) -> Tensor:
    """A magnitude as (num_samples,) float; `ValueError` unless every one lies in [0, 1]."""
    values = torch.as_tensor(magnitude, dtype=_float_type_of(like), device=None if like is None else like.device)
    if values.ndim > 1 or (values.ndim == 1 and len(values) != num_samples):
        raise ValueError(f"expected one magnitude, or one for each of {num_samples} samples, got {tuple(values.shape)}")
    if not bool(((values >= 0.0) & (values <= 1.0)).all()):
        raise ValueError(
            f"a magnitude must lie in [0, 1], got {values.detach().min():g}..{values.detach().max():g}; 1 is the full "
            "distribution, and for more the transform needs a wider range"
        )
    return values.expand(num_samples)


def check_probability(probability: float) -> None:
    """`ValueError` unless it lies in [0, 1]."""
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"a probability must lie in [0, 1], got {probability}")


def chosen(batch: Tensor, probability: float, *, magnitude: Tensor | float, generator: Generator) -> Tensor:
    """(b,) bool: true for a share `probability` times the magnitude."""
    share = probability * per_sample(magnitude, len(batch), like=batch)
    return uniform(generator, len(batch), like=batch) < share


def num_samples(batch: Any) -> int:
    """The number of samples of a tensor, a tuple of them, or crystals."""
    return num_samples(batch[0]) if isinstance(batch, tuple) else len(batch)


def select_samples(batch: Any, index: Tensor) -> Any:
    """The samples at `index`, in that order, of a tensor, a tuple (data, labels) or crystals."""
    if isinstance(batch, Tensor):
        return batch[index]
    if isinstance(batch, tuple):
        return tuple(select_samples(part, index) for part in batch)
    if hasattr(batch, "select"):
        return batch.select(index)
    raise TypeError(f"expected a tensor, a tuple of tensors or a CrystalBatch, got {type(batch).__name__}")


def join_samples(parts: Sequence[Any]) -> Any:
    """One batch of several, in their order."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, tuple):
        return tuple(join_samples(column) for column in zip(*parts, strict=True))
    from cdvae_kit.crystal import concatenate

    return concatenate(parts)


class Transform(ABC, Generic[Data]):
    """A distribution over parameters plus a pure function of (data, parameters).

    To be kept by every transform: `apply` never changes its input; magnitude 0 draws the parameters of the identity;
    the numbers that are drawn do not depend on the magnitude, so that one seed gives the same change at any strength;
    each parameter has one row a sample.

    Attributes:
        differentiable: whether the gradient of `apply` with respect to the magnitude means something.
        changes_shape: whether the result has another shape than the batch.
    """

    differentiable: bool = False
    changes_shape: bool = False

    @property
    def name(self) -> str:
        """The class's name in lower case, for tables."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def sample(self, batch: Data, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        """Parameters for each sample of the batch.

        Args:
            batch: only its size, shape, device and type matter to most distributions.
            magnitude: in [0, 1], for all samples or (b,); 0 is the identity, 1 the full distribution.
            generator: a `torch.Generator`, or `IndexedDraws` where a sample must not depend on its neighbours.
        """

    @abstractmethod
    def apply(self, batch: Data, params: Params) -> Data:
        """The changed batch; the same parameters give the same result."""

    def act_on_target(self, target: Any, params: Params) -> Any:
        """What becomes of the labels (b, ...): nothing, unless the transform says otherwise (a dipole that turns)."""
        return target

    def __call__(self, batch: Data, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Data:
        """`apply` with parameters drawn on the spot."""
        return self.apply(batch, self.sample(batch, magnitude=magnitude, generator=generator))


class Identity(Transform[Any]):
    """Changes nothing; it belongs among the choices of every learnt augmentation, as the way out."""

    differentiable = True

    def sample(self, batch: Any, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        per_sample(magnitude, num_samples(batch))
        return {}

    def apply(self, batch: Any, params: Params) -> Any:
        return batch


class Compose(Transform[Data]):
    """Transforms one after the other; parameter `angle` of the first is called `0.angle`.

    All distributions read the batch as it comes in, except that they see the shape that a shape-changing one leaves
    behind.
    """

    def __init__(self, transforms: Sequence[Transform[Data]]) -> None:
        self.transforms = tuple(transforms)
        self.differentiable = all(transform.differentiable for transform in transforms)
        self.changes_shape = any(transform.changes_shape for transform in transforms)

    @property
    def name(self) -> str:
        return "+".join(transform.name for transform in self.transforms) or "identity"

    def sample(self, batch: Data, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        params = {}
        for i, transform in enumerate(self.transforms):
            drawn = transform.sample(batch, magnitude=magnitude, generator=generator)
            params.update({f"{i}.{key}": value for key, value in drawn.items()})
            if transform.changes_shape:
                with torch.no_grad():
                    batch = transform.apply(batch, drawn)
        return params

    def apply(self, batch: Data, params: Params) -> Data:
        for i, transform in enumerate(self.transforms):
            batch = transform.apply(batch, _params_of(params, i))
        return batch

    def act_on_target(self, target: Any, params: Params) -> Any:
        for i, transform in enumerate(self.transforms):
            target = transform.act_on_target(target, _params_of(params, i))
        return target


class RandomChoice(Transform[Data]):
    """One of several transforms for each sample; parameter `choice` (b,) long says which.

    Args:
        transforms: what is chosen from; none may change the shape.
        probabilities: one each, of any sum; alike unless given.
    """

    def __init__(self, transforms: Sequence[Transform[Data]], probabilities: Sequence[float] | None = None) -> None:
        if not transforms:
            raise ValueError("a choice needs at least one transform")
        if any(transform.changes_shape for transform in transforms):
            raise ValueError("a choice cannot hold a transform that changes the shape: samples would not fit together")
        weights = torch.tensor([1.0] * len(transforms) if probabilities is None else list(probabilities))
        if (
            len(weights) != len(transforms)
            or not bool((weights >= 0).all())
            or not 0 < float(weights.sum()) < torch.inf
        ):
            raise ValueError(
                f"expected a probability for each of {len(transforms)} transforms, not all zero, got {probabilities}"
            )
        self.transforms = tuple(transforms)
        self.differentiable = all(transform.differentiable for transform in transforms)
        self._cumulative = (weights / weights.sum()).cumsum(0)[:-1]

    @property
    def name(self) -> str:
        return "|".join(transform.name for transform in self.transforms)

    def sample(self, batch: Data, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        drawn = uniform(generator, num_samples(batch))
        params = {"choice": torch.bucketize(drawn, self._cumulative.to(drawn.device), right=True)}
        for i, transform in enumerate(self.transforms):
            for key, value in transform.sample(batch, magnitude=magnitude, generator=generator).items():
                params[f"{i}.{key}"] = value
        return params

    def apply(self, batch: Data, params: Params) -> Data:
        return self._by_choice(batch, params, lambda transform, part, own: transform.apply(part, own))

    def act_on_target(self, target: Any, params: Params) -> Any:
        return self._by_choice(target, params, lambda transform, part, own: transform.act_on_target(part, own))

    def _by_choice(self, data: Any, params: Params, act: Any) -> Any:
        choice = params["choice"]
        groups = [torch.nonzero(choice == i).flatten() for i in range(len(self.transforms))]
        parts = [
            act(transform, select_samples(data, rows), {k: v[rows] for k, v in _params_of(params, i).items()})
            for i, (transform, rows) in enumerate(zip(self.transforms, groups, strict=True))
            if len(rows)
        ]
        return select_samples(join_samples(parts), torch.cat(groups).argsort()) if parts else data


def _params_of(params: Params, index: int) -> dict[str, Tensor]:
    prefix = f"{index}."
    return {key.removeprefix(prefix): value for key, value in params.items() if key.startswith(prefix)}


def magnitude_grid(num_levels: int, *, largest: float = 1.0) -> Tensor:
    """(num_levels,) magnitudes from 0, the identity, to `largest`.

    >>> magnitude_grid(3)
    tensor([0.0000, 0.5000, 1.0000])
    """
    if num_levels < 2 or not 0.0 < largest <= 1.0:
        raise ValueError(
            f"a grid needs at least 2 levels and a largest magnitude in (0, 1], got {num_levels}, {largest}"
        )
    return torch.linspace(0.0, largest, num_levels)


def sweep_magnitude(
    transform: Transform[Data], batch: Data, magnitudes: Tensor, *, seed: int
) -> Iterator[tuple[float, Data]]:
    """Each magnitude with the batch changed by it; all share one draw, so that nothing but the strength varies."""
    for magnitude in magnitudes.tolist():
        draws = IndexedDraws(seed, torch.arange(num_samples(batch)))
        yield magnitude, transform(batch, magnitude=magnitude, generator=draws)
