"""Where crystals may be written, and in which format: known before anything heavy is loaded or computed."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from cdvae_kit.io.atomic import refuse_existing
from cdvae_kit.io.crystals.formats import (
    FILE_SUFFIX_IN_FOLDER,
    WriteFormat,
    packable_suffixes,
    write_format_of_suffix,
    written_suffixes,
)


def choose_format(path: Path, format: WriteFormat = "auto") -> WriteFormat:
    """The format that a path asks for by its ending.

    >>> choose_format(Path("crystals.json.gz"))
    'json'
    """
    if format not in get_args(WriteFormat):
        raise ValueError(f"unknown format {format!r}; choose one of {', '.join(get_args(WriteFormat))}")
    if format != "auto":
        return format
    if path.is_dir():
        return "cif_folder"
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    found = write_format_of_suffix(name.suffix.lower())
    packed = name is not path
    if found is None or (packed and found.writes != "text"):
        raise ValueError(
            f"cannot tell what to write by the ending of {path.name!r}; use {', '.join(written_suffixes())} "
            f"(.gz after {', '.join(packable_suffixes())}), a name without an ending for a folder of CIFs, "
            "or name it (format=...)"
        )
    return cast(WriteFormat, found.name)


def refuse_target(path: Path, format: WriteFormat, *, overwrite: bool) -> None:
    """Raises where something lies in the way of a file or a folder of crystals."""
    if format not in FILE_SUFFIX_IN_FOLDER:
        refuse_existing(path, overwrite=overwrite)
        if path.is_dir():
            raise IsADirectoryError(f"cannot write the file {path}: a folder has that name; choose another path")
        return
    if path.is_dir():
        suffix = FILE_SUFFIX_IN_FOLDER[format]
        children = list(path.iterdir())
        foreign = sorted(child.name for child in children if child.suffix != suffix or not child.is_file())
        if foreign:
            raise FileExistsError(
                f"the folder {path} holds other things than {suffix} files ({', '.join(foreign[:3])}); replacing it "
                "would delete them: choose a folder that is new or empty"
            )
        if not children:
            return
    refuse_existing(path, overwrite=overwrite)


def journal_of(path: Path) -> Path:
    """Where the crystals of a run lie until its file is written."""
    return path.with_name(path.name + ".partial.jsonl")


def refuse_journal(path: Path, *, overwrite: bool) -> None:
    """Raises where a run that was killed has left its crystals, which may not be dropped unasked."""
    journal = journal_of(path)
    if journal.exists() and not overwrite:
        raise FileExistsError(
            f"{journal} holds the crystals of a run that was killed; go on from it (resume=True), read it "
            "as a file of crystals, or drop it (overwrite=True)"
        )
