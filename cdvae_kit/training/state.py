"""What a run resumes from: Lightning's state as safetensors and JSON, through `cdvae_kit.io.checkpoint`.

Lightning's own files are pickles. The state is a tree of tables, lists, numbers and tensors; here the tensors go to
safetensors, and the rest to JSON, so that a file that someone else wrote can do no more than be wrong.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor

from cdvae_kit.io.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cdvae_kit.io.results.files import check_seal, sealed, whole_content

_KEY = "training_state"
_ADVICE = "begin anew (overwrite=True); the weights of the best step are in `model`"


def save_state(folder: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes a tree of dicts, lists, tuples, numbers, text, None and tensors; replaces what is there in one step."""
    tensors: dict[str, Tensor] = {}
    tree = _encode(dict(state), tensors, "state")
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder, tensors, sealed({_KEY: tree}), overwrite=True)


def load_state(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The tree that `save_state` wrote, tensors on the CPU."""
    checkpoint = load_checkpoint(folder)
    if _KEY not in checkpoint.metadata:
        raise CheckpointError(f"{folder} holds a model, but no state of training; give the folder of a run to resume")
    # the weights have a digest of their own
    metadata = check_seal(checkpoint.metadata, folder, _ADVICE, required=True)
    with whole_content(folder, _ADVICE):
        return _decode(metadata[_KEY], checkpoint.tensors)


class StateIO(CheckpointIO):
    """Lets a Lightning Trainer save and load its state with `save_state` and `load_state`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_state(path, checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_state(path)

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path)


def _encode(value: Any, tensors: dict[str, Tensor], place: str) -> Any:
    if isinstance(value, Tensor):
        tensors[place] = value
        return {"tensor": place}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str | int)]
        if odd:
            raise TypeError(f"keys of a training state must be text or integers, got {odd[0]!r} in {place}")
        return {"table": [[key, _encode(inner, tensors, f"{place}.{key}")] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        items = [_encode(inner, tensors, f"{place}.{i}") for i, inner in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    raise TypeError(f"a training state holds numbers, text, tables, lists and tensors; {place} is {type(value)}")


def _decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, list):
        return [_decode(inner, tensors) for inner in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(_decode(inner, tensors) for inner in content)
    return {key: _decode(inner, tensors) for key, inner in content}
