"""Random changes of images (b, c, h, w) with values in [0, 1]; 1 channel, 3 (RGB) or 4 (RGB and opacity).

The eighteen of Transforms-2D (Speicher et al., TMLR 2024, arXiv 2407.04325) in three groups, and the crop. All work on
the whole batch at once. Changes of colour leave opacity alone; changes of place move it along. What is applied or not
at all is switched by its probability, which the magnitude scales; everything else is scaled by the magnitude itself.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.transforms.base import Generator, Params, Transform, normal, per_sample, uniform
from cdvae_kit.transforms.image_base import (
    Padding,
    RandomFactor,
    Sometimes,
    check_images,
    look_up,
    on_colors,
    per_image,
    pixel_positions,
)
from cdvae_kit.transforms.random_field import gaussian_random_field

LUMA = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue, ITU-R BT.601."""


class _Affine(Transform[Tensor]):
    """Moves the picture by r' = A r + t about the middle; subclasses say what A and t are."""

    padding: Padding
    differentiable = True

    @abstractmethod
    def motion(self, batch: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """A (b, 2, 2) and t (b, 2) in pixels."""

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_images(batch)
        matrix, shift = self.motion(batch, params)
        # each pixel asks where it came from
        source = torch.einsum("bij,bhwj->bhwi", torch.linalg.inv(matrix), pixel_positions(batch) - shift[:, None, None])
        return look_up(batch, source, padding=self.padding)


def _identity_matrices(batch: Tensor) -> Tensor:
    return torch.eye(2, device=batch.device, dtype=batch.dtype).expand(len(batch), 2, 2)


@dataclass(frozen=True)
class Translate(_Affine):
    """A shift in x and y, uniform up to `most` of the side; parameter `shift` (b, 2), shares of the sides."""

    most: float = 0.15
    padding: Padding = "zeros"

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        drawn = uniform(generator, len(batch), 2, low=-self.most, high=self.most, like=batch)
        return {"shift": drawn * per_sample(magnitude, len(batch), like=batch)[:, None]}

    def motion(self, batch: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        size = batch.new_tensor([batch.shape[-1], batch.shape[-2]])
        return _identity_matrices(batch), params["shift"] * size


@dataclass(frozen=True)
class Rotate(_Affine):
    """A turn, uniform up to `most` degrees either way; parameter `angle` (b,), radians, counter-clockwise."""

    most: float = 180.0
    padding: Padding = "zeros"

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        most = math.radians(self.most)
        drawn = uniform(generator, len(batch), low=-most, high=most, like=batch)
        return {"angle": drawn * per_sample(magnitude, len(batch), like=batch)}

    def motion(self, batch: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        cos, sin = params["angle"].cos(), params["angle"].sin()
        # y runs down
        matrix = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], dim=-2)
        return matrix, batch.new_zeros(len(batch), 2)


@dataclass(frozen=True)
class Scale(_Affine):
    """A size, uniform in [`smallest`, `largest`]; parameter `factor` (b,)."""

    smallest: float = 0.4
    largest: float = 1.0
    padding: Padding = "zeros"

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        drawn = uniform(generator, len(batch), low=self.smallest, high=self.largest, like=batch)
        return {"factor": 1.0 + (drawn - 1.0) * per_sample(magnitude, len(batch), like=batch)}

    def motion(self, batch: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        return _identity_matrices(batch) * params["factor"][:, None, None], batch.new_zeros(len(batch), 2)


@dataclass(frozen=True)
class Shear(_Affine):
    """Slants of x along y and of y along x, uniform up to `most` degrees; parameter `slant` (b, 2).

    The slant is the tangent of the angle. x goes first, so that the two can never fold the picture.
    """

    most: float = 50.0
    padding: Padding = "zeros"

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        most = math.radians(self.most)
        drawn = uniform(generator, len(batch), 2, low=-most, high=most, like=batch)
        return {"slant": (drawn * per_sample(magnitude, len(batch), like=batch)[:, None]).tan()}

    def motion(self, batch: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        along_x, along_y = _identity_matrices(batch).clone(), _identity_matrices(batch).clone()
        along_x[:, 0, 1], along_y[:, 1, 0] = params["slant"][:, 0], params["slant"][:, 1]
        return along_y @ along_x, batch.new_zeros(len(batch), 2)


@dataclass(frozen=True)
class Brightness(RandomFactor):
    """All colours times a factor."""

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_images(batch)
        return on_colors(batch, lambda colors: colors * per_image(params["factor"]))


@dataclass(frozen=True)
class Contrast(RandomFactor):
    """The distance of each colour from the image's mean times a factor."""

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_images(batch)

        def change(colors: Tensor) -> Tensor:
            mean = colors.mean((1, 2, 3), keepdim=True)
            return mean + per_image(params["factor"]) * (colors - mean)

        return on_colors(batch, change)


@dataclass(frozen=True)
class Hue(Transform[Tensor]):
    """Colours turned about the grey axis, up to `most` of a turn either way; parameter `turn` (b,).

    A rotation of RGB space, linear and smooth, where the reference shifts the angle of HSV. A third of a turn exchanges
    the channels in a circle.
    """

    most: float = 0.5
    differentiable = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        drawn = uniform(generator, len(batch), low=-self.most, high=self.most, like=batch)
        return {"turn": drawn * per_sample(magnitude, len(batch), like=batch)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_images(batch, color=True)
        angle = 2.0 * math.pi * params["turn"]
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        grey = torch.full((3, 3), 1.0 / 3.0, device=batch.device, dtype=batch.dtype)
        identity = torch.eye(3, device=batch.device, dtype=batch.dtype)
        cross = batch.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
        matrix = cos * identity + (1.0 - cos) * grey + sin * cross
        return on_colors(batch, lambda colors: torch.einsum("bij,bjhw->bihw", matrix, colors))


@dataclass(frozen=True)
class FlipVertical(Sometimes):
    """Upside down."""

    def change(self, batch: Tensor, params: Params) -> Tensor:
        return batch.flip(-2)


@dataclass(frozen=True)
class FlipHorizontal(Sometimes):
    """Left for right."""

    def change(self, batch: Tensor, params: Params) -> Tensor:
        return batch.flip(-1)


@dataclass(frozen=True)
class HalfTurn(Sometimes):
    """Turned by 180 degrees: a 6 becomes a 9."""

    def change(self, batch: Tensor, params: Params) -> Tensor:
        return batch.flip(-2, -1)


@dataclass(frozen=True)
class Grayscale(Sometimes):
    """All three colours replaced by the brightness."""

    def change(self, batch: Tensor, params: Params) -> Tensor:
        if batch.shape[1] == 1:
            return batch
        luma = batch.new_tensor(LUMA)
        return on_colors(batch, lambda c: torch.einsum("j,bjhw->bhw", luma, c)[:, None].expand_as(c))


@dataclass(frozen=True)
class Posterize(Sometimes):
    """2^`bits` levels a colour, spread over [0, 1]; the reference's darken, since they only drop bits."""

    bits: int = 1

    def change(self, batch: Tensor, params: Params) -> Tensor:
        levels = 2**self.bits
        return on_colors(batch, lambda colors: (colors * levels).floor().clamp(max=levels - 1) / (levels - 1))


@dataclass(frozen=True)
class Invert(Sometimes):
    """The negative."""

    def change(self, batch: Tensor, params: Params) -> Tensor:
        return on_colors(batch, lambda colors: 1.0 - colors)


@dataclass(frozen=True)
class Sharpen(Sometimes):
    """The difference to a 3×3 mean times `factor`."""

    factor: float = 7.0

    def change(self, batch: Tensor, params: Params) -> Tensor:
        def change(colors: Tensor) -> Tensor:
            kernel = colors.new_ones(3, 3)
            kernel[1, 1] = 5.0
            channels = colors.shape[1]
            weights = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
            padded = functional.pad(colors, (1, 1, 1, 1), mode="replicate")
            smooth = functional.conv2d(padded, weights, groups=channels)
            return smooth + self.factor * (colors - smooth)

        return on_colors(batch, change)


@dataclass(frozen=True)
class Pixelate(Sometimes):
    """Blocks of one colour: shrunk to `share` of the side and back."""

    share: float = 0.3

    def change(self, batch: Tensor, params: Params) -> Tensor:
        size = [max(1, round(self.share * n)) for n in batch.shape[-2:]]
        return functional.interpolate(functional.interpolate(batch, size), batch.shape[-2:])


@dataclass(frozen=True)
class Erase(Sometimes):
    """A black, transparent rectangle of `share` of each side; parameters `on` and `corner` (b, 2) in [0, 1)."""

    share: float = 0.4375

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        on = super().sample(batch, magnitude=magnitude, generator=generator)
        return {**on, "corner": uniform(generator, len(batch), 2, like=batch)}

    def change(self, batch: Tensor, params: Params) -> Tensor:
        inside = []
        for axis, n in enumerate(batch.shape[-2:]):
            side = max(1, round(self.share * n))
            first = (params["corner"][:, axis] * (n - side + 1)).floor()[:, None]
            index = torch.arange(n, device=batch.device)
            inside.append((index >= first) & (index < first + side))
        return batch.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)


@dataclass(frozen=True)
class Noise(Sometimes):
    """Colours plus `standard_deviation` times a normal number cut to [0, 1]; parameters `on` and `noise`."""

    standard_deviation: float = 1.0

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        on = super().sample(batch, magnitude=1.0, generator=generator)
        channels = min(batch.shape[1], 3)
        drawn = normal(generator, len(batch), channels, *batch.shape[2:], like=batch).clamp(0.0, 1.0)
        strength = self.standard_deviation * per_sample(magnitude, len(batch), like=batch)
        return {**on, "noise": drawn * per_image(strength)}

    def change(self, batch: Tensor, params: Params) -> Tensor:
        return on_colors(batch, lambda colors: colors + params["noise"])


@dataclass(frozen=True)
class Elastic(Sometimes):
    """Displaced by two random fields of root mean square `rms` of the side; `on` and `shift` (b, 2, h, w), pixels.

    The reference filters noise by one Gaussian, so that all folds have one size; the spectrum here is |k|^−`exponent`.
    """

    rms: float = 0.04
    exponent: float = 4.0

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        on = super().sample(batch, magnitude=1.0, generator=generator)
        shape = batch.shape[-2:]
        fields = [
            gaussian_random_field(shape, exponent=self.exponent, num_fields=len(batch), generator=generator, like=batch)
            * (self.rms * side)
            for side in reversed(shape)
        ]
        return {**on, "shift": torch.stack(fields, 1) * per_image(per_sample(magnitude, len(batch), like=batch))}

    def change(self, batch: Tensor, params: Params) -> Tensor:
        return look_up(batch, pixel_positions(batch) + params["shift"].permute(0, 2, 3, 1))


@dataclass(frozen=True)
class GaussianBlur(Transform[Tensor]):
    """Smoothed over a width uniform in [`smallest`, `largest`] pixels; parameter `sigma` (b,).

    Attributes:
        reach: pixels to either side that the kernel takes in.
    """

    smallest: float = 0.1
    largest: float = 1.5
    reach: int = 3
    differentiable = True

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        drawn = uniform(generator, len(batch), low=self.smallest, high=self.largest, like=batch)
        return {"sigma": drawn * per_sample(magnitude, len(batch), like=batch)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_images(batch)
        b, c, h, w = batch.shape
        offset = torch.arange(-self.reach, self.reach + 1, device=batch.device, dtype=batch.dtype)
        # a width of zero is the kernel of one pixel
        kernel = torch.exp(-0.5 * (offset / params["sigma"].clamp_min(1e-3)[:, None]) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)
        r = self.reach
        planes = functional.pad(batch, (r, r, r, r), mode="replicate").reshape(1, b * c, h + 2 * r, w + 2 * r)
        planes = functional.conv2d(planes, kernel[:, None, :, None], groups=b * c)
        return functional.conv2d(planes, kernel[:, None, None, :], groups=b * c).reshape(b, c, h, w)


@dataclass(frozen=True)
class Crop(Transform[Tensor]):
    """A square share of the area, uniform in [`smallest`, `largest`], anywhere, resized; `box` (b, 3).

    The box is left edge, upper edge and side, as shares of the image's sides.

    Attributes:
        size: height and width of the result, None for those of the batch.
    """

    smallest: float = 0.3
    largest: float = 1.0
    size: tuple[int, int] | None = None
    differentiable = True

    def __post_init__(self) -> None:
        if not 0.0 < self.smallest <= self.largest <= 1.0:
            raise ValueError(f"a crop takes shares of the area in (0, 1], got {self.smallest}..{self.largest}")

    @property
    def changes_shape(self) -> bool:  # type: ignore[override]
        return self.size is not None

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        area = uniform(generator, len(batch), low=self.smallest, high=self.largest, like=batch)
        side = (1.0 + (area - 1.0) * per_sample(magnitude, len(batch), like=batch)).sqrt()
        corner = uniform(generator, len(batch), 2, like=batch) * (1.0 - side)[:, None]
        return {"box": torch.cat([corner, side[:, None]], dim=1)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_images(batch)
        h, w = batch.shape[-2:]
        rows, columns = self.size or (h, w)
        y, x = ((torch.arange(n, device=batch.device, dtype=batch.dtype) + 0.5) / n for n in (rows, columns))
        place = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1)
        box = params["box"][:, None, None]
        shares = box[..., :2] + box[..., 2:] * place - 0.5
        return look_up(batch, shares * batch.new_tensor([w, h]), padding="border")


GROUPS: dict[str, tuple[type[Transform[Tensor]], ...]] = {
    "geometric": (Translate, Rotate, Scale, FlipVertical, FlipHorizontal, Shear),
    "photometric": (Hue, Brightness, Grayscale, Posterize, Invert, Sharpen),
    "corruption": (GaussianBlur, Noise, Pixelate, Elastic, Erase, Contrast),
}
"""The eighteen of Transforms-2D; each is made without arguments and then follows the paper's distribution."""


def image_transform(name: str) -> Transform[Tensor]:
    """One of the eighteen by its name, with the paper's distribution.

    >>> image_transform("flip_vertical").name
    'flip_vertical'
    """
    made = {transform.name: transform for group in GROUPS.values() for kind in group if (transform := kind())}
    if name not in made:
        raise ValueError(f"there is no image transform {name!r}; there are {', '.join(made)}")
    return made[name]
