"""Quality of the models that the package carries, on the test splits of their data, beside floor and goal.

OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_quality.py -n 0 -s

Needs the developers' folder of real crystals; some minutes a model, most of them in pymatgen's matcher. The numbers are
written as JSON into `.benchmarks/` under the working folder, or into $QUALITY_OUTPUT, and printed. No rate is asserted:
a number under its floor is a finding, not an error of the program.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cdvae_kit.models import pretrained_names
from tests.benchmarks.measure import measure_model

NAMES = ("perov_5", "carbon_24", "mp_20")
TRAINED_ON = dict.fromkeys(NAMES, "train.csv.gz")
TARGETS: dict[str, dict[str, tuple[float, float]]] = {
    "perov_5": {"match %": (98.5, 99.7), "RMSE": (0.012, 0.006), "composition %": (98.0, 99.0)},
    "carbon_24": {"match %": (60.0, 90.0), "RMSE": (0.12, 0.06)},
    "mp_20": {"match %": (55.0, 80.0), "RMSE": (0.06, 0.03), "structure %": (99.0, 100.0)}
    | {"composition %": (82.0, 90.0), "seconds per 1,000": (15.0, 5.0)},
}
"""Floor and goal."""


@pytest.fixture(scope="module")
def output() -> Path:
    folder = Path(os.environ.get("QUALITY_OUTPUT", ".benchmarks"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_model_on_its_test_split(name: str, shared_dir: Path, output: Path) -> None:
    if name not in pretrained_names():
        pytest.skip(f"the package carries no weights for {name}")
    data = shared_dir / "data" / name
    if not (data / "test.csv.gz").is_file():
        pytest.skip(f"the test split of {name} is not in the developers' folder")
    numbers = measure_model(name, data / "test.csv.gz", train_path=data / TRAINED_ON[name])
    path = output / f"quality_{name}.json"
    path.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    print(f"\n\n{table(name, numbers)}\n\nnumbers: {path}")
    assert numbers["reconstruction"]["num_crystals"] > 0


def table(name: str, numbers: dict[str, Any]) -> str:
    """One row a number, with floor and goal where there are any."""
    back, new = numbers["reconstruction"], numbers["samples"]
    rows = {
        "match %": back["match_percent"],
        "RMSE": back["rmse"],
        "match %, unfiltered": back["match_percent_unfiltered"],
        "RMSE, unfiltered": back["rmse_unfiltered"],
        "composition exact %": back["composition_exact_percent"],
        "structure %": new["structure_percent"],
        "structure %, first try": new["structure_first_try_percent"],
        "structure %, own images too": new["structure_strict_percent"],
        "composition %": new["composition_percent"],
        "unique formulas %": new["unique_formulas_percent"],
        "formulas seen in training %": new["formulas_seen_in_training_percent"],
        "seconds per 1,000": new["seconds_per_1000"],
        "network calls per crystal": new["network_calls_per_crystal"],
    }
    lines = [
        f"{name}: {back['num_crystals']} test crystals, {new['num_crystals']} sampled, {numbers['steps']} steps, "
        f"{numbers['device']}; filter: {back['filter']}",
        "",
        "| | measured | floor | goal |",
        "|---|---|---|---|",
    ]
    for row, value in rows.items():
        floor, goal = TARGETS[name].get(row, ("", ""))
        lines.append(f"| {row} | {value} | {floor} | {goal} |")
    return "\n".join(lines)
