"""Go on with a trained model on a table of your own, with a property that it has never heard of, and ask for it.

Run `python fine_tune.py` for a minute on a table that this file makes: 120 ionic crystals with their density. For a
table of your own: `python fine_tune.py my_crystals.csv hardness 4000`, with the column's name and the number of steps;
training ends earlier where validation no longer gains. It writes `fine_tuned/`, `asked_0.extxyz` and `asked_1.extxyz`
into the folder where it runs, and replaces older ones.

Everything that is not named here has its default: the settings of the model, a small learning rate, an early end. What
becomes of elements that the model does not know, and of those that your crystals lack, is told while it runs.
"""

import logging
import sys
from pathlib import Path

import torch

from cdvae_kit import CDVAE
from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets import load_dataset
from cdvae_kit.generation import conditions_from, train_model
from cdvae_kit.io import read_crystals, write_crystals

STEPS = 40
NUM_SAMPLES = 16


def densities(crystals: CrystalBatch) -> torch.Tensor:
    """(num_crystals,) g/cm^3."""
    return torch.tensor([float(structure.density) for structure in crystals.structures()])


def make_table(path: Path) -> None:
    """What a table of one's own looks like: a structure a row, and a column of numbers."""
    crystals = load_dataset("ionic_prototypes", split="train").crystals
    crystals = crystals.select(torch.arange(0, len(crystals), max(1, len(crystals) // 120))[:120])
    write_crystals(crystals.replace(properties={"density": densities(crystals)}), path, overwrite=True)


def main(table: str | None, name: str, steps: int) -> None:
    path = Path("my_crystals.csv") if table is None else Path(table)
    if table is None:
        make_table(path)
    values = read_crystals(path).crystals.properties[name]
    result = train_model(
        init="mp_20",
        data=path,
        properties=[name],
        output="fine_tuned",
        # a run of 40 steps has no time for the defaults of 4,000, nor a small table for batches of 64
        overrides=[
            f"max_steps={steps}",
            f"prior_steps={5 * steps}",
            f"check_every={max(10, steps // 40)}",
            "batch_size=16",
        ],
        overwrite=True,
    )
    model = CDVAE.from_pretrained(result.output_dir / "model")
    print(f"{result.steps} steps, the best after {result.best_step}; properties: {', '.join(model.config.properties)}")

    low, high = (float(values.quantile(share)) for share in (0.1, 0.9))
    asked = []
    for target in (low, high):
        wish = conditions_from(properties={name: target})
        crystals = model.sample(NUM_SAMPLES, seed=0, conditions=wish, guidance=2.0)
        asked.append(crystals.plain().replace(properties={f"asked_{name}": torch.full((NUM_SAMPLES,), target)}))
        told = model.predict_properties(model.encode(crystals.plain(), allow_outside=True))[name].mean()
        line = f"asked for {name} {target:.2f}: the model's own head says {float(told):.2f} on average"
        if name == "density":
            line += f", and the crystals have {float(densities(crystals.plain()).mean()):.2f}"
        print(line)
    for number, crystals in enumerate(asked):
        write_crystals(crystals, f"asked_{number}.extxyz", overwrite=True)
    print("written: fine_tuned/, asked_0.extxyz and asked_1.extxyz")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    words = sys.argv[1:]
    main(
        words[0] if words else None,
        words[1] if len(words) > 1 else "density",
        int(words[2]) if len(words) > 2 else STEPS,
    )
