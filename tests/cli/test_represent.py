"""`represent`: what it writes and prints, what it refuses, and that a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import tests.representation.toy as toy_module
from cdvae_kit.representation.protocol import PartResult
from tests.representation.toy import Toy

Run = Callable[..., Result]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    experiment = Toy()
    monkeypatch.setattr(toy_module, "EXPERIMENT", experiment)
    monkeypatch.setattr("cdvae_kit.representation.experiments.registry._HOMES", {"toy": "toy"})
    monkeypatch.setattr(
        "cdvae_kit.representation.experiments.registry.import_module",
        lambda name: {"cdvae_kit.representation.experiments.toy": toy_module}[name],
    )
    return experiment


def test_an_experiment_writes_results_and_a_figure_and_prints_its_claims(run: Run, toy: Toy) -> None:
    result = run("represent", "toy", "--seeds", 3, "--first-seed", 5, "--output", "out")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("out/results.json").read_text())["seeds"] == [5, 6, 7]
    assert Path("out/figure.png").read_bytes()[:4] == b"\x89PNG"
    assert "best beats none" in result.stdout and "holds" in result.stdout and "undecided" in result.stdout
    assert "at most 0.5" in result.stdout and "seed 7" in result.stdout
    assert toy.calls[0] == ("first", 5, False)


def test_some_parts_alone_say_what_is_missing(run: Run, toy: Toy) -> None:
    result = run("represent", "toy", "--part", "first")
    assert result.exit_code == 0 and "Second, of two" in result.stderr
    assert "best beats none" in result.stdout and "nan is small" not in result.stdout
    assert not Path("toy/figure.png").exists()
    assert run("represent", "toy").exit_code == 0 and Path("toy/figure.png").exists()
    assert run("represent", "all", "--part", "first").exit_code == 2
    assert run("represent", "toy", "--part", "third", "--output", "other").exit_code == 2


def test_few_seeds_and_a_trial_are_said_to_support_nothing(run: Run, toy: Toy) -> None:
    assert "a claim needs 3" in run("represent", "toy", "--seeds", 1).stderr
    assert Path("toy/results.json").exists()
    trial = run("represent", "toy", "--quick", "--output", "trial")
    assert "support no claim" in trial.stderr and toy.calls[-1][2] is True
    assert "best beats none" not in trial.stdout


def test_a_killed_run_goes_on(run: Run, toy: Toy) -> None:
    toy.dies_at = ("first", 1)
    assert run("represent", "toy").exit_code == 130
    assert not Path("toy/results.json").exists()
    toy.dies_at, toy.calls = None, []
    assert run("represent", "toy").exit_code == 0
    assert toy.calls[0] == ("first", 1, False)


def test_a_figure_that_fails_does_not_cost_the_finished_parts(
    run: Run, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Toy, "panels", lambda self, result: [])
        assert run("represent", "toy").exit_code == 2
    assert not Path("toy/results.json").exists()
    toy.calls = []
    assert run("represent", "toy").exit_code == 0 and toy.calls == []
    assert Path("toy/figure.png").exists()


def test_existing_results_are_kept_unless_told_otherwise(run: Run, toy: Toy) -> None:
    assert run("represent", "toy", "--seeds", 1).exit_code == 0
    refused = run("represent", "toy", "--seeds", 1)
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr
    assert run("represent", "toy", "--seeds", 1, "--overwrite").exit_code == 0


def test_an_unknown_experiment_names_what_there_is(run: Run, toy: Toy) -> None:
    result = run("represent", "nonsense")
    assert result.exit_code == 2 and "there are toy" in result.stderr
    assert not Path("nonsense").exists()


def test_without_a_name_the_experiments_are_listed(run: Run, toy: Toy) -> None:
    result = run("represent")
    assert result.exit_code == 0 and "one arm against another" in result.stdout


def test_no_seed_at_all_is_wrong_use(run: Run, toy: Toy) -> None:
    assert run("represent", "toy", "--seeds", 0).exit_code == 2
    assert toy.calls == []


@pytest.fixture
def toys(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> tuple[Toy, Toy]:
    """Two experiments, of which the second reads data."""
    second = Reader()
    homes = {"toy": toy, "reader": second}
    monkeypatch.setattr("cdvae_kit.representation.experiments.registry.experiment_names", lambda: list(homes))
    monkeypatch.setattr("cdvae_kit.representation.experiments.registry.load_experiment", lambda name: homes[name])
    return toy, second


class Reader(Toy):
    name = "reader"
    reads_data = True

    def with_data(self, folder: object) -> Toy:
        self.data = str(folder)
        return self


def test_all_experiments_go_into_folders_of_their_names_and_onto_one_page(run: Run, toys: tuple[Toy, Toy]) -> None:
    result = run("represent", "all", "--output", "out")
    assert result.exit_code == 0, result.output
    for name in ("toy", "reader"):
        assert json.loads(Path(f"out/{name}/results.json").read_text())["experiment"] == name
        assert Path(f"out/{name}/figure.png").exists()
    page = Path("out/index.html").read_text()
    assert "best beats none" in page and "represent reader --seeds 3 --first-seed 0 --data DIR" in page
    assert "best beats none" in result.stdout and "reader" in result.stdout


def test_all_takes_over_what_is_finished_and_goes_on_after_a_kill(run: Run, toys: tuple[Toy, Toy]) -> None:
    first, second = toys
    second.dies_at = ("first", 1)
    assert run("represent", "all", "--output", "out").exit_code == 130
    assert Path("out/toy/results.json").exists() and not Path("out/index.html").exists()
    first.calls, second.calls, second.dies_at = [], [], None
    assert run("represent", "all", "--output", "out").exit_code == 0
    assert first.calls == [] and second.calls[0] == ("first", 1, False)
    assert Path("out/index.html").exists()


def test_all_refuses_results_of_other_seeds_before_it_runs_any(run: Run, toys: tuple[Toy, Toy]) -> None:
    assert run("represent", "reader", "--seeds", 1, "--output", "out/reader").exit_code == 2  # no folder out
    Path("out").mkdir()
    assert run("represent", "reader", "--seeds", 1, "--output", "out/reader").exit_code == 0
    refused = run("represent", "all", "--output", "out")
    assert refused.exit_code == 2 and "seeds [0]" in refused.stderr and "--overwrite" in refused.stderr
    assert toys[0].calls == []
    assert run("represent", "all", "--output", "out", "--overwrite").exit_code == 0


def test_a_folder_of_data_goes_to_those_that_read_it_and_is_refused_by_others(run: Run, toys: tuple[Toy, Toy]) -> None:
    refused = run("represent", "toy", "--data", "sets")
    assert refused.exit_code == 2 and "reads no data set" in refused.stderr
    assert run("represent", "all", "--data", "sets", "--output", "out").exit_code == 0
    assert (toys[0].data, toys[1].data) == (None, "sets")


def test_results_that_lacked_a_data_set_are_not_taken_over_where_it_is_given(
    run: Run, toys: tuple[Toy, Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "run", lambda self, part, seed, **how: PartResult({part: 0.0}, {"skipped": "no data"}))
        patch.setattr(Reader, "claims", lambda self, result: [])
        Path("out").mkdir()
        assert run("represent", "reader", "--output", "out/reader").exit_code == 0
    refused = run("represent", "all", "--data", "sets", "--output", "out")
    assert refused.exit_code == 2 and "without first" in refused.stderr
    assert run("represent", "all", "--data", "sets", "--output", "out", "--overwrite").exit_code == 0


def test_parts_of_other_data_are_not_taken_over(run: Run, toys: tuple[Toy, Toy]) -> None:
    toys[1].dies_at = ("first", 1)
    assert run("represent", "reader").exit_code == 130
    toys[1].dies_at = None
    refused = run("represent", "reader", "--data", "sets")
    assert refused.exit_code == 2 and "parts of another run" in refused.stderr


def test_no_progress_passes_a_hundred_per_cent(run: Run, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"toy": "toy", "again": "toy"}
    monkeypatch.setattr("cdvae_kit.representation.experiments.registry._HOMES", names)
    told = run("represent", "all", "--quick", "--output", "out").stderr
    shares = [line.split(": ")[1].split(" ")[0:3:2] for line in told.splitlines() if line.startswith("Running")]
    assert shares and all(0 <= int(done) <= int(whole) == 100 for done, whole in shares), told
