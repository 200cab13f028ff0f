"""Samplers against distributions that are known exactly: orders of convergence, stationary variances, end states."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import wrap_displacement, wrap_frac_coords
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.diffusion.coordinates import CoordinateProcess, StraightPath, WrappedNormal, wrapped_normal_score
from cdvae_kit.diffusion.lattice import FixedLattice, LatticePath
from cdvae_kit.diffusion.samplers import (
    SAMPLERS,
    FlowSampler,
    LangevinSampler,
    Predict,
    Processes,
    Sampler,
    make_sampler,
)
from cdvae_kit.diffusion.state import MASKED, NoisyCrystals, ScoreOutput
from cdvae_kit.diffusion.types import AbsorbingTypes, FixedTypes, PublishedTypes, TypeProcess
from cdvae_kit.seeding import CrystalNoise, make_generator

NUM_ELEMENTS = 5


class Cubes:
    """Six free parameters, of which the first says how large the cubic cell is."""

    def project(self, parameters: Tensor, orbits: Orbits) -> Tensor:
        return parameters

    def project_change(self, change: Tensor, orbits: Orbits) -> Tensor:
        return change

    def primitive(self, parameters: Tensor, orbits: Orbits) -> Tensor:
        """Cubic cells whose edge is 3 exp(first parameter / 3) angstrom."""
        return 3.0 * torch.exp(parameters[:, 0] / 3.0).view(-1, 1, 1) * torch.eye(3, dtype=parameters.dtype)


def crystals_at(frac_coords: Tensor, *, size: int, parameters: Tensor | None = None) -> NoisyCrystals:
    """Crystals of `size` atoms each, all of element 1."""
    orbits = Orbits.without_symmetry(torch.full((len(frac_coords) // size,), size))
    if parameters is None:
        parameters = torch.zeros(len(orbits.num_orbits), 6, dtype=frac_coords.dtype)
    return NoisyCrystals(
        orbits=orbits,
        free=frac_coords,
        elements=torch.ones(len(frac_coords), dtype=torch.long),
        lattice_parameters=parameters,
        lattice=Cubes().primitive(parameters, orbits),
        pairs=orbits.pairs(),
    )


def processes(
    coordinates: CoordinateProcess, types: TypeProcess | None = None, *, denoises_lattice: bool = False
) -> Processes:
    lattice = LatticePath(Cubes()) if denoises_lattice else FixedLattice(Cubes())
    return Processes(coordinates, types if types is not None else FixedTypes(), lattice)


def said(
    crystals: NoisyCrystals,
    *,
    free: Tensor | None = None,
    lattice: Tensor | None = None,
    type_logits: Tensor | None = None,
) -> ScoreOutput:
    """A prediction that is 0 where nothing is given."""
    return ScoreOutput(
        free=torch.zeros_like(crystals.free) if free is None else free,
        type_logits=torch.zeros(len(crystals.free), NUM_ELEMENTS) if type_logits is None else type_logits,
        lattice=torch.zeros_like(crystals.lattice_parameters) if lattice is None else lattice,
    )


def run(
    sampler: Sampler, crystals: NoisyCrystals, predict: Predict, using: Processes, *, seed: int = 0
) -> NoisyCrystals:
    noise = CrystalNoise(seed, torch.arange(crystals.num_crystals), crystals.orbits.num_orbits)
    return deque(sampler.steps(crystals, predict, using, noise), maxlen=1).pop()


def order_of_convergence(error: Callable[[int], float], steps: tuple[int, int]) -> float:
    """The slope of log error over log step size."""
    coarse, fine = (error(num_steps) for num_steps in steps)
    assert 0.0 < fine < coarse
    return math.log(coarse / fine) / math.log(steps[1] / steps[0])


# -- the probability-flow ODE ----------------------------------------------------------------------------------------

MEAN, STD = 0.7, 0.4


def gaussian_velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[noise - data | x] on the straight path from data N(MEAN, STD^2) to noise N(0, 1)."""
    t = t.unsqueeze(-1)
    variance = (1 - t).square() * STD**2 + t.square()
    return -MEAN + (t - (1 - t) * STD**2) / variance * (x - (1 - t) * MEAN)


@pytest.mark.parametrize(("method", "order"), [("euler", 1.0), ("heun", 2.0)])
def test_the_lattice_converges_to_the_exact_transport_of_a_gaussian_at_the_order_stated(
    method: str, order: float
) -> None:
    start = torch.randn(20, 6, generator=make_generator(1), dtype=torch.float64)
    crystals = crystals_at(torch.zeros(20, 3, dtype=torch.float64), size=1, parameters=start)
    using = processes(StraightPath(), denoises_lattice=True)

    def predict(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        return said(noisy, lattice=gaussian_velocity(noisy.lattice_parameters, t))

    def error(num_steps: int) -> float:
        end = run(FlowSampler(num_steps=num_steps, method=method), crystals, predict, using)
        return float((end.lattice_parameters - (MEAN + STD * start)).abs().max())

    assert order_of_convergence(error, (40, 160)) == pytest.approx(order, abs=0.15)


def well(sites: Tensor, width: float, process: CoordinateProcess) -> Predict:
    """The exact prediction for pairs of atoms that a wrapped normal of standard deviation `width` spreads around sites.

    Where a pair lies in its cell means nothing: the distribution is one of the difference of its two atoms.
    """

    def predict(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        level = process.level(t, noisy.lattice).unsqueeze(-1)
        displacement = (noisy.frac_coords - sites).view(-1, 2, 3)
        spread = (2.0 * (level.square() + width**2)).sqrt()
        way = -level * wrapped_normal_score(displacement[:, 0] - displacement[:, 1], spread)
        return said(noisy, free=torch.stack([way, -way], dim=1).flatten(0, 1))

    return predict


@pytest.mark.parametrize(("method", "order"), [("euler", 1.0), ("heun", 2.0)])
def test_coordinates_converge_to_the_exact_transport_of_a_gaussian_at_the_order_stated(
    method: str, order: float
) -> None:
    """Far from the other images the flow shrinks displacements as it does the standard deviation; two atoms on opposite
    sides of their sites, so that no drift is taken out."""
    width, process = 0.03, WrappedNormal(sigma_min=3e-4, sigma_max=0.18)
    offset = 0.06 * (torch.rand(10, 3, generator=make_generator(2), dtype=torch.float64) - 0.5)
    sites = torch.rand(20, 3, generator=make_generator(3), dtype=torch.float64)
    displacement = torch.stack([offset, -offset], dim=1).flatten(0, 1)
    crystals = crystals_at(wrap_frac_coords(sites + displacement), size=2)
    top, bottom = 0.06, 1e-4

    def error(num_steps: int) -> float:
        end = run(FlowSampler(num_steps, method=method), crystals, well(sites, width, process), processes(process))
        # the last step goes from the smallest level that was reached to 0
        exact = displacement * width / math.hypot(width, top)
        return float((wrap_displacement(end.frac_coords - sites) - exact).abs().max())

    assert float(process.level(torch.ones(10), crystals.lattice)[0]) == pytest.approx(top)
    assert float(process.level(torch.zeros(10), crystals.lattice)[0]) == pytest.approx(bottom)
    assert order_of_convergence(error, (16, 64)) == pytest.approx(order, abs=0.3)


def test_heun_stays_of_second_order_while_the_cell_changes() -> None:
    """The level of an angstrom is another one in another cell."""
    width, process = 0.05, WrappedNormal(sigma_min=0.03, sigma_max=0.3)
    offset = 0.1 * (torch.rand(10, 3, generator=make_generator(4), dtype=torch.float64) - 0.5)
    sites = torch.rand(20, 3, generator=make_generator(5), dtype=torch.float64)
    crystals = crystals_at(
        wrap_frac_coords(sites + torch.stack([offset, -offset], dim=1).flatten(0, 1)),
        size=2,
        parameters=torch.randn(10, 6, generator=make_generator(6), dtype=torch.float64),
    )
    using = processes(process, denoises_lattice=True)
    places = well(sites, width, process)

    def predict(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        return replace(places(noisy, t), lattice=gaussian_velocity(noisy.lattice_parameters, t))

    def half_way(num_steps: int) -> Tensor:
        # the last step is Euler's for every method
        noise = CrystalNoise(0, torch.arange(10), crystals.num_atoms)
        states = list(FlowSampler(num_steps, method="heun").steps(crystals, predict, using, noise))
        return states[num_steps // 2 - 1].frac_coords

    exact = half_way(1024)

    def error(num_steps: int) -> float:
        return float(wrap_displacement(half_way(num_steps) - exact).abs().max())

    assert order_of_convergence(error, (16, 64)) == pytest.approx(2.0, abs=0.3)


def test_straight_paths_to_known_points_are_walked_in_one_step() -> None:
    sites = torch.rand(6, 3, generator=make_generator(7))
    start = torch.rand(6, 3, generator=make_generator(8))

    def predict(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        return said(noisy, free=wrap_displacement(noisy.frac_coords - sites) / t.view(-1, 1))

    for num_steps in (1, 2, 5):
        end = run(FlowSampler(num_steps), crystals_at(start, size=6), predict, processes(StraightPath()))
        difference = wrap_displacement(end.frac_coords - sites)
        # up to the crystal's place in its cell
        way = wrap_displacement(start - sites)
        torch.testing.assert_close(difference, way.mean(0).expand(6, 3), atol=2e-6, rtol=0.0)


def test_the_drift_of_a_prediction_does_not_move_the_crystal() -> None:
    start = torch.rand(6, 3, generator=make_generator(8))

    def predict(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        return said(noisy, free=torch.tensor([0.1, -0.2, 0.3]).expand(6, 3))

    end = run(FlowSampler(5), crystals_at(start, size=3), predict, processes(StraightPath()))
    torch.testing.assert_close(end.frac_coords, start)


@pytest.mark.parametrize("sharpening", [0.0, 1.0, 10.0, 1e6])
def test_sharpening_never_goes_past_the_predicted_point(sharpening: float) -> None:
    sites = torch.tensor([[0.2, 0.2, 0.2], [0.7, 0.7, 0.7]])
    start = sites + torch.tensor([[0.1, 0.1, 0.1], [-0.1, -0.1, -0.1]])

    def predict(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        return said(noisy, free=wrap_displacement(noisy.frac_coords - sites) / t[noisy.batch].unsqueeze(-1))

    noise = CrystalNoise(0, torch.arange(1), torch.tensor([2]))
    distances = [float(wrap_displacement(start - sites)[0, 0])]
    using, sampler = processes(StraightPath()), FlowSampler(10, sharpening=sharpening)
    for crystals in sampler.steps(crystals_at(start, size=2), predict, using, noise):
        distances.append(float(wrap_displacement(crystals.frac_coords - sites)[0, 0]))
    assert all(-1e-6 <= after <= before + 1e-6 for before, after in pairwise(distances))
    assert distances[-1] == pytest.approx(0.0, abs=1e-6)
    # at the start it changes nothing, later it is ahead
    plain = [0.1 * (1 - k / 10) for k in range(11)]
    assert distances[1] == pytest.approx(plain[1], abs=1e-6)
    assert (distances[5] < plain[5] - 1e-4) == (sharpening > 0.0)


# -- Langevin dynamics -----------------------------------------------------------------------------------------------


def relative_variance(crystals: NoisyCrystals, sites: Tensor) -> float:
    """Variance of one coordinate of an atom about its site, the place of the pair in its cell taken out."""
    pairs = wrap_displacement(crystals.frac_coords - sites).view(-1, 2, 3)
    return float(wrap_displacement(pairs[:, 0] - pairs[:, 1]).square().mean()) / 2.0


@pytest.mark.parametrize("signal_to_noise", [0.3, 0.5])
def test_langevin_dynamics_ends_in_the_law_of_the_wells(signal_to_noise: float) -> None:
    """Of a step e sigma^2 in a normal well of variance s^2 the stationary one is s^2 / (1 - e sigma^2 / (2 s^2))."""
    num_crystals, width = 1500, 0.03
    process = WrappedNormal(sigma_min=0.06, sigma_max=0.5)
    sites = torch.tensor([[0.1, 0.2, 0.3], [0.6, 0.7, 0.9]]).repeat(num_crystals, 1)
    start = torch.rand(2 * num_crystals, 3, generator=make_generator(9))
    sampler = LangevinSampler(num_levels=8, steps_per_level=30, signal_to_noise=signal_to_noise)
    end = run(sampler, crystals_at(start, size=2), well(sites, width, process), processes(process))
    sigma = 0.06 / 3.0
    variance = sigma**2 + width**2
    expected = variance / (1.0 - (signal_to_noise * sigma) ** 2 / variance)
    assert relative_variance(end, sites) == pytest.approx(expected, rel=0.08)


def test_the_published_step_doubles_the_variance_of_the_last_level() -> None:
    """With step_size 1e-4 and sigma_min 0.01 A the last step is sigma^2: discretisation, not a bug of the sampler."""
    num_crystals, process = 1500, WrappedNormal(sigma_min=0.01, sigma_max=10.0)
    sites = torch.tensor([[0.1, 0.2, 0.3], [0.6, 0.7, 0.9]]).repeat(num_crystals, 1)
    start = torch.rand(2 * num_crystals, 3, generator=make_generator(10))
    sampler = LangevinSampler(num_levels=15, steps_per_level=5)
    end = run(sampler, crystals_at(start, size=2), well(sites, 0.0, process), processes(process))
    sigma = 0.01 / 3.0
    assert relative_variance(end, sites) == pytest.approx(2.0 * sigma**2, rel=0.1)


def test_a_published_step_is_as_long_in_angstrom_in_every_cell() -> None:
    process = WrappedNormal(sigma_min=0.01, sigma_max=10.0, exact_score=False)
    parameters = torch.zeros(400, 6)
    parameters[200:, 0] = 3.0 * math.log(4.0)
    start = crystals_at(torch.full((800, 3), 0.5), size=2, parameters=parameters)

    def nothing(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        return said(noisy)

    sampler = LangevinSampler(num_levels=2, steps_per_level=1)
    # the last level alone: the first one is 10 A
    last = crystals_at(torch.full((800, 3), 0.5), size=2, parameters=parameters)
    moved = sampler._langevin_step(
        last,
        nothing(last, torch.zeros(400)),
        processes(process),
        CrystalNoise(0, torch.arange(400), start.num_atoms),
        torch.zeros(400),
        0,
    )
    way = wrap_displacement(moved - 0.5) * torch.tensor([3.0, 12.0]).repeat_interleave(400).unsqueeze(-1)
    # sqrt(2 x 1e-4) A
    for part in way.split(400):
        assert float(part.std()) == pytest.approx(math.sqrt(2e-4), rel=0.08)


@pytest.mark.parametrize("steps_per_level", [0, 1])
def test_predictor_and_corrector_end_in_the_law_of_the_wells(steps_per_level: int) -> None:
    num_crystals, width = 1500, 0.03
    process = WrappedNormal(sigma_min=0.03, sigma_max=1.5)
    sites = torch.tensor([[0.1, 0.2, 0.3], [0.6, 0.7, 0.9]]).repeat(num_crystals, 1)
    start = torch.rand(2 * num_crystals, 3, generator=make_generator(11))
    sampler = LangevinSampler(num_levels=150, steps_per_level=steps_per_level, signal_to_noise=0.1, predictor=True)
    end = run(sampler, crystals_at(start, size=2), well(sites, width, process), processes(process))
    assert relative_variance(end, sites) == pytest.approx(width**2 + 0.01**2, rel=0.1)


@pytest.mark.parametrize("num_levels", [8, 30])
def test_the_predictor_ends_in_the_law_of_the_last_level_however_far_apart_the_levels_are(num_levels: int) -> None:
    num_crystals, process = 1500, WrappedNormal(sigma_min=0.03, sigma_max=1.5)
    sites = torch.tensor([[0.1, 0.2, 0.3], [0.6, 0.7, 0.9]]).repeat(num_crystals, 1)
    start = torch.rand(2 * num_crystals, 3, generator=make_generator(17))
    sampler = LangevinSampler(num_levels=num_levels, steps_per_level=0, predictor=True)
    end = run(sampler, crystals_at(start, size=2), well(sites, 0.0, process), processes(process))
    assert relative_variance(end, sites) == pytest.approx(0.01**2, rel=0.1)


def test_langevin_dynamics_refuses_straight_paths_and_says_what_to_use() -> None:
    start = crystals_at(torch.zeros(2, 3), size=2)
    with pytest.raises(ValueError, match=r"trained on straight paths.*flow"):
        run(LangevinSampler(), start, lambda noisy, t: said(noisy), processes(StraightPath()))


# -- all fields together ---------------------------------------------------------------------------------------------

ALL_SAMPLERS = [
    FlowSampler(6),
    FlowSampler(6, method="heun"),
    LangevinSampler(num_levels=6, steps_per_level=3),
    LangevinSampler(num_levels=6, steps_per_level=1, signal_to_noise=0.1, predictor=True),
    LangevinSampler(num_levels=6, steps_per_level=0, predictor=True),
]


@pytest.mark.parametrize("sampler", ALL_SAMPLERS, ids=str)
@pytest.mark.parametrize("types", [AbsorbingTypes(), PublishedTypes()], ids=lambda types: type(types).__name__)
def test_every_sampler_brings_types_and_lattice_to_their_end(sampler: Sampler, types: TypeProcess) -> None:
    truth = torch.randint(1, NUM_ELEMENTS + 1, (30,), generator=make_generator(12))
    wanted = torch.randn(10, 6, generator=make_generator(13))
    start = replace(
        crystals_at(torch.rand(30, 3, generator=make_generator(14)), size=3, parameters=torch.randn(10, 6)),
        elements=types.start(torch.ones(30, dtype=torch.long)),
    )

    def predict(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        # at t = 0 there is no way left
        way = (noisy.lattice_parameters - wanted) / t.clamp_min(1e-6).unsqueeze(-1)
        logits = 50.0 * torch.nn.functional.one_hot(truth - 1, NUM_ELEMENTS).float()
        return said(noisy, lattice=torch.where(t.unsqueeze(-1) > 0, way, 0.0), type_logits=logits)

    process = WrappedNormal(sigma_min=0.01, sigma_max=1.0)
    end = run(sampler, start, predict, processes(process, types, denoises_lattice=True))
    assert torch.equal(end.atomic_numbers, truth)
    torch.testing.assert_close(end.lattice_parameters, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(end.lattice, Cubes().primitive(wanted, end.orbits), atol=1e-3, rtol=1e-3)
    assert float(end.frac_coords.min()) >= 0.0 and float(end.frac_coords.max()) < 1.0


@pytest.mark.parametrize("sampler", ALL_SAMPLERS, ids=str)
def test_a_held_lattice_is_held(sampler: Sampler) -> None:
    start = crystals_at(torch.rand(4, 3, generator=make_generator(15)), size=2)

    def predict(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        return said(noisy, lattice=torch.ones(2, 6))

    end = run(sampler, start, predict, processes(WrappedNormal(sigma_min=0.01, sigma_max=1.0)))
    assert torch.equal(end.lattice, start.lattice)


@pytest.mark.parametrize("sampler", [*ALL_SAMPLERS[:2], LangevinSampler(num_levels=6, steps_per_level=1)], ids=str)
def test_masked_atoms_are_revealed_along_the_way_and_not_all_at_once(sampler: Sampler) -> None:
    num_atoms = 3000
    start = replace(crystals_at(torch.zeros(num_atoms, 3), size=3), elements=torch.full((num_atoms,), MASKED))
    noise = CrystalNoise(0, torch.arange(start.num_crystals), start.num_atoms)
    using = processes(WrappedNormal(sigma_min=0.01, sigma_max=1.0), AbsorbingTypes())
    masked = [
        float((state.atomic_numbers == MASKED).float().mean())
        for state in sampler.steps(start, lambda noisy, t: said(noisy), using, noise)
    ]
    levels = 6 if isinstance(sampler, FlowSampler) else 5
    expected = [max(0.0, 1.0 - (k + 1) / levels) for k in range(len(masked))]
    assert masked == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("sampler", ALL_SAMPLERS, ids=str)
def test_the_network_is_asked_from_the_largest_time_to_the_smallest(sampler: Sampler) -> None:
    asked: list[float] = []

    def predict(noisy: NoisyCrystals, t: Tensor) -> ScoreOutput:
        assert t.shape == (2,)
        asked.append(float(t[0]))
        return said(noisy)

    start = crystals_at(torch.rand(4, 3, generator=make_generator(16)), size=2)
    run(sampler, start, predict, processes(WrappedNormal(sigma_min=0.01, sigma_max=1.0)))
    assert asked[0] == 1.0
    assert all(0.0 <= t <= 1.0 for t in asked)
    assert asked[-1] <= 0.21
    if not (isinstance(sampler, FlowSampler) and sampler.method == "heun"):
        assert all(after <= before + 1e-6 for before, after in pairwise(asked))


# -- names and wrong use ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_name_makes_a_sampler_of_the_steps_asked_for(name: str) -> None:
    sampler = make_sampler(name, num_steps=7)
    assert (sampler.num_steps if isinstance(sampler, FlowSampler) else sampler.num_levels) == 7
    assert make_sampler(name) == make_sampler(name, num_steps=200 if name == "predictor-corrector" else 50)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_steps_at_all_are_refused_by_every_sampler(name: str) -> None:
    with pytest.raises(ValueError, match="at least"):
        make_sampler(name, num_steps=0)


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="unknown sampler 'ddim'; expected one of flow, heun, langevin"):
        make_sampler("ddim")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlowSampler(num_steps=0), "num_steps must be at least 1"),
        (lambda: FlowSampler(sharpening=-1.0), "sharpening must not be negative"),
        (lambda: FlowSampler(method="heun", sharpening=1.0), "method='euler' only"),
        (lambda: LangevinSampler(num_levels=1), "at least 2 levels"),
        (lambda: LangevinSampler(steps_per_level=-1), "no negative number of steps"),
        (lambda: LangevinSampler(steps_per_level=0), "nothing would move"),
        (lambda: LangevinSampler(step_size=0.0), "must be positive"),
        (lambda: LangevinSampler(signal_to_noise=-0.1), "must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], Sampler], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
