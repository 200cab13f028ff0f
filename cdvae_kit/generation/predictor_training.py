"""From crystals in a file to a trained property predictor: what `generate-crystals train-predictor` does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets import load_dataset, split_crystals
from cdvae_kit.datasets.registry import DATASETS
from cdvae_kit.io.result_folder import result_folder
from cdvae_kit.models import CDVAE
from cdvae_kit.models.latent_predictor import LatentPredictor, encoder_digest
from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.models.predictor_config import LatentPredictorConfig, PropertyPredictorConfig
from cdvae_kit.models.property_predictor import PropertyPredictor
from cdvae_kit.training import SettingsError, TrainingConfig, apply_overrides, seeded_weights
from cdvae_kit.training.latent_predictor import fit_latent_predictor
from cdvae_kit.training.predictor import fit_predictor
from cdvae_kit.typing import OpenProgress, Progress

logger = logging.getLogger(__name__)

PredictorInput = Literal["crystal", "z"]
"""What a predictor sees: the crystal, or an autoencoder's code of it."""

_PART_SEED = 0
"""Of the ranking that parts are cut from: fixed, so that two predictors' parts are disjoint whatever their seeds."""

_CRYSTAL_TRAINING: dict[str, Any] = {
    "max_steps": 3000,
    "batch_size": 64,
    "learning_rate": 5e-3,
    "weight_decay": 0.01,
    "warmup_steps": 100,
    "ema_decay": 0.995,
    "check_every": 250,
}
_CODE_TRAINING: dict[str, Any] = _CRYSTAL_TRAINING | {
    "max_steps": 600,
    "batch_size": 256,
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "check_every": 100,
}


@dataclass(frozen=True)
class PredictorResult:
    """What training a predictor gave.

    Attributes:
        model_dir: the checkpoint.
        num_training: crystals that the members learned from.
        num_calibration: crystals that the intervals were calibrated on.
        out_of_fold_error: property to the mean absolute error of members on crystals that they did not learn from.
        calibration_error: property to the ensemble's mean absolute error on the calibration crystals.
        units: of both, by property.
        seconds: training took.
    """

    model_dir: Path
    num_training: int
    num_calibration: int
    out_of_fold_error: dict[str, float]
    calibration_error: dict[str, float]
    units: dict[str, str]
    seconds: float


def train_predictor(
    *,
    data: str | os.PathLike[str],
    properties: Sequence[str],
    output: str | os.PathLike[str],
    sees: PredictorInput = "crystal",
    checkpoint: str | os.PathLike[str] = "perov_5",
    part: tuple[float, float] = (0.0, 1.0),
    calibration_fraction: float = 0.1,
    num_folds: int | None = None,
    units: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    strict: bool = False,
    lenient: bool = False,
    half: bool = False,
    reading: Callable[[], AbstractContextManager[OpenProgress | None]] = nullcontext,
    fitting: Callable[[], AbstractContextManager[Progress | None]] = nullcontext,
) -> PredictorResult:
    """A trained and calibrated predictor in `output/model`.

    Crystals are ranked by a hash of their names; `part` cuts this ranking, so that a predictor that is optimised
    (0, 0.3) and one that judges (0.3, 1) share no crystal. A crystal without a value of any property is left out.

    Args:
        data: name of a data set (its `train` is taken), a folder with `train`, or a file of crystals.
        properties: names of columns of the data.
        output: the run's folder.
        sees: the crystal, or its code by the autoencoder `checkpoint`.
        checkpoint: name or folder of the autoencoder; only for codes.
        part: from which share to which share of the ranking.
        calibration_fraction: share of the part that no member sees.
        num_folds: parts of the rest; each member learns from all but one. As many as members unless given: more leave
            a member more to learn from, and less to choose its weights by.
        units: one a property; by default what is known of the data set.
        overrides: `key=value` words: `model.` settings of the predictor, and `training.` settings.
        resume: go on with the run in the folder; only from crystals.
        overwrite: remove the run in the folder first.
        device: where to train.
        strict: one record that cannot be read is an error.
        lenient: take files that contradict themselves as their atoms stand, with a line in the log.
        half: write weights in half precision.
        reading: a context around the reading of the data, as in `train_model`.
        fitting: the same around the fitting to codes, with (steps done, steps in all).
    """
    from_codes = sees == "z"
    if from_codes and resume:
        raise ValueError("fitting to codes takes a minute and is not resumed; use overwrite")
    schema = LatentPredictorConfig if from_codes else PropertyPredictorConfig
    model_settings: dict[str, Any] = {
        "properties": tuple(properties),
        "units": tuple(units) if units is not None else tuple(_known_unit(data, name) for name in properties),
    }
    autoencoder = CDVAE.from_pretrained(checkpoint, device="cpu") if from_codes else None
    if autoencoder is not None:
        model_settings |= {"latent_dim": autoencoder.config.latent_dim, "autoencoder": encoder_digest(autoencoder)}
    settings = apply_overrides(
        {"model": model_settings, "training": _CODE_TRAINING if from_codes else _CRYSTAL_TRAINING},
        list(overrides),
        model_schema=schema,
    )
    config = TrainingConfig.model_validate(settings["training"])
    with reading() as progress:
        crystals, card = _load(data, properties, part, strict=strict, lenient=lenient, progress=progress)
    num_folds = num_folds if num_folds is not None else max(2, schema.model_validate(settings["model"]).num_members)
    folds, calibration = _cut(crystals, calibration_fraction, num_folds=num_folds, seed=config.seed)
    card["calibration"] = f"{calibration_fraction:g} of the part, by a hash of seed {config.seed} and the name"
    card |= {"num_training": len(crystals) - len(calibration), "num_calibration": len(calibration)}
    folder = Path(output)
    if autoencoder is not None:
        with result_folder(folder, ours=("model",), overwrite=overwrite):
            with seeded_weights(config.seed):
                latent = LatentPredictor(LatentPredictorConfig.model_validate(settings["model"]))
            with fitting() as advance:
                found = fit_latent_predictor(latent, autoencoder, folds, calibration, config, progress=advance)
            latent.card = {"data": card, "autoencoder": str(checkpoint), "training": _about(config, found)}
            latent.save_pretrained(folder / "model", half=half)
        return _result(folder, card, found, latent.units)
    with seeded_weights(config.seed):
        predictor = PropertyPredictor(PropertyPredictorConfig.model_validate(settings["model"]))
    predictor.card = {"data": card}
    fitted = fit_predictor(
        predictor, folds, calibration, config, folder, resume=resume, overwrite=overwrite, device=device, half=half
    )
    return _result(folder, card, fitted, predictor.units)


def _result(folder: Path, card: dict[str, Any], found: Any, units: dict[str, str]) -> PredictorResult:
    return PredictorResult(
        model_dir=folder / "model",
        num_training=card["num_training"],
        num_calibration=card["num_calibration"],
        out_of_fold_error=found.out_of_fold_error,
        calibration_error=found.calibration_error,
        units=units,
        seconds=found.seconds,
    )


def _about(config: TrainingConfig, found: Any) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "best_step": list(found.best_steps),
        "out_of_fold_error": found.out_of_fold_error,
        "calibration_error": found.calibration_error,
        "seconds": round(found.seconds, 1),
        "device": "cpu",
    }


def _known_unit(data: str | os.PathLike[str], name: str) -> str:
    """The unit that the registry knows for a property of a data set, or of a file in a folder of its name."""
    path = Path(data)
    for candidate in (str(data), path.name, path.parent.name):
        for known in DATASETS[candidate].properties if candidate in DATASETS else ():
            if known.name == name:
                return known.unit
    return ""


def _load(
    data: str | os.PathLike[str],
    properties: Sequence[str],
    part: tuple[float, float],
    *,
    strict: bool,
    lenient: bool,
    progress: OpenProgress | None,
) -> tuple[CrystalBatch, dict[str, Any]]:
    """The crystals of the part that have a value, and what the card says of them."""
    low, high = part
    if not 0.0 <= low < high <= 1.0:
        raise SettingsError(f"a part goes from one share to a larger one within 0 and 1, got {low:g}:{high:g}")
    path = Path(data)
    has_splits = str(data) in DATASETS or path.is_dir()
    split = "train" if has_splits else None
    result = load_dataset(data, split=split, strict=strict, lenient=lenient, progress=progress)
    result = result.with_elements_up_to(NUM_ELEMENTS, str(data))
    for failure in result.failures:
        logger.warning("left out: %s", failure)
    for note in result.notes:
        logger.warning("note: %s", note)
    crystals = result.crystals
    missing = [name for name in properties if name not in crystals.properties]
    if missing:
        raise SettingsError(
            f"the data have no property {', '.join(map(repr, missing))}; they have "
            f"{', '.join(sorted(crystals.properties)) or 'none'}"
        )
    shares = {"before": low, "part": high - low, "after": 1.0 - high}
    wanted = [name for name, share in shares.items() if share > 1e-9]
    cut = split_crystals(crystals, [shares[name] for name in wanted], seed=_PART_SEED)[wanted.index("part")]
    there = sum(cut.properties[name].isfinite().long() for name in properties)
    assert not isinstance(there, int)
    chosen = cut.select((there > 0).nonzero().flatten())
    chosen = chosen.replace(properties={name: chosen.properties[name] for name in properties})
    name = f"{path.parent.name}/{path.name}" if path.is_file() else path.name
    return chosen, {
        "name": name,
        "part": f"{low:g} to {high:g} of the crystals in order of a hash of seed {_PART_SEED} and the name",
        "left_out": len(result.failures) + len(cut) - len(chosen),
    }


def _cut(
    crystals: CrystalBatch, calibration_fraction: float, *, num_folds: int, seed: int
) -> tuple[tuple[CrystalBatch, ...], CrystalBatch]:
    """Folds to learn from, and the crystals that intervals are calibrated on."""
    if not 0.0 < calibration_fraction < 1.0:
        raise SettingsError(f"the share for calibration lies between 0 and 1, got {calibration_fraction:g}")
    share = (1.0 - calibration_fraction) / num_folds
    *folds, calibration = split_crystals(crystals, [share] * num_folds + [calibration_fraction], seed=seed + 1)
    return tuple(folds), calibration
