"""Property optimisation: from starts to ranked candidates, with everything that happened on the way.

`optimize` is the loop. Its parts stand alone: goals in `objectives`, constraints in `constraints`, ways through the
latent space in `latent_optimizers` and `bayesian_search`, decoding and checks in `trials`, judges in `oracles`, what
is kept on the disk in `run_files`, and what is made of it in `ranking` and `remoteness`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.generation.latent_region import LatentRegion
from cdvae_kit.generation.optimization import ranking, run_files
from cdvae_kit.generation.optimization.constraints import Constraints
from cdvae_kit.generation.optimization.latent_optimizers import Feedback, GuidedSearch, LatentOptimizer
from cdvae_kit.generation.optimization.objectives import (
    Goal,
    LatentModel,
    PropertyObjective,
    PropertyRange,
    check_goals,
)
from cdvae_kit.generation.optimization.oracles import Judge
from cdvae_kit.generation.optimization.remoteness import remoteness
from cdvae_kit.generation.optimization.run_files import RunFiles
from cdvae_kit.generation.optimization.starts import start_codes, weights_of_goals
from cdvae_kit.generation.optimization.trials import (
    Relaxer,
    TrialMaker,
    Trials,
    join,
    judged,
    promised,
    submit,
)
from cdvae_kit.io.results.files import plain
from cdvae_kit.models import CDVAE
from cdvae_kit.typing import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimizationResult:
    """What an optimisation found.

    Attributes:
        candidates: valid, within the constraints, no two alike, the best first; values and origin are properties. None
            where there is no candidate.
        trials: everything that was decoded.
        order: indices of the candidates among the trials.
        summary: what `summary.json` holds.
    """

    candidates: CrystalBatch | None
    trials: Trials
    order: np.ndarray
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class _Task:
    """What stays the same from batch to batch."""

    model: CDVAE
    goals: tuple[Goal, ...]
    predictor: LatentModel | None
    judge: Judge | None
    optimizer: LatentOptimizer
    constraints: Constraints
    relax: Relaxer | None
    region: LatentRegion
    maker: TrialMaker
    files: RunFiles
    scales: tuple[float, ...]
    weights: Tensor
    uncertainty: float
    seed: int


def optimize(
    model: CDVAE,
    goals: Goal | Sequence[Goal],
    *,
    predictor: LatentModel | None = None,
    critic: Judge | None = None,
    judge: Judge | None = None,
    starts: CrystalBatch | int = 100,
    optimizer: LatentOptimizer | None = None,
    constraints: Constraints | None = None,
    relax: Relaxer | None = None,
    reference: CrystalBatch | None = None,
    thresholds: Mapping[str, Sequence[float]] | None = None,
    allow_outside: bool = False,
    uncertainty: float = 1.0,
    max_tries: int = 1,
    num_draws: int = 1,
    steps: int | None = None,
    output: str | os.PathLike[str] | None = None,
    batch_size: int = 25,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> OptimizationResult:
    """Crystals with the property that is asked for, ranked, none alike, none that breaks a constraint.

    From each start the optimiser goes through the latent space; what it tries is decoded, checked and encoded again.
    The judge, who has no part in the search, gives the values that candidates are ranked by. Start i depends on the
    model, the options, the seed and i alone.

    Args:
        model: the encoder and decoder.
        goals: what is wanted. With several, each start weighs them by its own random shares, so that the starts spread
            over the Pareto front.
        predictor: of the properties from codes, which the search goes down; None for a search that asks the judge.
        critic: of decoded crystals, asked in the search about each that is valid: it sees distortions that codes do not
            tell. It is optimised as the predictor is, so it must not be the judge.
        judge: an independent model or oracle; None ranks by the predictor, and the summary says so.
        starts: crystals to start from, or how many codes to draw from the prior.
        optimizer: `GuidedSearch` by default; `PublishedDescent` or `BayesianSearch`.
        constraints: what candidates have to be.
        relax: relaxes the best trial of each start, which is then checked and judged as one more trial.
        reference: crystals with the properties, the training data as a rule: percentiles for the success rates, the
            range for targets, and how far the winners lie from it.
        thresholds: values of success by property, instead of percentiles of the reference.
        allow_outside: take targets outside the data's range.
        uncertainty: standard deviations of the predictor's ensemble that are added to what is minimised.
        max_tries: decodings of a code whose crystal is invalid or breaks a constraint.
        num_draws: decodings of every code, as in `TrialMaker`.
        steps: of the decoder; its own default if None.
        output: a folder for everything; None keeps nothing.
        batch_size: starts at a time, which is also what a kill can lose. Bayesian optimisation takes all at once, and
            loses a round.
        seed: of the run.
        resume: go on with the run in the folder.
        overwrite: remove the run in the folder first.
        progress: told after every batch.
    """
    began = time.monotonic()
    goals = (goals,) if isinstance(goals, Goal) else tuple(goals)
    optimizer = optimizer or GuidedSearch()
    constraints = constraints or Constraints()
    if min(batch_size, max_tries, num_draws) < 1:
        raise ValueError(f"batch_size, max_tries, num_draws start at 1, got {batch_size}, {max_tries}, {num_draws}")
    _check_roles(goals, predictor, judge, optimizer)
    ranges = _ranges(goals, predictor, reference)
    check_goals(goals, ranges, allow_outside=allow_outside)
    constraints.check_model(model)
    codes, names, left_out = start_codes(model, starts, seed)
    limits = _thresholds(goals, thresholds, reference)
    settings = {
        "goals": [asdict(goal) for goal in goals],
        "optimizer": optimizer.settings(),
        "constraints": asdict(constraints),
        "critic": None if critic is None else critic.description,
        "judge": None if judge is None else judge.description,
        "relaxed": relax is not None,
        "uncertainty": uncertainty,
        "max_tries": max_tries,
        "num_draws": num_draws,
        "steps": steps,
        "seed": seed,
        "batch_size": batch_size,
        "starts": hashlib.sha256(codes.cpu().numpy().tobytes()).hexdigest(),
        "model": run_files.model_digest(model),
    }
    with RunFiles(output, settings, resume=resume, overwrite=overwrite) as files:
        region = LatentRegion.of_model(model)
        task = _Task(
            model=model,
            goals=goals,
            predictor=predictor,
            judge=judge,
            optimizer=optimizer,
            constraints=constraints,
            relax=relax,
            region=region,
            maker=TrialMaker(model, goals, predictor, critic, constraints, region, seed, max_tries, steps, num_draws),
            files=files,
            scales=_scales(goals, predictor, reference),
            weights=weights_of_goals(len(codes), len(goals), seed),
            uncertainty=uncertainty,
            seed=seed,
        )
        size = len(codes) if optimizer.needs_losses else batch_size
        parts: list[Trials] = []
        about = {"settings": files.settings, "num_starts": len(codes), "starts_left_out": left_out}

        def finish() -> OptimizationResult:
            about["seconds"] = round(time.monotonic() - began, 1)
            return _finish(task, join(parts), names, limits, reference, about)

        try:
            for first in range(0, len(codes), size):
                number = first // size
                found = files.load(_name(number))
                if found is None:
                    found = _run_batch(task, codes[first : first + size], first, number)
                    files.keep(_name(number), found)
                # also those that a run which was killed right here has left
                files.forget(f"{_name(number)}_")
                parts.append(found)
                if progress is not None:
                    progress(min(first + size, len(codes)), len(codes))
        except KeyboardInterrupt:
            if parts:
                finish()
            raise
        return finish()


def _name(batch: int) -> str:
    return f"batch_{batch:04d}"


def _run_batch(task: _Task, codes: Tensor, first: int, batch: int) -> Trials:
    """All trials of the starts `first`, `first` + 1, ..."""
    device = codes.device
    ids = torch.arange(first, first + len(codes), device=device)
    objective = None
    if task.predictor is not None:
        objective = PropertyObjective(
            task.predictor, task.goals, task.weights[first : first + len(codes)].to(device), task.uncertainty
        )
    made: list[Trials] = []

    def try_codes(codes: Tensor, steps: Sequence[int]) -> Feedback:
        name = f"{_name(batch)}_try_{len(made):03d}"
        trials = task.files.load(name)
        if trials is None:
            trials = _made(task, codes, steps, ids.tolist(), sum(len(part) for part in made) // len(ids))
            task.files.keep(name, trials)
        made.append(trials)
        return _feedback(task, trials, codes)

    task.optimizer.run(
        objective,
        codes,
        try_codes,
        region=task.region,
        penalty=task.constraints.guide(task.model),
        seed=task.seed,
        crystal_ids=ids,
    )
    trials = join(made)
    # sorted by start and snapshot: the same order of rows for any batch size
    trials = trials.select(np.lexsort((trials.numbers["snapshot"], trials.numbers["start"])))
    if not task.optimizer.needs_losses:
        optimizer = task.optimizer
        loss = promised(trials, task.goals, task.scales, _shares(task, trials))
        loss = loss + optimizer.consistency * trials.numbers["mismatch"]
        trials = submit(trials, loss, optimizer.num_submitted)
        if task.judge is not None:
            trials = judged(trials, task.judge, task.goals)
    return trials if task.relax is None else _with_relaxed(task, trials)


def _made(task: _Task, proposed: Tensor, steps: Sequence[int], starts: list[int], offset: int) -> Trials:
    trials = task.maker.make(proposed, steps, starts, first_snapshot=offset)
    trials = trials.with_numbers(relaxed=np.zeros(len(trials)))
    if task.optimizer.needs_losses and task.judge is not None:
        trials = judged(submit(trials, np.zeros(len(trials)), None), task.judge, task.goals)
    return trials


def _feedback(task: _Task, trials: Trials, proposed: Tensor) -> Feedback:
    """Trials stand start by start, feedback snapshot by snapshot."""
    num_snapshots, num_starts, latent_dim = proposed.shape
    if task.optimizer.needs_losses:
        distances = ranking.goal_distances(ranking.final_values(trials, task.goals, has_judge=True), task.goals)
        losses = torch.from_numpy((distances / np.array(task.scales)).sum(axis=1)).float()
        losses = losses.view(num_starts, num_snapshots).T
        return Feedback(torch.full_like(proposed, torch.nan), losses.to(proposed.device))
    found = trials.reread_codes.to(proposed.device).view(num_starts, num_snapshots, latent_dim)
    if task.maker.critic is None:
        return Feedback(found.transpose(0, 1))
    losses = torch.from_numpy(promised(trials, task.goals, task.scales, _shares(task, trials), kinds=("critic",)))
    return Feedback(found.transpose(0, 1), losses.float().to(proposed.device).view(num_starts, num_snapshots).T)


def _shares(task: _Task, trials: Trials) -> np.ndarray:
    """(num_trials, num_goals) weights of the goals."""
    return task.weights.double().numpy()[trials.numbers["start"].astype(int)]


def _with_relaxed(task: _Task, trials: Trials) -> Trials:
    """With one more trial for each start: the best submitted one, relaxed, checked, judged."""
    assert task.relax is not None
    by_predictor = ranking.rank(trials, task.goals, task.scales, has_judge=task.optimizer.needs_losses)
    chosen = ranking.best_of_each_start(trials, by_predictor)
    if not len(chosen):
        return trials
    before = trials.select(chosen)
    results = list(task.relax(before.crystals))
    crystals = [
        before.crystals.select([i]) if result.crystal is None else result.crystal for i, result in enumerate(results)
    ]
    bare = concatenate([crystal.to("cpu").replace(properties={}, material_ids=None) for crystal in crystals])
    bare = bare.replace(frac_coords=bare.frac_coords.float(), lattice=bare.lattice.float())
    failed = [None if r.crystal is not None else f"not relaxed: {r.reason}" for r in results]
    after = replace(before, crystals=bare, reasons=tuple(failed))
    after = task.maker.recheck(after).with_numbers(
        relaxed=np.ones(len(before)), energy_per_atom=np.array([result.energy_per_atom for result in results])
    )
    # a crystal that could not be relaxed is no second candidate
    after = after.with_numbers(submitted=np.array([float(reason is None) for reason in failed]))
    return join([trials, after if task.judge is None else judged(after, task.judge, task.goals)])


def _finish(
    task: _Task,
    trials: Trials,
    names: list[str],
    limits: Mapping[str, list[tuple[float | None, float]]],
    reference: CrystalBatch | None,
    about: dict[str, Any],
) -> OptimizationResult:
    has_judge = task.judge is not None
    ranked = ranking.rank(trials, task.goals, task.scales, has_judge=has_judge)
    different = ranking.without_duplicates(trials, ranked)
    # a crystal that is left out leaves a front that others move up to
    order = ranking.rank(trials, task.goals, task.scales, has_judge=has_judge, among=different)
    winners = ranking.best_of_each_start(trials, ranked)
    candidates = None
    if len(order):
        candidates = ranking.named_candidates(trials, order, task.goals, has_judge=has_judge, start_names=names)
        # the promise: checked once more on what is returned
        broken = [reason for reason in task.constraints.violations(candidates) if reason is not None]
        if broken:
            raise RuntimeError(f"{len(broken)} candidates break a constraint, the first: {broken[0]}")
    rates = ranking.success(trials, task.goals, limits, len(names), has_judge=has_judge)
    best = ranking.final_values(trials, task.goals, has_judge=has_judge)
    summary = about | {
        "ranked_by": task.judge.description if task.judge is not None else "the optimised predictor: no judge given",
        "judge_error": dict(task.judge.held_out_error) if task.judge is not None else {},
        "constraints": task.constraints.describe(),
        "success": [asdict(rate) for rate in rates],
        "num_trials": len(trials),
        "num_valid": int(trials.flag("valid").sum()),
        "num_passed": int(trials.passed.sum()),
        "num_submitted": int(trials.flag("submitted").sum()),
        "num_submitted_valid": int((trials.flag("submitted") & trials.passed).sum()),
        "num_ranked": len(ranked),
        "num_candidates": len(order),
        "num_starts_with_a_candidate": len(winners),
        "num_different_winners": len(ranking.without_duplicates(trials, winners)),
        "best": {goal.name: float(best[order[0], i]) for i, goal in enumerate(task.goals)} if len(order) else {},
        "hypervolume": ranking.front_volume(trials, order, task.goals, has_judge=has_judge),
        "reasons": ranking.reasons(trials),
    }
    if reference is not None and len(winners):
        summary["winners"] = remoteness(task.model, trials.crystals.select(winners.tolist()), reference).summary()
    summary = plain(summary)
    task.files.write_results(run_files.history(trials, names), candidates, summary)
    return OptimizationResult(candidates, trials, order, summary)


def _check_roles(
    goals: Sequence[Goal], predictor: LatentModel | None, judge: Judge | None, optimizer: LatentOptimizer
) -> None:
    if optimizer.needs_losses:
        if judge is None:
            raise ValueError("Bayesian optimisation asks an oracle while it runs; give one")
    elif predictor is None:
        raise ValueError(
            "a descent needs a predictor of the property from codes, and none is given; give one, or use Bayesian "
            "optimisation with an oracle"
        )


def _ranges(
    goals: Sequence[Goal], predictor: LatentModel | None, reference: CrystalBatch | None
) -> dict[str, PropertyRange]:
    """What is known of the properties: by the reference's values first, then by the predictor's statistics."""
    known = dict(predictor.ranges) if predictor is not None else {}
    for goal in goals:
        if predictor is None and goal.name not in known:
            # the oracle is asked under this name; whether it knows it shows when it answers
            known[goal.name] = PropertyRange(goal.name, "", -float("inf"), float("inf"))
        if reference is not None and goal.name in reference.properties and goal.name in known:
            values = reference.properties[goal.name]
            values = values[values.isfinite()]
            if len(values):
                low, high = float(values.min()), float(values.max())
                known[goal.name] = replace(known[goal.name], low=low, high=high)
    return known


def _scales(goals: Sequence[Goal], predictor: LatentModel | None, reference: CrystalBatch | None) -> tuple[float, ...]:
    """The scale of each goal, in its unit."""
    scales = []
    for goal in goals:
        if predictor is not None:
            scales.append(float(predictor.standard_deviation[predictor.names.index(goal.name)]))
            continue
        values = reference.properties.get(goal.name) if reference is not None else None
        values = None if values is None else values[values.isfinite()]
        scales.append(1.0 if values is None or len(values) < 2 else max(float(values.std()), 1e-6))
    return tuple(scales)


def _thresholds(
    goals: Sequence[Goal], given: Mapping[str, Sequence[float]] | None, reference: CrystalBatch | None
) -> dict[str, list[tuple[float | None, float]]]:
    limits: dict[str, list[tuple[float | None, float]]] = {}
    for goal in goals:
        if given is not None and goal.name in given:
            limits[goal.name] = [(None, float(value)) for value in given[goal.name]]
        elif reference is not None and goal.name in reference.properties:
            values = reference.properties[goal.name].double().numpy()
            limits[goal.name] = ranking.percentile_thresholds(goal, values)
    return limits
