"""`generate-crystals sample`: what it asks of the engine, what it prints, how it ends."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import Result

from cdvae_kit.cli.options import FormatName
from cdvae_kit.io.crystals.formats import WriteFormat
from tests.cli.conftest import Engine

Run = Callable[..., Result]


def test_without_options_it_makes_32_crystals_of_seed_0(run: Run, engine: Engine) -> None:
    assert run("sample").exit_code == 0
    asked = engine.calls["sample_to_file"]
    assert (asked["num_crystals"], asked["seed"], asked["path"]) == (32, 0, Path("crystals.extxyz"))
    assert (asked["batch_size"], asked["num_atoms"], asked["steps"], asked["sampler"]) == ("auto", None, None, None)


def test_every_option_reaches_the_engine(run: Run, engine: Engine) -> None:
    words = "--checkpoint perov_5 --num-crystals 5 --num-atoms 4 --steps 20 --sampler heun --temperature 0.5 --seed 7"
    result = run("sample", *words.split(), "--batch-size", 3, "--device", "cpu", "--output", "a.cif", "--format", "cif")
    assert result.exit_code == 0, result.output
    assert engine.calls["from_pretrained"] == {"name": "perov_5", "device": "cpu"}
    asked = engine.calls["sample_to_file"]
    wanted = {
        "num_crystals": 5,
        "num_atoms": 4,
        "steps": 20,
        "sampler": "heun",
        "temperature": 0.5,
        "seed": 7,
        "batch_size": 3,
        "path": Path("a.cif"),
        "format": "cif",
    }
    assert {key: asked[key] for key in wanted} == wanted


def test_the_table_tells_each_crystal_and_why_it_is_not_valid(run: Run, engine: Engine) -> None:
    lines = run("sample").stdout.splitlines()
    salt, crushed, not_neutral, flat = (
        next(line for line in lines if line.split()[:1] == [str(number)]) for number in (1, 2, 3, 4)
    )
    # CsCl-like NaCl, a = 3.5 A: 58.44 u in 42.875 A^3 is 2.26 g/cm^3, half the cell's diagonal is 3.03 A
    assert salt.split() == ["1", "NaCl", "2", "Pm-3m", "(221)", "2.26", "3.03", "yes"]
    assert crushed.rstrip().endswith("Na and Cl 0.03 A apart")
    assert not_neutral.split()[1:3] == ["Na2F", "3"]
    assert not_neutral.rstrip().endswith("no neutral choice of oxidation states for Na2F")
    assert flat.split()[:3] == ["4", "Si", "1"]
    assert "yes" not in flat


def test_the_last_lines_tell_the_validity_and_the_file(run: Run, engine: Engine) -> None:
    lines = run("sample").stdout.splitlines()
    assert lines[-2].startswith("4 crystals, 1 valid (25.0 %)")
    assert lines[-1] == "written to crystals.extxyz"


def test_progress_goes_to_standard_error_in_plain_lines_where_there_is_no_terminal(run: Run, engine: Engine) -> None:
    result = run("sample", "--num-crystals", 8)
    assert [line.split(",")[0] for line in result.stderr.splitlines()] == [
        f"Sampling: {done} of 8 crystals" for done in (2, 4, 6, 8)
    ]
    assert "Sampling" not in result.stdout


def test_it_refuses_to_overwrite_before_the_model_is_loaded(run: Run, engine: Engine) -> None:
    Path("crystals.extxyz").write_text("mine")
    result = run("sample")
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert Path("crystals.extxyz").read_text() == "mine"
    assert engine.calls == {}


@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
def test_it_overwrites_or_goes_on_when_told_to(run: Run, engine: Engine, option: str) -> None:
    Path("crystals.extxyz").write_text("mine")
    assert run("sample", option).exit_code == 0
    asked = engine.calls["sample_to_file"]
    assert (asked["overwrite"], asked["resume"]) == (option == "--overwrite", option == "--resume")


@pytest.mark.parametrize(("output", "code"), [("cifs", 0), ("new", 0), ("full", 2), ("a.pdf", 2), ("a.cif.gz", 0)])
def test_the_output_is_checked_before_the_model_is_loaded(run: Run, engine: Engine, output: str, code: int) -> None:
    Path("cifs").mkdir()
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    result = run("sample", "--output", output)
    assert result.exit_code == code, result.output
    assert ("from_pretrained" in engine.calls) == (code == 0)


def test_the_formats_of_the_command_are_those_that_can_be_written() -> None:
    assert get_args(FormatName) == get_args(WriteFormat)


def test_ctrl_c_ends_with_130_and_tells_how_to_go_on(run: Run, engine: Engine) -> None:
    engine.interrupted_at = 3
    result = run("sample")
    assert result.exit_code == 130
    assert "crystals.extxyz holds 3 of 32 crystals; --resume goes on" in result.stderr
    assert "written to" not in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--num-crystals", "0"),
        ("--num-crystals", "many"),
        ("--num-atoms", "0"),
        ("--steps", "0"),
        ("--seed", "-1"),
        ("--temperature", "-0.1"),
        ("--batch-size", "0"),
        ("--batch-size", "-3"),
        ("--batch-size", "all"),
        ("--device", "tpu"),
        ("--overwrite", "--resume"),
        ("--output", "nowhere/crystals.cif"),
        ("--nonsense",),
        ("word",),
    ],
)
def test_wrong_use_ends_with_2_and_asks_nothing_of_the_engine(run: Run, engine: Engine, words: tuple[str, ...]) -> None:
    result = run("sample", *words)
    assert result.exit_code == 2, result.output
    assert result.stderr.strip()
    assert engine.calls == {}
