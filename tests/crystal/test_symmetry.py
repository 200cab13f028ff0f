import numpy as np
import pytest
import spglib
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.conversion import structures_to_batch
from cdvae_kit.crystal.symmetry import crystal_system, niggli_reduce, settle_setting, space_group

CORNER, CENTRE = [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]
FACES = [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
KNOWN = {  # space group numbers: International Tables for Crystallography, volume A
    "rock salt": (Structure.from_spacegroup(225, Lattice.cubic(5.64), ["Na", "Cl"], [CORNER, CENTRE]), 225, "Fm-3m"),
    "perovskite": (Structure(Lattice.cubic(3.9), ["Ba", "Ti", *"OOO"], [CORNER, CENTRE, *FACES]), 221, "Pm-3m"),
    "rutile": (
        Structure.from_spacegroup(136, Lattice.tetragonal(4.6, 2.96), ["Ti", "O"], [CORNER, [0.305, 0.305, 0.0]]),
        136,
        "P4_2/mnm",
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_crystals_have_their_space_group(name: str) -> None:
    structure, number, symbol = KNOWN[name]
    found = space_group(structure)
    assert (found.number, found.symbol, found.reason) == (number, symbol, None)


def test_a_batch_is_answered_crystal_by_crystal_as_spglib_does(zoo: CrystalBatch) -> None:
    batch = structures_to_batch([*(known[0] for known in KNOWN.values()), *zoo.structures()])
    found = space_group(batch, symprec=0.01)
    expected = [
        spglib.get_symmetry_dataset((s.lattice.matrix, s.frac_coords, s.atomic_numbers), symprec=0.01).number
        for s in batch.structures()
    ]
    assert [group.number for group in found] == expected


def test_a_displaced_atom_lowers_the_symmetry_only_within_the_tolerance() -> None:
    structure = KNOWN["perovskite"][0].copy()
    structure.translate_sites([1], [0.005, 0.003, 0.001])
    assert space_group(structure, symprec=0.1).number == 221
    assert space_group(structure, symprec=0.001).number == 1


def test_a_search_that_fails_tells_its_reason() -> None:
    overlapping = Structure(Lattice.cubic(3.0), ["H", "H"], [[0, 0, 0], [0, 0, 0]])
    found = space_group(overlapping)
    assert found.number is None and found.symbol is None
    assert found.reason is not None and "no space group found at symprec 0.1" in found.reason


def test_the_reduced_cell_is_the_same_crystal_in_the_canonical_frame(zoo: CrystalBatch) -> None:
    change = np.array([[1, 3, 2], [0, 1, 4], [0, 0, 1]])
    for structure in zoo.structures():
        skewed = Structure(
            Lattice(change @ structure.lattice.matrix),
            structure.species,
            structure.cart_coords,
            coords_are_cartesian=True,
        )
        reduced = niggli_reduce(skewed)
        assert StructureMatcher(primitive_cell=False, scale=False).fit(reduced, structure)
        np.testing.assert_allclose(reduced.volume, structure.volume)
        np.testing.assert_allclose(
            reduced.lattice.matrix, Lattice.from_parameters(*reduced.lattice.parameters).matrix, atol=1e-6
        )
        assert max(reduced.lattice.abc) <= max(skewed.lattice.abc)


def test_a_turned_crystal_has_the_same_reduced_cell(zoo: CrystalBatch) -> None:
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    turn = turn * torch.linalg.det(turn).sign()
    turned = zoo.replace(lattice=zoo.lattice @ turn)
    assert not torch.allclose(turned.lattice, zoo.lattice)
    for before, after in zip(zoo.structures(), turned.structures(), strict=True):
        np.testing.assert_allclose(niggli_reduce(before).lattice.matrix, niggli_reduce(after).lattice.matrix, atol=1e-6)


def test_reduction_keeps_properties() -> None:
    structure = KNOWN["rutile"][0].copy(properties={"energy": -1.0, "material_id": "r"})
    assert niggli_reduce(structure).properties == {"energy": -1.0, "material_id": "r"}


def test_crystal_systems_are_those_of_the_tables() -> None:
    from pymatgen.symmetry.groups import SpaceGroup as TabulatedGroup

    for number in range(1, 231):
        assert crystal_system(number) == TabulatedGroup.from_int_number(number).crystal_system


@pytest.mark.parametrize("number", [0, 231])
def test_there_are_230_space_groups(number: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 230"):
        crystal_system(number)


SETTINGS = [[[0, 1, 0], [0, 0, 1], [1, 0, 0]], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]]


@pytest.mark.parametrize("change", SETTINGS)
def test_every_setting_of_a_cubic_cell_comes_to_the_same(change: list[list[int]]) -> None:
    numbers = [56, 22, 8, 8, 8]
    coords = np.array([CORNER, CENTRE, *FACES]) + 0.03 * np.random.default_rng(0).standard_normal((5, 3))
    given = Structure(Lattice.cubic(4.0), numbers, coords)
    turned = Structure(Lattice.cubic(4.0), numbers, coords @ np.linalg.inv(np.array(change)) + [0.3, 0.1, 0.2])
    one, other = settle_setting(given), settle_setting(turned)
    moved = other.frac_coords - one.frac_coords
    assert np.allclose((moved - moved[0] + 0.5) % 1.0, 0.5, atol=1e-9)
    # as they came they differ by more than an origin
    moved = turned.frac_coords - given.frac_coords
    assert not np.allclose((moved - moved[0] + 0.5) % 1.0, 0.5, atol=1e-2)


def test_settling_keeps_the_crystal(zoo: CrystalBatch) -> None:
    for structure in map(niggli_reduce, zoo.structures()):
        settled = settle_setting(structure)
        assert StructureMatcher(primitive_cell=False, scale=False).fit(structure, settled)
        assert settled.lattice == structure.lattice and settled.species == structure.species
        assert np.allclose(settled.distance_matrix, structure.distance_matrix, atol=1e-6)


def test_a_cell_without_ties_is_left_as_it_is() -> None:
    structure = Structure(
        Lattice.from_parameters(3.0, 4.0, 5.0, 80.0, 85.0, 75.0), ["Na", "Cl"], [CORNER, [0.4, 0.5, 0.6]]
    )
    assert np.allclose(settle_setting(structure).frac_coords, structure.frac_coords)
