"""Orbits: whatever the parameters, the crystal has the symmetry of its group."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import metric_tensor, volume, wrap_displacement
from cdvae_kit.crystal.orbits import P1_POSITION, Orbits
from cdvae_kit.crystal.periodic_images import fully_connected_pairs
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.wyckoff import position_of, primitive_operations
from cdvae_kit.seeding import make_generator
from tests.crystal.every_group import (
    ALL_GROUPS,
    SOME_GROUPS,
    asymmetry,
    general_and_special,
    images,
    one_position_each,
)


def worst_asymmetries(crystals: SymmetricCrystals, frac_coords: Tensor) -> list[float]:
    ends = crystals.ptr.tolist()
    return [
        asymmetry(frac_coords[ends[i] : ends[i + 1]], crystals.atomic_numbers[ends[i] : ends[i + 1]], int(number))
        for i, number in enumerate(crystals.space_group)
    ]


@pytest.mark.parametrize("make", [general_and_special, one_position_each])
def test_atoms_have_the_symmetry_of_every_group_for_any_parameters(make: Callable[..., SymmetricCrystals]) -> None:
    crystals = make(seed=1)
    assert crystals.space_group.tolist() == list(ALL_GROUPS)
    other = torch.rand(crystals.free.shape, generator=make_generator(2), dtype=torch.float64)
    for free in (crystals.free, other):
        assert max(worst_asymmetries(crystals, crystals.orbits.frac_coords(free))) < 1e-9


def test_one_atom_that_is_moved_breaks_the_symmetry_of_every_group_but_the_first() -> None:
    crystals = general_and_special(seed=1)
    frac_coords = crystals.frac_coords.clone()
    frac_coords[crystals.ptr[1:] - 1] += torch.tensor([0.011, 0.017, -0.013], dtype=torch.float64)
    broken = worst_asymmetries(crystals, frac_coords)
    assert broken[0] < 1e-9 and min(broken[1:]) > 1e-3


def group_average(vectors: Tensor, frac_coords: Tensor, number: int) -> Tensor:
    """Vectors on atoms, averaged over the operations one by one: each is turned and carried to where its atom goes."""
    rotations, _ = primitive_operations(number)
    partner, _ = images(frac_coords.numpy(), number)
    total = np.zeros(vectors.shape)
    for rotation, to in zip(rotations, partner, strict=True):
        total[to] += vectors.numpy() @ rotation.T
    return torch.from_numpy(total / len(rotations))


def test_pull_and_push_average_over_the_group() -> None:
    crystals = general_and_special(SOME_GROUPS, seed=3)
    orbits = crystals.orbits
    vectors = torch.randn(crystals.frac_coords.shape, generator=make_generator(4), dtype=torch.float64)
    found = orbits.push(orbits.pull(vectors))
    ends = crystals.ptr.tolist()
    for i, number in enumerate(SOME_GROUPS):
        part = slice(ends[i], ends[i + 1])
        expected = group_average(vectors[part], crystals.frac_coords[part], number)
        torch.testing.assert_close(found[part], expected, rtol=0.0, atol=1e-12, msg=lambda m, n=number: f"{n}: {m}")
        # the control: but in P1 the average is another vector
        assert number == 1 or float((expected - vectors[part]).abs().max()) > 0.1


def test_what_is_pushed_is_pulled_back() -> None:
    crystals = general_and_special(seed=5)
    orbits = crystals.orbits
    change = torch.randn(crystals.free.shape, generator=make_generator(6), dtype=torch.float64) * orbits.is_free
    torch.testing.assert_close(orbits.pull(orbits.push(change)), change)
    first = orbits.push(change).index_select(0, orbits.first_atom)
    torch.testing.assert_close(orbits.pull_first(first), change)


def test_a_small_change_of_parameters_moves_the_atoms_by_its_push() -> None:
    crystals = general_and_special(seed=7)
    orbits = crystals.orbits
    change = 1e-3 * torch.randn(crystals.free.shape, generator=make_generator(8), dtype=torch.float64) * orbits.is_free
    moved = wrap_displacement(orbits.frac_coords(crystals.free + change) - crystals.frac_coords)
    torch.testing.assert_close(moved, orbits.push(change))


def test_a_change_along_polar_axes_alone_shifts_the_crystal_as_a_whole() -> None:
    crystals = general_and_special(seed=9)
    orbits = crystals.orbits
    of_crystal = torch.randn(len(crystals), 3, generator=make_generator(10), dtype=torch.float64)
    change = of_crystal[orbits.batch] * orbits.is_free

    def spread(shift: Tensor) -> Tensor:
        moved = orbits.push(shift)
        return (moved - moved[crystals.ptr[:-1]][crystals.batch]).abs().amax(-1)

    assert float(spread(change * orbits.is_polar).max()) < 1e-12
    # the control: along other axes atoms move against each other
    others = spread(change * ~orbits.is_polar)
    of_group = torch.zeros(len(crystals), dtype=torch.float64).scatter_reduce(0, crystals.batch, others, "amax")
    not_all_polar = torch.tensor([not bool(orbits.is_polar[orbits.batch == i].all()) for i in range(len(crystals))])
    assert float(of_group[not_all_polar].min()) > 1e-3


def test_drift_is_taken_out_along_polar_axes_and_nowhere_else() -> None:
    crystals = general_and_special(seed=11)
    orbits = crystals.orbits
    change = torch.randn(crystals.free.shape, generator=make_generator(12), dtype=torch.float64) * orbits.is_free
    rest = orbits.without_drift(change)
    assert torch.equal(rest[~orbits.is_polar], change[~orbits.is_polar])
    weighted = torch.zeros(len(crystals), 3, dtype=torch.float64).index_add(
        0, orbits.batch, rest * orbits.multiplicity.unsqueeze(-1) * orbits.is_polar
    )
    torch.testing.assert_close(weighted, torch.zeros_like(weighted), rtol=0.0, atol=1e-12)
    torch.testing.assert_close(orbits.without_drift(rest), rest)
    # the control: there was a drift
    assert float((rest - change).abs().max()) > 0.1
    # and what is taken out is one shift of all atoms of a crystal
    moved = orbits.push(change - rest)
    torch.testing.assert_close(moved, moved[crystals.ptr[:-1]][crystals.batch], rtol=0.0, atol=1e-12)


def test_all_atoms_of_an_orbit_have_its_metric() -> None:
    crystals = general_and_special(seed=13)
    orbits = crystals.orbits
    found = orbits.metric(crystals.lattice)
    scaled = metric_tensor(crystals.lattice) / volume(crystals.lattice).pow(2.0 / 3.0).view(-1, 1, 1)
    maps = orbits.maps.double()
    of_atom = maps.mT @ scaled[crystals.batch] @ maps
    fixed = torch.diag_embed((~orbits.is_free).double())
    torch.testing.assert_close(of_atom + fixed[orbits.of_atom], found[orbits.of_atom], rtol=1e-7, atol=1e-7)
    # the control: in a cell that is not of the family they have not
    stretched = crystals.lattice @ torch.diag(torch.tensor([1.2, 1.0, 0.9], dtype=torch.float64))
    scaled = metric_tensor(stretched) / volume(stretched).pow(2.0 / 3.0).view(-1, 1, 1)
    of_atom = maps.mT @ scaled[crystals.batch] @ maps
    assert float((of_atom + fixed[orbits.of_atom] - orbits.metric(stretched)[orbits.of_atom]).abs().max()) > 0.05


def test_the_conventional_cell_holds_the_primitive_one_an_integer_number_of_times() -> None:
    crystals = general_and_special(seed=14)
    orbits = crystals.orbits
    conventional = orbits.primitive_to_conventional(crystals.lattice)
    times = volume(conventional) / volume(crystals.lattice)
    torch.testing.assert_close(times, (orbits.num_conventional_atoms / orbits.num_atoms).double())
    torch.testing.assert_close(orbits.conventional_to_primitive(conventional), crystals.lattice)
    assert sorted(set(times.round().long().tolist())) == [1, 2, 3, 4]
    # rows of the conventional cell are whole sums of rows of the primitive one
    sums = conventional @ torch.linalg.inv(crystals.lattice)
    torch.testing.assert_close(sums, sums.round(), rtol=0.0, atol=1e-9)


def test_pairs_are_all_atoms_of_the_crystal_as_seen_from_the_first_of_each_orbit() -> None:
    orbits = general_and_special((1, 2, 47, 225, 14), seed=15).orbits
    atoms, seen_from = orbits.pairs()
    source, target = fully_connected_pairs(orbits.num_atoms, self_pairs=False)
    is_first = torch.isin(target, orbits.first_atom)
    expected = {*zip(source[is_first].tolist(), orbits.of_atom[target[is_first]].tolist(), strict=True)}
    assert {*zip(atoms.tolist(), seen_from.tolist(), strict=True)} == expected and len(atoms) == len(expected)
    assert bool((seen_from.diff() >= 0).all())


def test_selected_crystals_are_the_crystals_that_were_asked_for() -> None:
    crystals = general_and_special((2, 225, 1, 166, 62), seed=16)
    order = torch.tensor([3, 0, 0, 4])
    chosen = crystals.orbits.select(order)
    assert chosen.space_group.tolist() == [166, 2, 2, 62]
    rows = crystals.orbits.rows_of(order)
    assert torch.equal(chosen.position, crystals.position[rows])
    expected = torch.cat([crystals.select([i]).frac_coords for i in order.tolist()])
    torch.testing.assert_close(chosen.frac_coords(crystals.free[rows]), expected)
    assert torch.equal(chosen.num_atoms, crystals.num_atoms[order])
    assert torch.equal(chosen.to("cpu").position, chosen.position)


def test_without_symmetry_atoms_are_orbits_and_parameters_are_coordinates() -> None:
    orbits = Orbits.without_symmetry(torch.tensor([3, 1]))
    free = torch.rand(4, 3, generator=make_generator(17))
    assert torch.equal(orbits.frac_coords(free), free) and torch.equal(orbits.push(free), free)
    assert torch.equal(orbits.pull(free), free) and torch.equal(orbits.num_atoms, torch.tensor([3, 1]))
    assert bool(orbits.is_free.all()) and bool(orbits.is_polar.all()) and bool((orbits.position == P1_POSITION).all())
    assert P1_POSITION == position_of(1, "a").index
