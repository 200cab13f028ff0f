"""The loop: constraints hold, kills and oracles that fail lose nothing, the seed tells all."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Structure

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation.optimization.bayesian_search import BayesianSearch
from cdvae_kit.generation.optimization.constraints import Constraints
from cdvae_kit.generation.optimization.latent_optimizers import GuidedSearch, PublishedDescent
from cdvae_kit.generation.optimization.objectives import Goal, TargetOutsideDataError, UnknownPropertyError
from cdvae_kit.generation.optimization.oracles import FunctionJudge
from cdvae_kit.generation.optimization.run import OptimizationResult, optimize
from cdvae_kit.generation.optimization.trials import Relaxed
from cdvae_kit.io import read_crystals
from cdvae_kit.io.atomic import temporary_beside
from cdvae_kit.io.result_folder import ResumeError
from cdvae_kit.io.results.files import DamagedResultError
from cdvae_kit.models import CDVAE
from tests.generation.toys import LinearEnsemble, Stop, volume_per_atom
from tests.models.tiny import LATENT_DIM, some_crystals, tiny_model

QUICK = GuidedSearch(num_rounds=2, num_paths=2, num_cycles=2, steps_per_cycle=3, num_kept=1, num_submitted=3)
GOAL = Goal("energy")
PREDICTOR = LinearEnsemble(LATENT_DIM)
JUDGE = FunctionJudge(volume_per_atom, ("energy", "gap"))


@pytest.fixture(scope="module")
def model() -> CDVAE:
    return tiny_model()


def run(model: CDVAE, **options) -> OptimizationResult:
    settings = {"predictor": PREDICTOR, "judge": JUDGE, "starts": 5, "optimizer": QUICK, "batch_size": 2, **options}
    goals = settings.pop("goals", GOAL)
    return optimize(model, goals, **settings)


def same(first: OptimizationResult, other: OptimizationResult) -> bool:
    return all(
        np.array_equal(column, other.trials.numbers[name], equal_nan=True)
        for name, column in first.trials.numbers.items()
    ) and torch.equal(first.trials.crystals.frac_coords, other.trials.crystals.frac_coords)


def test_candidates_are_ranked_by_the_judge_and_no_two_are_alike(model: CDVAE) -> None:
    result = run(model)
    assert result.candidates is not None
    values = result.candidates.properties["judged_energy"]
    assert torch.equal(values, values.sort().values)
    truth = [structure.volume / len(structure) for structure in result.candidates.structures()]
    torch.testing.assert_close(values, torch.tensor(truth).float(), rtol=1e-4, atol=1e-4)
    assert len(result.trials) == 5 * 2 * 2
    assert result.summary["num_submitted"] == 5 * 3


def test_of_many_draws_the_one_nearest_to_its_code_is_kept(model: CDVAE) -> None:
    # one round: the codes are the same, whatever their crystals were
    once = replace(QUICK, num_rounds=1)
    single, many = run(model, optimizer=once), run(model, optimizer=once, num_draws=4)
    assert torch.equal(single.trials.codes, many.trials.codes)
    assert (single.trials.passed <= many.trials.passed).all()
    both = single.trials.passed & many.trials.passed
    before, after = single.trials.numbers["mismatch"][both], many.trials.numbers["mismatch"][both]
    assert (after <= before).all() and (after < before).any()
    assert same(many, run(model, optimizer=once, num_draws=4))


def test_every_trial_says_why_it_is_no_candidate(model: CDVAE) -> None:
    result = run(model)
    for passed, reason in zip(result.trials.passed, result.trials.reasons, strict=True):
        assert passed == (reason is None)
    assert sum(result.summary["reasons"].values()) == sum(reason is not None for reason in result.trials.reasons)


def test_the_seed_tells_all_and_the_batch_size_nothing(model: CDVAE) -> None:
    first, again, other = run(model), run(model), run(model, seed=1)
    assert same(first, again)
    assert not same(first, other)
    alone = run(model, batch_size=1)
    for name in ("predicted_energy", "judged_energy"):
        assert np.allclose(first.trials.numbers[name], alone.trials.numbers[name], rtol=1e-2, atol=1e-2, equal_nan=True)
    assert first.trials.crystals.atomic_numbers.tolist() == alone.trials.crystals.atomic_numbers.tolist()


def test_everything_is_written_and_reads_back(model: CDVAE, tmp_path: Path) -> None:
    result = run(model, output=tmp_path / "run")
    folder = tmp_path / "run"
    assert result.candidates is not None
    held = read_crystals(folder / "candidates.extxyz", min_distance=None).crystals
    assert held.material_ids == result.candidates.material_ids
    assert len(list((folder / "candidates").glob("*.cif"))) == len(held)
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert len(rows) == len(result.trials)
    import pyarrow.parquet as parquet

    assert parquet.read_table(folder / "history.parquet").num_rows == len(rows)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == result.summary
    assert summary["num_candidates"] == len(held)


def test_an_interrupted_run_keeps_what_is_done_and_resumes_to_the_same_end(model: CDVAE, tmp_path: Path) -> None:
    whole = run(model, output=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(model, output=tmp_path / "broken", progress=Stop(2))
    assert json.loads((tmp_path / "broken" / "summary.json").read_text())["num_trials"] == 2 * 4
    told: list[int] = []
    resumed = run(model, output=tmp_path / "broken", resume=True, progress=lambda done, total: told.append(done))
    assert same(whole, resumed) and told == [2, 4, 5]
    for name in ("history.csv", "candidates.extxyz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


_KILLED = """
import os, signal, sys
from tests.generation.test_optimization import run, tiny_model

def progress(done, total):
    if done >= 4:
        os.kill(os.getpid(), signal.SIGKILL)

run(tiny_model(), output=sys.argv[1], progress=progress)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_run_resumes_to_the_same_end(model: CDVAE, tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "broken")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    trials = tmp_path / "broken" / "trials"
    assert sorted(path.name for path in trials.iterdir()) == ["batch_0000.json", "batch_0001.json"]
    # as a failing disk leaves it
    (trials / "batch_0001.json").write_text('{"num_atoms": [3')
    assert same(run(model), run(model, output=tmp_path / "broken", resume=True))


def test_tries_that_a_kill_left_behind_their_batch_are_removed(model: CDVAE, tmp_path: Path) -> None:
    """A kill right after a batch has been kept, before all of its tries are gone."""
    whole = run(model, output=tmp_path / "run")
    trials = tmp_path / "run" / "trials"
    tries = [trials / f"batch_0000_try_{i:03d}.json" for i in range(2)]
    for path in tries:
        shutil.copy(trials / "batch_0000.json", path)
    assert same(whole, run(model, output=tmp_path / "run", resume=True))
    assert not any(path.exists() for path in tries)


def test_a_run_of_other_options_is_refused_and_left_as_it_is(model: CDVAE, tmp_path: Path) -> None:
    run(model, output=tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ResumeError, match="another seed"):
        run(model, output=tmp_path / "run", resume=True, seed=1)
    with pytest.raises(ResumeError, match="another goals"):
        run(model, output=tmp_path / "run", resume=True, goals=Goal("gap"))
    with pytest.raises(ResumeError, match="another model"):
        run(tiny_model(3), output=tmp_path / "run", resume=True)
    with pytest.raises(FileExistsError):
        run(model, output=tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert len(run(model, output=tmp_path / "run", seed=1, overwrite=True).trials)


def test_a_folder_of_somebody_else_is_left_alone(model: CDVAE, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(FileExistsError, match="not of such a run"):
            run(model, output=tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_oracle_that_raises_for_some_crystals_loses_only_these(model: CDVAE) -> None:
    def moody(structures: list[Structure]) -> dict[str, list[float]]:
        for structure in structures:
            if len(structure) % 2:
                raise RuntimeError("odd numbers scare me")
        return volume_per_atom(structures)

    def silent(structures: list[Structure]) -> dict[str, list[float]]:
        return {n: [float("nan") if len(s) % 2 else v for s, v in zip(structures, c, strict=True)]
                for n, c in volume_per_atom(structures).items()}  # fmt: skip

    whole = run(model)
    for oracle, words in ((moody, "odd numbers scare me"), (silent, "no value of energy")):
        result = run(model, judge=FunctionJudge(oracle, ("energy",)))
        odd = (result.trials.crystals.num_atoms % 2 == 1).numpy()
        asked = result.trials.passed & result.trials.flag("submitted")
        values = result.trials.numbers["judged_energy"]
        assert np.isnan(values[asked & odd]).all()
        assert np.allclose(values[asked & ~odd], whole.trials.numbers["judged_energy"][asked & ~odd])
        assert all(words in (result.trials.reasons[i] or "") for i in np.flatnonzero(asked & odd))


def test_an_oracle_that_always_raises_gives_a_run_without_candidates(model: CDVAE, tmp_path: Path) -> None:
    def broken(structures: list[Structure]) -> list[float]:
        raise ZeroDivisionError("no")

    result = run(model, judge=FunctionJudge(broken, ("energy",)), output=tmp_path / "run")
    assert result.candidates is None and result.summary["num_candidates"] == 0
    assert (tmp_path / "run" / "history.csv").exists() and not (tmp_path / "run" / "candidates.extxyz").exists()


def test_an_interrupt_within_an_oracle_is_no_failure_of_a_crystal(model: CDVAE) -> None:
    def stopped(structures: list[Structure]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, judge=FunctionJudge(stopped, ("energy",)))


def test_without_a_judge_the_summary_says_so(model: CDVAE) -> None:
    result = run(model, judge=None, thresholds={"energy": [5.0]})
    assert "no judge" in result.summary["ranked_by"]
    assert result.summary["success"][0]["by_judge"] is None


def test_success_is_counted_over_all_starts_for_predictor_and_judge_side_by_side(model: CDVAE) -> None:
    result = run(model, thresholds={"energy": [20.0, 1e9, -1e9]})
    judged = result.trials.numbers["judged_energy"]
    there = result.trials.passed & result.trials.flag("submitted")
    reached = len(set(result.trials.numbers["start"][there & (judged <= 20.0)])) / 5
    rates = [row["by_judge"] for row in result.summary["success"]]
    assert rates == [reached, len(set(result.trials.numbers["start"][there])) / 5, 0.0]
    assert all(row["by_predictor"] is not None for row in result.summary["success"])


def test_a_critic_has_a_say_in_what_the_judge_sees(model: CDVAE) -> None:
    def against_large(structures: list[Structure]) -> list[float]:
        return [1e3 * structure.volume for structure in structures]

    def against_small(structures: list[Structure]) -> list[float]:
        return [-1e3 * structure.volume for structure in structures]

    seen = []
    for critic in (against_large, against_small):
        optimizer = replace(QUICK, num_submitted=1)
        result = run(model, critic=FunctionJudge(critic, ("energy",)), starts=12, optimizer=optimizer)
        asked = result.trials.passed & result.trials.flag("submitted")
        seen.append(asked.tolist())
        said = result.trials.numbers["critic_energy"]
        assert np.isfinite(said[result.trials.passed]).all() and np.isnan(said[~result.trials.passed]).all()
    assert seen[0] != seen[1]


def test_several_goals_give_a_pareto_front(model: CDVAE) -> None:
    result = run(model, goals=[Goal("energy"), Goal("gap", "maximize")], starts=8)
    assert result.candidates is not None
    fronts = result.candidates.properties["pareto_front"]
    assert torch.equal(fronts, fronts.sort().values) and float(fronts[0]) == 0.0
    points = torch.stack(
        [result.candidates.properties["judged_energy"], -result.candidates.properties["judged_gap"]], dim=1
    )
    first = points[fronts == 0]
    assert not any(bool((p <= q).all() & (p < q).any()) for p in first for q in first)
    assert result.summary["hypervolume"] >= 0.0


def test_crystals_are_taken_as_starts_and_keep_their_names(model: CDVAE) -> None:
    starts = some_crystals(3)
    result = run(model, starts=starts)
    assert result.candidates is not None and result.candidates.material_ids is not None
    assert {name.split("_")[0] for name in result.candidates.material_ids} <= {"crystal-0", "crystal-1", "crystal-2"}


def test_the_published_descent_submits_everything(model: CDVAE) -> None:
    result = run(model, optimizer=PublishedDescent(num_steps=12, num_spaced=4))
    assert result.summary["num_submitted"] == len(result.trials) == 5 * 4


def test_relaxed_crystals_are_checked_and_judged_as_one_more_trial(model: CDVAE) -> None:
    def grow(crystals: CrystalBatch) -> list[Relaxed]:
        grown = crystals.replace(lattice=1.1 * crystals.lattice)
        return [
            Relaxed(None, reason="no luck") if i == 0 else Relaxed(grown.select([i]), energy_per_atom=-1.0 * i)
            for i in range(len(crystals))
        ]

    result = run(model, relax=grow, batch_size=5)
    relaxed = result.trials.flag("relaxed")
    assert 1 < relaxed.sum() <= 5
    trials = result.trials.select(np.flatnonzero(relaxed))
    assert trials.reasons[0] == "not relaxed: no luck" and not trials.flag("submitted")[0]
    before = {
        (s, n): v
        for s, n, v, r in zip(
            *(result.trials.numbers[k] for k in ("start", "snapshot", "judged_energy", "relaxed")), strict=True
        )
        if not r
    }
    for i in range(1, len(trials)):
        old = before[(trials.numbers["start"][i], trials.numbers["snapshot"][i])]
        assert trials.numbers["judged_energy"][i] == pytest.approx(1.1**3 * old, rel=1e-4)


def test_bayesian_search_asks_the_oracle_and_resumes_after_a_kill_in_between(model: CDVAE, tmp_path: Path) -> None:
    pytest.importorskip("botorch")
    calls: list[int] = []

    def counted(structures: list[Structure]) -> dict[str, list[float]]:
        calls.append(len(structures))
        if len(calls) == 3 and broken:
            raise KeyboardInterrupt
        return volume_per_atom(structures)

    search, broken = BayesianSearch(num_rounds=3, num_candidates=40), False
    options = {"predictor": None, "judge": FunctionJudge(counted, ("energy",)), "optimizer": search, "starts": 4}
    whole = run(model, **options)
    assert len(whole.trials) == 4 * 4 and len(calls) == 4
    calls.clear()
    broken = True
    with pytest.raises(KeyboardInterrupt):
        run(model, output=tmp_path / "run", **options)
    broken = False
    calls.clear()
    resumed = run(model, output=tmp_path / "run", resume=True, **options)
    # two rounds were on the disk
    assert len(calls) == 2 and same(whole, resumed)
    assert [path.name for path in (tmp_path / "run" / "trials").iterdir()] == ["batch_0000.json"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"goals": Goal("band")}, UnknownPropertyError, "no property 'band'"),
        ({"goals": Goal("energy", "target", 1e6)}, TargetOutsideDataError, "outside the training data"),
        ({"predictor": None}, ValueError, "needs a predictor"),
        ({"optimizer": BayesianSearch(), "judge": None}, ValueError, "asks an oracle"),
        ({"starts": 0}, ValueError, "at least one start"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"constraints": Constraints(num_atoms=(50, 60))}, ValueError, "cells of at most"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(
    model: CDVAE, tmp_path: Path, options: dict, error: type[ValueError], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(model, output=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_how_far_the_winners_lie_from_the_reference_is_told(model: CDVAE) -> None:
    reference = some_crystals(12, properties={"energy": torch.arange(12.0) + 10.0})
    result = run(model, reference=reference)
    told = result.summary["winners"]
    assert told["num_crystals"] == result.summary["num_starts_with_a_candidate"]
    assert told["median_latent_distance"] > 0.0 and told["usual_latent_distance"] > 0.0
    assert told["new_share"] >= told["new_composition_share"]
    # thresholds come from the reference
    assert [row["percentile"] for row in result.summary["success"]] == [5.0, 10.0, 15.0]


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("left", ["nothing", "trials", "unfinished run file"])
def test_a_folder_that_was_left_before_the_first_result_is_not_stuck(
    model: CDVAE, tmp_path: Path, left: str, options: dict[str, bool]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if left != "nothing":
        (folder / "trials").mkdir()
    if left == "unfinished run file":
        temporary_beside(folder / "run.json").write_text("{")
    assert len(run(model, output=folder, starts=1, **options).trials)
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_damaged_run_files_are_refused_by_name_and_damaged_trials_made_anew(
    model: CDVAE, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(model, output=tmp_path / "run")
    trials = tmp_path / "run" / "trials" / "batch_0000.json"
    text = trials.read_text()
    assert '"start": [0.0' in text
    trials.write_text(text.replace('"start": [0.0', '"start": [1.0', 1))
    assert same(whole, run(model, output=tmp_path / "run", resume=True))
    assert f"{trials} is damaged" in caplog.text
    (tmp_path / "run" / "run.json").write_text("[]")
    with pytest.raises(DamagedResultError, match=r"run\.json is damaged"):
        run(model, output=tmp_path / "run", resume=True)
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(ResumeError, match=r"its run\.json is missing"):
        run(model, output=tmp_path / "run", resume=True)
