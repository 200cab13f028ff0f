"""Files cut into records: the text of one CIF block, one frame, one row, each with the place it came from.

Cutting is cheap and happens in one process; what a record says is found out in `parsing`, record by record, so that
one bad record costs nothing but itself. Tables and databases are cut in `tables`.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

logger = logging.getLogger(__name__)

ReadFormat = Literal["auto", "cif", "poscar", "extxyz", "ase_db", "csv", "parquet", "json", "journal", "folder", "zip"]
"""What a path holds; "auto" goes by its name, and for `.json` by its content."""

RecordKind = Literal["cif", "poscar", "extxyz", "structure", "atoms", "arrays"]

_SUFFIXES: dict[str, ReadFormat] = {
    ".cif": "cif",
    ".mcif": "cif",
    ".vasp": "poscar",
    ".poscar": "poscar",
    ".extxyz": "extxyz",
    ".xyz": "extxyz",
    ".db": "ase_db",
    ".csv": "csv",
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "journal",
    ".zip": "zip",
}
_ONE_FILE_FORMATS: tuple[ReadFormat, ...] = ("cif", "poscar", "extxyz")


class UnreadableSourceError(Exception):
    """A whole file that cannot be cut into records, and why."""


@dataclass(frozen=True)
class ReadFailure:
    """A record that gave no crystal.

    Attributes:
        source: the file, for an archive the member too.
        record: which part of it: a block, a frame, a row.
        reason: what is wrong with it.
    """

    source: str
    record: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.source}, {self.record}" if self.record else self.source
        return f"{place}: {self.reason}"


@dataclass(frozen=True)
class Record:
    """One crystal that is not parsed yet.

    Attributes:
        source: as in `ReadFailure`.
        record: as in `ReadFailure`.
        kind: how `content` is to be parsed.
        content: text, or a table of JSON or of arrays.
        name: the material id, unless the content has one of its own.
        properties: numbers that stand beside the crystal.
    """

    source: str
    record: str
    kind: RecordKind
    content: Any
    name: str
    properties: Mapping[str, float] = field(default_factory=dict)


def detect_format(path: Path) -> ReadFormat:
    """The format that the name of a file stands for; `UnreadableSourceError` where it stands for none.

    >>> detect_format(Path("perov/val.csv.gz"))
    'csv'
    """
    if path.is_dir():
        return "folder"
    found = _format_of_name(path.name)
    if found is None:
        raise UnreadableSourceError(
            f"cannot tell the format by the name {path.name!r}; known endings are {', '.join(_SUFFIXES)} (with .gz "
            f"too), POSCAR*, CONTCAR*; or name the format: {', '.join(get_args(ReadFormat)[1:])}"
        )
    return found


def _format_of_name(name: str) -> ReadFormat | None:
    lower = name.lower().removesuffix(".gz")
    if lower.startswith(("poscar", "contcar")):
        return "poscar"
    return _SUFFIXES.get(PurePosixPath(lower).suffix)


def read_text(path: Path) -> str:
    """The text of a file, unpacked if it is a gzip."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableSourceError(f"cannot be read: {error.strerror or error}") from error
    return decode(content)


def decode(content: bytes) -> str:
    """Text from bytes, unpacked if they are a gzip."""
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise UnreadableSourceError(f"is a damaged or truncated gzip file ({error}); fetch it again") from error
    # old CIFs hold authors' names in any encoding; nothing that is read here depends on them
    return content.decode("utf-8-sig", errors="replace")


def text_records(kind: ReadFormat, text: str, source: str, stem: str) -> Iterator[Record | ReadFailure]:
    """The records of one text file.

    Args:
        kind: "cif", "poscar" or "extxyz".
        text: the whole file.
        source: what to call the file.
        stem: the name of a crystal that has none of its own.
    """
    if kind == "cif":
        yield from _cif_records(text, source, stem)
    elif kind == "extxyz":
        yield from _extxyz_records(text, source, stem)
    elif kind == "poscar":
        yield Record(source, "", "poscar", text, stem)
    else:
        raise ValueError(f"text_records cuts cif, poscar and extxyz, got {kind!r}")


def _cif_records(text: str, source: str, stem: str) -> Iterator[Record | ReadFailure]:
    blocks: list[list[str]] = []
    in_text_field = False
    for line in text.splitlines():
        if line.startswith(";"):
            in_text_field = not in_text_field
        if not in_text_field and line.lstrip()[:5].lower() == "data_":
            blocks.append([line.lstrip()])
        elif blocks:
            blocks[-1].append(line)
    texts = ["\n".join(block) + "\n" for block in blocks]
    if len(texts) > 1:
        # journals put their own block of authors and titles before the crystals
        texts = [block for block in texts if "_atom_site" in block or "_cell_length" in block]
    if not texts:
        yield ReadFailure(source, "", "holds no CIF data block (a line that starts with data_)")
    for block in texts:
        header = block.split(maxsplit=1)[0][5:]
        if len(texts) == 1:
            yield Record(source, "", "cif", block, stem)
        else:
            yield Record(source, f"block data_{header}", "cif", block, header or stem)


def _extxyz_records(text: str, source: str, stem: str) -> Iterator[Record | ReadFailure]:
    lines = text.splitlines()
    start, frame = 0, 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        reason, end = _frame_end(lines, start)
        place = f"frame {frame} (line {start + 1})"
        if reason:
            yield ReadFailure(source, place, reason)
        else:
            yield Record(source, place, "extxyz", "\n".join(lines[start:end]) + "\n", f"{stem}-{frame}")
        start, frame = end, frame + 1


_XYZ_COUNT = re.compile(r"\s*\d+\s*$")


def _frame_end(lines: list[str], start: int) -> tuple[str, int]:
    """Why the frame at `start` is broken ("" if it is not), and the line after it."""
    if not _XYZ_COUNT.match(lines[start]):
        return f"expected a number of atoms, got {lines[start].strip()[:40]!r}", _next_frame(lines, start + 1)
    num_atoms = int(lines[start])
    end = start + 2 + num_atoms
    atoms = lines[start + 2 : end]
    # a line of an atom has a symbol and three numbers: fewer words are the head of the next frame
    whole = next((i for i, line in enumerate(atoms) if len(line.split()) < 4), len(atoms))
    if whole < num_atoms:
        reason = f"expected {num_atoms} lines of atoms (symbol and three numbers), got {whole}"
        return reason, _next_frame(lines, start + 1)
    return "", end


def _next_frame(lines: list[str], start: int) -> int:
    for i in range(start, len(lines) - 1):
        if _XYZ_COUNT.match(lines[i]) and "lattice=" in lines[i + 1].lower():
            return i
    return len(lines)


def folder_records(path: Path, wanted: ReadFormat = "auto") -> Iterator[Record | ReadFailure]:
    """The records of all CIF, POSCAR and extxyz files under a folder, sorted by path; hidden files are passed over."""
    found, ignored = [], 0
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            kind = _format_of_name(name)
            if name.startswith(".") or kind not in _ONE_FILE_FORMATS or wanted not in ("auto", "folder", kind):
                ignored += 1
            else:
                found.append((Path(parent) / name, kind))
    _tell_ignored(str(path), len(found), ignored)
    for file, kind in found:
        try:
            text = read_text(file)
        except UnreadableSourceError as error:
            yield ReadFailure(str(file), "", str(error))
            continue
        yield from text_records(kind, text, str(file), _stem(file.relative_to(path).as_posix()))


def zip_records(path: Path) -> Iterator[Record | ReadFailure]:
    """The records of all CIF, POSCAR and extxyz files in a zip archive, sorted by name."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UnreadableSourceError(f"is not a zip archive, or a damaged one ({error}); fetch it again") from error
    with archive:
        names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
        found = [
            (name, kind)
            for name in names
            if (kind := _format_of_name(PurePosixPath(name).name)) in _ONE_FILE_FORMATS
            and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
        ]
        _tell_ignored(str(path), len(found), len(names) - len(found))
        for name, kind in found:
            source = f"{path}:{name}"
            try:
                text = decode(archive.read(name))
            except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, UnreadableSourceError) as error:
                # RuntimeError is what an encrypted member raises
                yield ReadFailure(source, "", f"cannot be unpacked: {error}")
                continue
            yield from text_records(kind, text, source, _stem(name))


def _tell_ignored(path: str, num_found: int, num_ignored: int) -> None:
    if not num_found:
        raise UnreadableSourceError(
            f"holds no CIF, POSCAR or extxyz file among {num_ignored} files; "
            "tables, databases and JSON are given one by one"
        )
    if num_ignored:
        logger.info("%s: %d files that are not CIF, POSCAR or extxyz are passed over", path, num_ignored)


def stem_of(path: Path) -> str:
    """The name of a file without folder and endings: what a crystal without a name is called after."""
    return _stem(path.name)


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    return str(path.with_suffix("")) if path.suffix.lower() in _SUFFIXES else str(path)
