"""S.U.N. and M.S.U.N. of a model: stable (0 and 0.1 eV/atom above the hull), unique and novel, by several potentials.

OMP_NUM_THREADS=1 python -m tests.benchmarks.sun_rates mp_20 DATA --num 1000 --calculators chgnet sevenn \\
    --hull formation --json OUT.json

DATA is the folder of MP-20 (train, val and test with formation energies). Novelty is judged by train, uniqueness and
novelty by MatterGen's matcher for ordered crystals. Two hulls:

* `formation` (default): the formation energies of all three parts, with the heights that the stored energies above the
  hull add (`reference_hull.md` says how good that hull is). Formation energies of the crystals come from total energies
  of the potential less those of the elements by the same potential; raw potentials get the Materials Project's
  corrections of 2020.
* `calculated`: the compounds of train, val and test within the chemical systems of the crystals, relaxed by the same
  potential: the consistent convention, and far more relaxations.

What is done is kept in the user's cache (`--cache DIR` elsewhere), so that a run that was stopped goes on. Rates are
over all crystals, failures included. The spread between the potentials is printed beside them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cdvae_kit import CDVAE
from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.batch import concatenate
from cdvae_kit.datasets import load_dataset
from cdvae_kit.io import read_crystals
from cdvae_kit.io.crystals.phases import read_formation_energies
from cdvae_kit.io.results.store import ResultStore
from cdvae_kit.metrics import novelty, uniqueness
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.metrics.relaxing import StabilityRequest, judge_stability
from cdvae_kit.metrics.stability import METASTABLE
from cdvae_kit.metrics.sun import SunResult, sun_of
from cdvae_kit.metrics.symmetry import space_groups
from cdvae_kit.relaxation import formation_hull
from tests.benchmarks.measure import about_machine, print_numbers

PARTS = ("train", "val", "test")
SYMPREC = 0.1


def sample_or_read(name_or_path: str, *, num: int, seed: int, steps: int | None, device: str) -> CrystalBatch:
    """Crystals of a model, or of a file that holds samples already."""
    path = Path(name_or_path)
    if path.is_file():
        crystals = read_crystals(path, min_distance=None).crystals
        return crystals.select(torch.arange(min(num, len(crystals))))
    model = CDVAE.from_pretrained(name_or_path, device=device)
    sampled = model.sample(num, seed=seed, num_steps=steps)
    return sampled.plain() if hasattr(sampled, "plain") else sampled


def tables_of(folder: Path) -> list[Path]:
    found = [path for part in PARTS for path in sorted(folder.glob(f"{part}.csv*"))]
    if not found:
        raise FileNotFoundError(f"there is no train.csv, val.csv or test.csv (or .gz) in {folder}")
    return found


def rates(found: SunResult) -> dict[str, Any]:
    """Each rate in percent with its 95 % interval."""
    return {
        name: {
            "percent": round(100.0 * (interval.value or 0.0), 2),
            "low": None if interval.low is None else round(100.0 * interval.low, 2),
            "high": None if interval.high is None else round(100.0 * interval.high, 2),
        }
        for name, interval in found.rates.items()
    }


def group_changes(before: Sequence[int | None], after: Sequence[int | None]) -> float | None:
    """Share of the crystals with a group before and after relaxation whose group changed, in percent."""
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    return round(100.0 * sum(a != b for a, b in pairs) / len(pairs), 2) if pairs else None


def measure(
    name_or_path: str,
    data: Path,
    *,
    calculators: Sequence[str],
    hull: str = "formation",
    num: int = 1000,
    seed: int = 0,
    steps: int | None = None,
    fmax: float = 0.05,
    max_steps: int = 500,
    device: str = "auto",
    num_workers: int = 1,
    cache: Path | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """All numbers of one model, ready for JSON."""
    crystals = sample_or_read(name_or_path, num=num, seed=seed, steps=steps, device=device)
    ours = as_arrays(crystals)
    parts = {part: load_dataset(data, split=part).crystals for part in PARTS}
    reference = concatenate([part.replace(properties={}) for part in parts.values()]) if hull == "calculated" else None
    table = formation_hull(read_formation_energies(tables_of(data)), name="MP-20") if hull == "formation" else None
    with ResultStore(cache) if cache is not None else ResultStore() as store:
        different = uniqueness(ours, num_workers=num_workers, store=store)
        new = novelty(ours, as_arrays(parts["train"]), num_workers=num_workers, store=store)
        groups = [None if group < 0 else group for group in different.groups.tolist()]
        rows: dict[str, Any] = {}
        energies = {}
        for calculator in calculators:
            start = time.perf_counter()

            def report(title: str, by: str = calculator) -> Any:
                tell(f"{by}: {title}")
                return nullcontext()

            request = StabilityRequest(calculator, table, fmax=fmax, max_steps=max_steps, device=device)
            judged = judge_stability(
                ours,
                None if reference is None else as_arrays(reference),
                request,
                num_workers=num_workers,
                store=store,
                report=report,
            )
            stable, metastable = sun_of(
                judged.result,
                different.unique.tolist(),
                new.novel.tolist(),
                groups=groups,
                matcher=different.matcher.describe(),
                reference=f"{len(parts['train'])} training crystals",
            )
            relaxed = [
                None if one.failed else find_group(one.lattice, one.frac_coords, one.atomic_numbers)
                for one in judged.relaxations
            ]
            energies[calculator] = judged.result.energies_above_hull
            rows[calculator] = {
                "at_the_hull": rates(stable),
                "at_0.1": rates(metastable),
                "converged": judged.result.num_converged,
                "judged": judged.result.num_judged,
                "rmsd_angstrom": judged.result.mean_rms_angstrom,
                "median_energy_above_hull": _median(judged.result.energies_above_hull),
                "into_another_group_percent": group_changes(space_groups(ours, SYMPREC), relaxed),
                "reasons": judged.result.reasons,
                "convention": stable.convention,
                "seconds": round(time.perf_counter() - start, 1),
            }
    return {
        "model": Path(name_or_path).name,
        "num_crystals": len(crystals),
        "hull": hull,
        "by_calculator": rows,
        "spread": spread(energies),
        "seed": seed,
        "threshold": METASTABLE,
        "machine": about_machine(),
    }


def find_group(lattice: np.ndarray, frac_coords: np.ndarray, numbers: np.ndarray) -> int | None:
    from cdvae_kit.crystal.symmetry import find_space_group

    return find_space_group(lattice.tolist(), frac_coords.tolist(), numbers.tolist(), SYMPREC).number


def spread(energies: dict[str, np.ndarray]) -> dict[str, Any]:
    """How far the potentials are from each other on the crystals that all of them judge."""
    table = np.stack(list(energies.values()))
    both = np.isfinite(table).all(axis=0)
    if len(table) < 2 or not both.any():
        return {"num_crystals": int(both.sum())}
    judged = table[:, both]
    return {
        "num_crystals": int(both.sum()),
        "mean_absolute_difference": round(float(np.ptp(judged, axis=0).mean()), 4),
        "all_say_stable": int((judged <= 1e-6).all(axis=0).sum()),
        "any_says_stable": int((judged <= 1e-6).any(axis=0).sum()),
        "all_say_metastable": int((judged <= METASTABLE + 1e-6).all(axis=0).sum()),
        "any_says_metastable": int((judged <= METASTABLE + 1e-6).any(axis=0).sum()),
    }


def _median(values: np.ndarray) -> float | None:
    there = values[np.isfinite(values)]
    return round(float(np.median(there)), 4) if len(there) else None


def table(numbers: dict[str, Any]) -> str:
    """The rates side by side, in markdown."""
    lines = [
        "| potential | S | U | N | S.U.N. | M.S.U.N. | median above hull | relaxation RMSD, A | other group |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in numbers["by_calculator"].items():
        hull, near = row["at_the_hull"], row["at_0.1"]
        rmsd = "none" if row["rmsd_angstrom"] is None else f"{row['rmsd_angstrom']:.3f}"
        lines.append(
            f"| {name} | {hull['S']['percent']} % | {hull['U']['percent']} % | {hull['N']['percent']} % | "
            f"{hull['SUN']['percent']} % | {near['SUN']['percent']} % | {row['median_energy_above_hull']} | {rmsd} | "
            f"{row['into_another_group_percent']} % |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sun_rates", description=__doc__)
    parser.add_argument("model", help="a model of the package's own, the folder of a checkpoint, or a file of samples")
    parser.add_argument("data", type=Path, help="the folder of MP-20")
    parser.add_argument("--calculators", nargs="+", default=["chgnet", "sevenn"])
    parser.add_argument("--hull", choices=("formation", "calculated"), default="formation")
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of the sampler")
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--max-steps", type=int, default=500, help="of a relaxation")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="a folder for what is done; the user's cache unless given")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    numbers = measure(
        options.model,
        options.data,
        calculators=options.calculators,
        hull=options.hull,
        num=options.num,
        seed=options.seed,
        steps=options.steps,
        fmax=options.fmax,
        max_steps=options.max_steps,
        device=options.device,
        num_workers=options.workers,
        cache=options.cache,
    )
    print(table(numbers))
    print_numbers(numbers, options.json)


if __name__ == "__main__":
    main()
