"""Augmentations of images whose parameters are random fields: place, colour and noise that differ from pixel to pixel.

Mansfield et al., "Random field augmentations for self-supervised representation learning" (NeurReps 2023, PMLR 228,
arXiv 2311.03629): every parameter of an ordinary augmentation becomes a function of the pixel, θ(r) = θ₀ + σ u(r), each
an independent Gaussian field u of variance 1. Without the local part, σ = 0, the ordinary augmentation is left. The
paper's spectra and ranges are not known to us; the spectrum is that of `random_field`. Images are those of `images`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cdvae_kit.transforms.base import Generator, Params, Transform, per_sample, uniform
from cdvae_kit.transforms.image_base import Padding, check_images, look_up, on_colors, per_image, pixel_positions
from cdvae_kit.transforms.random_field import gaussian_random_field


@dataclass(frozen=True)
class FieldDistribution:
    """How one parameter is drawn: a number for the whole picture plus a field.

    Attributes:
        most: the number is uniform in ±`most`, as in the ordinary augmentation.
        local: the standard deviation of the field; 0 is the ordinary augmentation.

    >>> round(FieldDistribution(most=0.3, local=0.1).rms, 3)
    0.2
    """

    most: float = 0.0
    local: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.most < math.inf and 0.0 <= self.local < math.inf):
            raise ValueError(f"the range and the standard deviation of a field cannot be negative, got {self}")

    @classmethod
    def of_rms(cls, rms: float, *, local_share: float) -> FieldDistribution:
        """The parameter of this root mean square, of whose variance a share is local: 0 none of it, 1 all.

        >>> FieldDistribution.of_rms(0.1, local_share=1.0)
        FieldDistribution(most=0.0, local=0.1)
        """
        if not 0.0 <= local_share <= 1.0:
            raise ValueError(f"the local share of the variance must lie in [0, 1], got {local_share}")
        return cls(most=math.sqrt(3.0 * (1.0 - local_share)) * rms, local=math.sqrt(local_share) * rms)

    @property
    def rms(self) -> float:
        """The root mean square of the parameter over draws and pixels."""
        return math.sqrt(self.most**2 / 3.0 + self.local**2)

    @property
    def is_off(self) -> bool:
        return self.most == 0.0 and self.local == 0.0


@dataclass(frozen=True, kw_only=True)
class _FieldTransform(Transform[Tensor]):
    """A transform with fields for parameters.

    Attributes:
        exponent: of the spectrum |k|^−exponent of all fields; 3 to 6 is smooth enough to keep shapes.
        max_wavenumber: no waves shorter than the side over this.
    """

    exponent: float = 4.0
    max_wavenumber: float | None = None
    differentiable = True

    def draw(
        self, distribution: FieldDistribution, count: int, batch: Tensor, strength: Tensor, generator: Generator
    ) -> Tensor:
        """(b, count, h, w): independent parameters that follow a distribution, times `strength` (b,)."""
        b, _, h, w = batch.shape
        shared = batch.new_zeros(b, count)
        if distribution.most > 0.0:
            shared = uniform(generator, b, count, low=-distribution.most, high=distribution.most, like=batch)
        values = shared[:, :, None, None].expand(b, count, h, w)
        if distribution.local > 0.0:
            fields = [
                gaussian_random_field(
                    (h, w),
                    exponent=self.exponent,
                    num_fields=b,
                    max_wavenumber=self.max_wavenumber,
                    generator=generator,
                    like=batch,
                )
                for _ in range(count)
            ]
            values = values + distribution.local * torch.stack(fields, dim=1)
        return values * per_image(strength)


@dataclass(frozen=True, kw_only=True)
class RandomFieldWarp(_FieldTransform):
    """Rotation, scale, shear and translation that change over the picture.

    The picture moves by r' = A(r') r + t(r') about the middle, A a shear, then a scale, then a rotation; each pixel
    asks its own A and t where it came from. Constant fields are `images.Rotate`, `Scale`, `Shear` and `Translate`.
    What turns and scales moves more at the rim than in the middle; with translation alone the effect is the same
    everywhere, an elastic deformation of chosen spectrum. Parameters: `shift` (b, 2, h, w) in shares of the sides,
    `angle` (b, 1, h, w) in radians, counter-clockwise, `log_scale` and `slant` (b, 2, h, w), along x and y.

    Attributes:
        translation: shares of the sides.
        rotation: degrees.
        scale: of the logarithm of the size, x and y apart.
        shear: slopes, of x along y and of y along x.
        padding: what lies outside.

    >>> from cdvae_kit.seeding import make_generator
    >>> warp, images = RandomFieldWarp(translation=FieldDistribution(local=0.03)), torch.rand(2, 1, 20, 20)
    >>> params = warp.sample(images, generator=make_generator(0))
    >>> warp.apply(images, params).shape, warp.folding_fraction(params).tolist()
    (torch.Size([2, 1, 20, 20]), [0.0, 0.0])
    """

    translation: FieldDistribution = FieldDistribution()
    rotation: FieldDistribution = FieldDistribution()
    scale: FieldDistribution = FieldDistribution()
    shear: FieldDistribution = FieldDistribution()
    padding: Padding = "reflection"

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_images(batch)
        strength = per_sample(magnitude, len(batch), like=batch)
        return {
            "shift": self.draw(self.translation, 2, batch, strength, generator),
            "angle": self.draw(self.rotation, 1, batch, strength * (math.pi / 180.0), generator),
            "log_scale": self.draw(self.scale, 2, batch, strength, generator),
            "slant": self.draw(self.shear, 2, batch, strength, generator),
        }

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_images(batch)
        if params["shift"].shape != (len(batch), 2, *batch.shape[-2:]):
            raise ValueError(
                f"expected fields for images {tuple(batch.shape)}, got fields {tuple(params['shift'].shape)}"
            )
        return look_up(batch, self.sources(params), padding=self.padding)

    def sources(self, params: Params) -> Tensor:
        """(b, h, w, 2): where each pixel comes from, x and y in pixels from the middle."""
        shift, angle, log_scale, slant = (params[name] for name in ("shift", "angle", "log_scale", "slant"))
        h, w = shift.shape[-2:]
        position = pixel_positions(shift)
        x, y = (position[..., i] - n * shift[:, i] for i, n in enumerate((w, h)))
        cos, sin = angle[:, 0].cos(), angle[:, 0].sin()
        # y runs down
        x, y = cos * x - sin * y, sin * x + cos * y
        x, y = x * torch.exp(-log_scale[:, 0]), y * torch.exp(-log_scale[:, 1])
        y = y - slant[:, 1] * x
        x = x - slant[:, 0] * y
        return torch.stack([x, y], dim=-1)

    def displacement(self, params: Params) -> Tensor:
        """(b, h, w, 2): how far off each pixel looks, x and y in shares of the sides."""
        h, w = params["shift"].shape[-2:]
        moved = self.sources(params) - pixel_positions(params["shift"])
        return moved / moved.new_tensor([w, h])

    def folding_fraction(self, params: Params) -> Tensor:
        """(b,) the share of pixels where the picture is folded: det ∂r/∂r' ≤ 0, by differences to the next pixels.

        Where it is not 0, parts of a picture are seen twice, mirrored, and shapes begin to go. A field of smoothness
        `exponent` folds above a certain standard deviation: at 4 and translations alone, some 3 % of pixels at 0.05 of
        the side.
        """
        source = self.sources(params)
        along_x = (source[:, :, 1:] - source[:, :, :-1])[:, :-1]
        along_y = (source[:, 1:] - source[:, :-1])[:, :, :-1]
        area = along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0]
        return (area <= 0.0).to(source.dtype).mean((1, 2))


@dataclass(frozen=True, kw_only=True)
class RandomFieldColor(_FieldTransform):
    """Hue, saturation and brightness that change over the picture; images of one channel have brightness alone.

    Hue turns colours about the grey axis, saturation stretches their distance from it, brightness all of them: the
    cylinder whose turn is `images.Hue`, where the paper may mean HSV. Constant fields are `Hue` and `Brightness`.
    Parameters (b, 1, h, w): `turn`, 1 a whole one, `log_saturation`, `log_brightness`.

    Attributes:
        hue: turns.
        saturation: of the logarithm of the factor.
        brightness: of the logarithm of the factor.
    """

    hue: FieldDistribution = FieldDistribution()
    saturation: FieldDistribution = FieldDistribution()
    brightness: FieldDistribution = FieldDistribution()

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        self._check(batch)
        strength = per_sample(magnitude, len(batch), like=batch)
        distributions = {"turn": self.hue, "log_saturation": self.saturation, "log_brightness": self.brightness}
        return {
            name: self.draw(distribution, 1, batch, strength, generator) for name, distribution in distributions.items()
        }

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        self._check(batch)
        if params["turn"].shape != (len(batch), 1, *batch.shape[-2:]):
            raise ValueError(
                f"expected fields for images {tuple(batch.shape)}, got fields {tuple(params['turn'].shape)}"
            )
        brightness = params["log_brightness"].exp()
        if batch.shape[1] == 1:
            return on_colors(batch, lambda colors: brightness * colors)
        angle, saturation = 2.0 * math.pi * params["turn"], params["log_saturation"].exp()

        def change(colors: Tensor) -> Tensor:
            grey = colors.mean(1, keepdim=True)
            chroma = colors - grey
            # the vector product with the grey axis
            across = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / math.sqrt(3.0)
            return brightness * (grey + saturation * (angle.cos() * chroma + angle.sin() * across))

        return on_colors(batch, change)

    def _check(self, batch: Tensor) -> None:
        check_images(batch, color=not (self.hue.is_off and self.saturation.is_off))


@dataclass(frozen=True, kw_only=True)
class RandomFieldNoise(_FieldTransform):
    """A field added to the colours, not kept in [0, 1]; parameter `noise` (b, c, h, w), the fourth channel spared.

    Attributes:
        distribution: of what is added to each channel.
        exponent: 0, white noise, unless given.
    """

    distribution: FieldDistribution = FieldDistribution(local=0.05)
    exponent: float = 0.0

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        check_images(batch)
        channels = min(batch.shape[1], 3)
        strength = per_sample(magnitude, len(batch), like=batch)
        return {"noise": self.draw(self.distribution, channels, batch, strength, generator)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        check_images(batch)
        noise = params["noise"]
        return torch.cat([batch[:, : noise.shape[1]] + noise, batch[:, noise.shape[1] :]], dim=1)
