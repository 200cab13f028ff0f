import logging
import math

import numpy as np
import pytest
import torch
from ase import Atoms
from pymatgen.core import Lattice, Molecule, Structure
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.conversion import (
    atoms_to_batch,
    batch_to_atoms,
    batch_to_structures,
    check_crystal,
    structures_to_batch,
)
from cdvae_kit.crystal.errors import (
    CrystalError,
    DisorderedSiteError,
    EmptyCrystalError,
    MissingCellError,
    NonFiniteError,
    OverlappingAtomsError,
    TooManyAtomsError,
    UnknownElementError,
)
from cdvae_kit.crystal.faults import crystal_faults

CONVERSIONS = {
    "pymatgen": (batch_to_structures, structures_to_batch),
    "ase": (batch_to_atoms, atoms_to_batch),
}
NAMES = ["one", "needle", "", "plate", "many", "He beside Pu"]


@pytest.fixture
def named_zoo(zoo: CrystalBatch) -> CrystalBatch:
    energy = torch.tensor([-1.25, math.pi, float("nan"), 0.0, 1e-9, -1e6], dtype=torch.float64)
    return zoo.replace(properties={"energy": energy, "gap": energy.flip(0).exp()}, material_ids=NAMES)


def cubic(**changes: object) -> Structure:
    arguments = {"lattice": Lattice.cubic(4.0), "species": ["Na", "Cl"], "coords": [[0, 0, 0], [0.5, 0.5, 0.5]]}
    return Structure(**{**arguments, **changes})


def frac_difference(first: Tensor, second: Tensor) -> float:
    difference = first - second
    return float((difference - difference.round()).abs().max())


@pytest.mark.parametrize("library", CONVERSIONS)
def test_a_batch_comes_back_from_other_libraries_as_it_was(named_zoo: CrystalBatch, library: str) -> None:
    there, back = CONVERSIONS[library]
    again = back(there(named_zoo), dtype=torch.float64)
    assert torch.equal(again.lattice, named_zoo.lattice)
    assert frac_difference(again.frac_coords, named_zoo.frac_coords) < 1e-12
    assert torch.equal(again.atomic_numbers, named_zoo.atomic_numbers)
    assert torch.equal(again.num_atoms, named_zoo.num_atoms)
    assert again.material_ids == NAMES
    assert set(again.properties) == {"energy", "gap"}
    for name, values in named_zoo.properties.items():
        torch.testing.assert_close(again.properties[name], values, rtol=0.0, atol=0.0, equal_nan=True)


def test_a_changed_coordinate_would_be_seen(named_zoo: CrystalBatch) -> None:
    structures = batch_to_structures(named_zoo)
    structures[4].translate_sites([7], [1e-9, 0.0, 0.0])
    again = structures_to_batch(structures, dtype=torch.float64)
    assert frac_difference(again.frac_coords, named_zoo.frac_coords) > 1e-10


def test_structures_come_back_as_they_were() -> None:
    structure = Structure(
        Lattice([[3.1, 0.2, -0.3], [0.1, 4.2, 0.7], [-1.0, 0.3, 5.9]]),
        ["Ti", "O", "O"],
        [[0.1, 0.2, 0.3], [0.75, 0.5, 0.25], [0.9, 0.05, 0.6]],
        properties={"energy": -3.5, "material_id": "x-1"},
    )
    (again,) = batch_to_structures(structures_to_batch([structure], dtype=torch.float64))
    np.testing.assert_array_equal(again.lattice.matrix, structure.lattice.matrix)
    np.testing.assert_allclose(again.frac_coords, structure.frac_coords, atol=1e-12)
    assert again.species == structure.species
    assert again.properties == structure.properties


def test_atoms_come_back_as_they_were() -> None:
    cell = np.array([[3.1, 0.2, -0.3], [0.1, 4.2, 0.7], [-1.0, 0.3, -5.9]])
    atoms = Atoms("TiO2", scaled_positions=[[0.1, 0.2, 0.3], [0.75, 0.5, 0.25], [0.9, 0.05, 0.6]], cell=cell, pbc=True)
    atoms.info = {"energy": -3.5, "material_id": "x-1"}
    (again,) = batch_to_atoms(atoms_to_batch([atoms], dtype=torch.float64))
    np.testing.assert_array_equal(again.cell.array, cell)
    np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-12)
    assert again.numbers.tolist() == atoms.numbers.tolist()
    assert again.pbc.all()
    assert again.info == atoms.info


def test_both_libraries_see_the_same_crystal(zoo: CrystalBatch) -> None:
    for structure, atoms in zip(zoo.structures(), zoo.atoms(), strict=True):
        np.testing.assert_allclose(structure.cart_coords, atoms.positions, atol=1e-12)
        np.testing.assert_array_equal(structure.lattice.matrix, atoms.cell.array)


def test_positions_far_from_the_cell_come_back_inside_it_without_loss() -> None:
    far = cubic(coords=[[1000.1, -7.25, 0.0], [0.5, 0.5, 0.5]])
    batch = structures_to_batch([far])
    torch.testing.assert_close(batch.frac_coords[0], torch.tensor([0.1, 0.75, 0.0]), atol=1e-7, rtol=0.0)


def test_float32_is_the_default_and_float64_is_kept_on_request() -> None:
    assert structures_to_batch([cubic()]).lattice.dtype == torch.float32
    assert structures_to_batch([cubic()], dtype=torch.float64).frac_coords.dtype == torch.float64


def test_oxidation_states_become_elements() -> None:
    assert structures_to_batch([cubic(species=["Na+", "Cl-"])]).atomic_numbers.tolist() == [11, 17]


def test_given_names_and_properties_win_over_those_of_the_structures() -> None:
    structure = cubic(properties={"energy": 1.0, "gap": 2.0, "material_id": "old"})
    batch = structures_to_batch([structure], material_ids=["new"], properties={"energy": [3.0]})
    assert batch.material_ids == ["new"]
    assert {name: values.tolist() for name, values in batch.properties.items()} == {"energy": [3.0], "gap": [2.0]}


def test_a_property_that_some_crystals_lack_is_nan_in_them_and_is_not_written_back() -> None:
    batch = structures_to_batch([cubic(properties={"gap": 2}), cubic()])
    assert batch.properties["gap"].isnan().tolist() == [False, True]
    assert [s.properties for s in batch_to_structures(batch)] == [{"gap": 2.0}, {}]


def test_properties_that_are_no_numbers_are_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cdvae_kit"):
        batch = structures_to_batch([cubic(properties={"note": "cubic", "stable": True, "gap": np.float32(1.5)})])
    assert set(batch.properties) == {"gap"}
    assert "note, stable" in caplog.text


def test_no_structures_make_an_empty_batch() -> None:
    batch = structures_to_batch([])
    assert len(batch) == 0 and batch.material_ids is None
    assert batch_to_structures(batch) == batch_to_atoms(batch) == []


def ase_crystal(**changes: object) -> Atoms:
    return Atoms(**{"symbols": "NaCl", "positions": [[0, 0, 0], [2, 2, 2]], "cell": [4, 4, 4], "pbc": True, **changes})


def half_filled() -> Atoms:
    atoms = ase_crystal(info={"occupancy": {"0": {"Na": 0.5, "K": 0.5}, "1": {"Cl": 1.0}}})
    atoms.set_array("spacegroup_kinds", np.array([0, 1]))
    return atoms


FAULTY = {
    "shared site": (cubic(species=[{"Na": 0.5, "K": 0.5}, "Cl"]), DisorderedSiteError, "1 of 2 sites"),
    "half empty site": (cubic(species=[{"Na": 0.5}, "Cl"]), DisorderedSiteError, "order the structure"),
    "shared site of ASE": (half_filled(), DisorderedSiteError, "order the structure"),
    "dummy species": (cubic(species=["Na", "X"]), UnknownElementError, "expected elements 1 to 118"),
    "number 0": (ase_crystal(symbols="NaX"), UnknownElementError, r"got \[0\]"),
    "number 119": (ase_crystal(symbols=None, numbers=[11, 119]), UnknownElementError, r"got \[119\]"),
    "molecule": (Molecule(["H"], [[0, 0, 0]]), MissingCellError, "Molecule"),
    "slab": (cubic(lattice=Lattice(4 * np.eye(3), pbc=(True, True, False))), MissingCellError, "three axes"),
    "no cell": (ase_crystal(cell=None, pbc=False), MissingCellError, "set atoms.cell"),
    "not periodic": (ase_crystal(pbc=[True, True, False]), MissingCellError, "True, True, False"),
    "flat cell": (ase_crystal(cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]]), MissingCellError, "no volume"),
    "NaN coordinate": (cubic(coords=[[0, 0, float("nan")], [0.5, 0.5, 0.5]]), NonFiniteError, "NaN or infinite"),
    "infinite position": (ase_crystal(positions=[[0, 0, math.inf], [2, 2, 2]]), NonFiniteError, "NaN or infinite"),
    "NaN cell": (ase_crystal(cell=[4, 4, float("nan")]), NonFiniteError, "NaN or infinite"),
    "no atoms": (ase_crystal(symbols="", positions=np.zeros((0, 3))), EmptyCrystalError, "at least one atom"),
    "overlapping": (cubic(coords=[[0, 0, 0], [0.99, 0, 0]]), OverlappingAtomsError, "0.040 angstrom"),
    "on its own image": (
        ase_crystal(symbols="H", positions=[[0, 0, 0]], cell=[4, 4, 0.3]),
        OverlappingAtomsError,
        "0.300",
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_each_fault_has_its_own_error(name: str) -> None:
    crystal, error, message = FAULTY[name]
    with pytest.raises(error, match=message):
        check_crystal(crystal)
    assert issubclass(error, CrystalError) and issubclass(error, ValueError)


@pytest.mark.parametrize("name", [name for name in FAULTY if "overlap" not in name and "image" not in name])
def test_conversion_names_the_first_crystal_that_it_cannot_take(name: str) -> None:
    crystal, error, _ = FAULTY[name]
    convert, good = (atoms_to_batch, ase_crystal()) if isinstance(crystal, Atoms) else (structures_to_batch, cubic())
    with pytest.raises(error, match="crystal 1: "):
        convert([good, crystal])


def test_more_atoms_than_are_taken_are_an_error() -> None:
    check_crystal(cubic(), max_atoms=2)
    with pytest.raises(TooManyAtomsError, match="2 atoms in the cell, at most 1"):
        check_crystal(cubic(), max_atoms=1)


def test_a_smaller_least_distance_takes_what_the_default_refuses() -> None:
    crystal = FAULTY["overlapping"][0]
    check_crystal(crystal, min_distance=0.03)
    check_crystal(crystal, min_distance=None)


def test_good_crystals_pass(zoo: CrystalBatch) -> None:
    for crystal in (cubic(), ase_crystal(), *zoo.select([0, 1, 3, 5]).structures()):
        check_crystal(crystal, max_atoms=20, min_distance=0.1)


def test_the_faults_of_a_batch_are_told_one_by_one_and_none_is_raised(zoo: CrystalBatch) -> None:
    lattice, coords = zoo.lattice.clone(), zoo.frac_coords.clone()
    lattice[0, 0] = float("nan")
    lattice[1, 2] = lattice[1, 0] + lattice[1, 1]
    coords[3] = coords[4]
    faults = crystal_faults(zoo.replace(lattice=lattice, frac_coords=coords), max_atoms=20, min_distance=0.1)
    assert [type(fault) for fault in faults] == [
        NonFiniteError,
        MissingCellError,
        OverlappingAtomsError,
        type(None),
        TooManyAtomsError,
        type(None),
    ]
