"""`relax` on real files: what it writes, what it says of what fails, what it refuses."""

import csv
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
import torch
from ase.build import bulk
from typer.testing import Result

from cdvae_kit.cli.relax import OptimizerName
from cdvae_kit.crystal.conversion import atoms_to_batch
from cdvae_kit.io import read_crystals, write_crystals
from cdvae_kit.io.atomic import several_files
from cdvae_kit.relaxation.result import Optimizer

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(run: Run) -> Path:
    """Copper that is squeezed, plutonium that EMT does not know, and gold."""
    atoms = [bulk("Cu", "fcc", a=3.4), bulk("Pu", "fcc", a=4.6), bulk("Au", "fcc", a=4.3)]
    write_crystals(atoms_to_batch(atoms).replace(material_ids=["a", "b", "c"]), Path("given.extxyz"))
    return Path("given.extxyz")


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open() as rows:
        return list(csv.DictReader(rows))


def test_relaxed_crystals_and_a_line_for_each_are_written(run: Run, file: Path) -> None:
    result = run("relax", file, "--calculator", "emt", "--fmax", 0.01)
    assert result.exit_code == 0, result.output
    found = read_crystals("relaxed.extxyz").crystals
    assert found.material_ids == ["a", "c"]
    assert found.lattice[0].abs().max() * 2 == pytest.approx(3.59, abs=0.01)
    rows = table("relaxed.relaxation.csv")
    assert [row["outcome"] for row in rows] == ["converged", "failed", "converged"]
    assert "No EMT-potential for Pu" in rows[1]["reason"] and rows[0]["reason"] == ""
    assert float(rows[0]["energy_per_atom"]) == pytest.approx(float(found.properties["energy_per_atom"][0]), abs=1e-4)
    assert float(rows[0]["energy_per_atom"]) < float(rows[0]["initial_energy_per_atom"])
    assert (rows[0]["space_group_before"], rows[0]["space_group_after"]) == ("225", "225")
    assert "2 of 3 crystals relaxed" in result.stdout and "1 of 3 not relaxed" in result.stderr


def test_what_runs_out_of_steps_is_written_and_said(run: Run, file: Path) -> None:
    result = run("relax", file, "--calculator", "emt", "--fmax", 0.001, "--max-steps", 2, "--output", "out.cif")
    assert result.exit_code == 0 and "2 out of steps" in result.stdout
    assert [row["outcome"] for row in table("out.relaxation.csv")] == ["out of steps", "failed", "out of steps"]


def test_crystals_that_were_left_without_their_table_are_replaced(run: Run, file: Path) -> None:
    crystals = Path("relaxed.extxyz")
    with suppress(RuntimeError), several_files([crystals, Path("relaxed.relaxation.csv")]):
        crystals.write_text("half of a set")
        raise RuntimeError
    again = run("relax", file, "--calculator", "emt", "--max-steps", 0)
    assert again.exit_code == 0, again.output
    assert len(table("relaxed.relaxation.csv")) == 3
    # a whole set is not
    assert run("relax", file, "--calculator", "emt", "--max-steps", 0).exit_code == 2


def test_the_cell_stays_where_it_is_asked_to(run: Run, file: Path) -> None:
    assert run("relax", file, "--calculator", "emt", "--no-cell").exit_code == 0
    given, found = (read_crystals(path).crystals for path in (file, "relaxed.extxyz"))
    torch.testing.assert_close(found.lattice[0], given.lattice[0])


def test_the_space_group_is_kept_where_it_is_asked_to(run: Run, file: Path) -> None:
    result = run("relax", file, "--calculator", "emt", "--keep-symmetry", "--symprec", 0.01)
    assert result.exit_code == 0, result.output
    assert "symmetry within 0.01 A kept" in result.stdout


def test_the_same_command_goes_on_from_what_is_done(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the package's function of that name hides the module
    module = sys.modules["cdvae_kit.relaxation.relax"]

    def stop_at_gold(start: object, *rest: object) -> object:
        if 79 in start.atomic_numbers:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return relax_one(start, *rest)  # type: ignore[arg-type]

    relax_one = module.relax_one
    asked: list[object] = []

    def count(start: object, *rest: object) -> object:
        asked.append(start)
        return relax_one(start, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "relax_one", stop_at_gold)
    assert run("relax", file, "--calculator", "emt").exit_code != 0
    assert not Path("relaxed.extxyz").exists() and not Path("relaxed.relaxation.csv").exists()
    monkeypatch.setattr(module, "relax_one", count)
    assert run("relax", file, "--calculator", "emt").exit_code == 0
    assert len(asked) == 1 and len(table("relaxed.relaxation.csv")) == 3


def test_a_file_that_is_there_is_refused_before_anything_is_read(run: Run, file: Path) -> None:
    Path("relaxed.relaxation.csv").write_text("mine")
    result = run("relax", file, "--calculator", "emt")
    assert result.exit_code == 2 and "--overwrite" in result.stderr and not Path("relaxed.extxyz").exists()
    assert run("relax", file, "--calculator", "emt", "--overwrite").exit_code == 0


def test_a_calculator_that_is_none_is_said_before_anything_is_read(run: Run, file: Path) -> None:
    result = run("relax", file, "--calculator", "nothing")
    assert result.exit_code == 2 and "sevenn" in result.stderr and "Reading" not in result.stderr


def test_where_nothing_can_be_relaxed_nothing_is_written(run: Run) -> None:
    write_crystals(atoms_to_batch([bulk("Pu", "fcc", a=4.6)]), Path("given.extxyz"))
    result = run("relax", "given.extxyz", "--calculator", "emt")
    assert result.exit_code != 0 and "No EMT-potential for Pu" in result.stderr
    assert not Path("relaxed.extxyz").exists()


def test_the_optimizers_are_the_library_s() -> None:
    assert set(get_args(OptimizerName)) == set(get_args(Optimizer))
