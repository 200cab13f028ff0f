"""Formats other than CIF: VASP's and extended XYZ's liberties, JSON as people have it, tensors of CDVAE's scripts."""

import gzip
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.arrays import right_handed, split
from cdvae_kit.crystal.faults import ANY_CELL, CellLimits
from cdvae_kit.crystal.symmetry import find_space_group
from cdvae_kit.io import ReadError, ReadResult, read_crystals, write_crystals
from cdvae_kit.io.crystals.formats import FORMATS, ReadFormat, WriteFormat
from cdvae_kit.seeding import make_generator

WRITTEN = ["c.extxyz", "c.cif", "c.db", "c.parquet", "c.csv", "c.json", "cifs", "poscars"]


def read(tmp_path: Path, name: str, content: str | bytes, **options: Any) -> ReadResult:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_crystals(path, dtype=torch.float64, **options)


def only(result: ReadResult) -> CrystalBatch:
    assert len(result.crystals) == 1 and not result.failures, result.failures
    return result.crystals


def poscar(
    scale: str = "1.0", mode: str = "Direct", second: str = "0.5 0.5 0.5", cell: str = "3 0 0\n0 3 0\n0 0 3"
) -> str:
    return f"salt\n{scale}\n{cell}\nCs Cl\n1 1\n{mode}\n0 0 0\n{second}\n"


def test_a_negative_scale_is_the_volume_and_scales_cartesian_positions_too(tmp_path: Path) -> None:
    salt = only(read(tmp_path, "POSCAR", poscar("-54.0", "Cartesian", "1.5 1.5 1.5")))
    assert float(torch.linalg.det(salt.lattice[0])) == pytest.approx(54.0)
    np.testing.assert_allclose(salt.frac_coords[1], [0.5, 0.5, 0.5])


def test_a_positive_scale_scales_cartesian_positions(tmp_path: Path) -> None:
    salt = only(read(tmp_path, "POSCAR", poscar("2.0", "cart", "1.5 1.5 1.5")))
    assert float(salt.lattice[0, 0, 0]) == 6.0
    np.testing.assert_allclose(salt.frac_coords[1], [0.5, 0.5, 0.5])


def test_three_scales_are_those_of_the_components(tmp_path: Path) -> None:
    skewed = only(read(tmp_path, "POSCAR", poscar("1.0 2.0 3.0 ! scales", cell="3 0 0\n1 3 0\n0 0 3")))
    np.testing.assert_allclose(skewed.lattice[0], [[3, 0, 0], [1, 6, 0], [0, 0, 9]])


@pytest.mark.parametrize(
    "change",
    [
        ("1 1\n", "1 1 ! how many\n"),
        ("Cs Cl", "Cs_sv/a1b2 Cl"),
        ("Direct", "Selective dynamics\nDirect ! fractions"),
        ("0.5 0.5 0.5", "0.5 0.5 5.0D-01 T T F Cl"),
        ("1.0\n", "  1.0 a comment\n"),
        ("salt", ""),
        ("\n", "\r\n"),
    ],
)
def test_comments_flags_and_marks_of_vasp_are_passed_over(tmp_path: Path, change: tuple[str, str]) -> None:
    salt = only(read(tmp_path, "POSCAR", poscar().replace(*change)))
    assert salt.atomic_numbers.tolist() == [55, 17]
    np.testing.assert_allclose(salt.frac_coords[1], [0.5, 0.5, 0.5])


def test_elements_of_vasp_4_stand_behind_the_positions(tmp_path: Path) -> None:
    text = poscar().replace("Cs Cl\n", "").replace("0 0 0\n0.5", "0 0 0 Cs\n0.5").replace("0.5 0.5 0.5", "0.5 .5 .5 Cl")
    assert only(read(tmp_path, "POSCAR", text)).atomic_numbers.tolist() == [55, 17]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("1.0\n", "0.0\n"), "line 2: expected a scale other than 0"),
        (("1.0\n", "1.0 -2.0 3.0\n"), "line 2: expected a scale"),
        (("1 1\n", "1 1 1\n"), "line 7: expected a number of atoms for each of 2 elements"),
        (("1 1\n", "1 " + "9" * 5000 + "\n"), r"line 7: .* \(5000 characters\)"),
        (("0.5 0.5 0.5", "0.5 0.5"), "line 10: expected a position, 3 numbers, got '0.5 0.5'"),
        (("3 0 0\n", "3 zero 0\n"), "line 3: expected a vector of the cell"),
        (("Direct\n", "7\n"), "line 8: expected Direct or Cartesian"),
        (("Cs Cl", "Cs Va"), "expected elements 1 to 118, got 'Va'"),
    ],
)
def test_a_broken_poscar_is_refused_with_its_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(tmp_path, "POSCAR", poscar().replace(*change))


@pytest.mark.parametrize(
    "comment",
    [
        'lattice="4 0 0 0 4 0 0 0 4" properties=species:s:1:pos:r:3:force:r:3 energy=-3.1 virial="1 0 0 0 1 0 0 0 1"',
        'LATTICE="4 0 0 0 4 0 0 0 4" Properties=id:I:1:species:S:1:pos:R:3:m:R:1 energy=-3.1 pbc="T T T"',
        "Lattice={4,0,0,0,4,0,0,0,4} Properties=Z:I:1:pos:R:3 energy=-3.1 label=CsCl flag=T text=\"a 'b' c\"",
        "energy = -3.1 Lattice='4 0 0 0 4 0 0 0 4'",
    ],
)
def test_keys_of_any_case_and_columns_in_any_order_are_read(tmp_path: Path, comment: str) -> None:
    numbers, ids = "Z:I" in comment, "id:I" in comment
    rows = [
        f"{'1 ' if ids else ''}{number if numbers else symbol} {x} {x} {x} 0.1 0 0"
        for symbol, number, x in (("Cs", 55, 0.0), ("Cl", 17, 2.0))
    ]
    salt = only(read(tmp_path, "c.extxyz", "\n".join(["2", comment, *rows]) + "\n"))
    assert salt.atomic_numbers.tolist() == [55, 17] and salt.properties["energy"].tolist() == [-3.1]
    assert set(salt.properties) == {"energy"}
    np.testing.assert_allclose(salt.frac_coords[1], [0.5, 0.5, 0.5])


def test_deuterium_is_hydrogen_in_every_format_and_said(tmp_path: Path) -> None:
    frame = '2\nLattice="4 0 0 0 4 0 0 0 4"\nLi 0 0 0\nD 2 2 2\n'
    structure = {
        "lattice": {"matrix": [[4, 0, 0], [0, 4, 0], [0, 0, 4]]},
        "sites": [
            {"species": [{"element": symbol, "occu": 1}], "abc": [x, x, x]} for symbol, x in (("Li", 0), ("D", 0.5))
        ],
    }
    for name, text in {
        "d.extxyz": frame,
        "POSCAR": poscar().replace("Cs Cl", "Li D"),
        "d.json": json.dumps(structure),
    }.items():
        result = read(tmp_path, name, text)
        assert result.crystals.atomic_numbers.tolist() == [3, 1]
        assert [note.reason for note in result.notes] == ["deuterium and tritium (D, T) are read as hydrogen"], name


def test_a_count_of_thousands_of_digits_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"c\.extxyz, frame 0 \(line 1\): .* \(5000 characters\)"):
        read(tmp_path, "c.extxyz", "9" * 5000 + "\n")


def structure_of(x: float = 4.2) -> dict[str, Any]:
    (salt,) = CrystalBatch(
        torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]], dtype=torch.float64),
        x * torch.eye(3, dtype=torch.float64)[None],
        torch.tensor([55, 17]),
        torch.tensor([2]),
    ).structures()
    return dict(salt.as_dict())


ROWS = [{"material_id": name, "structure": structure_of(), "e form": x} for name, x in (("a", -1.0), ("b", -2.0))]


def pandas_texts() -> dict[str, str]:
    import pandas

    table = pandas.DataFrame(ROWS)
    orients = {orient: table.to_json(orient=orient) for orient in ("columns", "index", "records", "split")}
    lines = table.to_json(orient="records", lines=True)
    named = table.set_index("material_id")
    return {
        **{f"{orient}.json": text for orient, text in orients.items()},
        "lines.jsonl": lines,
        "lines.json": lines,
        "lines.jsonl.gz": lines,
        "table.json": json.dumps({"schema": {"primaryKey": ["index"]}, "data": ROWS}),
        "matbench.json": named.to_json(orient="split"),
        "by_name.json": named.to_json(orient="columns"),
    }


@pytest.mark.parametrize("name", pandas_texts())
def test_tables_of_pandas_and_matbench_keep_names_and_targets(tmp_path: Path, name: str) -> None:
    text = pandas_texts()[name].encode()
    result = read(tmp_path, name, gzip.compress(text) if name.endswith(".gz") else text)
    assert result.crystals.material_ids == ["a", "b"] and not result.failures
    assert {key: values.tolist() for key, values in result.crystals.properties.items()} == {"e form": [-1.0, -2.0]}
    assert result.crystals.atomic_numbers.tolist() == [55, 17, 55, 17]


def test_jarvis_atoms_are_read(tmp_path: Path) -> None:
    cell = [[4.2, 0, 0], [0, 4.2, 0], [0, 0, 4.2]]
    atoms = {"lattice_mat": cell, "coords": [[0, 0, 0], [2.1, 2.1, 2.1]], "elements": ["Cs", "Cl"], "cartesian": True}
    rows = [{"jid": "JVASP-1", "atoms": atoms, "optb88vdw_bandgap": 5.2, "formula": "CsCl", "dimensionality": "3D"}]
    salt = only(read(tmp_path, "jarvis.json", json.dumps(rows)))
    assert salt.material_ids == ["JVASP-1"] and salt.properties["optb88vdw_bandgap"].tolist() == [5.2]
    np.testing.assert_allclose(salt.frac_coords[1], [0.5, 0.5, 0.5])


def optimade_answer(**changes: Any) -> str:
    species = [{"name": f"{s}-1", "chemical_symbols": [s], "concentration": [1.0]} for s in ("Cs", "Cl")]
    attributes = {
        "lattice_vectors": [[4.2, 0, 0], [0, 4.2, 0], [0, 0, 4.2]],
        "cartesian_site_positions": [[0, 0, 0], [2.1, 2.1, 2.1]],
        "species_at_sites": ["Cs-1", "Cl-1"],
        "species": species,
        "dimension_types": [1, 1, 1],
        "nsites": 2,
        "_x_gap": 5.2,
        **changes,
    }
    entry = {"type": "structures", "id": "x/1", "attributes": attributes}
    return json.dumps({"data": [entry], "meta": {"api_version": "1.1"}, "links": {"next": None}})


def test_an_answer_of_optimade_is_read(tmp_path: Path) -> None:
    salt = only(read(tmp_path, "answer.json", optimade_answer()))
    assert salt.material_ids == ["x/1"] and {k: v.tolist() for k, v in salt.properties.items()} == {"_x_gap": [5.2]}
    assert salt.atomic_numbers.tolist() == [55, 17]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure_features": ["implicit_atoms"]}, "implicit_atoms"),
        ({"dimension_types": [1, 1, 0]}, "repeats along three axes"),
        (
            {"species": [{"name": "Cs-1", "chemical_symbols": ["Cs", "vacancy"], "concentration": [0.5, 0.5]}]},
            "order",
        ),
        ({"cartesian_site_positions": [[0, 0, 0]]}, "expected 6 numbers as cartesian_site_positions, got 3"),
    ],
)
def test_what_optimade_leaves_open_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(tmp_path, "answer.json", optimade_answer(**changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"ids": [1], "nextid": 2, "1": {"numbers": "x", "key_value_pairs": "x"}}, "row 1: is damaged"),
        ({**structure_of(), "lattice": [1, 2]}, "no lattice matrix"),
        ({**structure_of(), "sites": [5]}, r"expected a table for each site, got 5 as sites\[0\]"),
        ({**structure_of(), "sites": [{"species": [{"element": "C"}], "abc": [0, 0]}]}, "expected 3 numbers as sites"),
        ({**structure_of(), "sites": [{"species": "C", "abc": [0, 0, 0]}]}, r"expected a list as sites\[0\].species"),
    ],
)
def test_json_of_the_wrong_shape_is_refused_with_its_place(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(tmp_path, "c.json", json.dumps(content))


def test_properties_of_the_wrong_shape_cost_no_crystal(tmp_path: Path) -> None:
    assert only(read(tmp_path, "c.json", json.dumps({**structure_of(), "properties": [1]}))).properties == {}


def test_tensors_of_cdvaes_scripts_are_read_without_running_a_program(tmp_path: Path) -> None:
    import argparse

    saved = {
        "eval_setting": argparse.Namespace(trap="x"),
        "frac_coords": torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]]).repeat(2, 1, 1),
        "num_atoms": torch.tensor([[2, 1], [2, 1]]),
        "atom_types": torch.tensor([[55, 17, 84], [55, 17, 84]]),
        "lengths": torch.tensor([[[4.2, 4.2, 4.2], [3.4, 3.4, 3.4]]] * 2),
        "angles": torch.full((2, 2, 3), 90.0).T.contiguous().T,
        "time": 1.5,
    }
    torch.save(saved, tmp_path / "eval_gen.pt")
    result = read_crystals(tmp_path / "eval_gen.pt", dtype=torch.float64)
    assert result.crystals.num_atoms.tolist() == [2, 1, 2, 1]
    assert result.crystals.material_ids == ["eval_gen-0-0", "eval_gen-0-1", "eval_gen-1-0", "eval_gen-1-1"]
    assert result.crystals.atomic_numbers.tolist() == [55, 17, 84] * 2
    np.testing.assert_allclose(result.crystals.lattice[0], 4.2 * np.eye(3), atol=1e-6)


class Trap:
    """What a hostile file would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_a_program_in_a_file_of_tensors_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = {"num_atoms": torch.tensor([1]), "atom_types": torch.tensor([84]), "frac_coords": torch.zeros(1, 3)}
    cell = {"lengths": torch.full((1, 3), 3.4), "angles": torch.full((1, 3), 90.0)}
    torch.save({"trap": Trap(), **tensors, **cell}, "eval_gen.pt")
    assert only(read_crystals("eval_gen.pt")).atomic_numbers.tolist() == [84]
    assert not Path("exploded").exists()


def test_a_file_of_other_tensors_says_what_is_missing(tmp_path: Path) -> None:
    torch.save({"state_dict": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(ReadError, match=r"it has no tensor frac_coords, num_atoms, .*; it has state_dict"):
        read_crystals(tmp_path / "model.pt")
    with pytest.raises(ReadError, match="is no file of tensors as PyTorch"):
        read(tmp_path, "old.pt", b"\x80\x02nothing")
    content = (tmp_path / "model.pt").read_bytes()
    with pytest.raises(ReadError, match="is no file of tensors as PyTorch"):
        read(tmp_path, "names.pt", content.replace(b"/data.pkl", b"/d\xff\xffa.pkl"))


def test_a_tensor_that_claims_more_than_its_numbers_is_refused(tmp_path: Path) -> None:
    torch.save({"num_atoms": torch.tensor([1]).expand(10**9)}, tmp_path / "bomb.pt")
    with pytest.raises(ReadError, match="a tensor larger than its numbers"):
        read_crystals(tmp_path / "bomb.pt")


def random_crystals(num_crystals: int, seed: int) -> CrystalBatch:
    """Crystals of one to five atoms in cells of either hand."""
    generator = make_generator(seed)
    counts = torch.randint(1, 6, (num_crystals,), generator=generator)
    lattice = 4.0 * torch.eye(3, dtype=torch.float64) + torch.rand(
        num_crystals, 3, 3, generator=generator, dtype=torch.float64
    )
    # two vectors exchanged: the other hand
    lattice[::2] = lattice[::2][:, [1, 0, 2]]
    total = int(counts.sum())
    return CrystalBatch(
        torch.rand(total, 3, generator=generator, dtype=torch.float64),
        lattice,
        torch.randint(1, 95, (total,), generator=generator),
        counts,
        material_ids=[f"m{i}" for i in range(num_crystals)],
    )


def assert_same_up_to_a_rotation(left: CrystalBatch, right: CrystalBatch) -> None:
    """Same atoms, same fractions, cells that a proper rotation turns into each other: no mirror image passes."""
    assert torch.equal(left.atomic_numbers, right.atomic_numbers)
    for ours, theirs in zip(split(left), split(right), strict=True):
        cell, coords = right_handed(ours.lattice, ours.frac_coords)
        other, other_coords = right_handed(theirs.lattice, theirs.frac_coords)
        turn = np.linalg.solve(cell, other)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(turn) > 0.0
        gaps = coords - other_coords
        assert np.abs(gaps - np.rint(gaps)).max() < 1e-6


@pytest.mark.parametrize("name", WRITTEN)
def test_a_thousand_crystals_of_either_hand_survive_every_format(tmp_path: Path, name: str) -> None:
    crystals = random_crystals(1000, seed=1)
    formats: dict[str, Any] = {"cifs": "cif_folder", "poscars": "poscar_folder"}
    write_crystals(crystals, tmp_path / name, format=formats.get(name, "auto"))
    again = read_crystals(tmp_path / name, dtype=torch.float64, min_distance=None, strict=True).crystals
    assert_same_up_to_a_rotation(crystals, again)


def test_the_check_of_hands_sees_a_mirror_image() -> None:
    """The negative control: the same lengths, angles and fractions in a cell of the other hand."""
    crystals = random_crystals(2, seed=2)
    mirrored = crystals.replace(lattice=crystals.lattice * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    with pytest.raises(AssertionError):
        assert_same_up_to_a_rotation(crystals, mirrored)


def quartz(*, left_handed: bool) -> CrystalBatch:
    """Right-handed quartz, P 31 2 1 (152), in a cell of either hand."""
    a, c, u, (x, y, z) = 4.91, 5.40, 0.4697, (0.4135, 0.2669, 0.7858)
    cell = torch.tensor([[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, c]], dtype=torch.float64)
    silicon = [(u, 0.0, 1 / 3), (0.0, u, 2 / 3), (-u, -u, 0.0)]
    oxygen = [(x, y, z), (-y, x - y, z + 1 / 3), (-x + y, -x, z + 2 / 3)]
    oxygen += [(y, x, -z), (x - y, -y, -z + 2 / 3), (-x, -x + y, -z + 1 / 3)]
    coords = torch.tensor([*silicon, *oxygen], dtype=torch.float64) % 1.0
    if left_handed:
        cell, coords = cell[[1, 0, 2]], coords[:, [1, 0, 2]]
    return CrystalBatch(coords, cell[None], torch.tensor([14] * 3 + [8] * 6), torch.tensor([9]))


def group_of(crystals: CrystalBatch) -> int | None:
    (crystal,) = split(crystals)
    lists = crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist()
    return find_space_group(*lists, symprec=1e-3).number


@pytest.mark.parametrize("left_handed", [False, True])
@pytest.mark.parametrize("name", WRITTEN)
def test_quartz_keeps_its_hand_in_every_format(tmp_path: Path, name: str, left_handed: bool) -> None:
    crystals = quartz(left_handed=left_handed)
    formats: dict[str, Any] = {"cifs": "cif_folder", "poscars": "poscar_folder"}
    write_crystals(crystals, tmp_path / name, format=formats.get(name, "auto"))
    assert group_of(crystals) == 152
    assert group_of(read_crystals(tmp_path / name, dtype=torch.float64).crystals) == 152
    assert group_of(read_crystals(tmp_path / name, dtype=torch.float64, reduce="niggli").crystals) == 152


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_any_cell_of_either_hand_survives_a_cif(tmp_path: Path, seed: int) -> None:
    crystals = random_crystals(5, seed)
    write_crystals(crystals, tmp_path / "c.cif", overwrite=True)
    again = read_crystals(tmp_path / "c.cif", dtype=torch.float64, min_distance=None).crystals
    assert_same_up_to_a_rotation(crystals, again)


GOOD = '1\nLattice="4 0 0 0 4 0 0 0 4"\nPo 0 0 0\n'
ODD_CELLS = {
    "4e10 0 0 0 4 0 0 0 4": "an edge of 4e.10 angstrom, at most 2000 are taken; .* raise the limit max_length",
    "1900 0 0 0 0.9 0 0 0 4": "a longest edge 2.*e.03 times the distance of its nearest faces|2111 times",
    "100 0 0 0 100 0 0 0 100": "1e.06 cubic angstrom an atom, at most 100000",
    "0.3 0 0 0 0.3 0 0 0 0.3": "the cell has no volume",
}


@pytest.mark.parametrize("cell", ODD_CELLS)
def test_an_odd_cell_is_refused_and_its_neighbours_are_read(tmp_path: Path, cell: str) -> None:
    text = GOOD + GOOD.replace("4 0 0 0 4 0 0 0 4", cell) + GOOD
    result = read(tmp_path, "c.extxyz", text, min_distance=None)
    assert len(result.crystals) == 2 and len(result.failures) == 1
    with pytest.raises(ReadError, match=ODD_CELLS[cell]):
        read(tmp_path, "d.extxyz", GOOD.replace("4 0 0 0 4 0 0 0 4", cell), min_distance=None)


@pytest.mark.parametrize("columns", ["x:R:5:species:S:1:pos:R:3", "species:S:1:x:R:20000:pos:R:3"])
def test_a_frame_with_fewer_columns_than_it_says_is_told_so(tmp_path: Path, columns: str) -> None:
    frame = GOOD.replace('"\n', f'" Properties={columns}\n')
    with pytest.raises(ReadError, match=r"expected at least [0-9]+ columns of each atom, got 'Po 0 0 0'"):
        read(tmp_path, "c.extxyz", frame)


def test_a_limit_can_be_raised(tmp_path: Path) -> None:
    text = GOOD.replace("4 0 0 0 4 0 0 0 4", "100 0 0 0 100 0 0 0 100")
    for limits in (ANY_CELL, CellLimits(max_volume_per_atom=1e7)):
        assert len(read(tmp_path, "c.extxyz", text, limits=limits).crystals) == 1


def test_reading_never_writes_into_an_empty_database(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"is not an ASE database, .*it is empty"):
        read(tmp_path, "c.db", b"")
    assert (tmp_path / "c.db").read_bytes() == b"" and [path.name for path in tmp_path.iterdir()] == ["c.db"]


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(tmp_path / "c.db")
    connection.execute("create table birds (name text)")
    connection.commit()
    connection.close()
    before = (tmp_path / "c.db").read_bytes()
    with pytest.raises(ReadError, match="it has no table of systems"):
        read_crystals(tmp_path / "c.db")
    assert (tmp_path / "c.db").read_bytes() == before


def test_what_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="is a gzip that unpacks to more than"):
        read(tmp_path, "c.cif.gz", gzip.compress(b"#" * 10**8))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.cif", "#" * 10**6)
    with pytest.raises(ReadError, match="unpack to 1000000 bytes, at most 1000 are read"):
        read(tmp_path, "c.zip", archive.getvalue(), max_bytes=1000)


def test_a_pipe_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.cif")
    (tmp_path / "good.extxyz").write_text(GOOD)
    assert len(read_crystals(tmp_path, strict=True).crystals) == 1
    with pytest.raises(ReadError, match="is no file: a pipe or a device is not read"):
        read_crystals(tmp_path / "pipe.cif")


def test_the_registry_and_the_names_of_formats_are_one() -> None:
    assert {found.name for found in FORMATS if found.cut} <= set(get_args(ReadFormat))
    assert {found.name for found in FORMATS if found.write} == set(get_args(WriteFormat)) - {"auto"}
    suffixes = [suffix for found in FORMATS for suffix in found.suffixes]
    assert len(suffixes) == len(set(suffixes))


def test_crystals_of_all_files_of_a_folder_come_together(tmp_path: Path) -> None:
    (tmp_path / "a.extxyz").write_text(GOOD)
    (tmp_path / "POSCAR").write_text(poscar())
    both = read_crystals(tmp_path, dtype=torch.float64).crystals
    assert concatenate([both.select([0]), both.select([1])]).num_atoms.tolist() == [2, 1]
