"""Images made of an object, a transform of the object alone, and a background: Transforms-2D without a download.

Speicher et al., "Understanding the role of invariance in transfer learning" (TMLR 2024, arXiv 2407.04325). Their
objects are 61 pictures and their backgrounds 867 photographs; here both are smooth noise, one seed a class, unless
tensors of real ones are handed in (`io.pictures` reads a folder of them). As there, a class has one object: all that
varies within it is the transform. Theirs draw the transforms from one stream, by the order of access; here a sample
depends on (seed, index) alone. Their translation keeps the object's bounding box within the image; here it goes as far
as the margin around a centred object of the usual size. Values stay in [0, 1] where theirs are spread over [−1, 1].
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import Compose, IndexedDraws, Transform, normal, uniform
from cdvae_kit.transforms.images import image_transform

Ingredient = Literal["object", "transform", "background"]

_SPRITE_SIDE = 16
_OBJECTS, _BACKGROUNDS, _RANDOM_PIXELS = 101, 102, 103  # keys of the prototypes' draws


def make_sprites(classes: Sequence[int], *, seed: int = 0, side: int = _SPRITE_SIDE) -> Tensor:
    """(num_classes, 4, side, side) in [0, 1]: a coloured blob a class, the same whatever the other classes.

    Colours are 5×5 uniform noise made larger; opaque is where smooth noise exceeds −0.1 inside a disc.

    >>> both = make_sprites([3, 8])
    >>> torch.equal(both[1:], make_sprites([8])), both.shape
    (True, torch.Size([2, 4, 16, 16]))
    """
    draws = IndexedDraws(_key(seed, _OBJECTS), torch.tensor(list(classes), dtype=torch.long))
    colors = _enlarged(uniform(draws, len(classes), 3, 5, 5), side)
    outline = _enlarged(normal(draws, len(classes), 1, 5, 5), side)
    offset = (torch.arange(side) - (side - 1) / 2) / (side / 2)
    radius = (offset[:, None] ** 2 + offset**2).sqrt()
    # the middle belongs to every object: none may vanish
    opaque = (radius < 0.3) | ((outline > -0.1) & (radius < 0.95))
    return torch.cat([colors.clamp(0.0, 1.0), opaque.to(colors.dtype).expand(-1, 1, -1, -1)], dim=1)


def make_random_pixels(classes: Sequence[int], *, seed: int = 0, side: int = _SPRITE_SIDE) -> Tensor:
    """(num_classes, 4, side, side): opaque squares of independent uniform pixels, one a class."""
    draws = IndexedDraws(_key(seed, _RANDOM_PIXELS), torch.tensor(list(classes), dtype=torch.long))
    colors = uniform(draws, len(classes), 3, side, side)
    return torch.cat([colors, torch.ones(len(classes), 1, side, side)], dim=1)


def _enlarged(noise: Tensor, side: int) -> Tensor:
    return functional.interpolate(noise, (side, side), mode="bicubic", align_corners=True)


def _key(*parts: int) -> int:
    return make_generator(*parts).initial_seed()


class ComposedImages(Dataset[tuple[Tensor, int]]):
    """D(O, T): image (3, size, size) in [0, 1] and label, the index of its class in `classes`.

    Args:
        classes: of objects, any integers, all different.
        transforms: names of `transforms.images.image_transform`, or transforms, applied to the object in this order.
        num_samples: length of the data set.
        seed: of all that has no seed of its own.
        transform_seed: of the transforms; as `seed` unless given.
        object_seed: of which object it is; as `seed` unless given.
        background_seed: of the background and its class; as `seed` unless given.
        image_size: side in pixels.
        object_share: side of the object over that of the image.
        place: where the object stands: in the middle, or at the upper right.
        availability: the share of images that show their object.
        background_classes: as many as `classes`, or any number without correlation; none: every background is its own.
        correlation: the probability that the object is the one that belongs to the background's class, by index in
            the lists; otherwise it is drawn uniformly. It needs background classes.
        label: what is to be told.
        background_variation: 0 every background is its class's prototype, 1 the class does not show.
        objects: (num_classes, 4, s, s) in [0, 1], in the order of `classes`, instead of the sprites.
        backgrounds: instead of smooth noise, photographs to draw from (n, 3, size, size), black, or random pixels; not
            with background classes.

    >>> data = ComposedImages([0, 1], ["rotate", "hue"], 4, seed=0, image_size=16)
    >>> image, label = data[2]
    >>> image.shape, torch.equal(image, data.tensors()[0][2])
    (torch.Size([3, 16, 16]), True)
    """

    def __init__(
        self,
        classes: Sequence[int],
        transforms: Sequence[str | Transform[Tensor]],
        num_samples: int,
        *,
        seed: int,
        transform_seed: int | None = None,
        object_seed: int | None = None,
        background_seed: int | None = None,
        image_size: int = 32,
        object_share: float = 0.7,
        place: Literal["center", "upper_right"] = "center",
        availability: float = 1.0,
        background_classes: Sequence[int] | None = None,
        correlation: float = 0.0,
        label: Literal["object", "background"] = "object",
        background_variation: float = 0.5,
        objects: Tensor | None = None,
        backgrounds: Tensor | Literal["black", "random_pixels"] | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self.background_classes = None if background_classes is None else tuple(background_classes)
        self.num_samples = num_samples
        self.seed = seed
        self.transform_seed = seed if transform_seed is None else transform_seed
        self.object_seed = seed if object_seed is None else object_seed
        self.background_seed = seed if background_seed is None else background_seed
        self.image_size = image_size
        self.availability = availability
        self.correlation = correlation
        self.label = label
        self.background_variation = background_variation
        self._check()
        self.transform = Compose([image_transform(t) if isinstance(t, str) else t for t in transforms])
        self._canvases = self._on_canvas(make_sprites(classes) if objects is None else objects, object_share, place)
        black = isinstance(backgrounds, str) and backgrounds == "black"
        self._backgrounds = torch.zeros(1, 3, image_size, image_size) if black else backgrounds
        self._check_backgrounds()
        self._prototypes = None
        if self.background_classes is not None:
            draws = IndexedDraws(_key(0, _BACKGROUNDS), torch.tensor(self.background_classes, dtype=torch.long))
            self._prototypes = uniform(draws, len(self.background_classes), 3, 4, 4)

    def __len__(self) -> int:
        return self.num_samples

    @property
    def num_labels(self) -> int:
        """Labels run from 0 to one below it."""
        return len(self.classes if self.label == "object" else self.background_classes or ())

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -self.num_samples <= index < self.num_samples:
            raise IndexError(f"the data set holds {self.num_samples} samples, got the index {index}")
        images, labels = self.at(torch.tensor([index % self.num_samples]))
        return images[0], int(labels[0])

    def tensors(self, *, batch_size: int = 256) -> tuple[Tensor, Tensor]:
        """All images (n, 3, size, size) and labels (n,)."""
        parts = [self.at(rows) for rows in torch.arange(self.num_samples).split(batch_size)]
        return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])

    def with_seed(self, what: Ingredient, seed: int) -> ComposedImages:
        """The same but for one ingredient, which is drawn from `seed`.

        Where objects are correlated with backgrounds, those that follow a background do so still.
        """
        other = copy.copy(self)
        setattr(other, f"{what}_seed", seed)
        return other

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of the samples `indices` (b,) long."""
        # every draw is made whether it is used or not: an option changes what it is about and nothing else
        which_object = self._draws(self.object_seed, indices)[0][:, 0]
        drawn, noise, pixels = self._draws(self.background_seed, indices)
        which_background = drawn[:, 1]
        follows, shows = self._draws(self.seed, indices)[0][:, 2:].unbind(1)
        foreground = _pick(which_object, len(self.classes))
        background = _pick(which_background, len(self.background_classes or (0,)))
        if self.background_classes is not None:
            foreground = torch.where(follows < self.correlation, background, foreground)
        canvas = self._canvases[foreground]
        # the transforms' draws have a seed of their own even where the numbers are equal
        params = self.transform.sample(canvas, generator=IndexedDraws(_key(self.transform_seed, 1), indices))
        moved = self.transform.apply(canvas, params)
        opacity = moved[:, 3:] * (shows < self.availability)[:, None, None, None]
        behind = self._background(noise, background, which_background) if pixels is None else pixels
        images = opacity * moved[:, :3] + (1.0 - opacity) * behind
        return images.clamp(0.0, 1.0), foreground if self.label == "object" else background

    def _draws(self, seed: int, indices: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Object, background, following, presence as (b, 4); a background's noise; its pixels where drawn singly."""
        draws = IndexedDraws(seed, indices)
        four, noise = uniform(draws, len(indices), 4), uniform(draws, len(indices), 3, 4, 4)
        single = isinstance(self._backgrounds, str)
        pixels = uniform(draws, len(indices), 3, self.image_size, self.image_size) if single else None
        return four, noise, pixels

    def _background(self, noise: Tensor, background: Tensor, drawn: Tensor) -> Tensor:
        if isinstance(self._backgrounds, Tensor):
            return self._backgrounds[_pick(drawn, len(self._backgrounds))]
        if self._prototypes is not None:
            share = self.background_variation
            noise = share * noise + (1.0 - share) * self._prototypes[background]
        return _enlarged(noise, self.image_size).clamp(0.0, 1.0)

    def _on_canvas(self, objects: Tensor, share: float, place: str) -> Tensor:
        if objects.ndim != 4 or objects.shape[:2] != (len(self.classes), 4):
            raise ValueError(
                f"expected one object with opacity a class, ({len(self.classes)}, 4, s, s), got {tuple(objects.shape)}"
            )
        side = round(share * self.image_size)
        if not 1 <= side <= self.image_size:
            raise ValueError(f"an object of {side} pixels does not stand on an image of {self.image_size}")
        small = functional.interpolate(objects, (side, side), mode="bilinear", antialias=True, align_corners=False)
        free = self.image_size - side
        left, top = (free // 2, free // 2) if place == "center" else (free, 0)
        return functional.pad(small.clamp(0.0, 1.0), (left, free - left, top, free - top))

    def _check_backgrounds(self) -> None:
        given, side = self._backgrounds, self.image_size
        if given is None or (isinstance(given, str) and given == "random_pixels" and self.background_classes is None):
            return
        if (
            not isinstance(given, Tensor)
            or self.background_classes is not None
            or given.shape[1:] != (3, side, side)
            or not len(given)
        ):
            raise ValueError(
                f"expected photographs (n, 3, {side}, {side}), 'black' or 'random_pixels', and no background classes, "
                f"got {tuple(given.shape) if isinstance(given, Tensor) else given} and {self.background_classes}"
            )

    def _check(self) -> None:
        for name, listed in (("classes", self.classes), ("background classes", self.background_classes)):
            if listed is not None and (not listed or len(set(listed)) < len(listed)):
                raise ValueError(f"expected at least one of {name}, all different, got {list(listed)}")
        if self.num_samples < 1 or self.image_size < 4:
            raise ValueError(f"expected samples and at least 4 pixels, got {self.num_samples}, {self.image_size}")
        for name in ("availability", "correlation", "background_variation"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.background_classes is None and (self.label == "background" or self.correlation > 0.0):
            raise ValueError("labels of the background and a correlation with it need background_classes")
        if self.correlation > 0.0 and len(self.background_classes or ()) != len(self.classes):
            raise ValueError(
                f"a correlation pairs classes by their index: {len(self.classes)} of objects, "
                f"{len(self.background_classes or ())} of backgrounds"
            )


def _pick(drawn: Tensor, count: int) -> Tensor:
    """Uniform numbers in (0, 1) as integers 0 .. count − 1."""
    return (drawn * count).long().clamp_max(count - 1)


def paired_by_transform(dataset: ComposedImages, transform_seeds: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two times all images (n, 3, size, size): object, background and label are the same, the transforms are not."""
    return paired_by(dataset, "transform", transform_seeds)


def paired_by(dataset: ComposedImages, what: Ingredient, seeds: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two times all images (n, 3, size, size), alike in all but one ingredient.

    Drawn anew, an object is the same one again for a share of 1 over the number of classes.
    """
    first, second = seeds
    if first == second:
        raise ValueError(f"pairs need two different seeds, got {first} twice")
    return dataset.with_seed(what, first).tensors()[0], dataset.with_seed(what, second).tensors()[0]
