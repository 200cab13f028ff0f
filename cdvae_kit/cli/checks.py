"""What is wrong with options is said before torch is loaded, which takes seconds: names, files, presets.

What only a model or the data can tell is checked where they are read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cdvae_kit.io.carried import (
    KINDS,
    ModelKind,
    WrongKindError,
    carried_names,
    home_of,
    is_reference,
    locate,
    refuse_other_kind,
)
from cdvae_kit.io.crystals.formats import query_of

if TYPE_CHECKING:
    from cdvae_kit.io.crystals.formats import WriteFormat
    from cdvae_kit.models.config import NoiseConfig


def check_checkpoint(name: str, kind: ModelKind = "CDVAE", *, sampler: str | None = None) -> None:
    """Raises where a name stands for no checkpoint, for one of another kind, or for one that a sampler cannot step."""
    if is_reference(name):
        # what is in it is known when it has been fetched
        return
    try:
        place = locate(name, home_of(kind))
    except FileNotFoundError:
        for other in KINDS:
            if name in carried_names(home_of(other)):
                raise WrongKindError(name, other, kind) from None
        raise
    refuse_other_kind(place, kind)
    if sampler is None:
        return
    noise = _noise_of(place)
    if noise is not None and sampler not in noise.samplers:
        raise typer.BadParameter(
            f"{name} was trained with noise.coordinates={noise.coordinates}, which goes with "
            f"{' or '.join(noise.samplers)}, not with {sampler}",
            param_hint="--sampler",
        )


def refuse_output(path: Path, format: WriteFormat, *, overwrite: bool, resume: bool = False) -> None:
    """Raises what writing crystals to `path` would raise, before a model is loaded and hours are spent."""
    from cdvae_kit.io.crystals.targets import choose_format, refuse_journal, refuse_target

    refuse_target(path, choose_format(path, format), overwrite=overwrite or resume)
    refuse_journal(path, overwrite=overwrite or resume)


def check_preset(name: str, words: Sequence[str]) -> None:
    """Raises where there is no such preset, or where the training settings among `KEY=VALUE` words are wrong."""
    from cdvae_kit.training import apply_overrides, load_preset

    apply_overrides(load_preset(name), list(words))


def check_data(name: str) -> None:
    """Raises where a name stands neither for a file or folder nor for a data set or a question to a provider."""
    from cdvae_kit.datasets import registry

    if not query_of(name) and not Path(name).exists():
        registry.dataset_info(name)


def _noise_of(place: Path) -> NoiseConfig | None:
    """The noise that an autoencoder was trained with; None where the file does not say."""
    from cdvae_kit.models.config import NoiseConfig

    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))["metadata"]["config"]
        return NoiseConfig.model_validate(config["noise"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
