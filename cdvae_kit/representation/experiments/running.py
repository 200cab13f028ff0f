"""Runs an experiment over seeds, keeps each finished part, and writes and reads `results.json`."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from cdvae_kit import __version__
from cdvae_kit.io.atomic import refuse_existing
from cdvae_kit.io.result_folder import LOCK_FILE, locked
from cdvae_kit.io.results.files import (
    DamagedResultError,
    check_seal,
    read_json_table,
    sealed,
    whole_content,
    write_json,
)
from cdvae_kit.representation.protocol import (
    SEEDS_OF_A_CLAIM,
    Claim,
    Experiment,
    ExperimentResult,
    PartResult,
)
from cdvae_kit.typing import Progress, ShareDone

logger = logging.getLogger(__name__)

RESULTS = "results.json"
FORMAT_VERSION = 2
_PARTS = "parts"


def run_experiment(
    experiment: Experiment,
    *,
    seeds: Sequence[int],
    parts: Sequence[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    quick: bool = False,
    overwrite: bool = False,
    num_workers: int = 1,
    draw: Callable[[ExperimentResult, Path], object] | None = None,
    progress: Progress | None = None,
) -> ExperimentResult:
    """Runs every part for every seed, or some of the parts.

    Args:
        experiment: what to run.
        seeds: at least one; a claim needs three.
        parts: these alone; claims that need others are not judged. A later run with more parts takes them over.
        folder: where `results.json` goes. Finished parts lie in it meanwhile, and a run that was killed takes them
            over; made if it is not there.
        quick: the sizes of a trial.
        overwrite: start anew where the folder holds results or parts of another run.
        num_workers: processes of one thread each that parts are computed in, side by side; 1 stays in this one.
        draw: called with the result and the folder before `results.json` appears; if it fails, the parts are there
            still. Not called where parts are left out: pictures show all of them.
        progress: told the percentage that is done, and 100.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"expected at least one seed, all different, got {list(seeds)}")
    if num_workers < 1:
        raise ValueError(f"expected at least one process, got {num_workers}")
    chosen = _chosen_parts(experiment, parts, quick)
    if folder is None:
        return _run(experiment, seeds, chosen, quick, None, num_workers, progress)[0]
    with _PartsOnDisk(Path(folder), experiment, quick=quick, overwrite=overwrite) as keep:
        whole, claims = _run(experiment, seeds, chosen, quick, keep, num_workers, progress)
        if draw is not None and not whole.left_out:
            draw(whole, Path(folder))
        keep.finish(whole, claims)
    return whole


def _chosen_parts(experiment: Experiment, chosen: Sequence[str] | None, quick: bool) -> list[str]:
    """In the experiment's order."""
    parts = list(experiment.parts(quick=quick))
    if chosen is None:
        return parts
    if not chosen or not set(chosen) <= set(parts):
        raise ValueError(f"expected some of the parts of {experiment.name} ({', '.join(parts)}), got {list(chosen)}")
    return [part for part in parts if part in chosen]


def _run(
    experiment: Experiment,
    seeds: Sequence[int],
    parts: Sequence[str],
    quick: bool,
    keep: _PartsOnDisk | None,
    num_workers: int,
    progress: Progress | None,
) -> tuple[ExperimentResult, Sequence[Claim]]:
    """Every part that is not kept already, and what follows from all of them."""
    total = len(parts) * len(seeds)
    found: dict[str, list[PartResult]] = {part: [] for part in parts}
    seconds = 0.0
    order = [(seed, part) for seed in seeds for part in parts]
    computed = {} if num_workers == 1 else _side_by_side(experiment, order, quick, keep, num_workers, progress)
    # what was computed side by side has been told of
    told = progress if num_workers == 1 else None
    for done, (seed, part) in enumerate(order):
        if (seed, part) in computed:
            result, spent = computed[seed, part]
        else:
            result, spent = _one_part(experiment, part, seed, quick, keep, _percentage(told, done, total))
        found[part].append(result)
        seconds += spent
    if progress is not None:
        progress(100, 100)
    whole = ExperimentResult(
        experiment.name,
        experiment.paper,
        quick,
        tuple(seeds),
        _arms(experiment, found),
        {part: tuple(result.details for result in results) for part, results in found.items()},
        seconds,
        tuple(part for part in experiment.parts(quick=quick) if part not in parts),
    )
    return whole, judged(experiment, whole)


def _side_by_side(
    experiment: Experiment,
    order: Sequence[tuple[int, str]],
    quick: bool,
    keep: _PartsOnDisk | None,
    num_workers: int,
    progress: Progress | None,
) -> dict[tuple[int, str], tuple[PartResult, float]]:
    """The parts that are not kept yet, each kept as soon as it comes."""
    from joblib import Parallel, delayed

    missing = [(seed, part) for seed, part in order if keep is None or keep.read(part, seed) is None]
    tasks = (delayed(_in_one_thread)(experiment, seed, part, quick) for seed, part in missing)
    computed: dict[tuple[int, str], tuple[PartResult, float]] = {}
    for seed, part, result, spent in Parallel(n_jobs=num_workers, return_as="generator_unordered")(tasks):
        if keep is not None:
            keep.write(part, seed, result, spent)
        computed[seed, part] = (result, spent)
        if progress is not None:
            progress(100 * (len(order) - len(missing) + len(computed)) // len(order), 100)
    return computed


def _in_one_thread(experiment: Experiment, seed: int, part: str, quick: bool) -> tuple[int, str, PartResult, float]:
    # several networks at once, each too small to feed two threads
    torch.set_num_threads(1)
    start = time.monotonic()
    result = experiment.run(part, seed, quick=quick)
    return seed, part, result, time.monotonic() - start


def _one_part(
    experiment: Experiment,
    part: str,
    seed: int,
    quick: bool,
    keep: _PartsOnDisk | None,
    progress: ShareDone,
) -> tuple[PartResult, float]:
    kept = None if keep is None else keep.read(part, seed)
    if kept is not None:
        return kept
    start = time.monotonic()
    result = experiment.run(part, seed, quick=quick, progress=progress)
    seconds = time.monotonic() - start
    if keep is not None:
        keep.write(part, seed, result, seconds)
    return result, seconds


def _percentage(progress: Progress | None, done: int, total: int) -> ShareDone:
    if progress is None:
        return lambda share: None
    progress(100 * done // total, 100)
    return lambda share: progress(int(100 * (done + min(max(share, 0.0), 1.0)) / total), 100)


def _arms(experiment: Experiment, found: Mapping[str, Sequence[PartResult]]) -> dict[str, tuple[float, ...]]:
    arms: dict[str, tuple[float, ...]] = {}
    for part, results in found.items():
        names = list(results[0].values)
        for result in results:
            if list(result.values) != names:
                raise RuntimeError(f"part {part!r} of {experiment.name} has other arms for another seed")
        for name in names:
            if name in arms:
                raise RuntimeError(f"two parts of {experiment.name} have an arm {name!r}")
            arms[name] = tuple(float(result.values[name]) for result in results)
    return arms


def run_experiments(
    experiments: Sequence[Experiment],
    *,
    seeds: Sequence[int],
    folder: str | os.PathLike[str],
    quick: bool = False,
    overwrite: bool = False,
    num_workers: int = 1,
    draw: Callable[[Experiment, ExperimentResult, Path], object] | None = None,
    progress: Progress | None = None,
) -> list[tuple[ExperimentResult, list[Claim]]]:
    """Runs several, each into a folder of its name within `folder`, and takes those over that are finished there.

    Args:
        experiments: what to run, in order.
        seeds: as for `run_experiment`.
        folder: made if it is not there; results of other seeds or sizes within it are refused before anything runs.
        quick: the sizes of a trial.
        overwrite: start all of them anew.
        num_workers: as for `run_experiment`.
        draw: called with each experiment that is run, its result and its folder.
        progress: told how much of the work is done and how much there is, all experiments counting alike.
    """
    folders = {experiment.name: Path(folder) / experiment.name for experiment in experiments}
    there = [one for one in experiments if not overwrite and (folders[one.name] / RESULTS).exists()]
    found = {one.name: _finished(folders[one.name], one, seeds=seeds, quick=quick) for one in there}
    finished = {name: result for name, result in found.items() if not result.left_out}
    Path(folder).mkdir(exist_ok=True)
    total = 100 * len(experiments)
    for i, experiment in enumerate(experiments):
        name = experiment.name
        if name not in finished:
            finished[name] = run_experiment(
                experiment,
                seeds=seeds,
                folder=folders[name],
                quick=quick,
                overwrite=overwrite,
                num_workers=num_workers,
                draw=None if draw is None else partial(draw, experiment),
                progress=None if progress is None else _share_of(progress, i, len(experiments)),
            )
    if progress is not None and experiments:
        progress(total, total)
    return [(finished[one.name], judged(one, finished[one.name])) for one in experiments]


def judged(experiment: Experiment, result: ExperimentResult) -> list[Claim]:
    """The claims of an experiment, but those about parts that were left out; none of a trial, which supports none."""
    if result.quick:
        return []
    claims = list(experiment.claims(result))
    return [claim for claim in claims if not (result.left_out and all(map(math.isnan, claim.per_seed)))]


def _share_of(progress: Progress, place: int, count: int) -> Progress:
    return lambda done, whole: progress(place * whole + done, count * whole)


def _finished(place: Path, experiment: Experiment, *, seeds: Sequence[int], quick: bool) -> ExperimentResult:
    result, _ = read_results(place)
    skipped = [part for part, details in result.details.items() if any("skipped" in found for found in details)]
    if experiment.data is not None and skipped and not quick:
        raise FileExistsError(
            f"{place} exists already and holds results without {', '.join(skipped)}, whose data set is in "
            f"{os.fspath(experiment.data)} now: choose another folder or allow overwriting"
        )
    if result.seeds != tuple(seeds) or result.quick != quick:
        raise FileExistsError(
            f"{place} exists already and holds results of seeds {list(result.seeds)}{', a trial' * result.quick}; "
            f"asked for were {list(seeds)}{', a trial' * quick}: choose another folder or allow overwriting"
        )
    return result


class _PartsOnDisk:
    """One small file a part and seed, until `results.json` takes their place; no other process works there."""

    def __init__(self, folder: Path, experiment: Experiment, *, quick: bool, overwrite: bool) -> None:
        self._folder = folder
        self._overwrite = overwrite
        self._locks = ExitStack()
        self._results = folder / RESULTS
        self._parts = folder / _PARTS
        # the seeds may be others in the next run; what else decides a part must agree
        self._key: dict[str, Any] = {"experiment": experiment.name, "quick": quick, "version": __version__}
        if experiment.data is not None:
            self._key["data"] = os.fspath(experiment.data)
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"expected a folder for the results, but {folder} is a file")
        if not folder.exists():
            refuse_existing(folder, overwrite=False)  # for its parent
            folder.mkdir()

    def __enter__(self) -> Self:
        refuse_existing(self._results, overwrite=self._overwrite or self._goes_on())
        with ExitStack() as stack:
            stack.enter_context(locked(self._folder / LOCK_FILE, str(self._folder)))
            if self._overwrite:
                self._results.unlink(missing_ok=True)
                shutil.rmtree(self._parts, ignore_errors=True)
            refuse_existing(self._results, overwrite=self._goes_on())
            self._parts.mkdir(exist_ok=True)
            self._locks = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._locks.close()

    def read(self, part: str, seed: int) -> tuple[PartResult, float] | None:
        """A finished part, or None."""
        path = self._path(part, seed)
        if not path.exists():
            return None
        advice = "it is computed anew"
        try:
            kept = check_seal(read_json_table(path, advice), path, advice, required=True)
            with whole_content(path, advice):
                key, name = kept["key"], (kept["part"], kept["seed"])
                values = {str(arm): _number(value) for arm, value in kept["values"].items()}
                result, seconds = PartResult(values, dict(kept["details"])), float(kept["seconds"])
        except DamagedResultError as error:
            logger.warning("%s", error)
            return None
        if key != self._key or name != (part, seed):
            raise FileExistsError(
                f"{path.parent} exists already and holds parts of another run ({key}); choose another folder or allow "
                "overwriting"
            )
        return result, seconds

    def write(self, part: str, seed: int, result: PartResult, seconds: float) -> None:
        content = {
            "key": self._key,
            "part": part,
            "seed": seed,
            "values": result.values,
            "details": result.details,
            "seconds": seconds,
        }
        write_json(sealed(content), self._path(part, seed), overwrite=True)

    def finish(self, result: ExperimentResult, claims: Sequence[Claim]) -> None:
        write_json(sealed(as_json(result, claims)), self._results, overwrite=True)
        if not result.left_out:
            shutil.rmtree(self._parts, ignore_errors=True)

    def _goes_on(self) -> bool:
        """Whether there are results of some parts alone, which more parts may join."""
        try:
            return bool(read_results(self._results)[0].left_out)
        except (FileNotFoundError, DamagedResultError, ValueError):
            return False

    def _path(self, part: str, seed: int) -> Path:
        # a part's name may hold anything; different names may share a stem, hence their sum
        stem = re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")[:40]
        return self._parts / f"{stem}-{zlib.crc32(part.encode()):08x}-seed{seed}.json"


def as_json(result: ExperimentResult, claims: Sequence[Claim]) -> dict[str, Any]:
    """What `results.json` holds; what is no number is null."""
    notes = []
    if result.quick:
        notes.append("the sizes of a trial: these numbers support no claim")
    if result.left_out:
        notes.append(f"not run, and no claim about them judged: {', '.join(result.left_out)}")
    if len(result.seeds) < SEEDS_OF_A_CLAIM:
        notes.append(f"a claim needs {SEEDS_OF_A_CLAIM} seeds, these are {len(result.seeds)}")
    return {
        "format": FORMAT_VERSION,
        "experiment": result.experiment,
        "paper": result.paper,
        "quick": result.quick,
        "seeds": list(result.seeds),
        "notes": notes,
        "arms": {
            arm: {"per_seed": list(values), "mean": result.mean(arm), "standard_error": result.standard_error(arm)}
            for arm, values in result.arms.items()
        },
        "claims": [
            {
                "text": claim.text,
                "relation": claim.relation,
                "threshold": claim.threshold,
                "per_seed": list(claim.per_seed),
                "value": claim.value,
                "standard_error": claim.standard_error,
                "verdict": claim.verdict,
            }
            for claim in claims
        ],
        "details": {part: list(details) for part, details in result.details.items()},
        "left_out": list(result.left_out),
        "seconds": result.seconds,
        "versions": {"cdvae_kit": __version__, "torch": torch.__version__},
    }


def read_results(path: str | os.PathLike[str]) -> tuple[ExperimentResult, list[Claim]]:
    """The numbers and claims of a `results.json`, or of the folder that holds it."""
    path = Path(path)
    path = path / RESULTS if path.is_dir() else path
    advice = "run the experiment again (overwrite=True)"
    content = check_seal(read_json_table(path, advice), path, advice)
    if content.get("format") != FORMAT_VERSION:
        raise ValueError(f"{path} holds no results of an experiment in format {FORMAT_VERSION}")
    with whole_content(path, advice):
        result, claims = _from_json(content)
        strange = ", ".join(sorted(content.keys() - as_json(result, claims).keys()))
    if strange:
        # a digest under a damaged name would let everything else pass
        raise DamagedResultError(f"{path} is damaged (no results have {strange[:80]!r}); {advice}")
    return result, claims


def _from_json(content: Mapping[str, Any]) -> tuple[ExperimentResult, list[Claim]]:
    result = ExperimentResult(
        str(content["experiment"]),
        str(content["paper"]),
        bool(content["quick"]),
        tuple(int(seed) for seed in content["seeds"]),
        {arm: tuple(_number(value) for value in found["per_seed"]) for arm, found in content["arms"].items()},
        {part: tuple(dict(found) for found in details) for part, details in content["details"].items()},
        float(content["seconds"]),
        # results of whole runs from before there was a choice have no such line
        tuple(str(part) for part in content.get("left_out", ())),
    )
    claims = [
        Claim(
            str(claim["text"]),
            tuple(_number(value) for value in claim["per_seed"]),
            _number(claim["threshold"]),
            claim["relation"],
        )
        for claim in content["claims"]
    ]
    return result, claims


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
