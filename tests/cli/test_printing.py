"""What every command prints: tables for people, one document for programs, nothing where that is asked for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from cdvae_kit.cli.main import COMMANDS
from cdvae_kit.cli.outcome import in_words_of, options_of
from cdvae_kit.cli.sample import sample
from tests.cli.conftest import Engine

Run = Callable[..., Result]


def test_json_is_one_document_that_holds_every_crystal(run: Run, engine: Engine) -> None:
    result = run("sample", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [row["formula"] for row in found["crystals"]] == ["NaCl", "NaCl", "Na2F", "Si"]
    assert [row["valid"] for row in found["crystals"]] == [True, False, False, False]
    salt, crushed, _, flat = found["crystals"]
    # CsCl-like NaCl, a = 3.5 A: 58.44 u in 42.875 A^3, half the cell's diagonal
    assert salt["density"] == pytest.approx(2.2636, abs=1e-3) and salt["space_group"] == 221
    assert salt["shortest_distance"] == pytest.approx(3.031, abs=1e-3)
    assert "0.03 A apart" in crushed["reason"] and flat["density"] is None
    assert (found["num_crystals"], found["num_valid"], found["written"]) == (4, 1, ["crystals.extxyz"])


def test_quiet_prints_nothing_and_still_works(run: Run, engine: Engine) -> None:
    result = run("sample", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert "sample_to_file" in engine.calls


def test_an_error_is_told_whatever_the_options(run: Run, engine: Engine) -> None:
    for option in ("--json", "--quiet"):
        result = run("sample", option, "--output", "a.pdf")
        assert result.exit_code == 2 and result.stdout == "" and "cannot tell what to write" in result.stderr


def test_after_a_quiet_command_the_next_one_prints_again(run: Run, engine: Engine) -> None:
    run("sample", "--quiet", "--output", "a.cif")
    assert "written to b.cif" in run("sample", "--output", "b.cif").stdout


def test_every_command_has_both_options(run: Run) -> None:
    for command in COMMANDS:
        name = command.__name__.replace("_", "-")
        text = run(name, "--help").stdout
        assert "--json" in text and "--quiet" in text, name


def test_a_message_of_the_library_comes_in_the_words_of_the_command() -> None:
    told = in_words_of(options_of(sample), "num_atoms must lie in 1..5, got 9; or allow it with overwrite=True")
    assert told == "--num-atoms must lie in 1..5, got 9; or allow it with --overwrite"


def test_words_that_are_no_options_stay_as_they_are() -> None:
    options = {"num_atoms": "--num-atoms", "output": "--output", "seed": "--seed"}
    text = "the output of model.num_atoms_head and CDVAE.num_atoms; seed 3"
    assert in_words_of(options, text) == text
    assert in_words_of(options, "choose seed=4, num_atoms=2") == "choose --seed 4, --num-atoms 2"


def test_a_killed_run_is_told_in_options_not_in_arguments(run: Run, engine: Engine) -> None:
    Path("crystals.extxyz.partial.jsonl").write_text("{}\n")
    told = run("sample").stderr
    assert "--resume" in told and "--overwrite" in told and "=True" not in told
