"""From a preset and a file of crystals to a trained model: what `generate-crystals train` does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets import load_dataset, split_crystals
from cdvae_kit.datasets.registry import DATASETS
from cdvae_kit.models import CDVAE, CDVAEConfig
from cdvae_kit.training import TrainingConfig, apply_overrides, fit, load_preset, seeded_weights
from cdvae_kit.typing import OpenProgress

if TYPE_CHECKING:
    from cdvae_kit.training import FitResult

logger = logging.getLogger(__name__)


def train_model(
    *,
    preset: str,
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    init: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    strict: bool = False,
    reading: Callable[[], AbstractContextManager[OpenProgress | None]] = nullcontext,
) -> FitResult:
    """A trained model in the folder `output`, its weights in `output/model`.

    Args:
        preset: name of a preset, or a TOML file.
        data: name of a data set, a folder with splits `train` and `val`, or a file of crystals, of which
            `training.validation_fraction` chooses the weights that are kept.
        output: the run's folder.
        overrides: `key=value` words laid over the preset.
        init: a checkpoint, or the name of a model that the package carries, whose weights training starts from; layers
            that it does not have, or has in another shape, start anew and are named in the log.
        resume: go on with the run in the folder.
        overwrite: remove the run in the folder first.
        device: where to train.
        strict: one record that cannot be read is an error; otherwise it is logged and left out.
        reading: makes a context around the reading of the data, whose value is called with (records read, records in
            all): a progress bar, say, which must be gone before training shows its own.
    """
    settings = apply_overrides(load_preset(preset), list(overrides), model_schema=CDVAEConfig)
    config = TrainingConfig.model_validate(settings["training"])
    model_config = CDVAEConfig.model_validate(settings["model"])
    with reading() as progress:
        crystals, val, card = _load(data, config, model_config.max_atoms, strict=strict, progress=progress)
    with seeded_weights(config.seed):
        model = CDVAE(model_config)
    model.card = {"preset": preset, "data": card}
    if init is not None and not resume:
        start_from(model, init)
        model.card["init"] = Path(init).name
    return fit(model, crystals, val, config, output, resume=resume, overwrite=overwrite, device=device)


def start_from(model: CDVAE, init: str | os.PathLike[str]) -> list[str]:
    """Copies into `model` all weights of `init` that fit it; gives the names of the tensors that stay as they are.

    Statistics and what is known of the training set are fitted to the new data afterwards.
    """
    other = CDVAE.from_pretrained(init, device="cpu").state_dict()
    own = model.state_dict()
    fitting = {name: other[name] for name in own if name in other and other[name].shape == own[name].shape}
    if not fitting:
        raise ValueError(
            f"no weight of {init} fits a model of these settings; give the settings that it was trained with"
        )
    model.load_state_dict(own | fitting)
    fresh = sorted(set(own) - set(fitting))
    if fresh:
        logger.warning("%d of %d tensors do not come from %s: %s", len(fresh), len(own), init, ", ".join(fresh[:10]))
    return fresh


def _load(
    data: str | os.PathLike[str],
    config: TrainingConfig,
    max_atoms: int,
    *,
    strict: bool,
    progress: OpenProgress | None,
) -> tuple[CrystalBatch, CrystalBatch, dict[str, Any]]:
    """Training and validation crystals, and what the model card says of them."""
    path = Path(data)
    has_splits = str(data) in DATASETS or path.is_dir()
    results = [
        load_dataset(data, split=split, max_atoms=max_atoms, strict=strict, progress=progress)
        for split in (("train", "val") if has_splits else (None,))
    ]
    for failure in (failure for result in results for failure in result.failures):
        logger.warning("left out: %s", failure)
    if has_splits:
        train_set, val_set = (result.crystals for result in results)
        split = "the data's own"
    else:
        share = config.validation_fraction
        train_set, val_set = split_crystals(results[0].crystals, (1.0 - share, share), seed=config.seed)
        split = f"{share:g} of the file for choosing the weights, by a hash of seed {config.seed} and the name"
    name = path.name if path.exists() else str(data)
    if path.is_file():
        name = f"{path.parent.name}/{path.name}"
    return (
        train_set,
        val_set,
        {
            "name": name,
            "split": split,
            "num_train": len(train_set),
            "num_val": len(val_set),
            "left_out": sum(len(result.failures) for result in results),
        },
    )
