"""`generate-crystals optimize` and `neighbors`: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cdvae_kit.cli.main import app
from cdvae_kit.io import read_crystals, write_crystals
from tests.models.tiny import some_crystals, tiny_model

ORACLE = """
def volume(structures):
    return [structure.volume / len(structure) for structure in structures]
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "judges.py").write_text(ORACLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def bayesian(checkpoint: Path, *words: object) -> tuple[int, str]:
    pytest.importorskip("botorch")
    fixed = ("optimize", "--checkpoint", checkpoint, "--method", "bayesian", "--oracle", "judges:volume")
    return call(*fixed, "--num-starts", 2, "--output", "run", "--device", "cpu", *words)


def test_an_oracle_of_ones_own_is_optimised_within_constraints(checkpoint: Path, folder: Path) -> None:
    code, told = bayesian(checkpoint, "--property", "volume", "--num-atoms", "1-4")
    assert code == 0, told
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["ranked_by"] == "judges:volume" and summary["num_trials"] == 2 * 11
    assert "1 to 4 atoms" in told and "ranked by: judges:volume" in told
    if summary["num_candidates"]:
        held = read_crystals(folder / "run" / "candidates.extxyz", min_distance=None).crystals
        assert int(held.num_atoms.max()) <= 4
    code, told = bayesian(checkpoint, "--property", "volume", "--num-atoms", "1-4")
    assert code == 2 and "holds files already" in told
    code, told = bayesian(checkpoint, "--property", "volume", "--num-atoms", "1-4", "--resume")
    assert code == 0, told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--property", "volume", "--num-atoms", "few"), "expected a range such as 2-6"),
        (("--property", "volume", "--num-atoms", "2.5-3"), "integers, numbers of atoms"),
        (("--property", "volume", "--num-atoms", "50-60"), "cells of at most 6"),
        (("--property", "volume", "--elements", "O,Xx"), "is no element"),
        (("--property", "volume", "--require", "O", "--forbid", "O"), "cannot be both required and forbidden"),
        (("--property", "volume", "--maximize", "--target", "3"), "choose one of"),
        (("--property", "volume", "--resume", "--overwrite"), "choose one"),
        (("--property", "volume=tiny"), "expected NAME=VALUE"),
        (("--property", "volume", "--oracle", "judges:mass"), "judges has no 'mass'"),
        (("--property", "volume", "--oracle", "nobody:mass"), "no module 'nobody'"),
        (("--property", "volume", "--oracle", "judges"), "module:function"),
    ],
)
def test_wrong_use_is_told_in_a_line_and_nothing_is_written(
    checkpoint: Path, folder: Path, words: tuple[str, ...], message: str
) -> None:
    code, told = bayesian(checkpoint, *words)
    assert code == 2 and message in " ".join(told.replace("│", " ").split()), told
    assert not (folder / "run").exists()


def test_neighbours_are_listed_nearest_first(checkpoint: Path, folder: Path) -> None:
    crystals = some_crystals(6)
    write_crystals(crystals, folder / "known.extxyz")
    write_crystals(crystals.select([3]), folder / "mine.extxyz")
    code, told = call(
        "neighbors",
        *("mine.extxyz", "known.extxyz", "-n", 2, "--checkpoint", checkpoint, "--device", "cpu", "--allow-outside"),
    )
    assert code == 0, told
    rows = [line.split() for line in told.splitlines() if "crystal-" in line and "outside" not in line]
    assert rows[0][:2] == ["crystal-3", "crystal-3"] and float(rows[0][-1]) < 0.01
