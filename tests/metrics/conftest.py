"""The parity sets: crystals with the numbers that the published functions give on them."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymatgen.core import Structure


@dataclass(frozen=True)
class ParitySet:
    name: str
    reference: list[Structure]
    generated: list[Structure]
    expected: dict[str, Any]


def load_parity_set(shared_dir: Path, name: str) -> ParitySet:
    folder = shared_dir / "reference" / "metrics"
    with gzip.open(folder / f"{name}.structures.json.gz", "rt", encoding="utf-8") as file:
        crystals = json.load(file)
    return ParitySet(
        name,
        [Structure.from_dict(record) for record in crystals["reference"]],
        [Structure.from_dict(record) for record in crystals["generated"]],
        json.loads((folder / f"{name}.expected.json").read_text(encoding="utf-8")),
    )


@pytest.fixture(scope="session", params=["perov_a", "inorg_a"])
def parity_set(request: pytest.FixtureRequest, shared_dir: Path) -> ParitySet:
    return load_parity_set(shared_dir, request.param)
