"""Checkpoints: a folder with `model.safetensors` and `config.json`, versioned, checked, never unpickled.

`config.json` holds the format version, the SHA-256 of the weights and whatever the caller wants to keep beside them.
What the tensors mean belongs to the models; here they are names and numbers. The epoch-by-epoch state that training
resumes from is Lightning's and does not pass through here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cdvae_kit import __version__
from cdvae_kit.io.atomic import atomic_file, atomic_folder, is_temporary, refuse_existing
from cdvae_kit.io.carried import CheckpointError as CheckpointError

FORMAT_VERSION = 1
"""Raised when a reader of the older layout would misread the new one."""

KIND = "cdvae_kit.model"
WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"

_PICKLED_SUFFIXES = (".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".bin")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        tensors: by name, on the CPU, in the dtype that they were saved in.
        metadata: what the caller saved beside them, as JSON gives it back (tuples are lists, keys are text).
        package_version: the version of cdvae_kit that wrote it.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    package_version: str = __version__


def save_checkpoint(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Writes the folder; whoever loads it meanwhile, or after a kill, gets the old checkpoint or the new one, whole.

    Replacing takes three steps, each one rename: the new weights under a name that carries their hash, the
    configuration that asks for that hash, the weights under their plain name. `load_checkpoint` knows both names.

    >>> import tempfile, torch
    >>> folder = Path(tempfile.mkdtemp()) / "model"
    >>> save_checkpoint(folder, {"weight": torch.ones(2)}, {"hidden_dim": 8})
    >>> load_checkpoint(folder).metadata
    {'hidden_dim': 8}
    """
    folder = Path(folder)
    weights = _weights_bytes(tensors)
    config = _config_bytes(tensors, metadata, weights)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"cannot save a checkpoint at {folder}: a file has that name; give the name of a folder")
    if not folder.is_dir() or next(folder.iterdir(), None) is None:
        with atomic_folder(folder) as temporary:
            (temporary / WEIGHTS_NAME).write_bytes(weights)
            (temporary / CONFIG_NAME).write_bytes(config)
        return
    refuse_existing(folder, overwrite=overwrite)
    _refuse_foreign_folder(folder)
    pending = folder / _pending_name(hashlib.sha256(weights).hexdigest())
    with atomic_file(pending, overwrite=True) as temporary:
        temporary.write_bytes(weights)
    with atomic_file(folder / CONFIG_NAME, overwrite=True) as temporary:
        temporary.write_bytes(config)
    os.replace(pending, folder / WEIGHTS_NAME)
    _remove_leftovers(folder)


def load_checkpoint(folder: str | os.PathLike[str], *, expected_tensors: Collection[str] | None = None) -> Checkpoint:
    """The checkpoint in `folder`, its hash checked; anything else there raises `CheckpointError` and says what it is.

    Args:
        folder: the folder that `save_checkpoint` wrote.
        expected_tensors: names that must be there.
    """
    folder = Path(folder)
    _refuse_what_is_no_checkpoint_folder(folder)
    config, weights = _read_pair(folder)
    try:
        tensors = safetensors.torch.load(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{folder / WEIGHTS_NAME} is not a safetensors file ({error}); {_FETCH_AGAIN}") from error
    missing = sorted(set(config["tensors"]).union(expected_tensors or ()) - set(tensors))
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise CheckpointError(
            f"{folder} lacks {len(missing)} tensors that the model needs ({shown}); it holds {len(tensors)}: "
            "it was saved from another model, take the one that fits"
        )
    return Checkpoint(tensors, config["metadata"], config["package_version"])


_FETCH_AGAIN = "the file is damaged: copy or download it again"


def _weights_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    if not tensors:
        raise CheckpointError("a checkpoint needs at least one tensor, got none")
    # the format takes no views and no two names for one memory
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata={"format": "pt"})


def _config_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], weights: bytes) -> bytes:
    config = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "weights": {"file": WEIGHTS_NAME, "sha256": hashlib.sha256(weights).hexdigest(), "num_bytes": len(weights)},
        "tensors": sorted(tensors),
        "metadata": dict(metadata),
    }
    try:
        return (json.dumps(config, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"metadata must be plain JSON (text, finite numbers, lists, tables with text keys): {error}"
        ) from error


def _pending_name(sha256: str) -> str:
    return f"model-{sha256}.safetensors"


def _refuse_foreign_folder(folder: Path) -> None:
    if not (folder / CONFIG_NAME).is_file():
        raise CheckpointError(
            f"{folder} holds files but no checkpoint ({CONFIG_NAME}); choose a folder that is empty or new"
        )
    try:
        _parse_config(folder, (folder / CONFIG_NAME).read_bytes())
    except _DamagedConfigError:
        # a damaged checkpoint of ours is what overwriting mends
        return


def _remove_leftovers(folder: Path) -> None:
    for child in folder.iterdir():
        if is_temporary(child) or (child.name.startswith("model-") and child.suffix == ".safetensors"):
            child.unlink(missing_ok=True)


def _refuse_what_is_no_checkpoint_folder(folder: Path) -> None:
    if not folder.exists():
        raise CheckpointError(f"there is no checkpoint at {folder}: the path does not exist; check its spelling")
    if folder.is_file():
        if folder.suffix in _PICKLED_SUFFIXES:
            raise CheckpointError(
                f"{folder} looks like a pickled checkpoint of another program; pickles can run code and are never "
                f"opened here. Expected a folder with {WEIGHTS_NAME} and {CONFIG_NAME}"
            )
        raise CheckpointError(f"{folder} is a file; give the folder that holds {WEIGHTS_NAME} and {CONFIG_NAME}")
    if not (folder / CONFIG_NAME).is_file():
        found = sorted(child.name for child in folder.iterdir())[:5]
        raise CheckpointError(
            f"{folder} holds no {CONFIG_NAME} (found: {', '.join(found) or 'nothing'}); "
            f"give the folder that holds {WEIGHTS_NAME} and {CONFIG_NAME}"
        )


class _DamagedConfigError(CheckpointError):
    pass


def _parse_config(folder: Path, content: bytes) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _DamagedConfigError(f"{path} is not JSON ({error}); {_FETCH_AGAIN}") from error
    kind = config.get("kind") if isinstance(config, dict) else None
    if kind != KIND:
        raise CheckpointError(
            f"{path} belongs to something else: expected kind {KIND!r}, got {kind!r}; "
            "give a folder that this package saved"
        )
    version = config.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, this package reads up to {FORMAT_VERSION} (it was written by "
            f"cdvae_kit {config.get('package_version')}, this is {__version__}); install a newer cdvae_kit"
        )
    expected = {"package_version": str, "weights": dict, "tensors": list, "metadata": dict}
    broken = [name for name, kind in expected.items() if not isinstance(config.get(name), kind)]
    if not broken and not all(isinstance(name, str) for name in config["tensors"]):
        broken = ["tensors"]
    # it becomes a part of a file's name
    if version != FORMAT_VERSION or broken or not _is_sha256(config["weights"].get("sha256")):
        raise _DamagedConfigError(
            f"{path} lacks entries that every checkpoint has "
            f"({', '.join(broken) or 'format_version, weights.sha256'}); {_FETCH_AGAIN}"
        )
    return config


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _read_pair(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The configuration and the weights that it asks for."""
    # a save that runs meanwhile can come between two reads; it cannot do so every time
    for _ in range(5):
        content = (folder / CONFIG_NAME).read_bytes()
        config = _parse_config(folder, content)
        wanted = config["weights"]["sha256"]
        sizes: dict[str, int] = {}
        for name in (WEIGHTS_NAME, _pending_name(wanted), WEIGHTS_NAME):
            try:
                weights = (folder / name).read_bytes()
            except FileNotFoundError:
                continue
            if hashlib.sha256(weights).hexdigest() == wanted:
                return config, weights
            sizes[name] = len(weights)
        if (folder / CONFIG_NAME).read_bytes() == content:
            break
    path = folder / WEIGHTS_NAME
    if WEIGHTS_NAME not in sizes:
        raise CheckpointError(f"{path} is missing; {CONFIG_NAME} alone is no checkpoint: copy or download it again")
    size, num_bytes = sizes[WEIGHTS_NAME], config["weights"].get("num_bytes")
    if isinstance(num_bytes, int) and size < num_bytes:
        raise CheckpointError(f"{path} is truncated: {size} bytes of {num_bytes}; {_FETCH_AGAIN}")
    raise CheckpointError(
        f"{path} does not have the SHA-256 that {CONFIG_NAME} states ({wanted[:12]}...); {_FETCH_AGAIN}"
    )
