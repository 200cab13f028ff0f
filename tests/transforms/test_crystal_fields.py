"""Displacement fields on crystals: amplitude, period, symmetry in distribution, choice of cell, limits, distances."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.periodic_images import shortest_distances
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms import Compose, IndexedDraws, RandomChoice, RandomFieldDisplacement, RandomStrain
from cdvae_kit.transforms.crystal_fields import MAX_WAVES, reciprocal_waves
from tests.conftest import make_crystal


def field(rms: float = 0.05, **options: float) -> RandomFieldDisplacement:
    return RandomFieldDisplacement(rms=rms, least_distance=None, **options)


def displacements(crystal: CrystalBatch, transform: RandomFieldDisplacement, num: int, seed: int = 0) -> Tensor:
    """(num, num_atoms, 3) of one crystal, angstrom."""
    many = crystal.select([0] * num)
    params = transform.sample(many, generator=make_generator(seed))
    return transform.displacement(many, params).reshape(num, -1, 3)


def covariance(moved: Tensor) -> Tensor:
    flat = moved.flatten(1)
    return flat.T @ flat / len(flat)


@pytest.fixture
def silicate() -> CrystalBatch:
    return make_crystal([4.1, 5.2, 6.3], [80.0, 95.0, 112.0], [14, 8, 8, 12], seed=3)


@pytest.mark.parametrize("exponent", [0.0, 2.0, 4.0])
def test_the_root_mean_square_is_the_one_asked_for_at_every_atom(zoo: CrystalBatch, exponent: float) -> None:
    transform, num = field(0.07, exponent=exponent, shortest_wave=2.5), 3000
    for i in (1, 2, 4):
        square = displacements(zoo.select([i]), transform, num).square().sum(-1).mean(0)
        assert square.sqrt().mean().item() == pytest.approx(0.07, rel=0.02), i
        assert (square.sqrt() / 0.07 - 1.0).abs().max() < 0.05, i


def test_the_sum_over_waves_is_exact_whatever_the_cell(zoo: CrystalBatch) -> None:
    waves = reciprocal_waves(zoo.lattice, shortest_wave=2.0)
    deviations = field(0.07)._standard_deviations(waves)
    assert torch.allclose(3.0 * deviations.square().sum(1), torch.full((6,), 0.07**2, dtype=torch.float64))


def test_an_atom_a_lattice_vector_away_moves_alike(zoo: CrystalBatch) -> None:
    transform = field(0.1)
    params = transform.sample(zoo, generator=make_generator(0))
    moved = transform.displacement(zoo, params)
    elsewhere = zoo.replace()
    elsewhere.frac_coords = zoo.frac_coords + torch.tensor([1.0, -2.0, 3.0])
    assert torch.allclose(transform.displacement(elsewhere, params), moved, atol=1e-10)
    # the control: half a lattice vector
    elsewhere.frac_coords = zoo.frac_coords + 0.5
    assert not torch.allclose(transform.displacement(elsewhere, params), moved, atol=1e-3)


def test_the_field_has_no_seam(silicate: CrystalBatch) -> None:
    transform = field(0.1)
    params = transform.sample(silicate, generator=make_generator(0))
    eps = 1e-7
    at_faces = silicate.replace()
    at_faces.frac_coords = torch.tensor(
        [[eps, 0.3, 0.4], [1.0 - eps, 0.3, 0.4], [0.3, eps, 0.4], [0.3, 1.0 - eps, 0.4]]
    )
    at_faces.frac_coords = at_faces.frac_coords.double()
    moved = transform.displacement(at_faces, params)
    assert torch.allclose(moved[0], moved[1], atol=1e-6) and torch.allclose(moved[2], moved[3], atol=1e-6)


def test_the_law_knows_no_origin(silicate: CrystalBatch) -> None:
    transform, shift = field(shortest_wave=2.5), torch.tensor([0.31, 0.77, 0.12], dtype=torch.float64)
    shifted = silicate.replace(frac_coords=silicate.frac_coords + shift)
    here, there = (displacements(crystal, transform, 12000) for crystal in (silicate, shifted))
    assert torch.allclose(covariance(here), covariance(there), atol=0.07 * 0.05**2 / 3)
    # in distribution only: one draw is another field at another place
    assert not torch.allclose(here[0], there[0], atol=1e-3)


def test_the_law_turns_with_the_crystal_and_does_not_fit_another_one(silicate: CrystalBatch) -> None:
    transform = field(shortest_wave=2.5)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=make_generator(1), dtype=torch.float64))[0]
    turned = silicate.replace(lattice=silicate.lattice @ turn)
    here = displacements(silicate, transform, 12000)
    there = displacements(turned, transform, 12000, seed=1) @ turn.T
    tolerance = 0.07 * 0.05**2 / 3
    assert torch.allclose(covariance(here), covariance(there), atol=tolerance)
    stretched = silicate.replace(lattice=silicate.lattice * torch.tensor([1.0, 1.0, 3.0]).double())
    assert not torch.allclose(covariance(here), covariance(displacements(stretched, transform, 12000)), atol=tolerance)


def test_the_order_of_atoms_does_not_matter(silicate: CrystalBatch) -> None:
    transform, order = field(), torch.tensor([2, 0, 3, 1])
    params = transform.sample(silicate, generator=make_generator(0))
    mixed = silicate.replace(frac_coords=silicate.frac_coords[order], atomic_numbers=silicate.atomic_numbers[order])
    assert torch.allclose(transform.displacement(mixed, params), transform.displacement(silicate, params)[order])


def waves_as_set(lattice: Tensor, shortest_wave: float) -> set[tuple[float, ...]]:
    """Wave vectors in 1/angstrom, of ±G the one of either sign."""
    waves = reciprocal_waves(lattice, shortest_wave=shortest_wave)
    vectors = waves.numbers[0].double() @ torch.linalg.inv(lattice[0].double()).T
    return {tuple(round(sign * x, 6) + 0.0 for x in vector) for vector in vectors.tolist() for sign in (1.0, -1.0)}


def test_waves_are_counted_as_by_hand() -> None:
    cube = 4.0 * torch.eye(3, dtype=torch.float64)[None]
    for shortest, squares in ((4.0, 1), (2.5, 2), (2.0, 4), (1.2, 11)):
        number = torch.cartesian_prod(*[torch.arange(-4, 5)] * 3)
        expected = int(((number.square().sum(1) <= squares) & (number != 0).any(1)).sum()) // 2
        assert reciprocal_waves(cube, shortest_wave=shortest).numbers.shape[1] == expected


def test_the_waves_do_not_depend_on_the_choice_of_the_cell(zoo: CrystalBatch) -> None:
    other = torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [-1.0, 3.0, 1.0]], dtype=torch.float64)
    for i in range(len(zoo)):
        lattice = zoo.lattice[i][None]
        assert waves_as_set(lattice, 2.0) == waves_as_set(other @ lattice, 2.0), i
        # the control: another lattice
        assert waves_as_set(lattice, 2.0) != waves_as_set(1.1 * lattice, 2.0), i


def test_a_supercell_has_the_waves_of_its_cell_and_longer_ones(silicate: CrystalBatch) -> None:
    times = torch.tensor([[2.0], [1.0], [3.0]], dtype=torch.float64)
    small, large = waves_as_set(silicate.lattice, 2.0), waves_as_set(silicate.lattice * times, 2.0)
    assert small < large
    shortest = [min(math.dist(wave, (0.0, 0.0, 0.0)) for wave in waves) for waves in (small, large)]
    assert shortest[1] < shortest[0]


def test_waves_of_the_cell_move_the_repeats_in_a_supercell_alike(silicate: CrystalBatch) -> None:
    transform = field()
    params = transform.sample(silicate, generator=make_generator(0))
    moved = transform.displacement(silicate, params)
    doubled = CrystalBatch(
        torch.cat(
            [(silicate.frac_coords + torch.tensor([n, 0.0, 0.0])) / torch.tensor([2.0, 1.0, 1.0]) for n in (0, 1)]
        ),
        silicate.lattice * torch.tensor([[2.0], [1.0], [1.0]]).double(),
        silicate.atomic_numbers.repeat(2),
        2 * silicate.num_atoms,
    )
    both = transform.displacement(doubled, {**params, "waves": params["waves"] * torch.tensor([2, 1, 1])})
    assert torch.allclose(both, moved.repeat(2, 1), atol=1e-12)


def test_without_a_preference_for_long_waves_atoms_move_on_their_own(silicate: CrystalBatch) -> None:
    def correlation(exponent: float, shortest_wave: float) -> Tensor:
        moved = displacements(silicate, field(exponent=exponent, shortest_wave=shortest_wave), 400)
        # the axes are independent, and alike
        flat = moved.permute(1, 0, 2).flatten(1)
        return torch.corrcoef(flat).fill_diagonal_(0.0).abs().max()

    assert correlation(0.0, 0.6) < 0.12
    assert correlation(0.0, 4.0) > 0.3 and correlation(6.0, 0.6) > 0.3


def test_neighbours_move_together_in_a_large_cell_the_more_the_larger_the_exponent() -> None:
    pair = CrystalBatch(
        torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1]]).double(),
        20.0 * torch.eye(3).double()[None],
        torch.tensor([3, 3]),
        torch.tensor([2]),
    )
    alike = []
    for exponent in (0.0, 2.0, 4.0, 6.0):
        a, b = displacements(pair, field(exponent=exponent, shortest_wave=3.0), 300).unbind(1)
        alike.append(float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()))
    assert alike == sorted(alike) and alike[0] < 0.2 and alike[-1] > 0.8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_magnitude_zero_is_the_identity_and_nothing_is_changed_in_place(zoo: CrystalBatch, dtype: torch.dtype) -> None:
    zoo = zoo.replace(frac_coords=zoo.frac_coords.to(dtype), lattice=zoo.lattice.to(dtype))
    before = zoo.frac_coords.clone()
    transform = field(0.1, strain=0.05)
    still = transform(zoo, magnitude=0.0, generator=make_generator(0))
    assert torch.equal(still.frac_coords, zoo.frac_coords) and torch.equal(still.lattice, zoo.lattice)
    moved = transform(zoo, generator=make_generator(0))
    assert moved.frac_coords.dtype == moved.lattice.dtype == dtype
    assert torch.equal(zoo.frac_coords, before) and not torch.allclose(moved.frac_coords, before, atol=1e-3)
    assert not torch.allclose(moved.lattice, zoo.lattice, atol=1e-3)


def test_atoms_go_where_the_displacement_says(zoo: CrystalBatch) -> None:
    transform = field(0.1)
    params = transform.sample(zoo, generator=make_generator(0))
    steps = transform.apply(zoo, params).frac_coords - zoo.frac_coords
    steps = steps - steps.round()
    went = torch.einsum("ni,nij->nj", steps, zoo.lattice[zoo.batch])
    assert torch.allclose(went, transform.displacement(zoo, params), atol=1e-10)


def test_a_strain_is_symmetric_and_leaves_fractions(zoo: CrystalBatch) -> None:
    transform = field(0.0, strain=0.05)
    params = transform.sample(zoo, generator=make_generator(0))
    after = transform.apply(zoo, params)
    assert torch.allclose(params["deformation"], params["deformation"].transpose(-1, -2))
    assert torch.equal(after.frac_coords, zoo.frac_coords) and not torch.allclose(after.lattice, zoo.lattice)


def test_a_crystal_of_one_atom_stays_what_it_is(zoo: CrystalBatch) -> None:
    one = zoo.select([0])
    after = field(0.2)(one, generator=make_generator(0))
    assert torch.allclose(shortest_distances(after), shortest_distances(one)) and torch.equal(
        after.lattice, one.lattice
    )


def test_a_sample_drawn_by_index_does_not_depend_on_its_batch(zoo: CrystalBatch) -> None:
    transform, some = field(0.1, strain=0.02), torch.tensor([5, 0])
    whole = transform(zoo, generator=IndexedDraws(3, torch.arange(6)))
    part = transform(zoo.select(some), generator=IndexedDraws(3, some))
    assert torch.allclose(whole.select(some).frac_coords, part.frac_coords, atol=1e-6)
    assert torch.allclose(whole.select(some).lattice, part.lattice, atol=1e-6)


def test_it_stands_among_choices_and_after_other_transforms(zoo: CrystalBatch) -> None:
    choice = RandomChoice([Compose([RandomStrain(0.1), field(0.1)]), field(0.2)])
    params = choice.sample(zoo, generator=make_generator(0))
    assert all(len(value) == len(zoo) for value in params.values())
    assert len(choice.apply(zoo, params)) == len(zoo)


def test_a_gradient_reaches_the_magnitude(silicate: CrystalBatch) -> None:
    transform = RandomFieldDisplacement(rms=0.05, strain=0.02)

    def total(magnitude: Tensor) -> Tensor:
        after = transform(silicate, magnitude=magnitude, generator=make_generator(0))
        return (after.cart_coords * torch.arange(12.0).reshape(4, 3)).sum()

    magnitude = torch.full((1,), 0.5, dtype=torch.float64, requires_grad=True)
    total(magnitude).backward()
    slope = (total(magnitude.detach() + 1e-6) - total(magnitude.detach() - 1e-6)) / 2e-6
    assert magnitude.grad is not None and magnitude.grad.item() == pytest.approx(slope.item(), rel=1e-4)


def test_no_two_atoms_come_closer_than_allowed_and_the_reduced_are_told() -> None:
    pair = make_crystal([6.0, 6.0, 6.0], [90.0] * 3, [6, 6], seed=0)
    pair = pair.replace(frac_coords=torch.tensor([[0.1, 0.1, 0.1], [0.25, 0.1, 0.1]]).double())
    many = pair.select([0] * 300)
    free = field(0.4, exponent=0.0)
    guarded = RandomFieldDisplacement(rms=0.4, exponent=0.0, least_distance=0.7)
    assert shortest_distances(free(many, generator=make_generator(0))).min() < 0.7
    params = guarded.sample(many, generator=make_generator(0))
    assert shortest_distances(guarded.apply(many, params)).min() >= 0.7 - 1e-9
    reduced = params["kept"] < 1.0
    assert 0 < int(reduced.sum()) < 300
    # what needed no help is the same draw
    same = free.displacement(many, free.sample(many, generator=make_generator(0))).reshape(300, 2, 3)
    assert torch.allclose(guarded.displacement(many, params).reshape(300, 2, 3)[~reduced], same[~reduced])


def test_crystals_that_come_in_too_close_are_not_minded() -> None:
    crushed = make_crystal([6.0, 6.0, 6.0], [90.0] * 3, [6, 6], seed=0)
    crushed = crushed.replace(frac_coords=torch.tensor([[0.1, 0.1, 0.1], [0.15, 0.1, 0.1]]).double())
    params = RandomFieldDisplacement(rms=0.2).sample(crushed, generator=make_generator(0))
    assert params["kept"].tolist() == [1.0] and params["amplitude"].abs().max() > 0.0


def test_awkward_sizes_work(zoo: CrystalBatch) -> None:
    big = make_crystal([24.0, 25.0, 26.0], [85.0, 95.0, 100.0], [14] * 1000, seed=9)
    both = concatenate([zoo, big])
    transform = field()
    params = transform.sample(both, generator=make_generator(0))
    assert torch.isfinite(transform.displacement(both, params)).all()
    none = zoo.select([])
    assert len(transform(none, generator=make_generator(0))) == 0
    tiny = zoo.replace(lattice=0.2 * zoo.lattice)
    assert reciprocal_waves(tiny.lattice, shortest_wave=50.0).lengths.amax(1).min() > 0.0


def test_a_cell_of_absurd_size_or_of_none_is_refused(zoo: CrystalBatch) -> None:
    with pytest.raises(
        ValueError, match=f"crystal 4 has .* at most {re.escape(f'{MAX_WAVES:.0e}')}: raise shortest_wave"
    ):
        reciprocal_waves(zoo.lattice * torch.tensor([1.0, 1, 1, 1, 1e3, 1]).double()[:, None, None], shortest_wave=2.0)
    for worst in (0.0, math.nan):
        with pytest.raises(ValueError, match="finite, non-zero volume"):
            reciprocal_waves(zoo.lattice * worst, shortest_wave=2.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rms": -0.1}, "must not be negative"),
        ({"rms": math.nan}, "must not be negative"),
        ({"rms": 0.1, "strain": 1.0}, "strain"),
        ({"rms": 0.1, "exponent": math.inf}, "exponent"),
        ({"rms": 0.1, "shortest_wave": 0.0}, "shortest wave"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RandomFieldDisplacement(**options)


def test_waves_of_another_batch_are_refused(zoo: CrystalBatch) -> None:
    transform = field()
    with pytest.raises(ValueError, match="each of 6 crystals, got 2"):
        transform.apply(zoo, transform.sample(zoo.select([0, 1]), generator=make_generator(0)))
