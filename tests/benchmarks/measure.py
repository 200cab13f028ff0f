"""How good a model is and how long it takes: reconstruction of test crystals, validity of sampled ones, seconds.

OMP_NUM_THREADS=1 python -m tests.benchmarks.measure perov_5 TEST.csv.gz --num-samples 1000 --train TRAIN.csv.gz
python -m tests.benchmarks.measure perov_5 TEST.csv.gz --num-test 500 --steps 5 10 20 50 100

The first form prints JSON, the second one a table of quality against steps. The protocol is the published one (Xie et
al., ICLR 2022, arXiv 2110.06197): one draw from the posterior for each test crystal, pymatgen's matcher at stol 0.5,
angle_tol 10, ltol 0.3, a pair counted only where both crystals are valid by distance and by composition. The part of
the published filter that asks for CrystalNN fingerprints is not applied. Seconds are those of this machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from cdvae_kit import CDVAE
from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.symmetry import space_group
from cdvae_kit.datasets import load_dataset
from cdvae_kit.diffusion.samplers import Sampler
from cdvae_kit.metrics import ReconstructionResult, reconstruction, structure_validity, validity
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.models.decoding import SOUND, soundness

FILTER = "structure and composition valid (CrystalNN fingerprints not asked)"


def percent(part: float, whole: float) -> float:
    """Rounded to two digits; 0 of nothing."""
    return round(100.0 * part / max(1.0, whole), 2)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def about_machine() -> dict[str, Any]:
    """What seconds depend on, in words."""
    return {
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def load_crystals(path: str | Path, *, num_crystals: int | None, max_atoms: int) -> CrystalBatch:
    """The first `num_crystals` of a file, Niggli-reduced; all if None."""
    crystals: CrystalBatch = load_dataset(path, max_atoms=max_atoms).crystals
    if num_crystals is None or num_crystals >= len(crystals):
        return crystals
    return crystals.select(torch.arange(num_crystals))


def formulas(crystals: CrystalBatch) -> list[tuple[tuple[int, int], ...]]:
    """Reduced composition of each crystal."""
    return [crystal.reduced_composition for crystal in as_arrays(crystals)]


def reconstruction_numbers(result: ReconstructionResult) -> dict[str, Any]:
    """Rates in percent and RMSE of a set of pairs."""
    other = sum(count for reason, count in result.reasons.items() if reason == "another composition")
    return {
        "num_crystals": result.num_pairs,
        "match_percent": percent(result.num_matches, result.num_pairs),
        "rmse": _rounded(result.rmse),
        "match_percent_unfiltered": percent(result.num_matches_unfiltered, result.num_pairs),
        "rmse_unfiltered": _rounded(result.rmse_unfiltered),
        "composition_exact_percent": percent(result.num_pairs - other, result.num_pairs),
        "filter": FILTER,
        "lost": result.reasons,
    }


def validity_numbers(crystals: CrystalBatch) -> dict[str, Any]:
    """Shares of valid crystals in percent; `strict` also sees an atom that is too near its own periodic image."""
    usual, strict = validity(crystals), validity(crystals, strict=True)
    num = len(usual)
    return {
        "num_crystals": num,
        "structure_percent": percent(sum(v.structure for v in usual), num),
        "structure_strict_percent": percent(sum(v.structure for v in strict), num),
        "composition_percent": percent(sum(v.composition for v in usual), num),
        "valid_percent": percent(sum(v.valid for v in usual), num),
        "p1_percent": {
            str(tolerance): percent(sum(group.number == 1 for group in space_group(crystals, tolerance)), num)
            for tolerance in (0.01, 0.1)
        },
    }


class NetworkCalls:
    """Counts the crystals that a model's score network is asked about."""

    def __init__(self, model: CDVAE) -> None:
        self.num_crystals = 0
        self._hook = model.score_network.register_forward_hook(self._count)

    def _count(self, module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.num_crystals += inputs[0].num_crystals

    def close(self) -> None:
        self._hook.remove()


def measure_reconstruction(
    model: CDVAE,
    crystals: CrystalBatch,
    *,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
    num_workers: int = 1,
) -> tuple[dict[str, Any], CrystalBatch]:
    """Each crystal through the latent space and back once; the numbers, and what came back."""
    start = time.perf_counter()
    z = model.encode(crystals, seed=seed, allow_outside=True)
    again = model.decode(z, seed=seed, num_steps=steps, sampler=sampler)
    seconds = time.perf_counter() - start
    numbers = reconstruction_numbers(reconstruction(again, crystals, num_workers=num_workers))
    return numbers | {"seconds": round(seconds, 2)}, again


def measure_samples(
    model: CDVAE,
    *,
    num_samples: int,
    seed: int = 0,
    steps: int | None = None,
    known: set[tuple[tuple[int, int], ...]] | None = None,
) -> dict[str, Any]:
    """New crystals from the prior: validity, variety, seconds, calls of the score network per crystal.

    `CDVAE.sample` makes crystals whose atoms are too close again, some times; `first_try` is without that. Too close: a
    contact under `SOUND` of the sum of the covalent radii.
    """
    calls = NetworkCalls(model)
    start = time.perf_counter()
    crystals = model.sample(num_samples, seed=seed, num_steps=steps)
    seconds = time.perf_counter() - start
    calls.close()
    drawn = formulas(crystals)
    at_once = model.sample(num_samples, seed=seed, num_steps=steps, max_tries=1)
    first_try = structure_validity(at_once)
    numbers = validity_numbers(crystals) | {
        "seconds": round(seconds, 2),
        "structure_first_try_percent": percent(sum(v.valid for v in first_try), num_samples),
        "too_close_percent": percent(int((soundness(crystals) < SOUND).sum()), num_samples),
        "too_close_first_try_percent": percent(int((soundness(at_once) < SOUND).sum()), num_samples),
        "seconds_per_1000": round(1000.0 * seconds / num_samples, 2),
        "network_calls_per_crystal": round(calls.num_crystals / num_samples, 2),
        "unique_formulas_percent": percent(len(set(drawn)), num_samples),
    }
    if known is not None:
        numbers["formulas_seen_in_training_percent"] = percent(sum(one in known for one in drawn), num_samples)
    return numbers


def measure_model(
    name_or_path: str | Path,
    test_path: str | Path,
    *,
    train_path: str | Path | None = None,
    num_test: int | None = None,
    num_samples: int = 1000,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    num_workers: int = 1,
) -> dict[str, Any]:
    """Everything of one model at one number of steps, ready for JSON.

    Args:
        name_or_path: a model of the package's own, or the folder of a checkpoint.
        test_path: a file of crystals that the model has not seen.
        train_path: the file that it was trained on, for the share of formulas seen in training.
        num_test: the first so many of the test crystals; all if None.
        num_samples: crystals drawn from the prior; 0 for none.
        steps: of the sampler; the model's own if None.
        seed: of the posterior's draws, of the decoder's noise and of the prior's draws.
        device: to measure on.
        num_workers: processes for the matcher, which is not timed.
    """
    model = CDVAE.from_pretrained(name_or_path, device=device)
    test = load_crystals(test_path, num_crystals=num_test, max_atoms=model.config.max_atoms)
    # what the first call compiles and allocates is not the crystals' own time
    model.sample(8, seed=seed, num_steps=2)
    numbers: dict[str, Any] = {
        "model": Path(name_or_path).name,
        "test": f"{Path(test_path).parent.name}/{Path(test_path).name}",
        "steps": steps if steps is not None else model.config.num_steps,
        "seed": seed,
        "device": str(model.device),
        "machine": about_machine(),
        "reconstruction": measure_reconstruction(model, test, seed=seed, steps=steps, num_workers=num_workers)[0],
    }
    if num_samples:
        known = None
        if train_path is not None:
            known = set(formulas(load_crystals(train_path, num_crystals=None, max_atoms=model.config.max_atoms)))
        numbers["samples"] = measure_samples(model, num_samples=num_samples, seed=seed, steps=steps, known=known)
    return numbers


def steps_table(rows: list[dict[str, Any]]) -> str:
    """Quality against the number of steps, in markdown."""
    lines = [
        "| steps | match % | RMSE | structure valid % | composition valid % | seconds per 1,000 |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        back, new = row["reconstruction"], row["samples"]
        rmse = "none" if back["rmse"] is None else f"{back['rmse']:.4f}"
        lines.append(
            f"| {row['steps']} | {back['match_percent']:.1f} | {rmse} | {new['structure_percent']:.1f} | "
            f"{new['composition_percent']:.1f} | {new['seconds_per_1000']:.1f} |"
        )
    return "\n".join(lines)


def print_numbers(numbers: Any, path: Path | None, *, shown: str | None = None) -> None:
    """Prints numbers as JSON, or `shown` in their place, and writes the JSON to `path`."""
    text = json.dumps(numbers, indent=2)
    print(text if shown is None else shown)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.measure", description=__doc__)
    parser.add_argument("model", help="a model of the package's own, or the folder of a checkpoint")
    parser.add_argument("test", help="a file of crystals that the model has not seen")
    parser.add_argument("--train", help="the file that it was trained on")
    parser.add_argument("--num-test", type=int, help="all, if not given")
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, nargs="+", help="several give a table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes for the matcher")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    if options.steps is not None and len(options.steps) > 1 and options.num_samples < 1:
        parser.error("a table over steps needs --num-samples of at least 1")
    rows = [
        measure_model(
            options.model,
            options.test,
            train_path=options.train,
            num_test=options.num_test,
            num_samples=options.num_samples,
            steps=steps,
            seed=options.seed,
            device=options.device,
            num_workers=options.workers,
        )
        for steps in (options.steps or [None])
    ]
    if len(rows) == 1:
        print_numbers(rows[0], options.json)
    else:
        print_numbers(rows, options.json, shown=steps_table(rows))


if __name__ == "__main__":
    main()
