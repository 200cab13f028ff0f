"""Experiments: what is written, what is taken over after a kill, what is refused."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from cdvae_kit.io.results.files import DamagedResultError
from cdvae_kit.representation.experiments.registry import experiment_names, load_experiment
from cdvae_kit.representation.experiments.running import (
    RESULTS,
    as_json,
    judged,
    read_results,
    run_experiment,
    run_experiments,
)
from cdvae_kit.representation.protocol import Claim, ExperimentResult, PartResult, standard_error
from tests.representation.toy import Toy


def test_every_arm_has_every_seed_with_mean_and_standard_error(tmp_path: Path) -> None:
    result = run_experiment(Toy(), seeds=[0, 1, 2], folder=tmp_path / "out")
    content = json.loads((tmp_path / "out" / RESULTS).read_text())
    assert content["arms"]["best"] == {
        "per_seed": [1.0, 2.0, 3.0],
        "mean": 2.0,
        "standard_error": pytest.approx(1 / 3**0.5),
    }
    assert content["claims"][0] == {
        "text": "best beats none",
        "relation": "at least",
        "threshold": 0.5,
        "per_seed": [1.0, 1.75, 2.5],
        "value": 1.75,
        "standard_error": pytest.approx(0.75 / 3**0.5),
        "verdict": "holds",
    }
    assert content["arms"]["nan"]["per_seed"] == [None] * 3
    assert content["claims"][1]["verdict"] == "undecided" and content["claims"][1]["value"] is None
    assert content["details"]["first"][2] == {"curve": [1, 2, 2]}
    assert content["notes"] == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == [RESULTS]
    again, claims = read_results(tmp_path / "out")
    assert again.arms["best"] == result.arms["best"] and again.seeds == result.seeds
    assert [claim.verdict for claim in claims] == ["holds", "undecided"]


def test_a_trial_and_few_seeds_say_that_they_support_no_claim() -> None:
    few = as_json(run_experiment(Toy(), seeds=[4], quick=True), [])
    assert len(few["notes"]) == 2 and "a claim needs 3 seeds, these are 1" in few["notes"]
    assert math.isnan(few["arms"]["best"]["standard_error"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, error: type[BaseException]) -> None:
    killed = Toy(dies_at=("first", 1), error=error)
    with pytest.raises(error):
        run_experiment(killed, seeds=[0, 1, 2], folder=tmp_path / "out")
    assert not (tmp_path / "out" / RESULTS).exists()
    second = Toy()
    resumed = run_experiment(second, seeds=[0, 1, 2], folder=tmp_path / "out")
    assert second.calls == [(part, seed, False) for seed in (1, 2) for part in ("first", "Second, of two")]
    whole = run_experiment(Toy(), seeds=[0, 1, 2])
    assert resumed.arms["best"] == whole.arms["best"] and resumed.arms["none"] == whole.arms["none"]
    assert all(math.isnan(value) for value in resumed.arms["nan"])
    assert resumed.details["first"] == whole.details["first"]


def test_processes_side_by_side_find_the_same_and_keep_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_experiment(Toy(dies_at=("first", 1)), seeds=[0, 1, 2], folder=tmp_path / "out")
    told: list[tuple[int, int]] = []
    here = Toy()
    found = run_experiment(
        here,
        seeds=[0, 1, 2],
        folder=tmp_path / "out",
        num_workers=2,
        progress=lambda done, total: told.append((done, total)),
    )
    # nothing was computed in this process, and seed 0 was there already
    assert here.calls == [] and told[0][0] > 33 and told == sorted(told) and told[-1] == (100, 100)
    alone = run_experiment(Toy(), seeds=[0, 1, 2])
    assert found.arms["best"] == alone.arms["best"] and found.details["first"] == alone.details["first"]
    with pytest.raises(ValueError, match="at least one process"):
        run_experiment(Toy(), seeds=[0], num_workers=0)


def test_a_damaged_part_is_computed_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_experiment(Toy(dies_at=("first", 1)), seeds=[0, 1], folder=tmp_path)
    part = next((tmp_path / "parts").glob("first-*-seed0.json"))
    part.write_text(part.read_text()[:40])
    again = Toy()
    with caplog.at_level(logging.WARNING, logger="cdvae_kit"):
        run_experiment(again, seeds=[0, 1], folder=tmp_path)
    assert ("first", 0, False) in again.calls and ("Second, of two", 0, False) not in again.calls
    assert "damaged" in caplog.text


def test_parts_of_another_run_are_refused_and_can_be_replaced(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_experiment(Toy(dies_at=("first", 1)), seeds=[0, 1], folder=tmp_path, quick=True)
    with pytest.raises(FileExistsError, match="parts of another run"):
        run_experiment(Toy(), seeds=[0, 1], folder=tmp_path)
    fresh = Toy()
    run_experiment(fresh, seeds=[0], folder=tmp_path, overwrite=True)
    assert len(fresh.calls) == 2


def test_existing_results_are_refused_before_the_work_starts(tmp_path: Path) -> None:
    run_experiment(Toy(), seeds=[0], folder=tmp_path)
    before = (tmp_path / RESULTS).read_text()
    second = Toy()
    with pytest.raises(FileExistsError, match="allow overwriting"):
        run_experiment(second, seeds=[0], folder=tmp_path)
    assert second.calls == [] and (tmp_path / RESULTS).read_text() == before
    run_experiment(second, seeds=[0, 1], folder=tmp_path, overwrite=True)
    assert json.loads((tmp_path / RESULTS).read_text())["seeds"] == [0, 1]


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        run_experiment(Toy(), seeds=[0], folder=tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(FileNotFoundError, match="create it first"):
        run_experiment(Toy(), seeds=[0], folder=tmp_path / "not" / "there")


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_no_seed_or_the_same_one_twice_is_refused(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one seed, all different"):
        run_experiment(Toy(), seeds=seeds)


def test_progress_rises_to_a_hundred() -> None:
    told: list[tuple[int, int]] = []
    run_experiment(Toy(), seeds=[0, 1], progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[0] == (0, 100) and told[-1] == (100, 100)


def test_arms_of_one_name_and_arms_that_come_and_go_are_faults() -> None:
    class Twice(Toy):
        def run(self, part: str, seed: int, **options: Any) -> PartResult:
            return PartResult({"same": 0.0})

    class Fickle(Toy):
        def run(self, part: str, seed: int, **options: Any) -> PartResult:
            return PartResult({f"{part} {seed}": 0.0})

    with pytest.raises(RuntimeError, match="two parts of toy have an arm 'same'"):
        run_experiment(Twice(), seeds=[0])
    with pytest.raises(RuntimeError, match="other arms for another seed"):
        run_experiment(Fickle(), seeds=[0, 1])


# the standard error of 0, 0.1, 0.2 is 0.0577
@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.51, "holds"), (0.52, "holds"), (0.4, "undecided"), (0.5, "undecided"), (0.27, "fails")]
)
def test_a_claim_is_decided_by_two_standard_errors(shift: float, verdict: str) -> None:
    per_seed = [shift, shift + 0.1, shift + 0.2]
    assert Claim("", per_seed, 0.49).verdict == verdict
    assert Claim("", [-value for value in per_seed], -0.49, "at most").verdict == verdict


def test_no_difference_few_seeds_and_what_is_no_number_decide_nothing() -> None:
    assert Claim("", [0.0] * 3).verdict == Claim("", [0.1 + 0.2] * 3, 0.3).verdict == "undecided"
    assert Claim("", [1.0, 1.1]).verdict == Claim("", [1.0, 1.0, math.nan]).verdict == "undecided"
    assert Claim("", [1.0, math.inf, 1.0]).verdict == "undecided"
    with pytest.raises(ValueError, match="no number of any seed"):
        Claim("empty", [])


def test_some_parts_are_run_alone_and_joined_by_more_later(tmp_path: Path) -> None:
    drawn: list[Path] = []
    some = run_experiment(
        Toy(),
        seeds=[0, 1, 2],
        parts=["first"],
        folder=tmp_path / "out",
        draw=lambda result, folder: drawn.append(folder),
    )
    assert some.left_out == ("Second, of two",) and not drawn
    kept, claims = read_results(tmp_path / "out")
    assert kept.left_out == some.left_out and [claim.text for claim in claims] == ["best beats none"]
    assert "Second, of two" in json.loads((tmp_path / "out" / RESULTS).read_text())["notes"][0]
    later = Toy()
    whole = run_experiment(later, seeds=[0, 1, 2], folder=tmp_path / "out")
    assert [part for part, _, _ in later.calls] == ["Second, of two"] * 3
    assert whole.left_out == () and whole.arms["best"] == some.arms["best"] and len(judged(Toy(), whole)) == 2
    # whole results stay unless told otherwise
    with pytest.raises(FileExistsError):
        run_experiment(Toy(), seeds=[0, 1, 2], parts=["first"], folder=tmp_path / "out")


def test_results_of_some_parts_are_not_taken_for_whole_ones(tmp_path: Path) -> None:
    run_experiment(Toy(), seeds=[0, 1, 2], parts=["first"], folder=tmp_path / "toy")
    ((result, claims),) = run_experiments([Toy()], seeds=[0, 1, 2], folder=tmp_path)
    assert result.left_out == () and len(claims) == 2


def test_unknown_parts_are_refused() -> None:
    for parts in ([], ["third"], ["first", "third"]):
        with pytest.raises(ValueError, match="parts of toy \\(first, Second, of two\\)"):
            run_experiment(Toy(), seeds=[0], parts=parts)


def test_the_best_of_arms_is_not_known_where_one_was_left_out() -> None:
    arms = {"a": (0.1, 0.2), "b": (0.3, 0.4)}
    whole = ExperimentResult("toy", "", False, (0, 1), arms, {}, 0.0)
    assert whole.best(["a", "b"]) == "b"
    some = ExperimentResult("toy", "", False, (0, 1), arms, {}, 0.0, ("c",))
    assert some.best(["a", "c", "b"]) == "c" and math.isnan(some.mean("c"))


def test_a_trial_claims_nothing(tmp_path: Path) -> None:
    result = run_experiment(Toy(), seeds=[0, 1, 2], folder=tmp_path, quick=True)
    assert judged(Toy(), result) == [] == json.loads((tmp_path / RESULTS).read_text())["claims"]
    assert len(judged(Toy(), run_experiment(Toy(), seeds=[0, 1, 2]))) == 2


def test_the_standard_error_is_that_of_the_mean() -> None:
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)
    assert math.isnan(standard_error([1.0])) and standard_error([2.0] * 5) == 0.0


def test_an_unknown_arm_names_those_that_there_are() -> None:
    with pytest.raises(KeyError, match="it has a, b"):
        ExperimentResult("toy", "", False, (0,), {"a": (0.0,), "b": (0.0,)}, {}, 0.0).mean("c")


def test_an_unknown_experiment_names_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdvae_kit.representation.experiments.registry._HOMES", {"toy": "toy", "other": "other"})
    with pytest.raises(ValueError, match="no experiment 'nonsense'; there are other, toy"):
        load_experiment("nonsense")


@pytest.mark.parametrize("name", experiment_names())
def test_every_registered_experiment_is_what_it_says(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name and experiment.paper and experiment.summary


@pytest.mark.parametrize("name", experiment_names())
def test_claims_do_without_parts_that_were_left_out(name: str) -> None:
    experiment = load_experiment(name)
    nothing = ExperimentResult(name, "", False, (0, 1, 2), {}, {}, 0.0, tuple(experiment.parts(quick=False)))
    assert judged(experiment, nothing) == []
    assert len(set(experiment.parts(quick=True))) == len(experiment.parts(quick=True)) > 0


def test_a_file_that_holds_no_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text("[]")
    with pytest.raises(ValueError, match="holds no results"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "damage", [("1.0", "1.5"), ('"seeds": [', '"seeds": [['), ('"arms"', '"arm"'), ('"digest"', '"odd"')]
)
def test_damaged_results_are_refused_by_name(tmp_path: Path, damage: tuple[str, str]) -> None:
    run_experiment(Toy(), seeds=[0], folder=tmp_path)
    path = tmp_path / RESULTS
    text = path.read_text()
    assert damage[0] in text
    path.write_text(text.replace(*damage, 1))
    with pytest.raises(DamagedResultError, match=r"results\.json is damaged"):
        read_results(tmp_path)
