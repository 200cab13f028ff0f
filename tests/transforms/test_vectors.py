"""Changes of vectors: the group laws that each must keep, and what it must leave alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import IndexedDraws, Transform
from cdvae_kit.transforms.vectors import CoordinateScale, CoordinateShift, PlaneRotation, SignFlip

ALL: list[tuple[Transform[Tensor], list[int]]] = [
    (PlaneRotation(1, 3), [1, 3]),
    (CoordinateShift(2, 1.5), [2]),
    (SignFlip(0), [0]),
    (CoordinateScale((0, 4), 0.7), [0, 4]),
]
every = pytest.mark.parametrize(("transform", "touched"), ALL, ids=[t.name for t, _ in ALL])


def vectors(num: int = 400) -> Tensor:
    return torch.randn(num, 5, generator=make_generator(3), dtype=torch.float64)


@every
def test_only_its_coordinates_change_and_magnitude_zero_changes_none(
    transform: Transform[Tensor], touched: list[int]
) -> None:
    x = vectors()
    before = x.clone()
    y = transform(x, generator=make_generator(0))
    assert torch.equal(x, before) and y.dtype == x.dtype
    assert [i for i in range(5) if not torch.equal(x[:, i], y[:, i])] == touched
    assert torch.equal(transform(x, magnitude=0.0, generator=make_generator(0)), x)


@every
def test_a_sample_depends_on_its_own_index_alone(transform: Transform[Tensor], touched: list[int]) -> None:
    x = vectors(6)
    whole = transform(x, generator=IndexedDraws(0, torch.arange(6)))
    alone = transform(x[4:], generator=IndexedDraws(0, torch.tensor([4, 5])))
    assert torch.equal(whole[4:], alone)


def test_a_rotation_keeps_lengths_and_a_scale_angles() -> None:
    x = vectors()
    turned = PlaneRotation(0, 1)(x, generator=make_generator(0))
    assert torch.allclose(turned[:, :2].norm(dim=1), x[:, :2].norm(dim=1))
    scaled = CoordinateScale((0, 1), 1.0)(x, generator=make_generator(0))
    assert torch.allclose(scaled[:, 0] * x[:, 1], scaled[:, 1] * x[:, 0])
    assert not torch.allclose(scaled[:, :2].norm(dim=1), x[:, :2].norm(dim=1))


def test_laws_have_their_ranges() -> None:
    x = vectors(4000)
    angle = PlaneRotation(0, 1, most=90.0).sample(x, generator=make_generator(0))["angle"].abs()
    assert 1.5 < angle.max() <= math.pi / 2 and angle.mean().item() == pytest.approx(math.pi / 4, rel=0.05)
    shift = CoordinateShift(0, 2.0).sample(x, generator=make_generator(0))["shift"]
    assert 1.9 < shift.max() <= 2.0 and -2.0 <= shift.min() < -1.9
    on = SignFlip(0, 0.25).sample(x, generator=make_generator(0))["on"]
    assert on.double().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("batch", [torch.zeros(3), torch.zeros(3, 1), torch.zeros(3, 5, dtype=torch.long)])
def test_what_has_no_such_coordinates_is_refused(batch: Any) -> None:
    with pytest.raises(ValueError, match="expected vectors"):
        SignFlip(1).apply(batch, {"on": torch.zeros(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match="probability"):
        SignFlip(0, 1.5)
