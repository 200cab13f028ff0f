"""Every format is read, and every bad record is listed with its own reason while the others come through."""

import contextlib
import gzip
import json
import os
import sqlite3
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.faults import CellLimits, cell_limits
from cdvae_kit.crystal.lattice import lattice_parameters, wrap_displacement
from cdvae_kit.io import ReadError, read_crystals, write_crystals
from cdvae_kit.io.crystals.limits import bytes_limit
from tests.io.test_writing import assert_same_crystals, salt

SALT_CIF = """# made by hand
data_{name}
_cell_length_a {a}
_cell_length_b 4.12(3)
_cell_length_c 4.12
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{first}
Cl1 Cl 0.5 0.5 0.5 1
"""
GOOD = "Cs1 Cs 0 0 0 1"
ROCK_SALT_CIF = """data_NaCl
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na1+ 0 0 0
Cl1 Cl1- 0.5 0.5 0.5
"""


def salt_cif(name: str = "salt", first: str = GOOD, a: str = "4.12") -> str:
    return SALT_CIF.format(name=name, first=first, a=a)


BAD_CIFS = {
    "disordered": (salt_cif(first="Cs1 Cs 0 0 0 0.5"), r"1 of 2 sites are disordered \(the first: Cs 0\.5\)"),
    "unknown": (salt_cif(first="Cs1 Qq 0 0 0 1"), "expected elements 1 to 118, got 'Qq'"),
    "ghost": (salt_cif(first="Bq1 Bq 0 0 0 1"), "expected elements 1 to 118, got 'Bq'"),
    "ghost_in_symmetry": (ROCK_SALT_CIF.replace("Na1+", "Bq"), "expected elements 1 to 118, got 'Bq'"),
    "nan": (salt_cif(first="Cs1 Cs nan 0 0 1"), "NaN or infinite"),
    "question": (salt_cif(first="Cs1 Cs ? 0 0 1"), r"atom Cs1 has no coordinates \(\? 0 0\)"),
    "infinite": (salt_cif(a="inf"), "NaN or infinite"),
    "overlap": (salt_cif(first="Cs1 Cs 0.5 0.5 0.51 1"), r"shortest distance between atoms is 0\.041 angstrom"),
    "twice": (salt_cif(first="Cl2 Cl 0.5 0.5 0.5 1"), r"shortest distance between atoms is 0\.000 angstrom"),
    "twice_in_symmetry": (
        ROCK_SALT_CIF + "Cl2 Cl1- 0.5 0.5 0.5\n",
        "several atoms stand on one site: the sites Cl1 and Cl2",
    ),
    "no_cell": ("\n".join(x for x in salt_cif().splitlines() if "_cell" not in x), "the CIF gives no cell"),
    "half_a_cell": (salt_cif().replace("_cell_length_b", "_cell_longth_b"), "cell is incomplete: _cell_length_b"),
    "flat": (salt_cif(a="0"), "the cell has no volume"),
    "no_atoms": (salt_cif().split("loop_")[0], "lists no atom"),
    "no_places": (salt_cif().replace("fract_x", "cartn_x"), "no fractional coordinates: _atom_site_fract_x"),
    "words": (salt_cif(first="Cs1 Cs zero 0 0 1"), "atom Cs1, _atom_site_fract_x: expected a number, got 'zero'"),
    "short_row": (salt_cif(first="Cs1 Cs 0 0"), "is no CIF at line 10: Wrong number of values in loop"),
    "hydrogens": (
        salt_cif(first="O1 O 0 0 0 1").replace("_occupancy", "_attached_hydrogens"),
        "hydrogen atoms are counted but have no positions",
    ),
    "many": (ROCK_SALT_CIF.replace("'F m -3 m'", "'F d -3 m :1'"), r"\d+ atoms in the cell, at most 8 are taken"),
    "empty": ("", "holds no CIF data block"),
    "prose": ("Dear editor,\nplease find the crystal attached.\n", "holds no CIF data block"),
}


def read_text_file(tmp_path: Path, text: str, name: str = "c.cif", **options):
    (tmp_path / name).write_text(text)
    return read_crystals(tmp_path / name, **options)


@pytest.mark.parametrize("fault", BAD_CIFS)
def test_each_fault_of_a_cif_has_its_own_message(tmp_path: Path, fault: str) -> None:
    text, message = BAD_CIFS[fault]
    with pytest.raises(ReadError, match=message):
        read_text_file(tmp_path, text, max_atoms=8)


def test_bad_records_do_not_stop_the_others(tmp_path: Path) -> None:
    for name, (text, _) in BAD_CIFS.items():
        (tmp_path / f"{name}.cif").write_text(text)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "good.cif").write_text(salt_cif())
    (tmp_path / "good.cif").write_text(salt_cif())
    result = read_crystals(tmp_path, max_atoms=8)
    assert sorted(result.crystals.material_ids) == ["deeper/good", "good"]
    assert result.num_records == len(BAD_CIFS) + 2
    assert sorted(Path(failure.source).stem for failure in result.failures) == sorted(BAD_CIFS)
    assert len({failure.reason for failure in result.failures}) >= 12
    with pytest.raises(ReadError, match=r"disordered\.cif: 1 of 2 sites are disordered"):
        read_crystals(tmp_path / "disordered.cif", strict=True)
    with pytest.raises(ReadError, match="strict reading stops at the first bad record"):
        read_crystals(tmp_path, strict=True)


def test_reading_prints_and_warns_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = ROCK_SALT_CIF + "\n" + salt_cif()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_text_file(tmp_path, text)
    assert capfd.readouterr() == ("", "")


def test_a_cif_comes_back_as_it_is_written(tmp_path: Path) -> None:
    crystals = read_text_file(
        tmp_path, salt_cif(first="Cs1 Cs3+ -0.25 1.33331 0.66668 ."), dtype=torch.float64
    ).crystals
    assert crystals.atomic_numbers.tolist() == [55, 17]
    expected = torch.tensor([[0.75, 0.33331, 0.66668], [0.5, 0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(crystals.frac_coords, expected)
    assert lattice_parameters(crystals.lattice)[0].tolist() == [[4.12, 4.12, 4.12]]


def test_deuterium_is_hydrogen(tmp_path: Path) -> None:
    assert read_text_file(tmp_path, salt_cif(first="D1 D 0 0 0 1")).crystals.atomic_numbers.tolist() == [1, 17]


@pytest.mark.parametrize(
    "group",
    [
        "_symmetry_space_group_name_H-M 'F m -3 m'",
        "_symmetry_space_group_name_H_M 'F m -3 m'",
        "_space_group_name_H-M_alt 'F m -3 m'",
        "_symmetry_Int_Tables_number 225",
        "_space_group_IT_number 225",
        "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx,y+1/2,z+1/2\nx+1/2,y,z+1/2\nx+1/2,y+1/2,z",
        "loop_\n_space_group_symop_operation_xyz\nx,y,z\nx,y+1/2,z+1/2\nx+1/2,y,z+1/2\nx+1/2,y+1/2,z",
    ],
)
def test_symmetry_operations_are_applied(tmp_path: Path, group: str) -> None:
    text = ROCK_SALT_CIF.replace("_symmetry_space_group_name_H-M 'F m -3 m'", group)
    crystals = read_text_file(tmp_path, text).crystals
    assert sorted(crystals.atomic_numbers.tolist()) == [11] * 4 + [17] * 4


def test_a_cif_without_symmetry_holds_what_it_lists(tmp_path: Path) -> None:
    bare = ROCK_SALT_CIF.replace("_symmetry_space_group_name_H-M 'F m -3 m'\n", "")
    for group in ("", "_symmetry_space_group_name_H-M 'P 1'\n", "_symmetry_equiv_pos_as_xyz '+x, +y, +z'\n"):
        text = bare.replace("loop_", group + "loop_", 1)
        assert read_text_file(tmp_path, text).crystals.atomic_numbers.tolist() == [11, 17]


def test_blocks_of_one_file_are_read_apart(tmp_path: Path) -> None:
    journal = "data_global\n_publ_contact_author\n;\ndata_not_a_block\n;\n"
    noted = salt_cif("same").replace("loop_", "_publ_section_comment\n;\ndata_ and more\n;\nloop_")
    text = journal + noted + salt_cif("same", first="Rb1 Rb 0 0 0 1") + salt_cif("bad", a="x")
    result = read_text_file(tmp_path, text)
    assert result.crystals.material_ids == ["same", "same"]
    assert result.crystals.atomic_numbers.tolist() == [55, 17, 37, 17]
    assert [failure.record for failure in result.failures] == ["block data_bad"]


def test_plain_cifs_agree_with_pymatgen_on_real_crystals(shared_dir: Path) -> None:
    import pandas
    from pymatgen.io.cif import CifParser

    path = shared_dir / "data" / "inorganic_20" / "test.csv.gz"
    result = read_crystals(path, dtype=torch.float64, strict=True)
    cifs = pandas.read_csv(path)["cif"]
    for i in range(0, len(cifs), 12):
        ours = result.crystals.select([i])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = CifParser.from_str(cifs[i], frac_tolerance=0).parse_structures(primitive=False)[0]
        np.testing.assert_allclose(ours.lattice[0], theirs.lattice.matrix, atol=1e-6)
        # pymatgen sorts atoms by element
        distances = theirs.lattice.get_all_distances(ours.frac_coords.numpy(), theirs.frac_coords)
        assert distances.min(axis=1).max() < 1e-5
        matched = np.array(theirs.atomic_numbers)[distances.argmin(axis=1)]
        assert matched.tolist() == ours.atomic_numbers.tolist()


def test_cdvae_tables_are_read_with_their_properties(shared_dir: Path) -> None:
    result = read_crystals(shared_dir / "data" / "perov_5" / "test.csv.gz")
    assert (len(result.crystals), result.failures) == (3785, [])
    assert set(result.crystals.properties) == {"heat_all", "heat_ref", "dir_gap", "ind_gap"}
    assert set(result.crystals.num_atoms.tolist()) == {5}
    assert bool(torch.isfinite(result.crystals.properties["heat_ref"]).all())


def test_pymatgen_json_of_the_parity_set_is_read(shared_dir: Path) -> None:
    from pymatgen.core import Structure

    path = shared_dir / "reference" / "metrics" / "perov_a.structures.json.gz"
    result = read_crystals(path, dtype=torch.float64)
    content = json.loads(gzip.decompress(path.read_bytes()))
    assert result.num_records == len(content["reference"]) + len(content["generated"])
    assert result.crystals.material_ids[0] == "reference-0"
    for i in (0, 77, 149):
        theirs, ours = Structure.from_dict(content["reference"][i]), result.crystals.select([i])
        np.testing.assert_allclose(ours.lattice[0], theirs.lattice.matrix)
        moved = wrap_displacement(ours.frac_coords - torch.from_numpy(theirs.frac_coords))
        assert float(moved.abs().max()) < 1e-9


def test_workers_change_nothing_but_the_time(tmp_path: Path) -> None:
    table = ["material_id,cif,energy"]
    for i in range(140):
        a = "bad" if i % 50 == 7 else f"{4 + i / 100}"
        table.append(f'id{i},"{salt_cif(a=a)}",{i}')
    (tmp_path / "t.csv").write_text("\n".join(table))
    seen: list[tuple[int, int | None]] = []
    alone = read_crystals(tmp_path / "t.csv")
    together = read_crystals(tmp_path / "t.csv", num_workers=2, progress=lambda done, total: seen.append((done, total)))
    assert (
        together.crystals.material_ids == alone.crystals.material_ids == [f"id{i}" for i in range(140) if i % 50 != 7]
    )
    assert torch.equal(together.crystals.lattice, alone.crystals.lattice)
    assert together.failures == alone.failures and len(alone.failures) == 3
    assert together.failed_at == alone.failed_at == (7, 57, 107)
    with pytest.raises(ReadError, match=r"row 8 \(id7\)"):
        read_crystals(tmp_path / "t.csv", num_workers=2, strict=True)
    assert seen[0] == (0, 140) and seen[-1] == (140, 140) and seen == sorted(seen)


def test_niggli_reduction_gives_the_reduced_cell_in_its_standard_frame(tmp_path: Path) -> None:
    skewed = CrystalBatch(
        torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], dtype=torch.float64),
        torch.tensor([[[4.0, 0, 0], [12.0, 4, 0], [0, 0, 4]]], dtype=torch.float64),
        torch.tensor([55, 17]),
        torch.tensor([2]),
        properties={"energy": torch.tensor([2.0]).double()},
        material_ids=["skewed"],
    )
    from cdvae_kit.io import write_crystals

    write_crystals(skewed, tmp_path / "s.parquet")
    plain = read_crystals(tmp_path / "s.parquet", dtype=torch.float64).crystals
    reduced = read_crystals(tmp_path / "s.parquet", reduce="niggli", dtype=torch.float64).crystals
    assert torch.equal(plain.lattice, skewed.lattice)
    torch.testing.assert_close(reduced.lattice[0], 4 * torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert reduced.material_ids == ["skewed"] and reduced.properties["energy"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("1\nProperties=species:S:1:pos:R:3\nCs 0 0 0\n", "the frame has no cell"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T F"\nCs 0 0 0\n', "repeats along three axes"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4"\nXx 0 0 0\n', r"expected elements 1 to 118, got \['Xx'\]"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4"\nQq 0 0 0\n', r"expected elements 1 to 118, got \['Qq'\]"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4"\nCs nan 0 0\n', "NaN or infinite"),
        ('2\nLattice="4 0 0 0 4 0 0 0 4"\nCs 0 0 0\nCl 0 0 4.01\n', r"is 0\.010 angstrom"),
        ('1\nLattice="4 0 0 4 0 0 0 0 4"\nCs 0 0 0\n', "no volume"),
        ('1\nLattice="4 0 0 0 4"\nCs 0 0 0\n', r"expected 9 numbers as Lattice"),
        ('3\nLattice="4 0 0 0 4 0 0 0 4"\nCs 0 0 0\n', "expected 3 lines of atoms .* got 1"),
        (
            'one\nLattice="4 0 0 0 4 0 0 0 4"\nCs 0 0 0\n',
            "expected a number of atoms, an integer up to 10000000, got 'one'",
        ),
        ('0\nLattice="4 0 0 0 4 0 0 0 4"\n', "expected at least one atom"),
    ],
)
def test_a_bad_frame_does_not_hide_the_next_one(tmp_path: Path, frame: str, message: str) -> None:
    good = '1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 energy={i} flag=T\nPo 1 5 -1\n'
    result = read_text_file(tmp_path, good.format(i=1) + frame + good.format(i=2), "c.extxyz")
    assert result.crystals.properties["energy"].tolist() == [1.0, 2.0]
    assert set(result.crystals.properties) == {"energy"}
    (failure,) = result.failures
    assert failure.record.startswith("frame 1 (line 4)")
    with pytest.raises(ReadError, match=message):
        read_text_file(tmp_path, frame, "bad.extxyz")


def test_a_crystal_with_its_own_image_too_near_overlaps(tmp_path: Path) -> None:
    thin = '1\nLattice="0.05 0 0 0 4 0 0 0 4"\nCs 0 0 0\n'
    with pytest.raises(ReadError, match=r"0\.050 angstrom"):
        read_text_file(tmp_path, thin, "c.xyz")
    assert len(read_text_file(tmp_path, thin, "c.xyz", min_distance=None).crystals) == 1


def test_large_cells_are_checked_for_overlaps_too(tmp_path: Path) -> None:
    grid = np.stack(np.meshgrid(*[np.arange(11)] * 3), axis=-1).reshape(-1, 3) * 3.0
    head = f'{len(grid)}\nLattice="33 0 0 0 33 0 0 0 33"\n'
    good = head + "".join(f"Po {x} {y} {z}\n" for x, y, z in grid)
    grid[700] = grid[3] + 0.03
    bad = head + "".join(f"Po {x} {y} {z}\n" for x, y, z in grid)
    result = read_text_file(tmp_path, good + bad, "c.extxyz")
    assert len(result.crystals) == 1
    assert "is 0.052 angstrom" in result.failures[0].reason
    with pytest.raises(ReadError, match="1331 atoms in the cell, at most 20"):
        read_text_file(tmp_path, good, "c.extxyz", max_atoms=20)


def test_poscars_are_read_by_their_names(tmp_path: Path) -> None:
    poscar = "salt\n1.0\n4 0 0\n0 4 0\n0 0 4\nCs Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
    nameless = poscar.replace("Cs Cl\n", "").replace("salt", "no elements here")
    for name, text in {"a/POSCAR": poscar, "b/CONTCAR": poscar, "c.vasp": poscar, "POSCAR_old": nameless}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    result = read_crystals(tmp_path)
    assert sorted(result.crystals.material_ids) == ["a/POSCAR", "b/CONTCAR", "c"]
    assert [failure.reason[:35] for failure in result.failures] == ["the POSCAR names no elements (VASP "]
    assert_same_crystals(salt(), read_crystals(tmp_path / "a" / "POSCAR", dtype=torch.float64).crystals)
    with pytest.raises(ReadError, match="expected 2 lines of positions, got 0"):
        read_text_file(tmp_path, poscar[:40], "POSCAR")


def test_archives_are_read_member_by_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("b/one.cif", salt_cif())
        archive.writestr("a/two.cif.gz", gzip.compress(salt_cif("x").encode()))
        archive.writestr("a/cut.cif.gz", gzip.compress(salt_cif("x").encode())[:60])
        archive.writestr("__MACOSX/b/._one.cif", b"\x00\x05")
        archive.writestr("read me.txt", "hello")
    result = read_crystals(tmp_path / "z.zip")
    assert result.crystals.material_ids == ["a/two", "b/one"]
    assert "truncated gzip" in result.failures[0].reason and result.failures[0].source.endswith("z.zip:a/cut.cif.gz")
    whole = (tmp_path / "z.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:200])
    with pytest.raises(ReadError, match="is not a zip archive, or a damaged one"):
        read_crystals(tmp_path / "cut.zip")
    # the version of the format that a member of the directory at the end needs
    place = whole.index(b"PK\x01\x02") + 6
    (tmp_path / "new.zip").write_bytes(whole[:place] + b"\x88" + whole[place + 1 :])
    with pytest.raises(ReadError, match=r"is not a zip archive, or a damaged one \(zip file version 13.6"):
        read_crystals(tmp_path / "new.zip")


def test_ase_databases_give_their_pairs_as_properties(tmp_path: Path) -> None:
    import ase.db
    from ase.build import bulk, molecule
    from ase.calculators.singlepoint import SinglePointCalculator

    for name in ("c.db", "c.json"):
        copper = bulk("Cu")
        copper.calc = SinglePointCalculator(copper, energy=-3.7)
        with ase.db.connect(tmp_path / name) as database:
            database.write(copper, gap=0.5, label="fcc", material_id="cu")
            database.write(molecule("H2O"))
            database.write(bulk("Fe"), relaxed=True)
        result = read_crystals(tmp_path / name)
        assert result.crystals.material_ids == ["cu", "c-3"]
        assert set(result.crystals.properties) == {"gap", "energy"}
        assert result.crystals.properties["energy"][0] == pytest.approx(-3.7)
        assert bool(result.crystals.properties["gap"][1].isnan())
        assert "repeats along three axes" in result.failures[0].reason


def test_broken_rows_of_a_table_are_listed(tmp_path: Path) -> None:
    rows = [
        ",material_id,cif,heat,formula,empty",
        f'0,a,"{salt_cif()}",1.5,CsCl,',
        f'1,b,"{salt_cif()}",,InF,',
        '2,c,"no crystal",2.5,NaN,',
        f'3,d,"{salt_cif()}",oops,InF,',
        "4,e",
        f'5,f,"{salt_cif()}",inf,InF,',
    ]
    result = read_text_file(tmp_path, "\n".join(rows), "t.csv", dtype=torch.float64)
    assert result.crystals.material_ids == ["a", "b", "d", "f"]
    assert [failure.record for failure in result.failures] == ["row 3 (c)", "row 5"]
    assert set(result.crystals.properties) == {"heat"}
    heat = result.crystals.properties["heat"]
    assert heat[0] == 1.5 and heat[1:3].isnan().all() and heat[3] == float("inf")


def test_a_table_that_breaks_off_is_a_failure_of_its_last_row(tmp_path: Path) -> None:
    text = f'material_id,cif\na,"{salt_cif()}"\nb,"{salt_cif()[:80]}'
    result = read_text_file(tmp_path, text, "t.csv")
    assert result.crystals.material_ids == ["a"]
    assert result.failures[0].record == "row 2 and all after it"
    assert "may be truncated" in result.failures[0].reason


def test_a_cell_of_a_table_may_be_long(tmp_path: Path) -> None:
    text = f'material_id,cif\na,"{salt_cif()}{"# a comment" * 20_000}"\n'
    assert len(read_text_file(tmp_path, text, "t.csv").crystals) == 1


def test_another_column_can_hold_the_names(tmp_path: Path) -> None:
    text = f'id,cif\na,"{salt_cif()}"\n'
    assert read_text_file(tmp_path, text, "t.csv", id_column="id").crystals.material_ids == ["a"]
    assert read_text_file(tmp_path, text, "t.csv").crystals.material_ids == ["t-1"]
    with pytest.raises(ReadError, match="has no column 'name'; its columns are 'id', 'cif'"):
        read_text_file(tmp_path, text, "t.csv", id_column="name")


def test_json_faults_are_told_by_their_place(tmp_path: Path) -> None:
    (good,) = (s.as_dict() for s in salt().structures())
    shared = json.loads(json.dumps(good))
    shared["sites"][0]["species"] = [{"element": "Cs", "occu": 0.5}, {"element": "Rb", "occu": 0.5}]
    boxless = {**good, "lattice": None}
    odd = json.loads(json.dumps(good))
    odd["sites"][0]["species"][0]["element"] = "X"
    text = json.dumps([good, shared, boxless, odd, {"sites": 3, "lattice": good["lattice"]}, 5])
    result = read_text_file(tmp_path, text, "s.json")
    assert [failure.record[:3] for failure in result.failures] == ["[1]", "[2]", "[3]", "[4]", "[5]"]
    for failure, message in zip(
        result.failures,
        (
            "it holds Cs 0.5, Rb 0.5",
            "no lattice matrix",
            "got 'X'",
            "expected a list as sites, got 3",
            "expected a structure",
        ),
        strict=True,
    ):
        assert message in failure.reason
    one = read_text_file(tmp_path, json.dumps(good), "one.json", dtype=torch.float64)
    assert_same_crystals(salt(), one.crystals)
    entry = {"material_id": "mp-1", "structure": good, "gap": 1.5}
    entries = read_text_file(tmp_path, json.dumps([entry]), "entries.json").crystals
    assert entries.material_ids == ["mp-1"] and entries.properties["gap"].tolist() == [1.5]


def test_json_never_builds_the_classes_that_it_names(tmp_path: Path) -> None:
    (good,) = (s.as_dict() for s in salt().structures())
    trap = {"@module": "subprocess", "@class": "Popen", "args": ["touch", str(tmp_path / "exploded")]}
    good["sites"][0]["properties"] = {"trap": trap}
    good["properties"]["trap"] = trap
    assert len(read_text_file(tmp_path, json.dumps(good), "s.json").crystals) == 1
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"", "is no CSV table: the file is empty"),
        ("c.csv", b"a,b\n1,2\n", "has no column 'cif'; its columns are 'a', 'b'"),
        ("c.csv", b"material_id,cif\n", "0 of 0 records failed"),
        ("c.parquet", b"PAR1 nothing", "is not a Parquet file"),
        ("c.db", b"this is no database at all, but long enough" * 50, "is not an ASE database"),
        ("c.json", b'[{"lattice": ', "is not JSON .* may be truncated"),
        ("c.json", b'{"a": 1}', "holds no crystal"),
        ("c.jsonl", b'{"kind": "x"}\n', "expected a structure"),
        ("c.xlsx", b"", "cannot tell the format by the name 'c.xlsx'"),
        ("c.xyz", b"", "no crystal could be read"),
        ("c.cif.gz", gzip.compress(b"data_x", mtime=0)[:12], "truncated gzip"),
    ],
)
def test_a_wrong_file_is_told_what_it_is_not(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadError, match=message):
        read_crystals(tmp_path / name)


@pytest.mark.parametrize("column", ["numbers", "positions", "cell", "key_value_pairs"])
def test_a_database_without_a_value_is_refused_in_words_of_its_own(tmp_path: Path, column: str) -> None:
    path = tmp_path / "c.db"
    write_crystals(salt(), path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"update systems set {column} = null")
    with pytest.raises(ReadError) as caught:
        read_crystals(path)
    assert "NoneType" not in str(caught.value)
    assert "holds values that ASE does not write" in str(caught.value)


def test_a_parquet_file_whose_names_are_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    write_crystals(salt(), path)
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"lattice", b"\xffattice"))
    with pytest.raises(ReadError, match="is not a Parquet file, or a damaged one"):
        read_crystals(path)


def test_a_row_of_a_parquet_file_that_is_no_text_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    write_crystals(concatenate([salt().replace(material_ids=[name]) for name in "abc"]), path)
    table = pyarrow.parquet.read_table(path)
    names = pyarrow.array([b"a", b"\xff", b"c"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(table.set_column(table.column_names.index("material_id"), "material_id", names), path)
    result = read_crystals(path)
    assert result.crystals.material_ids == ["a", "c"]
    (failure,) = result.failures
    assert failure.record == "row 2" and "not UTF-8" in failure.reason


def test_a_missing_path_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="there is no such file or folder"):
        read_crystals(tmp_path / "nowhere.cif")
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(ReadError, match="holds no CIF, POSCAR or extxyz file among 1 files"):
        read_crystals(tmp_path)


def test_unfinished_files_of_a_killed_writer_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "good.cif").write_text(salt_cif())
    (tmp_path / ".tmp-1-abcd-other.cif").write_text(salt_cif()[:100])
    assert len(read_crystals(tmp_path, strict=True).crystals) == 1


def test_a_collapsed_cell_does_not_take_its_neighbours_along(tmp_path: Path) -> None:
    good = '1\nLattice="4 0 0 0 4 0 0 0 4"\nPo 0 0 0\n'
    needle = '1\nLattice="1e9 0 0 0 1e-4 0 0 0 1e-3"\nPo 0 0 0\n'
    result = read_text_file(tmp_path, good + needle + good, "c.extxyz")
    assert len(result.crystals) == 2 and len(result.failures) == 1


def test_an_archive_or_a_folder_that_unpacks_without_measure_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.cif", bytes(200_000_000))
    with pytest.raises(ReadError, match=r"unpack to 200000000 bytes, at most \d+ are read"):
        read_crystals(tmp_path / "bomb.zip")
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.cif").write_text(salt_cif(name))
    size = (tmp_path / "in" / "a.cif").stat().st_size
    found = read_crystals(tmp_path / "in", max_bytes=size + 10)
    assert len(found.crystals) == 1 and "the other files of the folder leave" in found.failures[0].reason


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf_8_can_be_written_again(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"gold-\xff.cif")).write_text(salt_cif("x").replace("data_x", "data_"))
    crystals = read_crystals(tmp_path).crystals
    assert crystals.material_ids is not None
    for ending in (".csv", ".json", ".extxyz", ".cif", ".db", ".parquet"):
        write_crystals(crystals, tmp_path / f"out{ending}")
    crystals.material_ids[0].encode()


def test_a_name_like_a_formula_is_no_formula_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "in.cif").write_text(salt_cif("x"))
    crystals = read_crystals(tmp_path / "in.cif").crystals.replace(material_ids=["=cmd|' /C calc'!A0"])
    write_crystals(crystals, tmp_path / "out.csv")
    assert "'=cmd" in (tmp_path / "out.csv").read_text() and "\n=cmd" not in (tmp_path / "out.csv").read_text()
    assert read_crystals(tmp_path / "out.csv").crystals.material_ids == crystals.material_ids


def test_limits_hold_for_a_block(tmp_path: Path) -> None:
    (tmp_path / "in.cif").write_text(salt_cif("x", a="3000"))
    with pytest.raises(ReadError, match="raise the limit max_length"):
        read_crystals(tmp_path / "in.cif")
    with cell_limits(CellLimits(max_length=5000.0, max_volume_per_atom=1e9, max_aspect=1e4)):
        assert len(read_crystals(tmp_path / "in.cif").crystals) == 1
    with bytes_limit(10), pytest.raises(ReadError, match="at most 10 are read"):
        read_crystals(tmp_path / "in.cif")


def test_crystals_of_elements_that_are_not_known_are_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "in.cif").write_text(salt_cif("light") + salt_cif("heavy", first="Og1 Og 0 0 0 1"))
    found = read_crystals(tmp_path / "in.cif").with_elements_up_to(100, "in.cif")
    assert found.crystals.material_ids == ["light"]
    assert str(found.failures[0]) == "in.cif, heavy: has an atom of element 118, at most 100 are known here"
    with pytest.raises(ReadError, match="no crystal of it is left: it, light"):
        found.with_elements_up_to(10, "it")
