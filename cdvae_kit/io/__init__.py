"""Everything that opens a file: reading and writing crystals, checkpoints, downloads.

Names are loaded on first use: a download pays for neither torch nor pymatgen.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvae_kit.io.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
    from cdvae_kit.io.crystals.reading import ReadError, ReadResult, read_crystals
    from cdvae_kit.io.crystals.records import ReadFailure, ReadNote
    from cdvae_kit.io.crystals.writing import CrystalWriter, read_journal, write_crystals
    from cdvae_kit.io.download import DownloadError, download_file, git_blob_id
    from cdvae_kit.io.series import LabelledSeries, SeriesReadError, class_labels, read_series

_HOMES = {
    "Checkpoint": "checkpoint",
    "CheckpointError": "checkpoint",
    "CrystalWriter": "crystals.writing",
    "DownloadError": "download",
    "LabelledSeries": "series",
    "ReadError": "crystals.reading",
    "ReadFailure": "crystals.records",
    "ReadNote": "crystals.records",
    "ReadResult": "crystals.reading",
    "SeriesReadError": "series",
    "class_labels": "series",
    "download_file": "download",
    "git_blob_id": "download",
    "load_checkpoint": "checkpoint",
    "read_crystals": "crystals.reading",
    "read_journal": "crystals.writing",
    "read_series": "series",
    "save_checkpoint": "checkpoint",
    "write_crystals": "crystals.writing",
}

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CrystalWriter",
    "DownloadError",
    "LabelledSeries",
    "ReadError",
    "ReadFailure",
    "ReadNote",
    "ReadResult",
    "SeriesReadError",
    "class_labels",
    "download_file",
    "git_blob_id",
    "load_checkpoint",
    "read_crystals",
    "read_journal",
    "read_series",
    "save_checkpoint",
    "write_crystals",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"cdvae_kit.io.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cdvae_kit.io' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
