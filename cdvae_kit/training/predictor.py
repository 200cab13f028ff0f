"""A property predictor from crystals: its members, one after the other, then the calibration of their intervals.

The folder: `member-0/`, `member-1/`, ... are runs of `fit`, each resumable; `model/` is the whole predictor, and
`training.json` says what came of it. What a predictor is belongs to the models; here it is a protocol.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.batch import concatenate
from cdvae_kit.io.atomic import atomic_file
from cdvae_kit.io.result_folder import result_folder
from cdvae_kit.training.config import TrainingConfig
from cdvae_kit.training.run import FitResult, fit

logger = logging.getLogger(__name__)

_CRYSTALS_AT_ONCE = 128


class TrainablePredictor(Protocol):
    """An ensemble whose members `fit` trains; `cdvae_kit.models.PropertyPredictor` fits."""

    config: Any
    """With `properties` and `num_members`."""
    card: dict[str, Any]
    members: Any
    """Modules that are each a `TrainableNetwork`."""

    def member_predictions(self, crystals: CrystalBatch) -> Tensor: ...

    def predict(self, crystals: CrystalBatch) -> Any: ...

    def calibrate(self, held_out: CrystalBatch, *, out_of_fold: Tensor) -> None: ...

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, overwrite: bool = False, half: bool = False
    ) -> None: ...


@dataclass(frozen=True)
class PredictorFit:
    """What training a predictor gave.

    Attributes:
        output_dir: the run's folder; `output_dir / "model"` is the checkpoint.
        members: how each member's training went.
        out_of_fold_error: property to the mean absolute error of members on the fold that they did not learn from.
        calibration_error: property to the ensemble's mean absolute error on the calibration crystals, which no member
            has seen in any way.
        num_calibrated: crystals that the intervals were calibrated on.
        seconds: of this call.
    """

    output_dir: Path
    members: tuple[FitResult, ...]
    out_of_fold_error: dict[str, float]
    calibration_error: dict[str, float]
    num_calibrated: int
    seconds: float


def fit_predictor(
    predictor: TrainablePredictor,
    folds: Sequence[CrystalBatch],
    calibration: CrystalBatch,
    config: TrainingConfig,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    half: bool = False,
) -> PredictorFit:
    """Trains and calibrates `predictor` in place and writes it to `output_dir / "model"`.

    Member k learns from all folds but fold k (modulo their number), which chooses its weights. After Ctrl-C or a kill,
    `resume=True` goes on to the same result as if nothing had happened.

    Args:
        predictor: a fresh one; for the same start from a seed make it within `seeded_weights`.
        folds: parts of the crystals to learn from, at least two.
        calibration: crystals that no member sees.
        config: the settings; strain and substitution are not applied, since they change the property.
        output_dir: the run's folder.
        resume: go on with the run in the folder.
        overwrite: remove the run in the folder first.
        device: see `fit`.
        half: write trained weights in float16.
    """
    started = time.monotonic()
    if len(folds) < 2:
        raise ValueError(f"members are chosen on a fold that they do not learn from: give at least 2, got {len(folds)}")
    output = Path(output_dir)
    config = config.model_copy(update={"strain": 0.0, "substitution": 0.0})
    names = [f"member-{k}" for k in range(len(predictor.members))]
    with result_folder(output, ours=(*names, "model", "training.json"), resume=resume, overwrite=overwrite):
        result = _fit_members(predictor, names, folds, calibration, config, output, resume=resume, device=device)
        _write(result, predictor, folds, config, half=half)
    return replace(result, seconds=time.monotonic() - started)


def _fit_members(
    predictor: TrainablePredictor,
    names: Sequence[str],
    folds: Sequence[CrystalBatch],
    calibration: CrystalBatch,
    config: TrainingConfig,
    output: Path,
    *,
    resume: bool,
    device: str,
) -> PredictorFit:
    """Trains the members one after the other, each in a folder of its name, and calibrates them together."""
    started = time.monotonic()
    results, errors = [], []
    for k, (name, member) in enumerate(zip(names, predictor.members, strict=True)):
        left_out = k % len(folds)
        train = concatenate([fold for i, fold in enumerate(folds) if i != left_out])
        settings = config.model_copy(update={"seed": config.seed + k})
        logger.info("member %d of %d: %d crystals", k + 1, len(names), len(train))
        folder = output / name
        results.append(
            fit(member, train, folds[left_out], settings, folder, resume=resume and folder.is_dir(), device=device)
        )
        errors.append(_member_errors(predictor, k, folds[left_out]))
    out_of_fold = torch.cat(errors)
    predictor.calibrate(calibration, out_of_fold=out_of_fold)
    return PredictorFit(
        output_dir=output,
        members=tuple(results),
        out_of_fold_error=_by_name(predictor, out_of_fold),
        calibration_error=_by_name(predictor, _ensemble_errors(predictor, calibration)),
        num_calibrated=len(calibration),
        seconds=time.monotonic() - started,
    )


def _member_errors(predictor: TrainablePredictor, k: int, crystals: CrystalBatch) -> Tensor:
    """(num_crystals, num_properties): member k less the truth, NaN where there is no value."""
    parts = []
    for index in torch.arange(len(crystals)).split(_CRYSTALS_AT_ONCE):
        some = crystals.select(index)
        parts.append(predictor.member_predictions(some)[k] - _truth(predictor, some))
    return torch.cat(parts)


def _ensemble_errors(predictor: TrainablePredictor, crystals: CrystalBatch) -> Tensor:
    found = predictor.predict(crystals)
    mean = torch.stack([found[name].mean for name in predictor.config.properties], dim=-1)
    return mean - _truth(predictor, crystals)


def _truth(predictor: TrainablePredictor, crystals: CrystalBatch) -> Tensor:
    return torch.stack([crystals.properties[name] for name in predictor.config.properties], dim=-1)


def _by_name(predictor: TrainablePredictor, errors: Tensor) -> dict[str, float]:
    return dict(zip(predictor.config.properties, errors.abs().nanmean(0).tolist(), strict=True))


def _write(
    result: PredictorFit,
    predictor: TrainablePredictor,
    folds: Sequence[CrystalBatch],
    config: TrainingConfig,
    *,
    half: bool,
) -> None:
    about = {
        "config": config.model_dump(mode="json"),
        "num_training_crystals": sum(len(fold) for fold in folds),
        "num_folds": len(folds),
        "num_calibration_crystals": result.num_calibrated,
        "out_of_fold_error": result.out_of_fold_error,
        "calibration_error": result.calibration_error,
        "steps": [member.steps for member in result.members],
        "best_step": [member.best_step for member in result.members],
        "skipped_steps": [member.skipped_steps for member in result.members],
        "seconds": round(sum(member.seconds for member in result.members), 1),
        "device": result.members[0].device,
    }
    predictor.card["training"] = about
    predictor.save_pretrained(result.output_dir / "model", overwrite=True, half=half)
    with atomic_file(result.output_dir / "training.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
