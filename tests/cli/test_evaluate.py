"""`evaluate` on real files: what it prints, what it writes, what it refuses."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import Result

from cdvae_kit.cli.evaluate import BackendName, CompositionRuleName, MatcherChoice, ProtocolChoice
from cdvae_kit.cli.evaluation_inputs import parse_cutoffs
from cdvae_kit.io import write_crystals
from cdvae_kit.metrics import CompositionRule, MatcherName
from cdvae_kit.metrics.computing.cluster import Backend
from cdvae_kit.metrics.protocols import ProtocolName
from tests.conftest import make_crystal

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def files(run: Run) -> tuple[Path, Path]:
    """Two crystals of which one is crushed, and a reference of two, in the folder of the command."""
    from cdvae_kit.crystal import concatenate

    good = make_crystal([4.1, 4.1, 4.1], [90.0, 90.0, 90.0], [55, 17], seed=0)
    good = good.replace(frac_coords=good.frac_coords.new_tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]))
    crushed = good.replace(frac_coords=good.frac_coords * 0.05)
    write_crystals(concatenate([good, crushed]), Path("ours.extxyz"))
    write_crystals(concatenate([good, good.replace(lattice=good.lattice * 1.02)]), Path("theirs.extxyz"))
    return Path("ours.extxyz"), Path("theirs.extxyz")


def test_numbers_are_printed_and_written(run: Run, files: tuple[Path, Path]) -> None:
    result = run("evaluate", files[0], "--reference", files[1], "--coverage-cutoffs", "0.3,5", "--output", "out")
    assert result.exit_code == 0, result.output
    for word in ("struct_valid", "cov_recall", "wdist_density", "smact-2014"):
        assert word in result.stdout
    content = json.loads(Path("out/metrics.json").read_text())
    assert content["struct_valid"] == 0.5 and content["n_gen"] == 2
    assert content["settings"]["coverage_cutoffs"] == [0.3, 5.0]
    assert "apart" in Path("out/crystals.csv").read_text()


def test_the_rule_is_said(run: Run, files: tuple[Path, Path]) -> None:
    result = run("evaluate", files[0], "--composition-rule", "charge", "--output", "out")
    assert result.exit_code == 0 and "rule charge" in result.stdout


def test_a_file_that_is_there_is_refused_before_anything_is_read(run: Run, files: tuple[Path, Path]) -> None:
    Path("out").mkdir()
    Path("out/metrics.json").write_text("mine")
    result = run("evaluate", files[0], "--output", "out")
    assert result.exit_code == 2 and "--overwrite" in result.stderr and "Reading" not in result.stderr
    assert Path("out/metrics.json").read_text() == "mine"


def test_records_that_hold_no_crystal_count_as_failures(run: Run, files: tuple[Path, Path]) -> None:
    write_crystals(make_crystal([4.1] * 3, [90.0] * 3, [55, 17], seed=0), Path("ours.csv"))
    with Path("ours.csv").open("a") as file:
        file.write("broken,no crystal\n")
    result = run("evaluate", "ours.csv", "--output", "out")
    assert result.exit_code == 0, result.output
    assert "1 of 2 records hold no crystal" in result.stderr
    assert json.loads(Path("out/metrics.json").read_text())["n_gen"] == 2
    assert run("evaluate", "ours.csv", "--output", "other", "--strict").exit_code != 0


@pytest.mark.parametrize("value", ["mp_21", "1", "1,2,3", "a,b", "-1,2"])
def test_cutoffs_that_make_no_sense_are_wrong_use(run: Run, files: tuple[Path, Path], value: str) -> None:
    result = run("evaluate", files[0], f"--coverage-cutoffs={value}")
    assert result.exit_code == 2 and "perov_5" in result.output


def test_the_choices_are_the_library_s() -> None:
    pairs = (
        (CompositionRuleName, CompositionRule),
        (MatcherChoice, MatcherName),
        (BackendName, Backend),
        (ProtocolChoice, ProtocolName),
    )
    for ours, theirs in pairs:
        assert set(get_args(ours)) == set(get_args(theirs))
    assert parse_cutoffs("carbon_24") == "carbon_24"


def test_novelty_pairs_and_stability_come_with_their_options(run: Run, files: tuple[Path, Path]) -> None:
    ours, theirs = files
    result = run(
        *("evaluate", ours, "--reference", theirs, "--train", theirs, "--reconstruction", "--output", "out"),
        *("--calculator", "lj", "--max-steps", 5, "--matcher", "cdvae", "--no-fingerprints", "--no-cache"),
    )
    assert result.exit_code == 0, result.output
    content = json.loads(Path("out/metrics.json").read_text())
    for name in ("novel", "unique", "match_rate", "metre", "stable", "sun"):
        assert content[name] is not None, name
    assert content["settings"]["files"] == {"generated": ours.name, "reference": theirs.name, "train": theirs.name}
    assert "lj" in content["details"]["sun"]["note"]


def test_a_hull_of_the_user_s_is_read(run: Run, files: tuple[Path, Path]) -> None:
    Path("hull.csv").write_text("composition,energy_per_atom\nCs,0\nCl,0\n")
    result = run(
        *("evaluate", files[0], "--calculator", "lj", "--hull", "hull.csv", "--max-steps", 0, "--output", "out"),
        *("--no-fingerprints", "--no-cache"),
    )
    assert result.exit_code == 0, result.output
    assert "hull.csv" in json.loads(Path("out/metrics.json").read_text())["details"]["stable"]["note"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--reconstruction"], "--reference"),
        (["--latent-model", "perov_5"], "--reference"),
        (["--calculator", "lj"], "--hull"),
        (["--hull", "ours.extxyz"], "--calculator"),
        (["--calculator", "nothing", "--reference", "theirs.extxyz"], "chgnet"),
    ],
)
def test_options_that_need_others_are_told_before_anything_is_read(
    run: Run, files: tuple[Path, Path], options: list[str], words: str
) -> None:
    result = run("evaluate", files[0], *options)
    assert result.exit_code == 2 and words in result.output and "Reading" not in result.output


def test_a_second_run_finds_its_fingerprints(
    run: Run, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("evaluate", files[0], "--output", "first").exit_code == 0
    # the package's function of that name hides the module
    monkeypatch.setattr(sys.modules["cdvae_kit.metrics.fingerprints.vectors"], "describe_sites", None)
    again = run("evaluate", files[0], "--output", "second")
    assert again.exit_code == 0, again.output
    assert Path("first/crystals.csv").read_text() == Path("second/crystals.csv").read_text()


def test_published_numbers_stand_in_the_report_only_where_the_data_set_is_named(
    run: Run, files: tuple[Path, Path]
) -> None:
    ours, theirs = files
    for output, options in (("unnamed", []), ("named", ["--coverage-cutoffs", "mp_20"])):
        result = run("evaluate", ours, "--reference", theirs, "--report", "--output", output, *options)
        assert result.exit_code == 0, result.output
    unnamed, named = (Path(name, "report.html").read_text(encoding="utf-8") for name in ("unnamed", "named"))
    assert "arxiv.org/abs/2110.06197" in named and "arxiv.org/abs/2110.06197" not in unnamed


def test_a_metric_of_one_s_own_is_computed(run: Run, files: tuple[Path, Path]) -> None:
    Path("mine.py").write_text(
        "def volume(structures):\n    return [s.volume for s in structures]\n"
        "def broken(structures):\n    raise RuntimeError('no')\n"
    )
    result = run("evaluate", files[0], "--metric", "mine:volume", "--metric", "mine:broken", "--output", "out")
    assert result.exit_code == 0, result.output
    content = json.loads(Path("out/metrics.json").read_text())
    assert content["volume"] == pytest.approx(4.1**3) and content["broken"] is None
    assert "RuntimeError: no" in content["details"]["broken"]["note"] and "volume" in result.stdout
    assert "volume" in Path("out/crystals.csv").read_text().splitlines()[0].split(",")


@pytest.mark.parametrize("name", ["mine", "no_such_module:volume", "math:pi"])
def test_a_metric_that_is_none_is_wrong_use(run: Run, files: tuple[Path, Path], name: str) -> None:
    result = run("evaluate", files[0], "--metric", name)
    assert result.exit_code == 2 and "--metric" in result.stderr and "Reading" not in result.stderr


def test_a_protocol_sets_rule_and_matcher_and_says_what_differs(run: Run, files: tuple[Path, Path]) -> None:
    result = run("evaluate", files[0], "--train", files[1], "--protocol", "mattergen", "--output", "out")
    assert result.exit_code == 0, result.output
    settings = json.loads(Path("out/metrics.json").read_text())["settings"]
    assert settings["protocol"] == "mattergen" and "alloys disordered" in settings["matcher"]
    assert "protocol mattergen" in result.stderr and "not as there: 2 crystals are judged" in result.stderr


def test_an_option_against_the_protocol_is_wrong_use(run: Run, files: tuple[Path, Path]) -> None:
    result = run("evaluate", files[0], "--protocol", "mattergen", "--matcher", "lemat", "--output", "out")
    assert result.exit_code == 2 and "--matcher" in result.stderr and not Path("out/metrics.json").exists()
    same = run("evaluate", files[0], "--protocol", "lemat", "--matcher", "lemat", "--output", "out")
    assert same.exit_code == 0, same.output
