"""`predict`, `train-predictor`, and the property of `train`: from the command to files and back."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import Result

import cdvae_kit.generation
import cdvae_kit.generation.predictor_training as training
from cdvae_kit.cli.train_predictor import _parse_part
from cdvae_kit.generation.predictor_training import train_predictor
from cdvae_kit.io import write_crystals
from cdvae_kit.models.property_predictor import PropertyPredictor
from tests.models.predictors import known_crystals, ready_predictor

Run = Callable[..., Result]


@pytest.fixture
def predictor_folder(run: Run) -> Path:
    crystals = known_crystals(20, seed=1)
    predictor = ready_predictor(crystals)
    predictor.calibrate(crystals, out_of_fold=torch.ones(3, 1))
    predictor.save_pretrained("judge")
    return Path("judge")


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_predict_writes_a_row_a_record_and_tells_its_own_error(run: Run, predictor_folder: Path) -> None:
    crystals = known_crystals(5, seed=2)
    write_crystals(crystals, Path("in.csv"))
    lines = Path("in.csv").read_text()
    Path("in.csv").write_text(lines + lines.splitlines()[1].split(",")[0] + "\n")
    result = run("predict", "in.csv", "--checkpoint", predictor_folder, "--property", "room")
    assert result.exit_code == 0, result.output
    rows = rows_of("predictions.csv")
    assert len(rows) == 6
    assert [row["name"] for row in rows[:5]] == crystals.material_ids
    found = PropertyPredictor.from_pretrained(predictor_folder, device="cpu").predict(crystals)["room"]
    assert float(rows[2]["room"]) == pytest.approx(float(found.mean[2]), rel=1e-3)
    assert float(rows[2]["room_half_width"]) == pytest.approx(float(found.half_width[2]), rel=1e-3)
    assert float(rows[2]["room_given"]) == pytest.approx(float(crystals.properties["room"][2]), rel=1e-4)
    assert rows[5]["room"] == "" and "could not be read" in rows[5]["reason"]
    assert "6 records, 1 without a prediction" in result.stdout
    assert "A^3 on 5 crystals whose value the file gives" in result.stdout


def test_predict_names_the_properties_that_there_are(run: Run, predictor_folder: Path) -> None:
    write_crystals(known_crystals(2, seed=2), Path("in.extxyz"))
    result = run("predict", "in.extxyz", "--checkpoint", predictor_folder, "--property", "gap")
    assert result.exit_code == 2
    assert "no property 'gap' in this predictor; it predicts room" in result.stderr
    assert not Path("predictions.csv").exists()


def test_predict_refuses_to_overwrite_before_it_reads(run: Run) -> None:
    Path("in.cif").write_text("")
    Path("predictions.csv").write_text("mine")
    assert run("predict", "in.cif").exit_code == 2
    assert Path("predictions.csv").read_text() == "mine"


def test_train_takes_properties_for_z(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def train(**options: Any) -> SimpleNamespace:
        asked.update(options)
        return SimpleNamespace(is_main=False)

    monkeypatch.setattr(cdvae_kit.generation, "train_model", train)
    Path("x.csv").write_text("")
    result = run("train", "--data", "x.csv", "--output", "o", "--property", "heat_ref", "--property", "dir gap")
    assert result.exit_code == 0, result.output
    assert asked["overrides"] == ['model.properties=["heat_ref", "dir gap"]']


def test_the_properties_of_train_reach_the_model() -> None:
    from cdvae_kit.models import CDVAEConfig
    from cdvae_kit.training import apply_overrides, load_preset

    words = ['model.properties=["heat_ref", "dir gap"]']
    settings = apply_overrides(load_preset("perov_5"), words, model_schema=CDVAEConfig)
    assert CDVAEConfig.model_validate(settings["model"]).properties == ("heat_ref", "dir gap")


def test_train_predictor_hands_on_what_it_was_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def train(**options: Any) -> training.PredictorResult:
        asked.update(options)
        return training.PredictorResult(Path("o/model"), 90, 10, {"gap": 0.5}, {"gap": 0.4}, {"gap": "eV"}, 1.0)

    monkeypatch.setattr(training, "train_predictor", train)
    Path("x.csv").write_text("")
    words = ("--data", "x.csv", "--property", "gap", "--output", "o", "--part", "0.25:1", "--from", "z", "max_steps=5")
    result = run("train-predictor", *words)
    assert result.exit_code == 0, result.output
    wanted = {"data": "x.csv", "properties": ["gap"], "part": (0.25, 1.0), "sees": "z", "overrides": ["max_steps=5"]}
    assert wanted.items() <= asked.items()
    assert "gap: mean absolute error 0.4 eV on 10 crystals" in result.stdout


@pytest.mark.parametrize("part", ["1:0.3", "0.3", "a:b", "0:1.5", ":"])
def test_a_part_that_is_none_is_wrong_use(run: Run, part: str) -> None:
    result = run("train-predictor", "--data", "x", "--property", "p", "--output", "o", "--part", part)
    assert result.exit_code == 2 and "--part" in result.stderr
    assert _parse_part("0.3:1") == (0.3, 1.0)


def test_parts_share_no_crystal_and_miss_none(tmp_path: Path) -> None:
    write_crystals(known_crystals(50, seed=4), tmp_path / "all.csv")
    cut = [
        set(
            training._load(tmp_path / "all.csv", ["room"], part, strict=True, lenient=False, progress=None)[
                0
            ].material_ids
            or []
        )
        for part in ((0.0, 0.3), (0.3, 1.0), (0.0, 1.0))
    ]
    assert not cut[0] & cut[1] and cut[0] | cut[1] == cut[2] and len(cut[0]) == 15


def test_a_predictor_of_codes_is_trained_from_a_file(tmp_path: Path) -> None:
    from tests.models.tiny import tiny_model

    write_crystals(known_crystals(60, seed=4), tmp_path / "all.csv")
    tiny_model().save_pretrained(tmp_path / "autoencoder")
    result = train_predictor(
        data=tmp_path / "all.csv",
        properties=["room"],
        output=tmp_path / "run",
        sees="z",
        checkpoint=tmp_path / "autoencoder",
        part=(0.5, 1.0),
        calibration_fraction=0.4,
        overrides=["max_steps=5", "model.num_members=2"],
    )
    assert (result.num_training, result.num_calibration) == (18, 12)
    assert result.units == {"room": ""}
    with pytest.raises(ValueError, match="no property 'gap'; they have"):
        train_predictor(data=tmp_path / "all.csv", properties=["gap"], output=tmp_path / "other")
