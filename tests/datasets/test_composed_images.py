"""D(O, T): samples by index, what a pair shares, availability, correlation, and that a class is its object alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.datasets.composed_images import (
    ComposedImages,
    make_random_pixels,
    make_sprites,
    paired_by,
    paired_by_transform,
)
from cdvae_kit.transforms.images import Invert


def images(classes: int = 5, transforms: Any = (), num: int = 60, **options: Any) -> ComposedImages:
    return ComposedImages(range(classes), transforms, num, **{"seed": 0, "image_size": 16, **options})


def corner_pixels(x: Tensor) -> Tensor:
    """Four pixels at the corners, which no object covers."""
    return x[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]


def test_a_sample_depends_on_seed_and_index_alone() -> None:
    data = images(transforms=["rotate", "noise", "elastic", "hue"])
    x, y = data.tensors()
    order = torch.tensor([7, 3, 50])
    some, labels = data.at(order)
    assert torch.allclose(some, x[order], atol=1e-6) and torch.equal(labels, y[order])
    assert torch.allclose(data[-1][0], x[-1], atol=1e-6) and data[7][1] == y[7]
    assert torch.allclose(data.tensors(batch_size=7)[0], x, atol=1e-6)
    longer = images(transforms=["rotate", "noise", "elastic", "hue"], num=90)
    assert torch.allclose(longer.tensors()[0][:60], x, atol=1e-6)
    assert not torch.allclose(images(seed=1).tensors()[0], images().tensors()[0])
    with pytest.raises(IndexError, match="holds 60 samples"):
        data[60]


def test_a_pair_differs_in_the_transform_alone() -> None:
    data = images(transforms=["rotate"])
    first, second = paired_by_transform(data, (1, 2))
    assert torch.equal(corner_pixels(first), corner_pixels(second))
    assert (first - second).abs().flatten(1).amax(1).min() > 0.05
    # the controls: no transform, no difference; one seed is no pair
    assert torch.equal(*paired_by_transform(images(), (1, 2)))
    with pytest.raises(ValueError, match="two different"):
        paired_by_transform(data, (3, 3))


def test_a_pair_can_differ_in_the_object_or_the_background_alone() -> None:
    data = images(background_classes=range(4), object_share=0.4, place="upper_right", transforms=["hue"])
    first, second = paired_by(data, "object", (1, 2))
    assert torch.equal(first[:, :, 8:], second[:, :, 8:]) and torch.equal(first[:, :, :, :8], second[:, :, :, :8])
    assert not torch.equal(first, second)
    first, second = paired_by(data, "background", (1, 2))
    assert (corner_pixels(first) - corner_pixels(second)).abs().flatten(1).amax(1).min() > 0.01
    assert torch.equal(data.with_seed("background", 1).tensors()[1], data.tensors()[1])
    # the same seed for all that has none of its own
    own = images(background_classes=range(4), object_seed=0, background_seed=0, transform_seed=0)
    assert torch.equal(own.tensors()[0], images(background_classes=range(4)).tensors()[0])


def test_an_object_that_follows_its_background_does_so_when_drawn_anew() -> None:
    data = images(background_classes=range(5), correlation=1.0)
    assert torch.equal(*paired_by(data, "object", (1, 2)))
    other = data.with_seed("background", 9)
    assert not torch.equal(other.tensors()[1], data.tensors()[1])


def test_backgrounds_can_be_black_or_random_pixels() -> None:
    black = images(backgrounds="black", availability=0.0).tensors()[0]
    assert black.abs().max() == 0.0
    data = images(num=300, backgrounds="random_pixels", availability=0.0)
    pixels = data.tensors()[0]
    assert pixels.mean() == pytest.approx(0.5, abs=0.01) and pixels.var() == pytest.approx(1 / 12, abs=0.005)
    assert torch.equal(data[7][0], pixels[7]) and not torch.equal(pixels[7], pixels[8])
    neighbours = torch.stack([pixels[..., 1:].flatten(), pixels[..., :-1].flatten()]).corrcoef()[0, 1]
    assert abs(float(neighbours)) < 0.02
    # the same objects stand before either
    assert torch.equal(images(backgrounds="random_pixels").tensors()[1], images().tensors()[1])


def test_labels_are_as_many_as_the_classes_that_are_to_be_told() -> None:
    assert images().num_labels == 5
    assert images(background_classes=range(3), label="background").num_labels == 3


def test_a_transform_never_reaches_the_background() -> None:
    plain, inverted = images(), images(transforms=[Invert(probability=1.0)])
    x, z = plain.tensors()[0], inverted.tensors()[0]
    opaque = images(objects=make_sprites(range(5)))._canvases[:, 3] > 0
    changed = ((x - z).abs() > 1e-6).any(1)
    _, y = plain.tensors()
    assert not bool((changed & ~opaque[y]).any()) and bool(changed.flatten(1).any(1).all())


def test_all_that_varies_within_a_class_is_the_transform() -> None:
    flat = torch.full((1, 3, 16, 16), 0.5)
    x, y = images(backgrounds=flat).tensors()
    for label in y.unique():
        of_class = x[y == label]
        assert torch.equal(of_class, of_class[:1].expand_as(of_class))
    turned, _ = images(backgrounds=flat, transforms=["rotate"]).tensors()
    assert not torch.equal(turned[y == 0], turned[y == 0][:1].expand_as(turned[y == 0]))


def test_classes_differ_are_alike_in_number_and_keep_their_object_in_any_company() -> None:
    _, y = images(num=5000).tensors()
    assert (y.bincount().float() / 1000).tolist() == pytest.approx([1.0] * 5, abs=0.12)
    sprites = make_sprites(range(61))
    assert torch.equal(make_sprites([60, 4]), sprites[[60, 4]])
    assert torch.pdist(sprites.flatten(1)).min() > 1.0
    opaque = sprites[:, 3].mean((1, 2))
    assert opaque.min() > 0.05 and opaque.max() < 0.8
    assert make_random_pixels([1, 2]).var() > make_sprites([1, 2])[:, :3].var()


@pytest.mark.parametrize("availability", [0.0, 0.3, 1.0])
def test_objects_show_as_often_as_they_are_available(availability: float) -> None:
    flat = torch.full((1, 3, 16, 16), 0.5)
    x, _ = images(num=2000, backgrounds=flat, availability=availability).tensors()
    shown = (x != 0.5).flatten(1).any(1).float().mean().item()
    assert shown == pytest.approx(availability, abs=0.04)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_object_and_background_agree_as_often_as_they_should(correlation: float) -> None:
    options: dict[str, Any] = {"background_classes": range(5), "correlation": correlation, "num": 3000}
    objects = images(**options).tensors()[1]
    backgrounds = images(**options, label="background").tensors()[1]
    agree = (objects == backgrounds).float().mean().item()
    assert agree == pytest.approx(correlation + (1.0 - correlation) / 5, abs=0.03)
    # the map between the two is one to one
    if correlation == 1.0:
        assert torch.equal(objects, backgrounds) and len(objects.unique()) == 5


def test_the_background_shows_its_class_the_more_the_less_it_varies() -> None:
    def spread(variation: float) -> float:
        data = images(
            background_classes=range(4), label="background", background_variation=variation, num=400, availability=0.0
        )
        x, y = data.tensors()
        within = torch.stack([x[y == label].var(0).mean() for label in y.unique()]).mean()
        return float(within / x.var(0).mean())

    assert spread(0.0) == pytest.approx(0.0, abs=1e-6)
    assert 0.02 < spread(0.5) < 0.9
    assert spread(1.0) == pytest.approx(1.0, abs=0.03)


def test_options_change_what_they_are_about_and_nothing_else() -> None:
    plain, other = images(), images(availability=0.0)
    assert torch.equal(plain.tensors()[1], other.tensors()[1])
    assert torch.equal(corner_pixels(plain.tensors()[0]), corner_pixels(other.tensors()[0]))
    small = images(object_share=0.3, place="upper_right")
    assert small._canvases[:, :, 5:].abs().sum() == 0.0 and small._canvases[:, :, :, :11].abs().sum() == 0.0


def test_values_stay_in_range_under_every_transform() -> None:
    names = ["scale", "shear", "brightness", "contrast", "noise", "sharpen", "gaussian_blur", "erase", "pixelate"]
    x, _ = images(transforms=names, num=200, image_size=24).tensors()
    assert x.min() >= 0.0 and x.max() <= 1.0 and bool(torch.isfinite(x).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": 0}, "all different"),
        ({"num": 0}, "expected samples"),
        ({"availability": 1.2}, "availability must lie"),
        ({"correlation": 0.5}, "need background_classes"),
        ({"label": "background"}, "need background_classes"),
        ({"correlation": 0.5, "background_classes": range(4)}, "by their index: 5 of objects, 4"),
        ({"background_classes": [1, 1]}, "all different"),
        ({"transforms": ["twirl"]}, "no image transform 'twirl'"),
        ({"objects": torch.zeros(5, 3, 8, 8)}, "one object with opacity a class"),
        ({"backgrounds": torch.zeros(2, 3, 8, 8)}, "expected photographs"),
        ({"backgrounds": "white"}, "expected photographs"),
        ({"backgrounds": "random_pixels", "background_classes": range(5)}, "no background classes"),
        ({"backgrounds": "black", "background_classes": range(5)}, "no background classes"),
        ({"object_share": 1.5}, "does not stand on"),
    ],
)
def test_what_cannot_be_composed_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        images(**options)
