"""Noise, paths and samplers keep the symmetry of every space group; matching and metric on orbits."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import (
    lattice_from_log_parameters,
    lattice_from_parameters,
    log_parameters,
    plane_spacings,
    volume,
    wrap_displacement,
)
from cdvae_kit.crystal.lattice_families import project_change, project_parameters
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.wyckoff import position_of, wyckoff_positions
from cdvae_kit.diffusion.coordinates import StraightPath, WrappedNormal, wrapped_normal_target
from cdvae_kit.diffusion.lattice import FixedLattice, LatticePath
from cdvae_kit.diffusion.matching import match_noise
from cdvae_kit.diffusion.samplers import FlowSampler, LangevinSampler, Processes, Sampler
from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.diffusion.types import AbsorbingTypes
from cdvae_kit.seeding import CrystalNoise, make_generator
from tests.crystal.every_group import (
    ALL_GROUPS,
    asymmetry,
    crystals_in,
    general_and_special,
    one_position_each,
    strain_of,
)

EVERY_SAMPLER = [
    FlowSampler(3, sharpening=5.0),
    FlowSampler(3, method="heun"),
    LangevinSampler(num_levels=3, steps_per_level=2),
    LangevinSampler(num_levels=3, steps_per_level=1, signal_to_noise=0.1, predictor=True),
]


class Families:
    """The log parameters of conventional cells, and the planes that the families are in them."""

    def project(self, parameters: Tensor, orbits: Orbits) -> Tensor:
        return project_parameters(parameters, orbits.family)

    def project_change(self, change: Tensor, orbits: Orbits) -> Tensor:
        return project_change(change, orbits.family)

    def primitive(self, parameters: Tensor, orbits: Orbits) -> Tensor:
        return orbits.conventional_to_primitive(lattice_from_log_parameters(parameters))


def noisy(crystals: SymmetricCrystals) -> NoisyCrystals:
    orbits = crystals.orbits
    parameters = log_parameters(orbits.primitive_to_conventional(crystals.lattice))
    return NoisyCrystals(orbits, crystals.free, crystals.elements, parameters, crystals.lattice, orbits.pairs())


def random_words(crystals: NoisyCrystals, t: Tensor) -> ScoreOutput:
    """A network that knows nothing of symmetry: other numbers at each time, for what is not free as well."""
    generator = make_generator(int(1000 * float(t[0])))
    return ScoreOutput(
        free=torch.randn(crystals.free.shape, generator=generator, dtype=torch.float64),
        type_logits=torch.randn(len(crystals.free), 30, generator=generator),
        lattice=0.3 * torch.randn(crystals.lattice_parameters.shape, generator=generator, dtype=torch.float64),
    )


def states(sampler: Sampler, start: NoisyCrystals, *, path: bool = True) -> Iterator[NoisyCrystals]:
    lattice = LatticePath(Families()) if path else FixedLattice(Families())
    processes = Processes(WrappedNormal(sigma_min=0.05, sigma_max=2.0), AbsorbingTypes(), lattice)
    noise = CrystalNoise(0, torch.arange(start.num_crystals), start.orbits.num_orbits)
    yield from sampler.steps(start, random_words, processes, noise)


def worst(state: NoisyCrystals) -> tuple[list[float], list[float]]:
    """How asymmetric the atoms, and how strained the cell, of each crystal is."""
    ends = [0, *state.num_atoms.cumsum(0).tolist()]
    atoms, cells = [], []
    for i, number in enumerate(state.orbits.space_group.tolist()):
        part = slice(ends[i], ends[i + 1])
        atoms.append(asymmetry(state.frac_coords[part], state.atomic_numbers[part], number))
        cells.append(strain_of(state.lattice[i], number))
    return atoms, cells


@pytest.mark.parametrize("sampler", EVERY_SAMPLER, ids=str)
def test_every_state_of_every_sampler_has_the_symmetry_of_its_group(sampler: Sampler) -> None:
    start = noisy(one_position_each(seed=1))
    assert start.orbits.space_group.tolist() == list(ALL_GROUPS)
    before, moved = start, torch.zeros(len(start.free), dtype=torch.bool)
    for state in states(sampler, start):
        atoms, cells = worst(state)
        assert max(atoms) < 1e-9 and max(cells) < 1e-9
        moved |= (wrap_displacement(state.free - before.free).abs() > 1e-6).any(-1)
        before = state
    # what is not polar has moved, so that something was tested
    assert bool(moved[(start.orbits.is_free & ~start.orbits.is_polar).any(-1)].all())
    assert float((before.lattice_parameters - start.lattice_parameters).abs().amax(-1).min()) > 1e-6


def test_a_state_with_one_atom_moved_or_a_cell_stretched_fails_the_same_measure() -> None:
    start = noisy(general_and_special(seed=1))
    # along a direction of no symmetry
    stretch = torch.eye(3, dtype=torch.float64) + 0.05 * torch.tensor([[1.0, 0.3, 0.2]], dtype=torch.float64)
    broken = replace(start, lattice=start.lattice @ stretch)
    # a cached property of a frozen state: the atoms as they are seen, one of each crystal moved
    frac_coords = start.frac_coords.clone()
    frac_coords[start.num_atoms.cumsum(0) - 1] += torch.tensor([0.02, 0.013, -0.017], dtype=torch.float64)
    object.__setattr__(broken, "frac_coords", frac_coords)
    atoms, cells = worst(broken)
    assert min(atoms[1:]) > 1e-3 and min(cells[2:]) > 1e-3


def test_types_stay_alike_on_an_orbit_on_every_state() -> None:
    start = replace(noisy(general_and_special((62, 166, 225), seed=2)), elements=torch.zeros(6, dtype=torch.long))
    for state in states(FlowSampler(4), start):
        assert torch.equal(state.atomic_numbers, state.elements[state.orbits.of_atom])
    assert bool((state.elements > 0).all())


@pytest.mark.parametrize(
    "process",
    [StraightPath(), StraightPath(match_atoms=False), WrappedNormal(sigma_min=0.05, sigma_max=2.0)],
    ids=["matched", "unmatched", "wrapped normal"],
)
def test_noise_and_target_lie_in_what_is_free(process: StraightPath | WrappedNormal) -> None:
    crystals = general_and_special(seed=3)
    orbits = crystals.orbits
    level = torch.full((len(crystals),), 0.3, dtype=torch.float64)
    free, target = process.perturb(
        crystals.free,
        level,
        orbits=orbits,
        elements=crystals.elements,
        lattice=crystals.lattice,
        generator=make_generator(4),
    )
    assert bool((free[~orbits.is_free] == 0.0).all()) and bool((target[~orbits.is_free] == 0.0).all())
    assert float(free.min()) >= 0.0 and float(free.max()) < 1.0
    assert float(wrap_displacement(free - crystals.free)[orbits.is_free].abs().median()) > 0.02
    atoms, _ = worst(noisy(crystals.replace(free=free)))
    assert max(atoms) < 1e-9


def test_lattice_paths_stay_in_the_family_and_a_fixed_lattice_starts_there() -> None:
    crystals = general_and_special(seed=5)
    orbits, parameters = crystals.orbits, noisy(crystals).lattice_parameters
    t = torch.full((len(crystals),), 0.6, dtype=torch.float64)
    perturbed, target = LatticePath(Families()).perturb(parameters, t, orbits, generator=make_generator(6))
    torch.testing.assert_close(perturbed, parameters + 0.6 * target)
    torch.testing.assert_close(project_change(target, orbits.family), target)
    normal = torch.randn(parameters.shape, generator=make_generator(7), dtype=torch.float64)
    guess = parameters + 0.1 * normal
    started = [process(Families()).start(guess, normal, orbits) for process in (LatticePath, FixedLattice)]
    for some in (perturbed, *started):
        lattice = Families().primitive(some, orbits)
        assert max(strain_of(lattice[i], number) for i, number in enumerate(ALL_GROUPS)) < 1e-9
    # the control: what is not projected is strained
    lattice = Families().primitive(guess, orbits)
    assert min(strain_of(lattice[i], number) for i, number in enumerate(ALL_GROUPS) if number > 15) > 1e-4
    # a fixed lattice is that of the guess, a path starts from the noise
    assert float((started[1] - parameters).abs().max()) < 0.5 < float((started[0] - parameters).abs().max())
    assert FixedLattice(Families()).perturb(parameters, t, orbits, generator=None)[0] is parameters


# -- matching --------------------------------------------------------------------------------------------------------


def match_problem(letters: str, number: int, elements: tuple[int, ...], seed: int) -> tuple[SymmetricCrystals, Tensor]:
    """Forty copies of a crystal with other parameters each, and noise."""
    positions = [position_of(number, letter).index for letter in letters]
    crystals = crystals_in([positions] * 40, [number] * 40, elements=elements, seed=seed)
    noise = torch.rand(crystals.free.shape, generator=make_generator(seed, 1), dtype=torch.float64)
    return crystals, noise


def test_only_orbits_of_one_element_and_position_are_exchanged() -> None:
    elements = (8, 8, 8, 8, 22)
    crystals, noise = match_problem("iieei", 221, elements, seed=8)
    orbits = crystals.orbits
    matched = match_noise(noise, crystals.free, crystals.elements, orbits)
    # nothing in Pm-3m is polar: noise is exchanged, never shifted
    before = (noise * orbits.is_free).view(40, 5, 3)
    after = matched.view(40, 5, 3)
    kinds = ((0, 1), (2, 3), (4,))
    exchanged = 0
    for kind in kinds:
        for k in range(40):
            own, others = after[k][list(kind)], before[k][list(kind)]
            apart = wrap_displacement(own.unsqueeze(1) - others.unsqueeze(0)).abs().amax(-1)
            place = apart.argmin(-1)
            assert float(apart.min(-1).values.max()) < 1e-9 and sorted(place.tolist()) == list(range(len(kind)))
            exchanged += int((place != torch.arange(len(kind))).sum())
    assert exchanged > 10
    # the control: with one label for all, orbits of different elements would be exchanged
    alike = match_noise(noise, crystals.free, torch.full_like(crystals.elements, 8), orbits).view(40, 5, 3)
    assert not torch.allclose(alike, after)
    unmatched = match_noise(noise, crystals.free, crystals.elements, orbits, exchange=False)
    torch.testing.assert_close(wrap_displacement(unmatched.view(40, 5, 3) - before), torch.zeros(40, 5, 3).double())


def test_orbits_of_one_element_on_two_positions_are_not_exchanged() -> None:
    crystals, noise = match_problem("ab", 99, (8, 8), seed=9)
    orbits = crystals.orbits
    path = (match_noise(noise, crystals.free, crystals.elements, orbits) - crystals.free).view(40, 2, 3)
    # the difference of the two is that of the noise
    own = ((noise - crystals.free) * orbits.is_free).view(40, 2, 3)
    torch.testing.assert_close(
        wrap_displacement(path[:, 0] - path[:, 1] - own[:, 0] + own[:, 1]), torch.zeros(40, 3).double()
    )
    same, noise = match_problem("aa", 99, (8, 8), seed=9)
    path = (match_noise(noise, same.free, same.elements, same.orbits) - same.free).view(40, 2, 3)
    own = ((noise - same.free) * same.orbits.is_free).view(40, 2, 3)
    assert float(wrap_displacement(path[:, 0] - path[:, 1] - own[:, 0] + own[:, 1]).abs().max()) > 0.05


def test_noise_is_shifted_along_polar_axes_alone() -> None:
    crystals, noise = match_problem("dcd", 25, (8, 22, 38), seed=10)
    orbits = crystals.orbits
    path = match_noise(noise, crystals.free, crystals.elements, orbits) - crystals.free
    mean = torch.zeros(40, 3).double().index_add(0, orbits.batch, path * orbits.multiplicity.unsqueeze(-1))
    torch.testing.assert_close(mean[:, 2], torch.zeros(40).double(), rtol=0.0, atol=1e-9)
    assert bool((path[~orbits.is_free] == 0.0).all())


# -- the metric ------------------------------------------------------------------------------------------------------


def displacements(number: int, *, level: float, in_fractions: bool = False) -> tuple[Tensor, Orbits]:
    """(4000, atoms, 3) angstrom over V^(1/3), of the atoms of one general position in hexagonal axes, c = 2 a."""
    num_crystals = 4000
    conventional = lattice_from_parameters(
        torch.tensor([[3.0, 3.0, 6.0]], dtype=torch.float64), torch.tensor([[90.0, 90.0, 120.0]], dtype=torch.float64)
    )
    general = wyckoff_positions(number)[-1].index
    numbers = torch.full((num_crystals,), number)
    orbits = Orbits(numbers, torch.ones(num_crystals, dtype=torch.long), torch.full((num_crystals,), general))
    lattice = orbits.conventional_to_primitive(conventional.expand(num_crystals, 3, 3))
    free = torch.tensor([0.13, 0.29, 0.41], dtype=torch.float64).expand(num_crystals, 3)
    generator = make_generator(11)
    if in_fractions:
        noise = level * torch.randn(num_crystals, 3, generator=generator, dtype=torch.float64)
    else:
        noisy, _ = WrappedNormal(sigma_min=0.01, sigma_max=1.0).perturb(
            free,
            torch.full((num_crystals,), level, dtype=torch.float64),
            orbits=orbits,
            elements=torch.full((num_crystals,), 8),
            lattice=lattice,
            generator=generator,
        )
        noise = wrap_displacement(noisy - free)
    moved = orbits.push(noise)
    of_atom = orbits.batch[orbits.of_atom]
    cartesian = torch.einsum("ni,nij->nj", moved, lattice[of_atom]) / volume(lattice).pow(1.0 / 3.0)[of_atom].unsqueeze(
        -1
    )
    return cartesian.view(num_crystals, -1, 3), orbits


@pytest.mark.parametrize("number", [1, 146, 168, 166, 194])
def test_noise_is_isotropic_in_angstrom_for_every_atom_of_an_orbit(number: int) -> None:
    level = 0.01
    moved, _ = displacements(number, level=level)
    covariance = torch.einsum("nai,naj->aij", moved, moved) / (len(moved) * level**2)
    # five standard errors
    torch.testing.assert_close(
        covariance, torch.eye(3).double().expand_as(covariance), rtol=0.0, atol=5 * math.sqrt(2 / 4000)
    )


@pytest.mark.parametrize("number", [1, 168])
def test_isotropic_noise_in_fractions_is_not_isotropic_in_hexagonal_axes(number: int) -> None:
    """The control: it depends on how the axes were chosen."""
    moved, _ = displacements(number, level=0.01, in_fractions=True)
    covariance = torch.einsum("nai,naj->aij", moved, moved) / len(moved)
    relative = covariance / covariance.diagonal(dim1=1, dim2=2).mean(-1).view(-1, 1, 1)
    assert float((relative - torch.eye(3).double()).abs().amax((1, 2)).min()) > 0.3


def target_by_autograd(displacement: Tensor, sigma: Tensor, metric: Tensor, images: int) -> Tensor:
    """-sigma (inverse metric) times the slope of the log of a long sum over images."""
    u = displacement.clone().requires_grad_()
    steps = torch.arange(-images, images + 1, dtype=torch.float64)
    grid = torch.cartesian_prod(steps, steps, steps)
    shifted = u.unsqueeze(1) + grid
    energy = torch.einsum("nki,nij,nkj->nk", shifted, metric, shifted) / sigma.square()
    (slope,) = torch.autograd.grad(torch.logsumexp(-0.5 * energy, dim=-1).sum(), u)
    return -sigma * torch.linalg.solve(metric, slope.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("level", [0.02, 0.1, 0.3])
def test_the_target_is_the_score_in_the_metric_of_a_skewed_cell(level: float) -> None:
    lattice = lattice_from_parameters(
        torch.tensor([[3.0, 3.6, 3.9]], dtype=torch.float64), torch.tensor([[62.0, 71.0, 83.0]], dtype=torch.float64)
    )
    orbits = Orbits.without_symmetry(torch.tensor([40]))
    metric = orbits.metric(lattice)
    displacement = torch.rand(40, 3, generator=make_generator(12), dtype=torch.float64) - 0.5
    sigma = torch.full((40, 1), level, dtype=torch.float64)
    expected = target_by_autograd(displacement, sigma, metric, images=8)
    torch.testing.assert_close(wrapped_normal_target(displacement, sigma, metric), expected, rtol=1e-5, atol=1e-5)
    # the control: the plain metric has another score
    other = wrapped_normal_target(displacement, sigma, torch.eye(3).double().expand(40, 3, 3))
    assert float((other - expected).abs().max()) > 0.05


def test_at_the_last_level_the_target_vanishes_along_short_axes_too() -> None:
    """The level goes by the longest axis; along a shorter one the noise is uniform long before."""
    lattice = lattice_from_parameters(
        torch.tensor([[3.0, 3.0, 12.0]], dtype=torch.float64), torch.tensor([[90.0, 90.0, 120.0]], dtype=torch.float64)
    )
    orbits = Orbits.without_symmetry(torch.tensor([50]))
    process = WrappedNormal(sigma_min=0.01, sigma_max=10.0)
    level = process.level(torch.ones(1, dtype=torch.float64), lattice)
    assert float(level * volume(lattice).pow(1 / 3) / plane_spacings(lattice).min()) > 2.0
    displacement = torch.rand(50, 3, generator=make_generator(13), dtype=torch.float64) - 0.5
    sigma = level.expand(50).unsqueeze(-1)
    found = wrapped_normal_target(displacement, sigma, orbits.metric(lattice))
    expected = target_by_autograd(displacement, sigma, orbits.metric(lattice), images=14)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
