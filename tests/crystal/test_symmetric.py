"""The symmetric description of a crystal: exact both ways, and the same however the crystal is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.lattice import lattice_from_parameters, metric_tensor, volume, wrap_displacement
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals, describe, join, without_symmetry
from cdvae_kit.crystal.wyckoff import position_of, wyckoff_positions
from cdvae_kit.datasets import load_ionic_prototypes
from cdvae_kit.graph import neighbor_list
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.crystal_motions import Supercell
from tests.crystal.every_group import ALL_GROUPS, SOME_GROUPS, crystals_in, general_and_special
from tests.graph.oracles import read_p1

FINE = 1e-3


def prototypes(num_crystals: int = 24) -> CrystalBatch:
    return load_ionic_prototypes(num_crystals=num_crystals, seed=1, dtype=torch.float64)


# -- the same crystal, written otherwise -----------------------------------------------------------------------------

Writing = Callable[[CrystalBatch, torch.Generator], CrystalBatch]


def turned(batch: CrystalBatch, generator: torch.Generator) -> CrystalBatch:
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return batch.replace(lattice=batch.lattice @ (q * torch.linalg.det(q)))


def shifted(batch: CrystalBatch, generator: torch.Generator) -> CrystalBatch:
    shift = torch.rand(len(batch), 3, generator=generator, dtype=torch.float64)
    return batch.replace(frac_coords=batch.frac_coords + shift[batch.batch])


def permuted(batch: CrystalBatch, generator: torch.Generator) -> CrystalBatch:
    order = torch.argsort(batch.batch + torch.rand(len(batch.batch), generator=generator))
    return batch.replace(frac_coords=batch.frac_coords[order], atomic_numbers=batch.atomic_numbers[order])


def in_another_cell(batch: CrystalBatch, generator: torch.Generator) -> CrystalBatch:
    change = torch.eye(3, dtype=torch.float64)
    for _ in range(3):
        step = torch.eye(3, dtype=torch.float64)
        i, j = torch.randperm(3, generator=generator)[:2].tolist()
        step[i, j] = float(torch.randint(0, 2, (1,), generator=generator)) * 2 - 1
        change = step @ change
    return batch.replace(lattice=change @ batch.lattice, frac_coords=batch.frac_coords @ torch.linalg.inv(change))


def in_a_supercell(batch: CrystalBatch, generator: torch.Generator) -> CrystalBatch:
    return Supercell(2)(batch, generator=generator)


WRITINGS = (turned, shifted, permuted, in_another_cell, in_a_supercell)


def differing(found: SymmetricCrystals, expected: SymmetricCrystals) -> list[int]:
    """Crystals whose descriptions are not the same."""
    wrong = []
    for i in range(len(expected)):
        one, other = found.select([i]), expected.select([i])
        same = (
            torch.equal(one.space_group, other.space_group)
            and torch.equal(one.position, other.position)
            and torch.equal(one.elements, other.elements)
            and float(wrap_displacement(one.free - other.free).abs().max()) < FINE
            and torch.allclose(metric_tensor(one.lattice), metric_tensor(other.lattice), rtol=1e-3, atol=1e-3)
        )
        if not same:
            wrong.append(i)
    return wrong


@pytest.mark.parametrize("write", WRITINGS, ids=lambda write: write.__name__)
def test_a_crystal_has_one_description_however_it_is_written(write: Writing) -> None:
    crystals = prototypes()
    expected = describe(crystals)
    assert int((expected.space_group > 1).sum()) > 20
    found = describe(write(crystals, make_generator(2)))
    assert differing(found, expected) == [], "seed 2"


@pytest.mark.parametrize("write", WRITINGS[:4], ids=lambda write: write.__name__)
def test_a_crystal_of_any_group_has_one_description_however_it_is_written(write: Writing) -> None:
    crystals = general_and_special(SOME_GROUPS, seed=3).plain()
    found = describe(write(crystals, make_generator(4)), tolerance=0.01)
    assert differing(found, describe(crystals, tolerance=0.01)) == [], "seeds 3 and 4"


def test_another_crystal_has_another_description() -> None:
    """The control: of each crystal one atom moves by more than the tolerance, or all axes are strained."""
    crystals = prototypes(8)
    expected = describe(crystals)
    frac_coords = crystals.frac_coords.clone()
    frac_coords[crystals.ptr[:-1]] += torch.tensor([0.03, 0.05, 0.04], dtype=torch.float64)
    assert differing(describe(crystals.replace(frac_coords=frac_coords)), expected) == list(range(8))
    strained = crystals.replace(lattice=1.02 * crystals.lattice)
    assert differing(describe(strained), expected) == list(range(8))


def test_without_symmetry_the_description_depends_on_how_the_crystal_is_written() -> None:
    crystals = prototypes(8)
    for write in (shifted, in_another_cell):
        found = without_symmetry(write(crystals, make_generator(5)))
        assert differing(found, without_symmetry(crystals)) == list(range(8))


# -- exact both ways -------------------------------------------------------------------------------------------------


def surroundings(crystals: CrystalBatch) -> Tensor:
    """Distances of the twelve nearest neighbours, the mean over the atoms of an element: a row each."""
    graph = neighbor_list(crystals, 11.0, max_neighbors=12)
    distances, target = graph.distances(crystals), graph.edge_index[1]
    nearest = torch.stack([distances[target == atom].sort().values[:12] for atom in range(len(crystals.batch))])
    rows = []
    for i in range(len(crystals)):
        for number in crystals.atomic_numbers[crystals.batch == i].unique():
            rows.append(nearest[(crystals.batch == i) & (crystals.atomic_numbers == number)].mean(0))
    return torch.stack(rows)


def test_the_atoms_of_a_description_are_those_of_the_crystal_by_pymatgen() -> None:
    crystals = prototypes(16)
    described = describe(crystals, tolerance=1e-3)
    matcher = StructureMatcher(ltol=0.01, stol=0.01, angle_tol=0.2, primitive_cell=True, scale=False)
    pairs = zip(described.structures(), crystals.structures(), strict=True)
    assert all(matcher.fit(ours, theirs) for ours, theirs in pairs)
    moved = described.replace(free=described.free + 0.1 * torch.rand(described.free.shape, generator=make_generator(6)))
    pairs = zip(moved.structures(), crystals.structures(), strict=True)
    changed = described.orbits.is_free.any(-1)
    has_free = torch.zeros(len(crystals)).index_add(0, described.orbits.batch, changed.float()) > 0
    # the control: where something is free, another value gives another crystal
    assert [matcher.fit(ours, theirs) for ours, theirs in pairs] == (~has_free).tolist()


def test_crystals_of_all_groups_are_found_again() -> None:
    crystals = general_and_special(seed=7)
    # small: among so many random parameters some are within 0.002 A of a group with more operations
    described = describe(crystals.plain(), tolerance=2e-4)
    assert described.space_group.tolist() == list(ALL_GROUPS), "seed 7"
    assert torch.equal(described.num_atoms, crystals.num_atoms)
    torch.testing.assert_close(volume(described.lattice), volume(crystals.lattice), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(surroundings(described), surroundings(crystals), rtol=1e-4, atol=1e-4)


def test_a_description_is_its_own_description() -> None:
    described = describe(prototypes())
    assert differing(describe(described.plain()), described) == []


def test_properties_and_names_are_kept_and_progress_is_told() -> None:
    crystals = prototypes(3)
    told: list[tuple[int, int]] = []
    described = describe(crystals, progress=lambda done, total: told.append((done, total)))
    assert described.material_ids == crystals.material_ids and told[-1] == (3, 3)
    torch.testing.assert_close(described.properties["ewald_energy"], crystals.properties["ewald_energy"])
    assert describe(prototypes(1)).lattice.dtype == torch.float64
    single = prototypes(1)
    single = single.replace(frac_coords=single.frac_coords.float(), lattice=single.lattice.float())
    assert describe(single).lattice.dtype == describe(single).free.dtype == torch.float32


def test_a_tolerance_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="positive length in angstrom, got 0"):
        describe(prototypes(1), tolerance=0.0)


# -- cells that are not primitive, and no symmetry -------------------------------------------------------------------


def rock_salt(primitive: bool) -> CrystalBatch:
    if primitive:
        lattice = 2.0 * torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
        points = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
        numbers = [11, 17]
    else:
        lattice = 4.0 * torch.eye(3, dtype=torch.float64)
        corners = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
        points = [*corners, *([x + 0.5, y, z] for x, y, z in corners)]
        numbers = [11] * 4 + [17] * 4
    return CrystalBatch(
        torch.tensor(points, dtype=torch.float64), lattice[None], torch.tensor(numbers), torch.tensor([len(numbers)])
    )


def test_a_conventional_cell_becomes_the_primitive_one() -> None:
    described = describe(concatenate([rock_salt(True), rock_salt(False)]))
    assert described.space_group.tolist() == [225, 225] and described.num_atoms.tolist() == [2, 2]
    letters = [position_of(225, "a").index, position_of(225, "b").index]
    assert described.position.tolist() == letters * 2 and described.elements.tolist() == [17, 11] * 2
    assert differing(described.select([1]), described.select([0])) == []


def random_crystal(seed: int = 8) -> CrystalBatch:
    generator = make_generator(seed)
    return CrystalBatch(
        torch.rand(5, 3, generator=generator, dtype=torch.float64),
        lattice_from_parameters(
            torch.tensor([[4.1, 5.3, 6.2]], dtype=torch.float64),
            torch.tensor([[82.0, 71.0, 77.0]], dtype=torch.float64),
        ),
        torch.tensor([8, 25, 8, 3, 8]),
        torch.tensor([5]),
    )


def test_a_crystal_without_symmetry_is_one_of_p1_with_every_atom_an_orbit() -> None:
    described = describe(random_crystal())
    assert described.space_group.tolist() == [1] and described.num_orbits.tolist() == [5]
    assert sorted(described.elements.tolist()) == [3, 8, 8, 8, 25]
    torch.testing.assert_close(surroundings(described), surroundings(random_crystal()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("write", WRITINGS, ids=lambda write: write.__name__)
def test_a_crystal_without_symmetry_has_one_description_too(write: Writing) -> None:
    found = describe(write(random_crystal(), make_generator(9)))
    assert differing(found, describe(random_crystal())) == [], "seeds 8 and 9"


def test_without_symmetry_the_cell_stays_as_it_is() -> None:
    crystals = concatenate([rock_salt(False), random_crystal()])
    plain = without_symmetry(crystals)
    assert plain.space_group.tolist() == [1, 1]
    for name in ("frac_coords", "lattice", "atomic_numbers", "num_atoms"):
        assert torch.equal(getattr(plain, name), getattr(crystals, name)), name


# -- handedness ------------------------------------------------------------------------------------------------------


def handedness(crystals: CrystalBatch) -> Tensor:
    """(num_crystals,) a number that rotations keep and reflections turn around: triple products of neighbours.

    Each of the three places in the product weighs a neighbour by another power of its distance.
    """
    graph = neighbor_list(crystals, 7.0)
    vectors, (source, target) = graph.vectors(crystals), graph.edge_index
    found = torch.zeros(len(crystals), dtype=torch.float64)
    for atom in range(len(crystals.atomic_numbers)):
        near = vectors[target == atom]
        distance = near.norm(dim=-1, keepdim=True)
        weight = torch.exp(-distance) * crystals.atomic_numbers[source[target == atom]].unsqueeze(-1)
        a, b, c = ((near * weight * distance**k).sum(0) for k in range(3))
        found[crystals.batch[atom]] += torch.dot(a, torch.linalg.cross(b, c))
    return found


def chiral_crystals() -> SymmetricCrystals:
    """Of each of the eleven pairs, and of two groups that hold both hands, on general positions."""
    numbers = (76, 91, 92, 95, 144, 151, 152, 169, 171, 178, 180, 212, 19, 198)
    positions = [[wyckoff_positions(number)[-1].index] * 2 for number in numbers]
    return crystals_in(positions, list(numbers), elements=(14, 8), seed=10)


PARTNER = {
    76: 78,
    91: 95,
    92: 96,
    95: 91,
    144: 145,
    151: 153,
    152: 154,
    169: 170,
    171: 172,
    178: 179,
    180: 181,
    212: 213,
}


def mirrored(batch: CrystalBatch) -> CrystalBatch:
    return batch.replace(frac_coords=-batch.frac_coords)


def test_the_mirror_image_of_a_crystal_is_of_the_other_group_of_its_pair() -> None:
    crystals = chiral_crystals()
    numbers = crystals.space_group.tolist()
    assert describe(crystals.plain(), tolerance=0.01).space_group.tolist() == numbers
    turned_around = describe(mirrored(crystals.plain()), tolerance=0.01)
    assert turned_around.space_group.tolist() == [PARTNER.get(number, number) for number in numbers]
    # the control: a rotation leaves it in its group
    kept = describe(turned(crystals.plain(), make_generator(11)), tolerance=0.01)
    assert kept.space_group.tolist() == numbers


def test_a_description_keeps_the_hand_of_the_crystal() -> None:
    crystals = chiral_crystals().plain()
    expected = handedness(crystals)
    assert float(expected.abs().min()) > 1e-6
    torch.testing.assert_close(handedness(describe(crystals, tolerance=0.01)), expected, rtol=1e-4, atol=1e-6)
    # the control: the measure tells the hands apart
    torch.testing.assert_close(handedness(mirrored(crystals)), -expected, rtol=1e-6, atol=1e-9)
    other = describe(mirrored(crystals), tolerance=0.01)
    torch.testing.assert_close(handedness(other), -expected, rtol=1e-4, atol=1e-6)


# -- the batch -------------------------------------------------------------------------------------------------------


def test_joined_and_selected_crystals_are_those_that_went_in() -> None:
    first, second = describe(prototypes(3)), without_symmetry(random_crystal())
    both = join([first, second])
    assert both.space_group.tolist() == [*first.space_group.tolist(), 1]
    chosen = both.select([3, 0])
    torch.testing.assert_close(chosen.select([0]).frac_coords, second.frac_coords)
    torch.testing.assert_close(chosen.select([1]).free, first.select([0]).free)
    assert both.select([-1]).num_orbits.tolist() == [5]
    with pytest.raises(IndexError, match="holds 4 crystals"):
        both.select([4])
    with pytest.raises(ValueError, match="at least one batch"):
        join([])


def test_only_what_is_free_can_be_replaced() -> None:
    described = describe(prototypes(2))
    with pytest.raises(TypeError, match="can be replaced, not frac_coords"):
        described.replace(frac_coords=described.frac_coords)
    other = described.replace(elements=described.elements + 1)
    assert torch.equal(other.atomic_numbers, described.atomic_numbers + 1)
    assert torch.equal(other.frac_coords, described.frac_coords)


def test_atoms_follow_a_move_as_far_as_their_group_lets_them() -> None:
    crystals = general_and_special(SOME_GROUPS, seed=12)
    orbits = crystals.orbits
    move = 0.02 * torch.randn(crystals.frac_coords.shape, generator=make_generator(13), dtype=torch.float64)
    moved = crystals.moved_to(crystals.frac_coords + move)
    expected = orbits.push(orbits.pull(move))
    torch.testing.assert_close(wrap_displacement(moved.frac_coords - crystals.frac_coords), expected)
    # without symmetry they follow all the way
    free = without_symmetry(random_crystal())
    target = free.frac_coords + move[:5]
    torch.testing.assert_close(
        wrap_displacement(free.moved_to(target).frac_coords - target), torch.zeros(5, 3).double()
    )


def test_orbits_of_a_batch_are_those_it_was_made_from() -> None:
    crystals = general_and_special((2, 225), seed=14)
    again = Orbits(crystals.space_group, crystals.num_orbits, crystals.position)
    assert torch.equal(crystals.orbits.of_atom, again.of_atom)
    assert crystals.elements.tolist() == [26, 8, 26, 8]


# -- real crystals ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITINGS, ids=lambda write: write.__name__)
def test_real_crystals_have_one_description_however_they_are_written(shared_dir: Path, write: Writing) -> None:
    crystals = read_p1(shared_dir / "data" / "inorganic_20" / "val.csv.gz", 10_000)
    expected = describe(crystals)
    wrong = differing(describe(write(crystals, make_generator(15))), expected)
    # the tolerance decides for a few whose atoms lie as far off their places as it is large
    assert len(wrong) <= 0.01 * len(crystals), f"{len(wrong)} of {len(crystals)}: {wrong[:20]}"
