"""Transforms of series and tokens: identities, oracles, what they keep."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms import IndexedDraws, Transform
from cdvae_kit.transforms.time_series import (
    Amplify,
    Jitter,
    MaskInterval,
    PermuteSegments,
    Resample,
    Shift,
    interpolate_at,
)
from cdvae_kit.transforms.tokens import MaskTokens, Relabel, SubstituteTokens

SERIES: list[Callable[[], Transform[Tensor]]] = [Jitter, Amplify, PermuteSegments, Resample, Shift, MaskInterval]
TOKENS: list[Callable[[], Transform[Tensor]]] = [
    lambda: MaskTokens(9, 0.5),
    lambda: SubstituteTokens(9, 0.5),
    lambda: Relabel(9),
]


def series(num: int = 5, length: int = 32) -> Tensor:
    return torch.randn(num, 2, length, generator=make_generator(0))


def tokens(num: int = 5, length: int = 12) -> Tensor:
    return torch.randint(0, 9, (num, length), generator=make_generator(0))


@pytest.mark.parametrize("kind", [*SERIES, *TOKENS])
def test_magnitude_zero_is_the_identity_and_one_is_not(kind: Callable[[], Transform[Tensor]]) -> None:
    transform = kind()
    x = series() if kind in SERIES else tokens()
    before = x.clone()
    assert torch.allclose(transform(x, magnitude=0.0, generator=make_generator(1)), x, atol=1e-6)
    assert not torch.equal(transform(x, generator=make_generator(1)), x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", [*SERIES, *TOKENS])
def test_a_sample_drawn_by_index_does_not_depend_on_its_batch(kind: Callable[[], Transform[Tensor]]) -> None:
    transform = kind()
    x = series() if kind in SERIES else tokens()
    whole = transform(x, generator=IndexedDraws(7, torch.arange(5)))
    some = torch.tensor([4, 1])
    assert torch.equal(transform(x[some], generator=IndexedDraws(7, some)), whole[some])


@pytest.mark.parametrize("kind", [Jitter, Amplify, Resample])
def test_a_gradient_reaches_the_magnitude_where_it_is_promised(kind: Callable[[], Transform[Tensor]]) -> None:
    x, transform = series().double(), kind()
    assert transform.differentiable
    magnitude = torch.full((5,), 0.4, dtype=torch.float64, requires_grad=True)

    def total(m: Tensor) -> Tensor:
        return (transform(x, magnitude=m, generator=make_generator(1)) * x.flip(0)).sum()

    total(magnitude).backward()
    step = torch.full((5,), 1e-7, dtype=torch.float64)
    slope = (total(magnitude.detach() + step) - total(magnitude.detach() - step)) / 2e-7
    assert magnitude.grad is not None
    assert magnitude.grad.sum().item() == pytest.approx(slope.item(), rel=1e-3)


def test_a_straight_line_is_interpolated_exactly_and_held_outside() -> None:
    line = torch.arange(6.0).reshape(1, 1, 6)
    values = interpolate_at(line, torch.tensor([[-1.0, 0.25, 3.5, 5.0, 9.0]]))
    assert values.flatten().tolist() == [0.0, 0.25, 3.5, 5.0, 5.0]
    assert interpolate_at(torch.ones(1, 1, 1), torch.zeros(1, 3)).flatten().tolist() == [1.0] * 3


def test_resampling_moves_the_frequency_by_its_pace_where_scaling_does_not() -> None:
    time = torch.arange(256) / 256
    wave = torch.sin(2 * math.pi * 16 * time).reshape(1, 1, 256)

    def peak(x: Tensor) -> int:
        return int(torch.fft.rfft(x).abs().flatten().argmax())

    fast = Resample().apply(wave, {"pace": torch.tensor([1.25])})
    # a fifth of the window holds the last value
    assert peak(fast[..., 26:-26]) == pytest.approx(20 * 204 / 256, abs=1)
    assert peak(Amplify()(wave, generator=make_generator(0))) == 16
    assert peak(Shift()(wave, generator=make_generator(0))) == 16


def test_a_shift_is_a_roll_and_keeps_the_spectrum() -> None:
    x = series(2)
    moved = Shift().apply(x, {"points": torch.tensor([3, -5])})
    assert torch.equal(moved[0], x[0].roll(3, -1)) and torch.equal(moved[1], x[1].roll(-5, -1))


@pytest.mark.parametrize(("length", "pieces"), [(32, 4), (10, 3), (5, 5), (7, 1)])
def test_segments_are_moved_whole(length: int, pieces: int) -> None:
    x = torch.arange(float(length)).expand(200, 1, length)
    mixed = PermuteSegments(pieces)(x, generator=make_generator(0))
    assert torch.equal(mixed.sort(-1).values, x)
    breaks = (mixed.diff(dim=-1) != 1.0).sum(-1)
    assert breaks.max() <= pieces - 1
    if pieces > 1:
        assert breaks.max() == pieces - 1
        with pytest.raises(ValueError, match=f"{pieces - 1} points in time do not fall"):
            PermuteSegments(pieces)(x[..., : pieces - 1], generator=make_generator(0))


def test_gaps_are_single_and_no_longer_than_allowed() -> None:
    x = torch.ones(500, 2, 100)
    gone = MaskInterval(0.3)(x, generator=make_generator(0)) == 0.0
    lengths = gone.sum(-1)
    assert lengths.max() <= 31 and lengths.float().mean().item() == pytest.approx(15.0, rel=0.1)
    assert (gone.int().diff(dim=-1).abs().sum(-1) <= 2).all() and torch.equal(gone[:, 0], gone[:, 1])


def test_masks_come_in_their_share_and_spare_what_is_kept() -> None:
    x = tokens(400, 50)
    masked = MaskTokens(99, 0.2, keep=3)(x, generator=make_generator(0)) == 99
    assert not bool(masked[x == 3].any())
    assert masked[x != 3].float().mean().item() == pytest.approx(0.2, abs=0.01)


def test_a_substitute_is_never_the_token_itself_and_all_others_come_alike() -> None:
    x = torch.full((400, 50), 2)
    changed = SubstituteTokens(5, 1.0)(x, generator=make_generator(0))
    shares = changed.flatten().bincount(minlength=5) / changed.numel()
    assert shares[2] == 0.0
    assert shares[[0, 1, 3, 4]].tolist() == pytest.approx([0.25] * 4, abs=0.01)


def test_relabelling_keeps_the_pattern_and_nothing_else() -> None:
    x = tokens()
    renamed = Relabel(9)(x, generator=make_generator(0))
    assert torch.equal(x[:, :, None] == x[:, None], renamed[:, :, None] == renamed[:, None])
    names = Relabel(9).sample(x, generator=make_generator(0))["names"]
    assert torch.equal(names.sort(1).values, torch.arange(9).expand(5, 9))


def test_what_is_no_series_and_no_token_is_refused() -> None:
    for kind in SERIES:
        for bad in (torch.zeros(3, 8), torch.zeros(1, 1, 8).long(), torch.zeros(2, 1, 0)):
            with pytest.raises(ValueError, match="expected series"):
                kind()(bad, generator=make_generator(0))
    for kind in TOKENS:
        for bad in (torch.zeros(3, 8), torch.zeros(3).long(), torch.zeros(3, 8).bool()):
            with pytest.raises(ValueError, match="expected tokens"):
                kind()(bad, generator=make_generator(0))
    with pytest.raises(ValueError, match=r"0\.\.3, got 0\.\.8"):
        SubstituteTokens(4)(tokens(50), generator=make_generator(0))


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="probability"):
        MaskTokens(0, 1.5)
    with pytest.raises(ValueError, match="at least 2 tokens"):
        SubstituteTokens(1)
    with pytest.raises(ValueError, match="at least 1"):
        Resample(0.5)
    with pytest.raises(ValueError, match="at least one piece"):
        PermuteSegments(0)
