"""Fields as parameters of images: limits, oracles for folding and for colour, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms import IndexedDraws, Transform
from cdvae_kit.transforms.image_fields import FieldDistribution, RandomFieldColor, RandomFieldNoise, RandomFieldWarp
from cdvae_kit.transforms.images import Brightness, Hue, Rotate, Scale, Shear, Translate

BOTH = FieldDistribution(most=0.1, local=0.05)
WARP = RandomFieldWarp(
    translation=BOTH, rotation=FieldDistribution(20.0, 10.0), scale=BOTH, shear=BOTH, padding="zeros"
)
COLOR = RandomFieldColor(hue=BOTH, saturation=BOTH, brightness=BOTH)
EVERY: list[Transform[Tensor]] = [WARP, COLOR, RandomFieldNoise(distribution=BOTH)]


def pictures(num: int = 4, channels: int = 3, height: int = 16, width: int = 20) -> Tensor:
    return torch.rand(num, channels, height, width, generator=make_generator(0), dtype=torch.float64)


def constant_fields(values: Tensor, images: Tensor) -> Tensor:
    return values.reshape(len(images), -1, 1, 1).expand(-1, -1, *images.shape[-2:])


def warp_params(images: Tensor, **given: Tensor) -> dict[str, Tensor]:
    counts = {"shift": 2, "angle": 1, "log_scale": 2, "slant": 2}
    nothing = {name: images.new_zeros(len(images), count) for name, count in counts.items()}
    return {name: constant_fields(value, images) for name, value in (nothing | given).items()}


@pytest.mark.parametrize("transform", EVERY, ids=lambda transform: transform.name)
def test_magnitude_zero_is_the_identity_and_one_is_not(transform: Transform[Tensor]) -> None:
    x = pictures()
    before = x.clone()
    assert torch.allclose(transform(x, magnitude=0.0, generator=make_generator(1)), x, atol=1e-9)
    assert (transform(x, generator=make_generator(1)) - x).abs().max() > 0.05
    assert torch.equal(x, before)


@pytest.mark.parametrize("transform", EVERY, ids=lambda transform: transform.name)
def test_a_sample_drawn_by_index_does_not_depend_on_its_batch(transform: Transform[Tensor]) -> None:
    x, some = pictures(), torch.tensor([3, 1])
    whole = transform(x, generator=IndexedDraws(5, torch.arange(4)))
    assert torch.allclose(transform(x[some], generator=IndexedDraws(5, some)), whole[some], atol=1e-6)


@pytest.mark.parametrize("transform", EVERY, ids=lambda transform: transform.name)
def test_a_gradient_reaches_the_magnitude(transform: Transform[Tensor]) -> None:
    x = pictures()
    magnitude = torch.full((4,), 0.3, dtype=torch.float64, requires_grad=True)

    def total(m: Tensor) -> Tensor:
        return (transform(x, magnitude=m, generator=make_generator(2)) * x.flip(0)).sum()

    total(magnitude).backward()
    assert magnitude.grad is not None
    step = 1e-6 * torch.eye(4, dtype=torch.float64)[1]
    slope = (total(magnitude.detach() + step) - total(magnitude.detach() - step)) / 2e-6
    assert magnitude.grad[1].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("ordinary", "distributions"),
    [
        (Rotate(30.0, "reflection"), {"rotation": FieldDistribution(most=30.0)}),
        (Translate(0.2, "reflection"), {"translation": FieldDistribution(most=0.2)}),
    ],
)
def test_without_local_variance_it_is_the_ordinary_augmentation_draw_by_draw(
    ordinary: Transform[Tensor], distributions: dict[str, FieldDistribution]
) -> None:
    x = pictures()
    expected = ordinary(x, generator=make_generator(3))
    assert torch.allclose(RandomFieldWarp(**distributions)(x, generator=make_generator(3)), expected, atol=1e-9)
    # the control: the smallest local part is seen
    local: Any = {
        name: FieldDistribution(distribution.most, 0.02 * distribution.most)
        for name, distribution in distributions.items()
    }
    assert not torch.allclose(RandomFieldWarp(**local)(x, generator=make_generator(3)), expected, atol=1e-4)


def test_hue_without_local_variance_is_hue() -> None:
    x = pictures()
    drawn = RandomFieldColor(hue=FieldDistribution(most=0.5))(x, generator=make_generator(3))
    assert torch.allclose(drawn, Hue(0.5)(x, generator=make_generator(3)), atol=1e-9)


def test_constant_fields_are_scale_shear_and_brightness() -> None:
    x = pictures()
    factor = torch.tensor([0.5, 0.8, 1.0, 1.6], dtype=torch.float64)
    slant = torch.tensor([[0.3, 0.0], [0.0, -0.4], [0.5, 0.5], [-0.2, 0.6]], dtype=torch.float64)
    warp = RandomFieldWarp(padding="zeros")
    scaled = warp.apply(x, warp_params(x, log_scale=factor.log()[:, None].expand(4, 2)))
    assert torch.allclose(scaled, Scale().apply(x, {"factor": factor}), atol=1e-9)
    assert torch.allclose(warp.apply(x, warp_params(x, slant=slant)), Shear().apply(x, {"slant": slant}), atol=1e-9)
    fields = {name: constant_fields(x.new_zeros(4, 1), x) for name in ("turn", "log_saturation")}
    bright = RandomFieldColor().apply(x, {**fields, "log_brightness": constant_fields(factor.log(), x)})
    assert torch.allclose(bright, Brightness().apply(x, {"factor": factor}), atol=1e-9)


def test_motions_go_one_after_the_other_shear_scale_rotation_shift() -> None:
    x = pictures(1, 1, 24, 24)
    angle, factor = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64)
    slant, shift = torch.tensor([[0.2, -0.1]], dtype=torch.float64), torch.tensor([[0.1, -0.05]], dtype=torch.float64)
    warp = RandomFieldWarp()
    params = warp_params(x, angle=angle, log_scale=factor.log().expand(1, 2), slant=slant, shift=shift)
    matrix = Rotate().motion(x, {"angle": angle})[0] @ Shear().motion(x, {"slant": slant})[0] * factor
    moved = warp.sources(params)[0] @ matrix[0].T + 24.0 * shift[0]
    assert torch.allclose(moved, warp.sources(warp_params(x))[0], atol=1e-9)


def test_the_local_displacement_has_the_asked_deviation() -> None:
    x = torch.zeros(400, 1, 20, 20)
    warp = RandomFieldWarp(translation=FieldDistribution(local=0.05))
    moved = warp.displacement(warp.sample(x, generator=make_generator(0)))
    assert moved.square().mean().sqrt().item() == pytest.approx(0.05, rel=0.02)
    # local: the mean over a picture is zero; shared: it is everything
    assert moved.mean((1, 2)).abs().max() < 1e-6
    shared = RandomFieldWarp(translation=FieldDistribution(most=0.05 * math.sqrt(3.0)))
    moved = shared.displacement(shared.sample(x, generator=make_generator(0)))
    assert moved.square().mean().sqrt().item() == pytest.approx(0.05, rel=0.05)
    assert (moved - moved.mean((1, 2), keepdim=True)).abs().max() < 1e-6


@pytest.mark.parametrize("std", [0.02, 0.05, 0.1])
def test_folding_is_that_of_a_gaussian_gradient(std: float) -> None:
    side, generator = 64, make_generator(0)
    warp = RandomFieldWarp(translation=FieldDistribution(local=std), max_wavenumber=8)
    x = torch.zeros(60, 1, side, side)
    measured = warp.folding_fraction(warp.sample(x, generator=generator)).mean().item()
    # ∂u is Gaussian, its four entries independent: the share of det(1 − ∂u) ≤ 0 by drawing them
    k = torch.cartesian_prod(torch.arange(-8.0, 9.0), torch.arange(-8.0, 9.0))
    k = k[(k.norm(dim=1) > 0) & (k.norm(dim=1) <= 8)]
    power = k.norm(dim=1) ** -4.0
    slope = 2.0 * math.pi * std * math.sqrt(float((power * k[:, 0] ** 2).sum() / power.sum()))
    g = torch.eye(2) - slope * torch.randn(10**6, 2, 2, generator=generator)
    expected = (torch.linalg.det(g) <= 0).double().mean().item()
    assert measured == pytest.approx(expected, rel=0.12, abs=2e-3)


def test_a_mirror_is_folded_and_an_ordinary_motion_is_not() -> None:
    x = pictures()
    warp = RandomFieldWarp(
        rotation=FieldDistribution(most=180.0),
        scale=FieldDistribution(most=0.5),
        translation=FieldDistribution(most=0.3),
    )
    params = warp.sample(x, generator=make_generator(0))
    assert warp.folding_fraction(params).tolist() == [0.0] * 4
    # sources run backwards where the shift grows by two pixels a pixel
    mirrored = x.new_zeros(4, 2, 16, 20)
    mirrored[:, 0] = 2.0 * torch.arange(20) / 20.0
    assert warp.folding_fraction(warp_params(x) | {"shift": mirrored}).tolist() == [1.0] * 4


def test_saturation_runs_to_grey_and_leaves_the_mean() -> None:
    x = 0.3 + 0.4 * pictures()
    nothing = constant_fields(x.new_zeros(4, 1), x)
    color = RandomFieldColor(saturation=FieldDistribution(local=1.0))
    fields = {"turn": nothing, "log_brightness": nothing}
    grey = color.apply(x, {**fields, "log_saturation": nothing - 40.0})
    assert torch.allclose(grey, x.mean(1, keepdim=True).expand_as(x))
    vivid = color.apply(x, {**fields, "log_saturation": nothing + 0.2})
    assert torch.allclose(vivid.mean(1), x.mean(1)) and not torch.allclose(vivid, x)


def test_a_pixel_has_the_colour_of_its_own_parameters() -> None:
    x = pictures()
    params = COLOR.sample(x, generator=make_generator(0))
    whole = COLOR.apply(x, params)
    spot = {name: value[:, :, 4:5, 7:8] for name, value in params.items()}
    assert torch.equal(COLOR.apply(x[:, :, 4:5, 7:8], spot), whole[:, :, 4:5, 7:8])


def test_opacity_is_left_by_colour_and_noise_and_moved_by_the_warp() -> None:
    x = pictures(channels=4)
    for transform in (COLOR, RandomFieldNoise()):
        assert torch.equal(transform(x, generator=make_generator(0))[:, 3], x[:, 3])
    assert not torch.allclose(WARP(x, generator=make_generator(0))[:, 3], x[:, 3])


def test_white_noise_is_white_and_of_its_deviation() -> None:
    x = torch.zeros(50, 1, 20, 20)
    noise = RandomFieldNoise(distribution=FieldDistribution(local=0.05))(x, generator=make_generator(0))
    assert noise.std().item() == pytest.approx(0.05, rel=0.03)
    assert abs((noise * noise.roll(1, 3)).mean().item()) < 0.02 * 0.05**2


def test_one_channel_has_brightness_and_no_hue() -> None:
    x = pictures(channels=1)
    bright = RandomFieldColor(brightness=FieldDistribution(local=0.3))(x, generator=make_generator(0))
    assert not torch.allclose(bright, x)
    with pytest.raises(ValueError, match="3 or 4 channels"):
        COLOR(x, generator=make_generator(0))


def test_no_image_at_all_is_an_empty_batch() -> None:
    x = pictures()[:0]
    for transform in EVERY:
        assert transform(x, generator=make_generator(0)).shape == x.shape


@pytest.mark.parametrize("distribution", [(-0.1, 0.0), (0.0, math.nan), (math.inf, 0.0)])
def test_a_distribution_that_makes_no_sense_is_refused(distribution: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        FieldDistribution(*distribution)


def test_fields_of_other_images_are_refused() -> None:
    small, large = pictures(height=8), pictures()
    for transform in (WARP, COLOR):
        with pytest.raises(ValueError, match="fields for images"):
            transform.apply(large, transform.sample(small, generator=make_generator(0)))
