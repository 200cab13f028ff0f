"""Paths cut into records: a file of any format, a folder or a zip archive of files."""

from __future__ import annotations

import logging
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import get_args

from cdvae_kit.io.crystals.formats import (
    Format,
    ReadFormat,
    cut,
    format_named,
    format_of_name,
    known_suffixes,
    stem_of,
)
from cdvae_kit.io.crystals.limits import current_reader_limits, how_to_raise, largest_unpacked
from cdvae_kit.io.crystals.records import (
    ReadFailure,
    Record,
    UnreadableSourceError,
    decode,
    read_bytes,
    read_text,
    shown,
    unpacked,
)

logger = logging.getLogger(__name__)

_DAMAGE = (ValueError, IndexError, struct.error, UnicodeError, lzma.LZMAError)
"""What reading a damaged archive raises besides what it should."""


def detect_format(path: Path) -> str:
    """The format that the name of a path stands for; `UnreadableSourceError` where it stands for none.

    >>> detect_format(Path("perov/val.csv.gz"))
    'csv'
    """
    if path.is_dir():
        return "folder"
    if path.suffix.lower() == ".zip":
        return "zip"
    found = format_of_name(path.name)
    if found is None:
        raise UnreadableSourceError(
            f"cannot tell the format by the name {path.name!r}; known endings are {', '.join(known_suffixes())}, .zip "
            f"(with .gz too), POSCAR*, CONTCAR*; or name the format: {', '.join(get_args(ReadFormat)[1:])}"
        )
    return found.name


def records_of(path: Path, kind: str, id_column: str, *, max_bytes: int) -> Iterator[Record | ReadFailure]:
    """The records of a path.

    Args:
        path: a file or folder.
        kind: one of `ReadFormat`.
        id_column: the column of the names in tables.
        max_bytes: what a file may hold or unpack to.
    """
    if path.is_dir():
        return _folder_records(path, kind, max_bytes)
    if kind in ("auto", "folder"):
        kind = detect_format(path)
    if kind == "zip":
        return _zip_records(path, max_bytes)
    if kind == "optimade":
        kind = "json"
    found = format_named(kind)
    stem = stem_of(shown(path.name))
    content: str | bytes | Path = path
    if found.takes == "text":
        text = read_text(path, max_bytes=max_bytes)
        content = text
        if kind == "jsonl" and _is_journal(text):
            found = format_named("journal")
    elif found.takes == "bytes":
        content = read_bytes(path, max_bytes=max_bytes)
    return cut(found, content, shown(path), stem, id_column)


def _is_journal(text: str) -> bool:
    from cdvae_kit.io.crystals.tables import is_journal

    return is_journal(text.split("\n", 1)[0])


def _folder_records(path: Path, wanted: str, max_bytes: int) -> Iterator[Record | ReadFailure]:
    """The records of all CIF, POSCAR and extxyz files under a folder, sorted by path; hidden files are passed over."""
    found: list[tuple[Path, Format]] = []
    ignored = 0
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            kind = format_of_name(name)
            file = Path(parent) / name
            if kind is None or not _is_wanted(name, kind, wanted) or not file.is_file():
                ignored += 1
            else:
                found.append((file, kind))
    _tell_ignored(str(path), len(found), ignored)
    left = max_bytes
    for file, kind in found:
        try:
            text = read_text(file, max_bytes=left)
        except UnreadableSourceError as error:
            all_of_it = f" (what the other files of the folder leave of {max_bytes})" if left < max_bytes else ""
            yield ReadFailure(shown(file), "", f"{error}{all_of_it}" if "max_bytes" in str(error) else str(error))
            continue
        left = max(left - len(text), 0)
        yield from cut(kind, text, shown(file), stem_of(shown(file.relative_to(path).as_posix())), "")


def _is_wanted(name: str, kind: Format, wanted: str) -> bool:
    return not name.startswith(".") and kind.in_folders and wanted in ("auto", "folder", kind.name)


def _zip_records(path: Path, max_bytes: int) -> Iterator[Record | ReadFailure]:
    """The records of all CIF, POSCAR and extxyz files in a zip archive, sorted by name."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, RuntimeError, zipfile.BadZipFile, *_DAMAGE) as error:
        # RuntimeError is what a version of the format that does not exist raises
        raise UnreadableSourceError(f"is not a zip archive, or a damaged one ({error}); fetch it again") from error
    with archive:
        sizes = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
        limit, limit_name = largest_unpacked(path.stat().st_size, max_bytes)
        most_files = current_reader_limits().max_files
        if len(sizes) > most_files:
            raise UnreadableSourceError(
                f"holds {len(sizes)} files, at most {most_files} are read; unpack it first, or "
                f"{how_to_raise('max_files')}"
            )
        if sum(sizes.values()) > limit:
            raise UnreadableSourceError(
                f"holds {len(sizes)} files that unpack to {sum(sizes.values())} bytes, at most {limit} are read "
                f"({limit_name}); if it is sound, unpack it first, or {how_to_raise(limit_name)}"
            )
        found = [
            (name, kind)
            for name in sorted(sizes)
            if (kind := format_of_name(name)) is not None
            and kind.in_folders
            and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
        ]
        _tell_ignored(str(path), len(found), len(sizes) - len(found))
        for name, kind in found:
            source = f"{shown(path)}:{name}"
            try:
                text = decode(unpacked(_member(archive, name, sizes[name]), max_bytes=limit))
                limit = max(limit - len(text), 0)
            except UnreadableSourceError as error:
                yield ReadFailure(source, "", str(error))
                continue
            except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, *_DAMAGE) as error:
                # RuntimeError is what an encrypted member raises
                yield ReadFailure(source, "", f"the archive is damaged there, or encrypted ({error})")
                continue
            yield from cut(kind, text, source, stem_of(name), "")


def _member(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    # the size in the directory of an archive may be a lie
    with archive.open(name) as member:
        content = member.read(size + 1)
    if len(content) > size:
        raise UnreadableSourceError("is larger than its archive says")
    return content


def _tell_ignored(path: str, num_found: int, num_ignored: int) -> None:
    if not num_found:
        raise UnreadableSourceError(
            f"holds no CIF, POSCAR or extxyz file among {num_ignored} files; "
            "tables, databases and JSON are given one by one"
        )
    if num_ignored:
        logger.info("%s: %d files that are not CIF, POSCAR or extxyz are passed over", path, num_ignored)
