"""What each choice of the default model is worth: small models of equal CPU time, one choice changed in each.

OMP_NUM_THREADS=1 python -m tests.benchmarks.ablation PEROV_5_VAL.csv.gz --seconds 90 --seeds 0
python -m tests.benchmarks.ablation --table        # writes the table of what there is into ablation.md

Every model is trained for the same seconds of the processor on nine tenths of Perov-5's validation split, by the
training command's own code, and judged on the tenth that it holds back; the test split is not touched. How many steps
the seconds give is found by timing a few of them first. One row a model and sampler is appended to ablation.csv as soon
as it is known; models that are there already are skipped, so that a killed run goes on where it was. The learned prior
is left out: crystals are judged as reconstructed. Perov-5 is what small models learn within minutes: with MP-20 they
would still be learning compositions.
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

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.batch import concatenate
from cdvae_kit.crystal.symmetric import describe
from cdvae_kit.datasets import split_crystals
from cdvae_kit.diffusion.samplers import FlowSampler, LangevinSampler, Sampler
from cdvae_kit.io.atomic import atomic_file
from cdvae_kit.metrics import reconstruction
from cdvae_kit.models import CDVAE
from cdvae_kit.models.config import CDVAEConfig
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.training.config import TrainingConfig, apply_overrides, load_preset
from cdvae_kit.training.run import fit
from tests.benchmarks.measure import load_crystals, reconstruction_numbers, validity_numbers

RESULTS = Path(__file__).with_suffix(".csv")
REPORT = Path(__file__).with_suffix(".md")
START, END = "<!-- the table starts -->", "<!-- the table ends -->"
SMALL = (
    "model.latent_dim=128",
    "model.hidden_dim=128",
    "model.encoder.channels=8",
    "model.encoder.width=64",
    "model.encoder.num_frame_layers=1",
    "model.score_network.width=64",
    "model.score_network.num_layers=3",
    "model.prior=none",
    "model.critic=0",
    "model.prototypes=false",
    "training.warmup_steps=50",
    "training.ema_decay=0.99",
)
"""Laid over the preset in all variants: what makes the models small enough to train many of them."""
NUM_JUDGED = 500
PROBES = 10, 50
"""Steps of the two runs whose difference says how long a step takes."""


@dataclass(frozen=True)
class BestOf:
    """Each code decoded several times; the crystal is kept whose own code lies nearest: chosen without the truth."""

    sampler: Sampler
    num_draws: int


_SHARPENED = FlowSampler(num_steps=10, sharpening=10.0)
FLOW: dict[str, Sampler | BestOf] = {"flow, sharpened": _SHARPENED}
OTHERS: dict[str, Sampler | BestOf] = {
    "flow": FlowSampler(num_steps=10),
    "flow, sharpened, 40 steps": FlowSampler(num_steps=40, sharpening=10.0),
    "flow by Heun, 5 steps of two calls": FlowSampler(num_steps=5, method="heun"),
    "the nearest of 4 draws by its own code": BestOf(_SHARPENED, 4),
}
NOISY: dict[str, Sampler | BestOf] = {
    "predictor and corrector, 20 levels": LangevinSampler(num_levels=20, steps_per_level=1, predictor=True),
}
LANGEVIN: dict[str, Sampler | BestOf] = {"Langevin 10 x 10": LangevinSampler(num_levels=10, steps_per_level=10)}


@dataclass(frozen=True)
class Variant:
    """One change to the default.

    Attributes:
        overrides: what the command gets beside `SMALL`.
        samplers: each makes a row, of the same trained model.
    """

    overrides: tuple[str, ...]
    samplers: dict[str, Sampler | BestOf]


VARIANTS = {
    "default": Variant((), FLOW | OTHERS),
    "orbits numbered": Variant(("model.numbered_orbits=true",), FLOW),
    "substitutes for a half": Variant(("training.substitution=0.5",), FLOW),
    "code of 32": Variant(("model.latent_dim=32",), FLOW),
    "coordinates weigh 15, not 5": Variant(("model.loss_weights.coordinates=15",), FLOW),
    "KL weighs 1e-5, not 5e-4": Variant(("model.loss_weights.kl=1e-5",), FLOW),
    "times uniform": Variant(("model.noise.time_power=1",), FLOW),
    "lattice fixed": Variant(("model.noise.lattice=fixed",), FLOW),
    "no loss on sites": Variant(("model.loss_weights.sites=0",), FLOW),
    "noise not matched": Variant(("model.noise.match_atoms=false",), FLOW),
    "types exchanged": Variant(("model.noise.types=exchanged",), FLOW),
    "types absorbing": Variant(("model.noise.types=absorbing",), FLOW),
    "types as published": Variant(("model.noise.types=published", "model.composition=fractions"), FLOW),
    "coordinates wrapped normal": Variant(("model.noise.coordinates=wrapped_normal",), FLOW | NOISY),
    "coordinates Gaussian, as published": Variant(("model.noise.coordinates=gaussian",), LANGEVIN),
    "no symmetry": Variant(("model.symmetry=none", "training.substitution=0"), FLOW),
    "score network PaiNN": Variant(("model.score_network.kind=painn",), FLOW),
}
COLUMNS = (
    "variant",
    "sampler",
    "seed",
    "seconds",
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
    "p1_percent",
    "train_cpu_seconds",
    "decode_cpu_seconds",
    "date",
)
SHOWN = (*COLUMNS[:3], COLUMNS[4], *COLUMNS[8:17])


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


@dataclass(frozen=True)
class Data:
    """What the variants share: crystals to train on, to choose with and to judge, and their canonical descriptions."""

    train: CrystalBatch
    val: CrystalBatch
    described: tuple[CrystalBatch, CrystalBatch]

    @property
    def judged(self) -> CrystalBatch:
        return self.val.select(torch.arange(min(NUM_JUDGED, len(self.val))))


def load(path: Path, *, num_crystals: int | None, seed: int) -> Data:
    """The first crystals of the file, split as the training command does; describing them takes longest."""
    crystals = load_crystals(path, num_crystals=num_crystals, max_atoms=5)
    train, val = split_crystals(crystals, (0.9, 0.1), seed=seed)
    tolerance = load_preset("perov_5")["model"]["tolerance"]
    return Data(train, val, (describe(train, tolerance=tolerance), describe(val, tolerance=tolerance)))


def _train(
    folder: Path, data: Data, overrides: tuple[str, ...], steps: int, batch_size: int, seed: int
) -> tuple[CDVAE, float]:
    """A model of so many steps, and how many seconds of the processor they took with what comes before and after."""
    words = [*SMALL, *overrides, *_length(steps, batch_size, seed).split()]
    settings = apply_overrides(load_preset("perov_5"), words, model_schema=CDVAEConfig)
    config = CDVAEConfig.model_validate(settings["model"])
    with seeded_weights(seed):
        model = CDVAE(config)
    train, val = data.described if config.symmetry == "orbits" else (data.train, data.val)
    start = time.process_time()
    fit(model, train, val, TrainingConfig.model_validate(settings["training"]), folder, device="cpu")
    return model, time.process_time() - start


def _decoded(model: CDVAE, crystals: CrystalBatch, sampler: Sampler | BestOf) -> CrystalBatch:
    """Each crystal through the latent space and back, from one draw of its posterior."""
    z = model.encode(crystals, seed=0, allow_outside=True)
    if not isinstance(sampler, BestOf):
        return model.decode(z, seed=0, sampler=sampler)
    draws = [model.decode(z, seed=seed, sampler=sampler.sampler) for seed in range(sampler.num_draws)]
    far = torch.stack([(model.encode(draw, allow_outside=True) - z).square().sum(-1) for draw in draws])
    best = far.argmin(0) * len(z) + torch.arange(len(z))
    return concatenate([draw.plain() for draw in draws]).select(best)


def run_variant(name: str, data: Data, *, seconds: float, batch_size: int, seed: int) -> list[dict[str, Any]]:
    """Trains one model and judges it; one row a sampler."""
    variant = VARIANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        took = [
            _train(Path(folder) / f"{steps}", data, variant.overrides, steps, batch_size, seed)[1] for steps in PROBES
        ]
        steps = max(1, round(seconds * (PROBES[1] - PROBES[0]) / max(took[1] - took[0], 1e-3)))
        model, train_seconds = _train(Path(folder) / "run", data, variant.overrides, steps, batch_size, seed)
    judged = data.judged
    rows = []
    for sampler_name, sampler in variant.samplers.items():
        start = time.process_time()
        again = _decoded(model, judged, sampler)
        decode_seconds = time.process_time() - start
        validity = validity_numbers(again)
        rows.append(
            reconstruction_numbers(reconstruction(again, judged))
            | validity
            | {
                "variant": name,
                "sampler": sampler_name,
                "seed": seed,
                "seconds": seconds,
                "steps": steps,
                "batch_size": batch_size,
                "overrides": " ".join(variant.overrides),
                "p1_percent": validity["p1_percent"]["0.1"],
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
        "| variant | sampler | seed | steps | match % | RMSE | match %, unfiltered | RMSE, unfiltered | "
        "composition exact % | structure valid % | P1 % | training, CPU s | encoding and decoding, CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
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
    parser.add_argument("--seconds", type=float, default=90.0, help="of the processor, for the steps of a model")
    parser.add_argument("--num-crystals", type=int, help="the first ones of the file; all unless given")
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
        data = {seed: load(options.data, num_crystals=options.num_crystals, seed=seed) for seed in options.seeds}
        for seed in options.seeds:
            for name in options.only:
                done = {(row["variant"], row["seed"], row["seconds"]) for row in read_rows(options.results)}
                if (name, str(seed), str(options.seconds)) in done:
                    continue
                rows = run_variant(name, data[seed], seconds=options.seconds, batch_size=options.batch_size, seed=seed)
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
