"""What a set of crystals keeps of a file, a batch and a list: order, names, numbers, a place for what is missing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.io import ReadError
from cdvae_kit.metrics.crystal_set import crystal_set, read_crystal_set

CIF = """data_salt
_cell_length_a 4.1
_cell_length_b 4.1
_cell_length_c 4.1
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Cs1 Cs 0 0 0
Cl1 Cl 0.5 0.5 {z}
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three rows; the second holds no crystal, the third one whose atoms lie on each other in part."""
    rows = ["material_id,gap,cif", f'first,6.3,"{CIF.format(z=0.5)}"', 'broken,1.0,"no crystal"']
    rows.append(f'third,,"{CIF.format(z=0.5).replace("0.5 0.5 0.5", "0.0 0.0 0.01")}"')
    path = tmp_path / "crystals.csv"
    path.write_text("\n".join(rows))
    return path


def test_a_record_without_a_crystal_keeps_its_place(table: Path) -> None:
    crystals = read_crystal_set(table)
    assert len(crystals) == 3 and crystals.num_unread == 1
    assert [crystal.fault is None for crystal in crystals.arrays] == [True, False, True]
    assert "could not be read" in (crystals.arrays[1].fault or "")
    assert (crystals.names[0], crystals.names[2]) == ("first", "third")


def test_properties_stand_beside_their_crystals(table: Path) -> None:
    np.testing.assert_array_equal(read_crystal_set(table).properties["gap"], [6.3, np.nan, np.nan])


def test_overlapping_atoms_are_read_as_they_are(table: Path) -> None:
    np.testing.assert_allclose(read_crystal_set(table).arrays[2].frac_coords[1], [0, 0, 0.01])


def test_strict_reading_stops_at_the_first_such_record(table: Path) -> None:
    with pytest.raises(ReadError, match="broken"):
        read_crystal_set(table, strict=True)


def test_a_batch_gives_the_same_set_as_its_structures(zoo: CrystalBatch) -> None:
    named = zoo.replace(properties={"gap": torch.arange(6.0)}, material_ids=list("abcdef"))
    from_batch, from_list = crystal_set(named), crystal_set(named.structures())
    assert list(from_batch.names) == list(from_list.names) == list("abcdef")
    np.testing.assert_array_equal(from_batch.properties["gap"], from_list.properties["gap"])
    for ours, theirs in zip(from_batch.arrays, from_list.arrays, strict=True):
        np.testing.assert_allclose(ours.frac_coords, theirs.frac_coords)


def test_a_set_is_left_as_it_is(zoo: CrystalBatch) -> None:
    crystals = crystal_set(zoo)
    assert crystal_set(crystals) is crystals


def test_what_is_no_number_is_no_property() -> None:
    salt = Structure(Lattice.cubic(4.1), ["Cs"], [[0, 0, 0]], properties={"label": "a", "stable": True, "gap": 1})
    assert list(crystal_set([salt]).properties) == ["gap"]


def test_an_empty_list_is_an_empty_set() -> None:
    assert len(crystal_set([])) == 0
