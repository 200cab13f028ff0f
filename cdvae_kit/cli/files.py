"""Files that a user names on the command line: what can be read of them, and whether they may be written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvae_kit.cli.console import print_note, progress_bar

if TYPE_CHECKING:
    from cdvae_kit.cli.options import FormatName
    from cdvae_kit.crystal import CrystalBatch

MAX_REASONS = 5
"""Crystals that cannot be read are told one by one up to this many, the rest by their number."""


def read_batch(path: Path, *, strict: bool = False, max_atoms: int | None = None, double: bool = False) -> CrystalBatch:
    """The crystals in a file or folder that can be read; the others are told on standard error.

    Args:
        path: anything that `cdvae_kit.io.read_crystals` takes.
        strict: whether one crystal that cannot be read is an error.
        max_atoms: crystals with more atoms count as unreadable.
        double: in double precision.
    """
    from cdvae_kit.io import read_crystals

    precision: dict[str, Any] = {}
    if double:
        import torch

        precision["dtype"] = torch.float64

    with progress_bar("Reading", "crystals") as progress:
        result = read_crystals(path, strict=strict, max_atoms=max_atoms, progress=progress, **precision)
    for failure in result.failures[:MAX_REASONS]:
        print_note(f"left out: {failure}")
    if len(result.failures) > MAX_REASONS:
        print_note(f"left out: {len(result.failures) - MAX_REASONS} more")
    return result.crystals


def refuse_output(path: Path, format: FormatName, *, overwrite: bool, resume: bool = False) -> None:
    """Raises what writing to `path` would raise, before a model is loaded and hours are spent."""
    from cdvae_kit.io import CrystalWriter

    # nothing is written until it is entered
    CrystalWriter(path, format=format, overwrite=overwrite, resume=resume)
