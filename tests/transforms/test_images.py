"""Transforms of images: identities, oracles, opacity, what each leaves alone."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms import Compose, IndexedDraws, RandomChoice, Transform
from cdvae_kit.transforms.images import (
    GROUPS,
    Brightness,
    Contrast,
    Crop,
    Elastic,
    Erase,
    FlipHorizontal,
    FlipVertical,
    GaussianBlur,
    Grayscale,
    HalfTurn,
    Hue,
    Invert,
    Noise,
    Pixelate,
    Posterize,
    Rotate,
    Scale,
    Sharpen,
    Shear,
    Translate,
    image_transform,
)

ALL = [kind for group in GROUPS.values() for kind in group]
EVERY = [*ALL, Crop, HalfTurn]


def pictures(num: int = 6, channels: int = 4, side: int = 16, width: int | None = None) -> Tensor:
    return torch.rand(num, channels, side, width or side, generator=make_generator(0))


def names(kind: Any) -> str:
    return str(kind.__name__)


def test_there_are_eighteen_in_three_groups_of_six() -> None:
    assert [len(group) for group in GROUPS.values()] == [6, 6, 6] and len(set(ALL)) == 18
    assert [image_transform(kind().name).name for kind in ALL] == [kind().name for kind in ALL]
    with pytest.raises(ValueError, match="no image transform 'twirl'; there are translate, rotate"):
        image_transform("twirl")


@pytest.mark.parametrize("kind", EVERY, ids=names)
@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (3, 4, 12, 20)])
def test_magnitude_zero_is_the_identity_and_one_is_not(
    kind: Callable[[], Transform[Tensor]], shape: tuple[int, ...]
) -> None:
    x = torch.rand(shape, generator=make_generator(0))
    before, transform = x.clone(), kind()
    still = transform(x, magnitude=0.0, generator=make_generator(1))
    assert torch.allclose(still, x, atol=2e-5)
    moved = transform(x.repeat(8, 1, 1, 1), generator=make_generator(1))
    assert (moved - x.repeat(8, 1, 1, 1)).abs().max() > 0.05
    assert moved.min() >= -1e-6 and moved.max() <= 1.0 + 1e-6
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", EVERY, ids=names)
def test_parameters_have_a_row_a_sample_and_decide_the_result(kind: Callable[[], Transform[Tensor]]) -> None:
    x, transform = pictures(), kind()
    params = transform.sample(x, generator=make_generator(3))
    assert params and all(len(value) == len(x) for value in params.values())
    whole = transform.apply(x, params)
    assert torch.equal(whole, transform.apply(x, params))
    row = transform.apply(x[2:3], {key: value[2:3] for key, value in params.items()})
    assert torch.allclose(row[0], whole[2], atol=1e-6)


@pytest.mark.parametrize("kind", EVERY, ids=names)
def test_a_sample_drawn_by_index_does_not_depend_on_its_batch(kind: Callable[[], Transform[Tensor]]) -> None:
    x, transform = pictures(), kind()
    whole = transform(x, generator=IndexedDraws(7, torch.arange(6)))
    some = torch.tensor([4, 1])
    assert torch.allclose(transform(x[some], generator=IndexedDraws(7, some)), whole[some], atol=1e-6)


@pytest.mark.parametrize("kind", [*GROUPS["photometric"], Contrast, Noise], ids=names)
def test_a_change_of_colour_leaves_opacity(kind: Callable[[], Transform[Tensor]]) -> None:
    x = pictures()
    assert torch.equal(kind()(x, generator=make_generator(0))[:, 3], x[:, 3])


@pytest.mark.parametrize("kind", [kind for kind in EVERY if kind().differentiable], ids=names)
def test_a_gradient_reaches_the_magnitude_where_it_is_promised(kind: Callable[[], Transform[Tensor]]) -> None:
    x, transform = pictures(side=8).double(), kind()
    magnitude = torch.full((len(x),), 0.5, dtype=torch.float64, requires_grad=True)

    def total(m: Tensor) -> Tensor:
        changed = transform(x, magnitude=m, generator=make_generator(2))
        return (changed * x.flip(0)).sum()

    total(magnitude).backward()
    assert magnitude.grad is not None
    step = 1e-6 * torch.eye(len(x), dtype=torch.float64)[1]
    slope = (total(magnitude.detach() + step) - total(magnitude.detach() - step)) / 2e-6
    assert magnitude.grad[1].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-4)


def test_a_quarter_turn_is_that_of_the_array() -> None:
    x = pictures(3)
    turned = Rotate().apply(x, {"angle": torch.tensor([math.pi / 2, math.pi, 0.0])})
    assert torch.allclose(turned[0], torch.rot90(x[0], 1, (1, 2)), atol=1e-5)
    assert torch.allclose(turned[1], torch.rot90(x[1], 2, (1, 2)), atol=1e-5)
    assert torch.allclose(turned[2], x[2], atol=1e-5)


def test_a_shift_of_whole_pixels_is_that_of_the_array() -> None:
    x = pictures(1, side=10, width=20)
    moved = Translate().apply(x, {"shift": torch.tensor([[0.1, 0.3]])})
    expected = torch.zeros_like(x)
    expected[..., 3:, 2:] = x[..., :-3, :-2]
    assert torch.allclose(moved, expected, atol=1e-5)


def test_a_scale_keeps_the_middle_and_shrinks_the_mass() -> None:
    offsets = torch.arange(-16, 17)
    bell = torch.exp(-0.5 * (offsets / 5.0) ** 2)
    x = torch.outer(bell, bell)[None, None]
    small = Scale().apply(x, {"factor": torch.tensor([0.5])})
    assert small[0, 0, 16, 16] == 1.0
    assert small.sum().item() == pytest.approx(x.sum().item() / 4, rel=0.01)


def test_a_shear_keeps_the_area() -> None:
    x = torch.zeros(1, 1, 65, 65)
    x[..., 24:41, 24:41] = 1.0
    slanted = Shear().apply(x, {"slant": torch.tensor([[0.6, -0.4]])})
    assert slanted.sum().item() == pytest.approx(17**2, rel=0.02)
    assert (slanted - x).abs().sum() > 50


def test_translation_stays_in_its_range() -> None:
    drawn = Translate(0.2).sample(pictures(2000, side=2), generator=make_generator(0))["shift"]
    assert drawn.abs().max() <= 0.2 and drawn.abs().max() > 0.19 and abs(drawn.mean().item()) < 0.01


def test_a_third_of_a_turn_of_hue_exchanges_the_channels() -> None:
    x = pictures(2, channels=3)
    turned = Hue().apply(x, {"turn": torch.tensor([1 / 3, 1.0])})
    assert torch.allclose(turned[0], x[0].roll(1, 0), atol=1e-5)
    assert torch.allclose(turned[1], x[1], atol=1e-5)
    # grey has no hue
    grey = x[:, :1].expand(2, 3, 16, 16)
    assert torch.allclose(Hue().apply(grey, {"turn": torch.tensor([0.2, 0.4])}), grey, atol=1e-5)


def test_half_a_turn_of_hue_is_half_a_turn_of_the_colour_wheel() -> None:
    pale = torch.tensor([0.55, 0.5, 0.45])[None, :, None, None]
    turned = Hue().apply(pale, {"turn": torch.tensor([0.5])}).flatten().tolist()
    before, after = colorsys.rgb_to_hsv(0.55, 0.5, 0.45)[0], colorsys.rgb_to_hsv(*turned)[0]
    assert (after - before) % 1.0 == pytest.approx(0.5, abs=0.01)


def test_hue_needs_colours() -> None:
    with pytest.raises(ValueError, match="3 or 4 channels"):
        Hue()(pictures(2, channels=1), generator=make_generator(0))


def test_factors_of_colour_do_what_they_say() -> None:
    x, half = 0.5 * pictures(2, channels=3), torch.tensor([0.5, 2.0])
    assert torch.allclose(Brightness().apply(x, {"factor": half}), x * half[:, None, None, None])
    flat = Contrast().apply(x, {"factor": torch.zeros(2)})
    assert torch.allclose(flat, x.mean((1, 2, 3), keepdim=True).expand_as(x))


def switched(transform: Transform[Tensor], x: Tensor, **params: Tensor) -> Tensor:
    return transform.apply(x, {"on": torch.ones(len(x), dtype=torch.bool), **params})


def test_inverting_twice_and_greying_twice() -> None:
    x = pictures()
    assert torch.allclose(switched(Invert(), switched(Invert(), x)), x)
    grey = switched(Grayscale(), x)
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.allclose(switched(Grayscale(), grey), grey, atol=1e-6)
    one = pictures(channels=1)
    assert torch.equal(switched(Grayscale(), one), one)


def test_a_half_turn_is_both_flips_and_a_rotation_by_180_degrees() -> None:
    x = pictures(channels=1)
    half = switched(HalfTurn(), x)
    assert torch.equal(half, switched(FlipVertical(), switched(FlipHorizontal(), x)))
    assert torch.allclose(half, Rotate().apply(x, {"angle": torch.full((len(x),), torch.pi)}), atol=1e-5)
    assert not torch.allclose(half, x, atol=0.1)


def test_posterised_colours_are_few_and_span_the_range() -> None:
    x = torch.linspace(0.0, 1.0, 256).reshape(1, 1, 16, 16)
    assert switched(Posterize(), x).unique().tolist() == [0.0, 1.0]
    assert len(switched(Posterize(bits=3), x).unique()) == 8


def test_flat_pictures_are_sharp_and_blurred_already() -> None:
    flat = torch.full((2, 3, 9, 9), 0.3)
    for transform, params in ((Sharpen(), {"on": torch.ones(2).bool()}), (GaussianBlur(), {"sigma": torch.ones(2)})):
        assert torch.allclose(transform.apply(flat, params), flat, atol=1e-5)
    x = pictures(2, channels=3)
    assert switched(Sharpen(), x).var() > x.var() > GaussianBlur().apply(x, {"sigma": torch.ones(2)}).var()


def test_a_blur_of_a_point_is_a_bell_of_its_width() -> None:
    x = torch.zeros(1, 1, 15, 15, dtype=torch.float64)
    x[0, 0, 7, 7] = 1.0
    bell = GaussianBlur(reach=6).apply(x, {"sigma": torch.tensor([1.2], dtype=torch.float64)})
    offsets = (torch.arange(15) - 7).double()
    assert bell.sum().item() == pytest.approx(1.0)
    assert (bell[0, 0].sum(0) * offsets**2).sum().item() == pytest.approx(1.44, rel=1e-3)


def test_an_erased_square_is_empty_and_of_its_size() -> None:
    x = torch.ones(50, 4, 32, 32)
    gone = switched(Erase(), x, corner=torch.rand(50, 2, generator=make_generator(0)))
    assert torch.equal((gone == 0).flatten(2).sum(-1), torch.full((50, 4), 14 * 14))
    edge = switched(Erase(), x[:2], corner=torch.tensor([[0.0, 0.0], [0.9999, 0.9999]]))
    assert edge[0, 0, :14, :14].sum() == 0 and edge[1, 0, -14:, -14:].sum() == 0


def test_pixels_become_blocks() -> None:
    coarse = switched(Pixelate(share=0.25), pictures(2, side=16))
    blocks = coarse.reshape(2, 4, 4, 4, 4, 4)
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))


def test_noise_only_brightens_and_grows_with_its_magnitude() -> None:
    x = torch.zeros(400, 3, 4, 4)
    full = Noise(probability=1.0)(x, generator=make_generator(0))
    half = Noise(probability=1.0)(x, magnitude=0.5, generator=make_generator(0))
    assert torch.allclose(half, 0.5 * full) and full.min() >= 0.0
    assert (full > 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_an_elastic_shift_has_the_displacement_that_was_asked_for() -> None:
    shift = Elastic(probability=1.0).sample(pictures(500, side=16, width=32), generator=make_generator(0))["shift"]
    assert shift[:, 0].square().mean().sqrt().item() == pytest.approx(0.04 * 32, rel=0.05)
    assert shift[:, 1].square().mean().sqrt().item() == pytest.approx(0.04 * 16, rel=0.05)


def test_what_is_switched_comes_as_often_as_it_says() -> None:
    x = pictures(4000, channels=3, side=2)
    for magnitude, share in ((1.0, 0.5), (0.5, 0.25)):
        on = Invert().sample(x, magnitude=magnitude, generator=make_generator(0))["on"]
        assert on.float().mean().item() == pytest.approx(share, abs=0.03)


def test_a_crop_of_a_quadrant_is_that_of_the_array() -> None:
    x = pictures(1)
    part = Crop(size=(8, 8)).apply(x, {"box": torch.tensor([[0.5, 0.0, 0.5]])})
    assert torch.allclose(part, x[..., :8, 8:], atol=1e-5)


def test_crops_stay_inside_and_take_the_area_that_they_say() -> None:
    x = pictures(2000, side=2)
    box = Crop(0.2, 0.8).sample(x, generator=make_generator(0))["box"]
    area = box[:, 2] ** 2
    assert box.min() >= 0.0 and (box[:, :2] + box[:, 2:]).max() <= 1.0 + 1e-6
    assert area.mean().item() == pytest.approx(0.5, abs=0.01) and area.min() >= 0.199 and area.max() <= 0.801
    with pytest.raises(ValueError, match="shares of the area"):
        Crop(0.0)


def test_a_crop_to_another_size_composes_and_is_no_choice() -> None:
    both = Compose([Crop(size=(6, 6)), Noise(probability=1.0)])
    assert both(pictures(), generator=make_generator(0)).shape == (6, 4, 6, 6)
    with pytest.raises(ValueError, match="changes the shape"):
        RandomChoice([Crop(size=(6, 6))])
    assert RandomChoice([Crop(), Invert()])(pictures(), generator=make_generator(0)).shape == (6, 4, 16, 16)


@pytest.mark.parametrize("bad", [torch.zeros(3, 8, 8), torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 8, 8).byte()])
def test_what_is_no_image_is_refused(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="expected images"):
        Invert().apply(bad, {"on": torch.ones(len(bad)).bool()})


def test_a_probability_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="probability"):
        Invert(probability=1.5)
