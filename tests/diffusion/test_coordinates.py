"""Noise on the torus: the score, its levels, the straight paths."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import volume, wrap_displacement
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.diffusion import coordinates
from cdvae_kit.diffusion.coordinates import (
    UNIFORM_LEVEL,
    StraightPath,
    WrappedNormal,
    mean_square_score,
    wrapped_normal_score,
)
from cdvae_kit.seeding import make_generator

SIGMAS = [0.005, 0.02, 0.1, 0.3, 0.399, 0.4, 0.45, 0.7, 1.0]


def score_by_autograd(displacement: Tensor, sigma: float) -> Tensor:
    """The slope of the log of a sum over 41 images, float64."""
    x = displacement.double().clone().requires_grad_()
    images = torch.arange(-20, 21, dtype=torch.float64)
    log_density = torch.logsumexp(-0.5 * ((x.unsqueeze(-1) + images) / sigma).square(), dim=-1)
    (slope,) = torch.autograd.grad(log_density.sum(), x)
    return slope


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_score_is_the_slope_of_the_log_of_a_long_sum_of_images(sigma: float) -> None:
    x = torch.linspace(-1.7, 1.7, 341, dtype=torch.float64)
    expected = score_by_autograd(x, sigma)
    found = wrapped_normal_score(x, torch.full_like(x, sigma))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7 / sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_score_is_right_in_single_precision(sigma: float) -> None:
    x = torch.linspace(-0.5, 0.5, 203)
    # half way between two images the score turns from -1/(2 sigma^2) to its opposite within some sigma^2
    x = x[wrap_displacement(x + 0.5).abs() > 8 * sigma**2] if sigma < 0.1 else x
    expected = score_by_autograd(x, sigma)
    found = wrapped_normal_score(x, torch.full_like(x, sigma))
    assert found.dtype == torch.float32
    torch.testing.assert_close(sigma * found.double(), sigma * expected, rtol=2e-5, atol=2e-5)


def test_the_score_is_finite_wherever_it_is_asked() -> None:
    x = torch.tensor([0.0, 0.5, -0.5, 0.49999997, 1.0, 12.5, 1e4])
    for sigma in (1e-4, 1e-3, 0.4, 5.0, 50.0):
        assert bool(wrapped_normal_score(x, torch.full_like(x, sigma)).isfinite().all()), sigma


def test_the_two_series_meet_where_one_hands_over_to_the_other() -> None:
    x = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
    below, above = (wrapped_normal_score(x, torch.full_like(x, s)) for s in (0.4 - 1e-12, 0.4))
    assert float((below - above).abs().max()) < 1e-8
    assert float(above.abs().max()) > 0.5


def test_a_narrow_kernel_has_the_score_of_a_plain_normal_and_a_wide_one_has_none() -> None:
    x = torch.linspace(-0.2, 0.2, 41, dtype=torch.float64)
    torch.testing.assert_close(wrapped_normal_score(x, torch.tensor(0.03, dtype=torch.float64)), -x / 0.03**2)
    assert float(wrapped_normal_score(x, torch.tensor(1.5, dtype=torch.float64)).abs().max()) < 1e-8


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.2, 0.35, 0.5])
def test_the_mean_square_score_is_the_integral_over_the_density(sigma: float) -> None:
    x = torch.linspace(-0.5, 0.5, 20001, dtype=torch.float64)
    images = torch.arange(-20, 21, dtype=torch.float64)
    density = torch.exp(-0.5 * ((x.unsqueeze(-1) + images) / sigma).square()).sum(-1) / (sigma * math.sqrt(2 * math.pi))
    expected = torch.trapezoid(density * (sigma * score_by_autograd(x, sigma)).square(), x)
    found = mean_square_score(torch.tensor([sigma], dtype=torch.float64))
    # the quadrature ends at four deviations
    torch.testing.assert_close(found[0], expected, rtol=3e-3, atol=1e-6)


def test_the_mean_square_score_falls_from_one_to_nothing() -> None:
    found = mean_square_score(torch.linspace(0.01, 1.0, 60, dtype=torch.float64))
    assert abs(float(found[0]) - 1.0) < 2e-3
    assert float(found[-1]) < 1e-10
    assert bool((found.diff() < 1e-4).all())


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.25, 0.35])
def test_the_weighted_target_has_a_mean_square_of_one(sigma: float) -> None:
    process = WrappedNormal(sigma_min=0.01, sigma_max=10.0)
    level, target = torch.tensor([sigma]), perturbed(process, torch.zeros(4000, 3), sigma)[1]
    mean_square = target.square().sum(-1).mean() * process.loss_weight(level)
    assert abs(float(mean_square) - 1.0) < 0.06


def perturbed(
    process: WrappedNormal | StraightPath, clean: Tensor, level: float, *, numbers: Tensor | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Noise on one crystal of these sites in a cubic cell, where all axes are alike."""
    return process.perturb(
        clean,
        torch.tensor([level], dtype=clean.dtype),
        orbits=Orbits.without_symmetry(torch.tensor([len(clean)])),
        elements=torch.ones(len(clean), dtype=torch.long) if numbers is None else numbers,
        lattice=torch.eye(3, dtype=clean.dtype)[None],
        generator=make_generator(seed),
    )


# -- levels of the wrapped normal ------------------------------------------------------------------------------------


def test_levels_go_geometrically_from_the_smallest_to_the_largest_in_angstrom() -> None:
    process = WrappedNormal(sigma_min=0.01, sigma_max=2.0)
    # the largest noise does not fill so large a cell
    lattice = 20.0 * torch.eye(3)[None]
    in_angstrom = [20.0 * float(process.level(torch.tensor([t]), lattice)) for t in (0.0, 0.5, 1.0)]
    assert in_angstrom == pytest.approx([0.01, math.sqrt(0.01 * 2.0), 2.0], rel=1e-5)


def test_one_level_means_the_same_angstroms_in_every_cell(zoo: CrystalBatch) -> None:
    process = WrappedNormal(sigma_min=0.01, sigma_max=0.5)
    level = process.level(torch.full((len(zoo),), 0.7, dtype=torch.float64), zoo.lattice)
    in_angstrom = level * volume(zoo.lattice).pow(1.0 / 3.0)
    torch.testing.assert_close(in_angstrom, in_angstrom[:1].expand_as(in_angstrom))


def test_no_level_is_wasted_on_a_cell_that_is_uniform_already(zoo: CrystalBatch) -> None:
    one = torch.ones(len(zoo), dtype=torch.float64)
    exact = WrappedNormal(sigma_min=0.01, sigma_max=10.0).level(one, zoo.lattice)
    # uniform along the longest axis, and so along all
    longest = zoo.lattice.norm(dim=-1).amax(-1)
    expected = (UNIFORM_LEVEL * longest).clamp_max(10.0)
    torch.testing.assert_close(exact * volume(zoo.lattice).pow(1.0 / 3.0), expected)
    assert int((expected < 10.0).sum()) == 5
    # the published levels end at ten angstrom whatever the cell is
    published = WrappedNormal(sigma_min=0.01, sigma_max=10.0, exact_score=False).level(one, zoo.lattice)
    assert float(published.min()) > UNIFORM_LEVEL


def test_at_the_last_level_the_density_is_uniform_as_stated() -> None:
    x = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64)
    images = torch.arange(-20, 21, dtype=torch.float64)
    normal = torch.exp(-0.5 * ((x.unsqueeze(-1) + images) / UNIFORM_LEVEL).square()) / UNIFORM_LEVEL
    density = normal.sum(-1) / math.sqrt(2 * math.pi)
    assert float((density - 1.0).abs().max()) == pytest.approx(0.0144, abs=2e-4)


def test_a_cell_smaller_than_the_smallest_noise_keeps_its_levels_in_order() -> None:
    process = WrappedNormal(sigma_min=1.0, sigma_max=2.0)
    t = torch.tensor([0.0, 0.5, 1.0])
    level = process.level(t, torch.eye(3).expand(3, 3, 3))
    assert bool((level.diff() >= 0.0).all()) and bool(level.isfinite().all())


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (-0.1, 1.0)])
def test_levels_out_of_order_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        WrappedNormal(sigma_min=low, sigma_max=high)


def test_noisy_points_follow_the_wrapped_normal() -> None:
    clean = torch.full((3000, 3), 0.9)
    noisy, _ = perturbed(WrappedNormal(sigma_min=0.01, sigma_max=10.0), clean, 0.2)
    assert float(noisy.min()) >= 0.0 and float(noisy.max()) < 1.0
    # the probability integral transform of a wrapped normal
    x = wrap_displacement(noisy - clean).flatten().numpy()
    value = sum(stats.norm.cdf((x + k) / 0.2) - stats.norm.cdf((-0.5 + k) / 0.2) for k in range(-5, 6))
    assert stats.kstest(value, "uniform").pvalue > 1e-3


def test_the_exact_target_is_minus_the_score_times_the_level() -> None:
    clean = torch.rand(50, 3, generator=make_generator(1), dtype=torch.float64)
    noisy, target = perturbed(WrappedNormal(sigma_min=0.01, sigma_max=10.0), clean, 0.3)
    expected = -0.3 * score_by_autograd((noisy - clean).flatten(), 0.3).view(-1, 3)
    torch.testing.assert_close(target, expected, rtol=1e-6, atol=1e-6)


def test_the_published_target_is_the_way_from_the_nearest_image_over_the_level() -> None:
    clean = torch.rand(50, 3, generator=make_generator(1), dtype=torch.float64)
    process = WrappedNormal(sigma_min=0.01, sigma_max=10.0, exact_score=False)
    noisy, target = perturbed(process, clean, 0.3)
    torch.testing.assert_close(target * 0.3, wrap_displacement(noisy - clean), rtol=1e-9, atol=1e-12)
    # it is not the score: half way to the next image the true one vanishes
    exact = perturbed(WrappedNormal(sigma_min=0.01, sigma_max=10.0), clean, 0.3)[1]
    assert float((target - exact).abs().max()) > 0.5


# -- straight paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("match_atoms", [True, False])
@pytest.mark.parametrize("level", [1e-3, 0.3, 1.0])
def test_the_target_is_the_way_from_the_clean_to_the_noisy_point_over_the_level(
    match_atoms: bool, level: float
) -> None:
    clean = torch.rand(7, 3, generator=make_generator(2), dtype=torch.float64)
    noisy, target = perturbed(StraightPath(match_atoms=match_atoms), clean, level)
    assert float(noisy.min()) >= 0.0 and float(noisy.max()) < 1.0
    torch.testing.assert_close(wrap_displacement(noisy - clean - level * target), torch.zeros_like(clean))


@pytest.mark.parametrize("match_atoms", [True, False])
def test_a_straight_path_does_not_move_the_crystal_as_a_whole(match_atoms: bool) -> None:
    clean = torch.rand(9, 3, generator=make_generator(3), dtype=torch.float64)
    _, target = perturbed(StraightPath(match_atoms=match_atoms), clean, 0.5)
    torch.testing.assert_close(target.mean(0), torch.zeros(3, dtype=torch.float64))
    assert float(target.abs().max()) > 0.05


@pytest.mark.parametrize("numbers", [[8, 8], [8, 22]])
@pytest.mark.parametrize("match_atoms", [True, False])
def test_the_start_of_a_straight_path_is_uniform(numbers: list[int], match_atoms: bool) -> None:
    """Up to the crystal's place in its cell: the difference of two atoms is uniform, as that of sampling's start is."""
    num_crystals = 3000
    clean = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.2, 0.95]]).repeat(num_crystals, 1)
    noisy, _ = StraightPath(match_atoms=match_atoms).perturb(
        clean,
        torch.ones(num_crystals),
        orbits=Orbits.without_symmetry(torch.full((num_crystals,), 2)),
        elements=torch.tensor(numbers).repeat(num_crystals),
        lattice=torch.eye(3).expand(num_crystals, 3, 3),
        generator=make_generator(4),
    )
    difference = torch.remainder(noisy[::2] - noisy[1::2], 1.0)
    if numbers[0] == numbers[1]:
        # which of two equal atoms is first means nothing; pairing makes it depend on the clean crystal
        sign = torch.randint(0, 2, (num_crystals, 1), generator=make_generator(5)) * 2 - 1
        difference = torch.remainder(sign * difference, 1.0)
    for axis in range(3):
        assert stats.kstest(difference[:, axis].numpy(), "uniform").pvalue > 1e-3


def test_half_way_a_straight_path_is_not_uniform() -> None:
    """The control of the test before it."""
    clean = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.2, 0.95]]).repeat(500, 1)
    noisy, _ = StraightPath().perturb(
        clean,
        torch.full((500,), 0.5),
        orbits=Orbits.without_symmetry(torch.full((500,), 2)),
        elements=torch.tensor([8, 22]).repeat(500),
        lattice=torch.eye(3).expand(500, 3, 3),
        generator=make_generator(4),
    )
    difference = torch.remainder(noisy[::2] - noisy[1::2], 1.0)
    assert stats.kstest(difference[:, 0].numpy(), "uniform").pvalue < 1e-6


def test_the_weight_of_straight_paths_brings_their_mean_square_to_about_one() -> None:
    process = StraightPath()
    mean_squares = []
    for size in (4, 10, 20):
        for seed in range(20):
            clean = torch.rand(size, 3, generator=make_generator(size, seed))
            mean_squares.append(float(perturbed(process, clean, 0.5, seed=seed)[1].square().sum(-1).mean()))
    weight = float(process.loss_weight(torch.tensor([0.5])))
    assert 0.5 < weight * sum(mean_squares) / len(mean_squares) < 1.5


def test_perturbing_twice_with_one_seed_gives_one_result_and_touches_no_global_generator() -> None:
    before = torch.random.get_rng_state()
    clean = torch.rand(5, 3, generator=make_generator(6))
    for process in (StraightPath(), WrappedNormal(sigma_min=0.01, sigma_max=1.0)):
        first, again, other = (perturbed(process, clean, 0.2, seed=seed)[0] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_only_kernels_that_have_a_score_say_so() -> None:
    assert not coordinates.StraightPath.has_score
    assert coordinates.WrappedNormal.has_score
