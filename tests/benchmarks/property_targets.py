"""How near crystals come to a property that is asked for: their distance from it, over that of unconditional samples.

OMP_NUM_THREADS=1 python -m tests.benchmarks.property_targets mp_20 --property formation_energy_per_atom \\
    --targets -3 -2 -1 0 --judge runs/judge/model --num 250 --guidance 1 2

The judge is a property predictor (`generate-crystals train-predictor`) that the generator has never seen; one that was
trained on the same split says most. The same crystals, from the same seed, are sampled without a wish, and the mean
absolute distance from each target is compared. Crystals that the judge cannot speak of are counted, and left out of
both means. Validity of the compositions is told beside it, so that nothing is bought with it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cdvae_kit import CDVAE
from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.metrics import validity
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.property_predictor import PropertyPredictor
from tests.benchmarks.measure import about_machine, percent, print_numbers


def judged(judge: PropertyPredictor, crystals: CrystalBatch, name: str) -> list[float]:
    """The property by the judge, of those crystals that it can speak of."""
    found = judge.predict(crystals)[name]
    return found.mean[found.mean.isfinite()].tolist()


def mean_distance(values: list[float], target: float) -> float | None:
    """Mean absolute distance; None of nothing."""
    return sum(abs(value - target) for value in values) / len(values) if values else None


def measure(
    name_or_path: str,
    judge_path: str,
    *,
    name: str,
    targets: list[float],
    guidances: list[float],
    num: int = 250,
    seed: int = 0,
    steps: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """All numbers, ready for JSON; `ratio` is the mean over the targets of conditional over unconditional distance."""
    model = CDVAE.from_pretrained(name_or_path, device=device)
    judge = PropertyPredictor.from_pretrained(judge_path, device=device)
    if name not in judge.config.properties:
        raise ValueError(f"the judge knows {', '.join(judge.config.properties)}, not {name}")
    started = time.perf_counter()
    free = model.sample(num, seed=seed, num_steps=steps)
    unconditional = judged(judge, free.plain(), name)
    rows = []
    for guidance in guidances:
        for target in targets:
            wish = Conditions(properties={name: target})
            crystals = model.sample(num, seed=seed, num_steps=steps, conditions=wish, guidance=guidance).plain()
            values = judged(judge, crystals, name)
            with_wish, without = mean_distance(values, target), mean_distance(unconditional, target)
            rows.append(
                {
                    "guidance": guidance,
                    "target": target,
                    "distance": with_wish,
                    "distance_unconditional": without,
                    "ratio": with_wish / without if with_wish is not None and without else None,
                    "mean": sum(values) / len(values) if values else None,
                    "num_judged": len(values),
                    "composition_percent": composition_percent(crystals),
                }
            )
    ratios = {
        str(guidance): _mean([row["ratio"] for row in rows if row["guidance"] == guidance]) for guidance in guidances
    }
    return {
        "model": Path(name_or_path).name,
        "judge": Path(judge_path).name,
        "property": name,
        "num_crystals": num,
        "num_judged_unconditional": len(unconditional),
        "composition_percent_unconditional": composition_percent(free.plain()),
        "ratio_by_guidance": ratios,
        "rows": rows,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": about_machine(),
    }


def composition_percent(crystals: CrystalBatch) -> float:
    """Share of crystals whose composition passes the rule of the published validity, in percent."""
    return percent(sum(verdict.composition for verdict in validity(crystals)), len(crystals))


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.property_targets", description=__doc__)
    parser.add_argument("model", help="a model of the package's own, or the folder of a checkpoint")
    parser.add_argument("--judge", required=True, help="a property predictor: its name or its folder")
    parser.add_argument("--property", default="formation_energy_per_atom")
    parser.add_argument("--targets", type=float, nargs="+", default=[-3.0, -2.0, -1.0, 0.0])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0])
    parser.add_argument("--num", type=int, default=250, help="crystals a target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    numbers = measure(
        options.model,
        options.judge,
        name=options.property,
        targets=options.targets,
        guidances=options.guidance,
        num=options.num,
        seed=options.seed,
        steps=options.steps,
        device=options.device,
    )
    print_numbers(numbers, options.json)


if __name__ == "__main__":
    main()
