"""Checkpoints of whole models, and the weights that the package carries."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from cdvae_kit.io.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cdvae_kit.models.config import CDVAEConfig

Settings = TypeVar("Settings", bound=BaseModel)


def _home() -> Path:
    return Path(str(resources.files("cdvae_kit.models"))) / "weights"


def pretrained_names() -> list[str]:
    """Names of the models that the package carries, for `CDVAE.from_pretrained`."""
    return sorted(path.name for path in _home().iterdir() if path.is_dir()) if _home().is_dir() else []


def predictor_names(folder: str) -> list[str]:
    """Names of the predictors that the package carries in `folder`, one of the folders beside the models' weights."""
    home = _home().parent / folder
    return sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def locate(name_or_path: str | os.PathLike[str], *, folder: str | None = None) -> Path:
    """The folder of a checkpoint: one that exists wins over a name of the package's own.

    A folder of that name that holds no checkpoint, results of an evaluation perhaps, does not stand in the name's way.

    Args:
        name_or_path: a folder or a name.
        folder: where the names are looked up, as in `predictor_names`; the models' weights unless given.
    """
    path = Path(name_or_path)
    names = pretrained_names() if folder is None else predictor_names(folder)
    known = str(name_or_path) in names
    if path.exists() and not (known and path.is_dir() and not any(path.glob("*.safetensors"))):
        return path
    if known:
        return (_home() if folder is None else _home().parent / folder) / str(name_or_path)
    raise FileNotFoundError(
        f"no checkpoint at {str(name_or_path)!r}, and the package carries no model of that name; it carries "
        f"{', '.join(names) or 'none'}. Give one of these names or the folder of a checkpoint"
    )


def load(name_or_path: str | os.PathLike[str]) -> tuple[CDVAEConfig, dict[str, Tensor], dict[str, Any]]:
    """Configuration, tensors in float32, and card of a CDVAE's checkpoint."""
    return load_settings(name_or_path, CDVAEConfig, expected=("known_elements",))


def load_settings(
    name_or_path: str | os.PathLike[str],
    schema: type[Settings],
    *,
    expected: tuple[str, ...],
    folder: str | None = None,
) -> tuple[Settings, dict[str, Tensor], dict[str, Any]]:
    """As `load`, of a model whose configuration is a `schema`.

    Args:
        name_or_path: see `locate`.
        schema: checks the configuration.
        expected: tensors that every such model has.
        folder: see `locate`.
    """
    place = locate(name_or_path, folder=folder)
    checkpoint = load_checkpoint(place, expected_tensors=expected)
    try:
        config = schema.model_validate(checkpoint.metadata["config"])
    except (KeyError, ValidationError) as error:
        raise CheckpointError(
            f"{place} holds no {schema.__name__.removesuffix('Config')} configuration that this version understands: "
            f"{error}"
        ) from error
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in checkpoint.tensors.items()
    }
    return config, tensors, dict(checkpoint.metadata.get("card", {}))


def put_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Loads the tensors into the model; `CheckpointError` where names or shapes do not fit its configuration."""
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {source} do not fit the configuration beside them: {error}") from error


def save(
    folder: str | os.PathLike[str],
    config: BaseModel,
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Writes a checkpoint folder."""
    save_checkpoint(
        folder, tensors, {"config": config.model_dump(mode="json"), "card": dict(card)}, overwrite=overwrite
    )


def choose_device(name: str) -> torch.device:
    """`auto`: CUDA where there is one, then Apple's MPS, then the CPU; else the device of that name."""
    if name != "auto":
        device = torch.device(name)
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not there.get(device.type, True):
            raise ValueError(f"device {name!r} is not available on this machine; use 'auto' or 'cpu'")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
