"""What each choice of the default model is worth: small models of equal training, one choice changed in each.

OMP_NUM_THREADS=1 python -m tests.benchmarks.ablation PEROV_5_VAL.csv.gz --seeds 0
python -m tests.benchmarks.ablation --table        # writes the table of what there is into ablation.md

Every model is trained for the same number of steps on nine tenths of Perov-5's validation split, by the training
command's own code, and judged on the tenth that this command holds back; the test split is not touched. One row a
model and sampler is appended to ablation.csv as soon as it is known; models that are there already are skipped, so
that a killed run goes on where it was. The learned prior is left out: crystals are judged as reconstructed.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from cdvae_kit import CDVAE
from cdvae_kit.datasets import load_dataset, split_crystals
from cdvae_kit.diffusion.samplers import FlowSampler, LangevinSampler, Sampler
from cdvae_kit.generation import train_model
from cdvae_kit.io.atomic import atomic_file
from tests.benchmarks.measure import measure_reconstruction, validity_numbers

RESULTS = Path(__file__).with_suffix(".csv")
REPORT = Path(__file__).with_suffix(".md")
START, END = "<!-- the table starts -->", "<!-- the table ends -->"
SMALL = (
    "model.latent_dim=64",
    "model.hidden_dim=128",
    "model.encoder.channels=8",
    "model.encoder.width=64",
    "model.encoder.num_frame_layers=1",
    "model.score_network.width=64",
    "model.score_network.num_layers=3",
    "model.prior=none",
    "training.warmup_steps=50",
    "training.ema_decay=0.99",
)
"""Laid over the preset in all variants: what makes the models small enough to train many of them."""

FLOW: dict[str, Sampler] = {"flow, sharpened": FlowSampler(num_steps=20, sharpening=10.0)}
PLAIN: dict[str, Sampler] = {"flow": FlowSampler(num_steps=20)}
LANGEVIN: dict[str, Sampler] = {"Langevin 10 x 10": LangevinSampler(num_levels=10, steps_per_level=10)}


@dataclass(frozen=True)
class Variant:
    """One change to the default.

    Attributes:
        overrides: what the command gets beside `SMALL`.
        samplers: each makes a row, of the same trained model.
    """

    overrides: tuple[str, ...]
    samplers: dict[str, Sampler]


VARIANTS = {
    "default": Variant((), FLOW | PLAIN),
    "no loss on sites": Variant(("model.loss_weights.sites=0",), FLOW),
    "atoms not matched": Variant(("model.noise.match_atoms=false",), FLOW),
    "orbits numbered": Variant(("model.numbered_orbits=true",), FLOW),
    "substitutes for a half": Variant(("training.substitution=0.5",), FLOW),
    "types exchanged": Variant(("model.noise.types=exchanged",), FLOW),
    "types absorbing": Variant(("model.noise.types=absorbing",), FLOW),
    "types as published": Variant(("model.noise.types=published", "model.composition=fractions"), FLOW),
    "coordinates wrapped normal": Variant(("model.noise.coordinates=wrapped_normal",), FLOW | PLAIN),
    "lattice fixed": Variant(("model.noise.lattice=fixed",), FLOW),
    "times uniform": Variant(("model.noise.time_power=1",), FLOW),
    "coordinates Gaussian, as published": Variant(("model.noise.coordinates=gaussian",), LANGEVIN),
    "score network PaiNN": Variant(("model.score_network.kind=painn",), FLOW),
}
COLUMNS = (
    "variant",
    "sampler",
    "seed",
    "steps",
    "batch_size",
    "overrides",
    "num_crystals",
    "match_percent",
    "rmse",
    "match_percent_unfiltered",
    "rmse_unfiltered",
    "composition_exact_percent",
    "structure_percent",
    "composition_percent",
    "train_cpu_seconds",
    "decode_cpu_seconds",
    "date",
)
SHOWN = (*COLUMNS[:4], *COLUMNS[7:10], *COLUMNS[11:16])


def command(row: dict[str, str]) -> str:
    """The training command of a row."""
    words = " ".join([*SMALL, *row["overrides"].split()])
    return (
        f"generate-crystals train --preset perov_5 --data val.csv.gz --output runs/variant {words} "
        f"{_length(int(row['steps']), int(row['batch_size']), int(row['seed']))}"
    )


def _length(steps: int, batch_size: int, seed: int) -> str:
    # one validation, at the end: the crystals that judge a model do not choose it
    return (
        f"training.max_steps={steps} training.batch_size={batch_size} training.check_every={steps} training.seed={seed}"
    )


def run_variant(name: str, data: Path, *, steps: int, batch_size: int, seed: int) -> list[dict[str, Any]]:
    """Trains one model and judges it; one row a sampler."""
    variant = VARIANTS[name]
    words = [*SMALL, *variant.overrides, *_length(steps, batch_size, seed).split()]
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        train_model(preset="perov_5", data=data, output=Path(folder) / "run", overrides=words, device="cpu")
        train_seconds = time.process_time() - start
        model = CDVAE.from_pretrained(Path(folder) / "run" / "model", device="cpu")
    crystals = load_dataset(data, max_atoms=model.config.max_atoms).crystals
    held_back = split_crystals(crystals, (0.9, 0.1), seed=seed)[1]
    rows = []
    for sampler_name, sampler in variant.samplers.items():
        start = time.process_time()
        model.decode(model.encode(held_back, seed=0, allow_outside=True), seed=0, sampler=sampler)
        decode_seconds = time.process_time() - start
        numbers, again = measure_reconstruction(model, held_back, sampler=sampler)
        rows.append(
            numbers
            | validity_numbers(again)
            | {
                "variant": name,
                "sampler": sampler_name,
                "seed": seed,
                "steps": steps,
                "batch_size": batch_size,
                "overrides": " ".join(variant.overrides),
                "train_cpu_seconds": round(train_seconds, 1),
                "decode_cpu_seconds": round(decode_seconds, 1),
                "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            }
        )
    return rows


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows so far; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Adds rows, with a header where the file is new."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def table(rows: list[dict[str, str]]) -> str:
    """The rows in markdown."""
    lines = [
        "| variant | sampler | seed | steps | match % | RMSE | match %, unfiltered | composition exact % | "
        "structure valid % | composition valid % | training, CPU s | decoding, CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append("| " + " | ".join(row[cell] or "none" for cell in SHOWN) + " |")
    return "\n".join(lines)


def write_report(path: Path, rows: list[dict[str, str]]) -> None:
    """Puts table and commands between the marks in `path`; what is around them is written by hand."""
    text = path.read_text(encoding="utf-8")
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"{path} must hold each of the lines {START!r} and {END!r} once, to know where the table goes")
    before, after = text.split(START)[0], text.split(END)[1]
    commands = dict.fromkeys(f"# {row['variant']}\n{command(row)}" for row in rows)
    block = "\n".join([table(rows), "", "```console", *commands, "```"])
    with atomic_file(path, overwrite=True) as file:
        file.write_text(f"{before}{START}\n{block}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ablation", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="Perov-5's validation split")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print and write what there is, train nothing")
    options = parser.parse_args()
    if not options.table:
        if options.data is None:
            parser.error("name the file of Perov-5's validation split, or ask for --table")
        torch.set_num_threads(1)
        for seed in options.seeds:
            for name in options.only:
                done = {(row["variant"], row["seed"], row["steps"]) for row in read_rows(options.results)}
                if (name, str(seed), str(options.steps)) in done:
                    continue
                rows = run_variant(name, options.data, steps=options.steps, batch_size=options.batch_size, seed=seed)
                append_rows(options.results, rows)
                print(
                    table([{key: str(value) for key, value in row.items()} for row in rows]).splitlines()[2:],
                    flush=True,
                )
    rows_so_far = read_rows(options.results)
    print(table(rows_so_far))
    if options.results == RESULTS:
        write_report(REPORT, rows_so_far)


if __name__ == "__main__":
    main()
