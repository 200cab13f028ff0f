"""A command line in this process, and an engine that answers at once."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import cdvae_kit.generation
import cdvae_kit.io
import cdvae_kit.models
from cdvae_kit.cli.main import app
from cdvae_kit.crystal import CrystalBatch


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`generate-crystals` with the given words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


@pytest.fixture(scope="session")
def crystals() -> CrystalBatch:
    """NaCl in the cell of CsCl, NaCl with its atoms on top of each other, Na2F, and silicon in a flat cell."""
    cube = torch.eye(3)
    body = [0.5, 0.5, 0.5]
    origin = [0.0, 0.0, 0.0]
    return CrystalBatch(
        torch.tensor([origin, body, origin, [0.01, 0.0, 0.0], origin, body, [0.5, 0.5, 0.0], origin]),
        torch.stack([cube * 3.5, cube * 3.5, cube * 4.0, torch.tensor([[3.0, 0, 0], [0, 3, 0], [3, 3, 0]])]),
        torch.tensor([11, 17, 11, 17, 11, 11, 9, 14]),
        torch.tensor([2, 2, 3, 1]),
    )


class Engine(SimpleNamespace):
    """Stands in for model, sampling and files; `calls` holds what it was asked for."""

    calls: dict[str, dict[str, Any]]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, crystals: CrystalBatch) -> Engine:
    engine = Engine(calls={}, fails_with=None, interrupted_at=None)

    model = SimpleNamespace(config=SimpleNamespace(max_atoms=20))

    def from_pretrained(name: str, *, device: str = "auto") -> SimpleNamespace:
        engine.calls["from_pretrained"] = {"name": name, "device": device}
        return model

    def sample_to_file(
        model: object, path: Path, *, progress: Callable[[int, int], None], **options: Any
    ) -> CrystalBatch:
        engine.calls["sample_to_file"] = {"model": model, "path": path, **options}
        if engine.fails_with is not None:
            raise engine.fails_with
        for done in range(options["num_crystals"] + 1):
            progress(done, options["num_crystals"])
            if done == engine.interrupted_at:
                raise KeyboardInterrupt
        return crystals

    def reconstruct(model: object, originals: CrystalBatch, **options: Any) -> CrystalBatch:
        engine.calls["reconstruct"] = {"model": model, "crystals": originals, **options}
        return originals

    def interpolate(model: object, first: CrystalBatch, second: CrystalBatch, **options: Any) -> CrystalBatch:
        engine.calls["interpolate"] = {"model": model, "first": first, "second": second, **options}
        return crystals

    def read_crystals(path: Path, **options: Any) -> SimpleNamespace:
        engine.calls["read_crystals"] = {"path": path, **options}
        found = SimpleNamespace(crystals=crystals, failures=[f"row {i}: no cell" for i in range(7)], notes=[])
        found.with_elements_up_to = lambda most, source: found
        return found

    def write_crystals(batch: CrystalBatch, path: Path, **options: Any) -> None:
        engine.calls["write_crystals"] = {"crystals": batch, "path": path, **options}
        path.write_text("all")

    model_class = SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setattr(cdvae_kit.models, "CDVAE", model_class, raising=False)
    monkeypatch.setattr(cdvae_kit.generation, "sample_to_file", sample_to_file, raising=False)
    monkeypatch.setattr(cdvae_kit.generation, "reconstruct", reconstruct, raising=False)
    monkeypatch.setattr(cdvae_kit.generation, "interpolate", interpolate, raising=False)
    monkeypatch.setattr(cdvae_kit.io, "read_crystals", read_crystals, raising=False)
    monkeypatch.setattr(cdvae_kit.io, "write_crystals", write_crystals, raising=False)
    return engine
