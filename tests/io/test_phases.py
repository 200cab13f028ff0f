"""Phases from JSON, CSV and pymatgen's entries, and what is said of files that hold none."""

import gzip
import json
from pathlib import Path

import pytest
from pymatgen.entries.computed_entries import ComputedEntry

from cdvae_kit.io import ReadError
from cdvae_kit.io.crystals.phases import read_formation_energies, read_phases


def test_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "phases.json"
    path.write_text(json.dumps([{"composition": {"Li": 1, "F": 1}, "energy_per_atom": -4.9, "name": "salt"}]))
    assert read_phases(path) == [{"composition": {"Li": 1, "F": 1}, "energy_per_atom": -4.9, "name": "salt"}]


def test_entries_of_pymatgen_with_their_corrections(tmp_path: Path) -> None:
    entries = [ComputedEntry("Fe2O3", -33.0, correction=-2.0, entry_id="mp-1"), ComputedEntry("Fe", -8.0)]
    path = tmp_path / "phases.json.gz"
    path.write_bytes(gzip.compress(json.dumps([entry.as_dict() for entry in entries]).encode()))
    found = read_phases(path)
    assert [phase["energy_per_atom"] for phase in found] == [entry.energy_per_atom for entry in entries]
    assert [phase["name"] for phase in found] == ["mp-1", "Fe"]


def test_csv_with_total_energies(tmp_path: Path) -> None:
    path = tmp_path / "phases.csv"
    path.write_text("composition,energy\nLiF,-9.8\nLi2,-3.8\n")
    assert [phase["energy_per_atom"] for phase in read_phases(path)] == [-4.9, -1.9]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "", ".json or .csv"),
        ("a.json", "{", "cannot read"),
        ("a.json", "[]", "no phases"),
        ("a.json", '{"composition": "Fe"}', "no phases"),
        ("a.json", '[{"composition": "Fe"}]', "phase 1"),
        ("a.json", '[{"composition": "Fe", "energy_per_atom": "low"}]', "phase 1"),
        ("a.csv", "composition,energy_per_atom\nFe,-8\nXy3,-1\n", "phase 2"),
        ("a.json.gz", "not gzip", "cannot read"),
        # pymatgen takes what follows a symbol for properties of a species
        ("a.json", '[{"composition": {"FD": 1}, "energy_per_atom": -1}]', "phase 1: .* is no formula"),
        ("a.csv", "composition,energy\nLi1e400,-3.8\n", "phase 1: .* inf atoms"),
        ("a.json", f'[{{"composition": {{"Li": {10**400}}}, "energy_per_atom": -1}}]', "phase 1: .* is no formula"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ReadError, match=words):
        read_phases(tmp_path / name)


TABLE = "material_id,cif,pretty_formula,formation_energy_per_atom,e_above_hull\n"


def test_formation_energies_are_read_of_a_table_of_a_data_set(tmp_path: Path) -> None:
    path = tmp_path / "val.csv.gz"
    long = "x" * 200_000
    path.write_bytes(gzip.compress(f"{TABLE}mp-1,{long},LiF,-3.1,0.0\nmp-2,,Li2O,-2.0,\nmp-3,,Na,,0.1\n".encode()))
    found = read_formation_energies([path])
    assert [(entry["name"], entry["energy_per_atom"], entry["energy_above_hull"]) for entry in found] == [
        ("mp-1", -3.1, 0.0),
        ("mp-2", -2.0, None),
    ]
    assert found[1]["composition"] == "Li2O"


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,b\n1,2\n", "pretty_formula"), (f"{TABLE}mp-1,,LiF,low,0.0\n", "row 1"), ("", "pretty_formula")],
)
def test_a_table_without_formation_energies_says_what_it_lacks(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ReadError, match=words):
        read_formation_energies([path])
