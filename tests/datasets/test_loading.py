from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.datasets import load_dataset, load_ionic_prototypes, split_crystals
from cdvae_kit.io.crystals.reading import ReadError

SALT = """2
Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3
{} 0 0 0
Cl 2 2 2
"""


@pytest.fixture(scope="module")
def ionic() -> CrystalBatch:
    return load_ionic_prototypes(num_crystals=200)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Splits in three forms: a file, a folder, and two files too many."""
    folder = tmp_path / "salts"
    (folder / "val").mkdir(parents=True)
    (folder / "train.extxyz").write_text(SALT.format("Cs"))
    (folder / "train.md").write_text("# no crystals")
    (folder / "val" / "a.extxyz").write_text(SALT.format("Rb"))
    (folder / "test.extxyz").write_text(SALT.format("K"))
    (folder / "test.xyz").write_text(SALT.format("K"))
    return folder


def elements(name: str | Path, tmp_path: Path, **options: object) -> set[int]:
    result = load_dataset(name, cache_dir=tmp_path / "entries", num_workers=1, **options)  # type: ignore[arg-type]
    return set(result.crystals.atomic_numbers.tolist())


def test_a_folder_of_splits_gives_the_split_as_file_or_folder(folder: Path, tmp_path: Path) -> None:
    assert elements(folder, tmp_path, split="train") == {55, 17}
    assert elements(str(folder), tmp_path, split="val") == {37, 17}


def test_a_name_is_looked_up_in_the_folder_of_data_sets(folder: Path, tmp_path: Path) -> None:
    assert elements("salts", tmp_path, split="train", folder=folder.parent) == {55, 17}


def test_a_single_file_needs_no_split_and_refuses_one(folder: Path, tmp_path: Path) -> None:
    assert elements(folder / "train.extxyz", tmp_path) == {55, 17}
    with pytest.raises(ValueError, match="single file and has no split 'train'"):
        elements(folder / "train.extxyz", tmp_path, split="train")


def test_a_folder_of_crystals_is_read_as_one(folder: Path, tmp_path: Path) -> None:
    assert elements(folder / "val", tmp_path) == {37, 17}


def test_a_folder_of_splits_asks_for_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds the splits train, val, test; say which one"):
        elements(folder, tmp_path)


def test_two_files_for_one_split_are_not_guessed_between(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"several files for test: test\.extxyz, test\.xyz"):
        elements(folder, tmp_path, split="test")


def test_a_split_that_is_not_there_is_told_with_what_was_expected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no valid: expected a file such as valid\.csv"):
        elements(folder, tmp_path, split="valid")


def test_a_registered_set_that_is_not_there_tells_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mp_20/val\.csv.*generate-crystals download mp_20"):
        load_dataset("mp_20", split="val", folder=tmp_path)


def test_a_registered_set_asks_for_its_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mp_20 has the splits train, val, test, got None"):
        load_dataset("mp_20", folder=tmp_path)


def test_a_misspelt_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder carbon24 or .*did you mean 'carbon_24'"):
        load_dataset("carbon24", split="val", folder=tmp_path)


def test_a_packed_public_split_is_read_from_a_folder(shared_dir: Path, tmp_path: Path) -> None:
    """Cut to its first rows, for time."""
    with gzip.open(shared_dir / "data/perov_5/val.csv.gz", "rt") as file:
        text = file.read()
    rows = text.split("# generated using pymatgen")[: 9 + 1]
    cut = "# generated using pymatgen".join(rows)
    cut = cut[: cut.rindex("\n") + 1]
    (tmp_path / "perov_5").mkdir()
    with gzip.open(tmp_path / "perov_5/val.csv.gz", "wt") as file:
        file.write(cut)
    result = load_dataset("perov_5", split="val", folder=tmp_path, cache_dir=tmp_path / "entries", num_workers=1)
    assert len(result.crystals) == 9 and result.failures == []
    assert set(result.crystals.num_atoms.tolist()) == {5}
    assert set(result.crystals.properties) == {"heat_ref", "heat_all", "dir_gap", "ind_gap"}


def test_the_built_in_set_goes_by_its_name() -> None:
    found = load_dataset("ionic_prototypes", split="val")
    assert found.failures == []
    assert found.crystals.material_ids == load_ionic_prototypes(split="val").material_ids


def test_crystals_of_the_built_in_set_that_are_too_large_are_counted() -> None:
    found = load_dataset("ionic_prototypes", split="val", max_atoms=5)
    assert int(found.crystals.num_atoms.max()) == 5
    assert found.num_records == len(load_ionic_prototypes(split="val"))
    assert "more than the 5 atoms" in found.failures[0].reason
    with pytest.raises(ReadError, match="no crystal of ionic_prototypes has at most 1"):
        load_dataset("ionic_prototypes", split="val", max_atoms=1)


def test_the_built_in_set_has_no_unknown_split() -> None:
    with pytest.raises(ValueError, match="splits all, train, val, test, got None"):
        load_dataset("ionic_prototypes")


def names(parts: tuple[CrystalBatch, ...]) -> list[list[str]]:
    return [part.material_ids or [] for part in parts]


def test_parts_have_the_sizes_of_the_fractions_and_hold_every_crystal_once(ionic: CrystalBatch) -> None:
    parts = split_crystals(ionic, (0.7, 0.2, 0.1), seed=3)
    assert [len(part) for part in parts] == [140, 40, 20]
    assert sorted(name for part in names(parts) for name in part) == sorted(ionic.material_ids or [])


def test_the_split_does_not_depend_on_the_order_of_the_crystals(ionic: CrystalBatch) -> None:
    backwards = ionic.select(list(reversed(range(len(ionic)))))
    forth = names(split_crystals(ionic, (0.9, 0.1), seed=3))
    back = names(split_crystals(backwards, (0.9, 0.1), seed=3))
    assert [set(part) for part in forth] == [set(part) for part in back]
    assert forth[1] == back[1][::-1]


def test_another_seed_gives_another_split(ionic: CrystalBatch) -> None:
    first = names(split_crystals(ionic, (0.9, 0.1), seed=0))
    assert first == names(split_crystals(ionic, (0.9, 0.1), seed=0))
    assert first != names(split_crystals(ionic, (0.9, 0.1), seed=1))


def test_crystals_without_names_are_split_by_index(ionic: CrystalBatch) -> None:
    nameless = ionic.replace(material_ids=None)
    first, second = split_crystals(nameless, (0.5, 0.5), seed=0)
    assert len(first) == len(second) == 100
    assert torch.equal(first.lattice, split_crystals(nameless, (0.5, 0.5), seed=0)[0].lattice)


def test_crystals_that_share_a_name_are_not_kept_together_by_force(ionic: CrystalBatch) -> None:
    twins = ionic.replace(material_ids=["the same"] * len(ionic))
    assert [len(part) for part in split_crystals(twins, (0.9, 0.1), seed=0)] == [180, 20]


@pytest.mark.parametrize("fractions", [(), (0.5, 0.4), (1.1, -0.1), (1.0, 0.0)])
def test_fractions_that_are_none_are_refused(ionic: CrystalBatch, fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="fractions must be positive and sum to 1"):
        split_crystals(ionic, fractions, seed=0)


def test_too_few_crystals_to_split_are_told(ionic: CrystalBatch) -> None:
    with pytest.raises(ValueError, match=r"3 crystals cannot be split.*\[3, 0\]"):
        split_crystals(concatenate([ionic.select([0, 1, 2])]), (0.9, 0.1), seed=0)
