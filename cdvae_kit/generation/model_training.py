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
from cdvae_kit.datasets.registry import DATASETS, SPLITS
from cdvae_kit.generation.fine_tuning import properties_of, refuse_unknown, settings_of
from cdvae_kit.generation.fine_tuning import start_from as start_from  # its first home
from cdvae_kit.io.crystals.reading import ReadError
from cdvae_kit.models import CDVAE, CDVAEConfig
from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.training import TrainingConfig, apply_overrides, fit, load_preset, seeded_weights
from cdvae_kit.typing import OpenProgress

if TYPE_CHECKING:
    from cdvae_kit.training import FitResult

logger = logging.getLogger(__name__)

DEFAULT_PRESET = "perov_5"


def train_model(
    *,
    preset: str | None = None,
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    properties: Sequence[str] = (),
    init: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    strict: bool = False,
    lenient: bool = False,
    reading: Callable[[], AbstractContextManager[OpenProgress | None]] = nullcontext,
) -> FitResult:
    """A trained model in the folder `output`, its weights in `output/model`.

    Args:
        preset: name of a preset, or a TOML file; None takes `perov_5`, and with `init` the settings of that model and
            `fine_tuning.FINE_TUNING`: a small learning rate, and an end when validation no longer gains.
        data: name of a data set, a folder with splits `train` and `val`, or a file of crystals, of which
            `training.validation_fraction` chooses the weights that are kept.
        output: the run's folder.
        overrides: `key=value` words laid over the preset.
        properties: columns of the data that z is to tell; with `init`, beside those of the old model that the data
            have.
        init: a checkpoint, or the name of a model that the package carries, whose weights training starts from; layers
            that it does not have, or has in another shape, start anew and are named in the log, and so are elements
            that it does not know. See `fine_tuning.start_from`.
        resume: go on with the run in the folder.
        overwrite: remove the run in the folder first.
        device: where to train.
        strict: one record that cannot be read is an error; otherwise it is logged and left out.
        lenient: take files that contradict themselves as their atoms stand, with a line in the log.
        reading: makes a context around the reading of the data, whose value is called with (records read, records in
            all): a progress bar, say, which must be gone before training shows its own.
    """
    goes_on = init is not None and preset is None
    tables = settings_of(init) if init is not None and goes_on else load_preset(preset or DEFAULT_PRESET)
    source = preset if preset is not None and preset.endswith(".toml") else None
    settings = apply_overrides(tables, list(overrides), model_schema=CDVAEConfig, source=source)
    config = TrainingConfig.model_validate(settings["training"])
    model_config = CDVAEConfig.model_validate(settings["model"])
    if config.codes == "kept" and (init is None or properties):
        raise ValueError(
            "codes=kept trains the score network of a model that is there: name it with --init, and no properties, "
            "which stay those of the model"
        )
    with reading() as progress:
        crystals, val, card = _load(
            data, config, model_config.max_atoms, strict=strict, lenient=lenient, progress=progress
        )
    if init is not None and goes_on and config.codes == "learned":
        said = any(word.split("=")[0].strip() == "model.properties" for word in overrides)
        names = model_config.properties if said else properties_of(model_config.properties, properties, crystals, init)
        model_config = model_config.model_copy(update={"properties": names})
    elif properties:
        model_config = model_config.model_copy(update={"properties": tuple(properties)})
    with seeded_weights(config.seed):
        model = CDVAE(model_config)
    model.card = {"preset": preset or (None if goes_on else DEFAULT_PRESET), "data": card}
    if init is not None:
        # of a run that is resumed, the state comes on top
        start_from(model, init, train=crystals if config.codes == "learned" else None)
        if config.codes == "kept":
            refuse_unknown(model, crystals)
        model.card["init"] = Path(init).name
    return fit(model, crystals, val, config, output, resume=resume, overwrite=overwrite, device=device)


def _load(
    data: str | os.PathLike[str],
    config: TrainingConfig,
    max_atoms: int,
    *,
    strict: bool,
    lenient: bool,
    progress: OpenProgress | None,
) -> tuple[CrystalBatch, CrystalBatch, dict[str, Any]]:
    """Training and validation crystals, and what the model card says of them."""
    path = Path(data)
    has_splits = str(data) in DATASETS or (path.is_dir() and any(_is_split(child) for child in path.iterdir()))
    try:
        results = [
            load_dataset(
                data, split=split, max_atoms=max_atoms, strict=strict, lenient=lenient, progress=progress
            ).with_elements_up_to(NUM_ELEMENTS, str(data))
            for split in (("train", "val") if has_splits else (None,))
        ]
    except ReadError as error:
        if path.is_dir() and not has_splits:
            error.add_note("a folder to train on holds the splits train.csv and val.csv, or crystals in files")
        raise
    for failure in (failure for result in results for failure in result.failures):
        logger.warning("left out: %s", failure)
    for note in (note for result in results for note in result.notes):
        logger.warning("note: %s", note)
    if has_splits:
        train_set, val_set = (result.crystals for result in results)
        split = "the data's own"
    else:
        share = config.validation_fraction
        train_set, val_set = split_crystals(results[0].crystals, (1.0 - share, share), seed=config.seed)
        split = f"{share:g} of the file for choosing the weights, by a hash of seed {config.seed} and the name"
    name = path.name if path.exists() else str(data)
    if path.is_file() or not has_splits:
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


def _is_split(path: Path) -> bool:
    return path.name.split(".")[0] in SPLITS
