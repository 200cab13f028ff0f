"""Where checkpoints are: folders, runs, the weights that the package carries, the Hugging Face Hub; and what they hold.

Nothing here loads torch, so that a wrong name is told at once; what is in a checkpoint is read by `checkpoint`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

ModelKind = Literal["CDVAE", "PropertyPredictor", "LatentPredictor"]
"""The class of a model."""

FOLDERS: dict[ModelKind, str] = {
    "CDVAE": "weights",
    "PropertyPredictor": "property_predictors",
    "LatentPredictor": "latent_predictors",
}
"""Where the package carries models of each kind."""

KINDS: dict[ModelKind, str] = {
    "CDVAE": "an autoencoder",
    "PropertyPredictor": "a predictor from crystals",
    "LatentPredictor": "a predictor from codes",
}
"""Each kind in words."""

RUN_MODEL = "model"
"""Where the folder of a run, which `train` writes, holds its checkpoint."""

HUB_PREFIX = "hf:"

_CONFIG_NAME = "config.json"
_KNOWN_BY: dict[str, ModelKind] = {
    "noise": "CDVAE",
    "autoencoder": "LatentPredictor",
    "training_noise": "PropertyPredictor",
}
"""A setting that models of one kind alone have."""


class CheckpointError(Exception):
    """A checkpoint that cannot be read or written, and why."""


class WrongKindError(CheckpointError):
    """A checkpoint of another kind of model than the one that was asked for.

    Attributes:
        found: what it holds.
        expected: what was asked for.
    """

    def __init__(self, place: str | os.PathLike[str], found: ModelKind, expected: ModelKind) -> None:
        super().__init__(
            f"{os.fspath(place)} is {KINDS[found]} (`{found}`), where {KINDS[expected]} (`{expected}`) is needed"
        )
        self.found = found
        self.expected = expected


def home_of(kind: ModelKind) -> Path:
    """The folder of the models of a kind that the package carries."""
    return Path(__file__).parents[1] / "models" / FOLDERS[kind]


def carried_names(home: Path) -> list[str]:
    """Names of the models that lie in a folder.

    >>> "perov_5" in carried_names(home_of("CDVAE"))
    True
    """
    return sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def is_reference(name: str | os.PathLike[str]) -> bool:
    """Whether a name stands for something on the Hub.

    >>> is_reference("hf:owner/name"), is_reference("runs/mine")
    (True, False)
    """
    return isinstance(name, str) and name.startswith(HUB_PREFIX)


def locate(name_or_path: str | os.PathLike[str], home: Path) -> Path:
    """The folder of a checkpoint: one that exists wins over a name of the package's own.

    A folder of that name that holds no checkpoint, results of an evaluation perhaps, does not stand in the name's way;
    the folder of a run stands for the model in it.

    Args:
        name_or_path: a folder or a name.
        home: where the names are looked up.
    """
    path = Path(name_or_path)
    names = carried_names(home)
    known = str(name_or_path) in names
    if not (path / _CONFIG_NAME).is_file() and (path / RUN_MODEL / _CONFIG_NAME).is_file():
        return path / RUN_MODEL
    if path.exists() and not (known and path.is_dir() and not any(path.glob("*.safetensors"))):
        return path
    if known:
        return home / str(name_or_path)
    raise FileNotFoundError(
        f"no checkpoint at {str(name_or_path)!r}, and the package carries no model of that name; it carries "
        f"{', '.join(names) or 'none'}. Give one of these, the folder of a checkpoint or of a run, or hf:owner/name"
    )


def refuse_other_kind(place: Path, expected: ModelKind) -> None:
    """Raises for a checkpoint of another kind of model; what else is wrong with it is for `load_checkpoint` to say."""
    try:
        config = json.loads((place / _CONFIG_NAME).read_text(encoding="utf-8"))["metadata"]["config"]
        found = next((kind for key, kind in _KNOWN_BY.items() if key in config), expected)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if found != expected:
        raise WrongKindError(place, found, expected)
