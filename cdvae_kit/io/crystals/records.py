"""What a file is cut into: records, one a crystal, each with the place it came from, so that each fails alone.

Files become records in the modules that `formats` lists; what a record says is found out in `parsing`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cdvae_kit.io.crystals.limits import current_max_bytes, how_to_raise, largest_unpacked

RecordKind = Literal["cif", "poscar", "extxyz", "structure", "arrays"]


class UnreadableSourceError(Exception):
    """A whole file that cannot be cut into records, and why."""


@dataclass(frozen=True)
class _AboutRecord:
    source: str
    record: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.source}, {self.record}" if self.record else self.source
        return f"{place}: {self.reason}"


@dataclass(frozen=True)
class ReadFailure(_AboutRecord):
    """A record that gave no crystal.

    Attributes:
        source: the file, for an archive the member too.
        record: which part of it: a block, a frame, a row.
        reason: what is wrong with it.
    """


@dataclass(frozen=True)
class ReadNote(_AboutRecord):
    """What a reader should know of a record that did give a crystal; `reason` says it, the rest as in `ReadFailure`."""


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
        first_line: of a text, the number of its first line in the file.
    """

    source: str
    record: str
    kind: RecordKind
    content: Any
    name: str
    properties: Mapping[str, float] = field(default_factory=dict)
    first_line: int = 1


def read_bytes(path: Path, *, max_bytes: int | None = None) -> bytes:
    """The content of a file, unpacked if it is a gzip."""
    max_bytes = current_max_bytes() if max_bytes is None else max_bytes
    try:
        if path.exists() and not path.is_file():
            raise UnreadableSourceError("is no file: a pipe or a device is not read")
        size = path.stat().st_size
        if size > max_bytes:
            raise UnreadableSourceError(
                f"has {size} bytes, at most {max_bytes} are read (max_bytes); cut it into parts, or "
                f"{how_to_raise('max_bytes')}"
            )
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableSourceError(f"cannot be read: {error.strerror or error}") from error
    return unpacked(content, max_bytes=max_bytes)


def read_text(path: Path, *, max_bytes: int | None = None) -> str:
    """The text of a file, unpacked if it is a gzip."""
    return decode(read_bytes(path, max_bytes=max_bytes))


def unpacked(content: bytes, *, max_bytes: int | None = None) -> bytes:
    """What a gzip holds, up to a limit; other content as it is."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    limit, name = largest_unpacked(len(content), max_bytes)
    parts: list[bytes] = []
    total = 0
    try:
        # a gzip may be several, one behind the other
        while content.startswith(b"\x1f\x8b"):
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(content, limit + 1 - total))
            total += len(parts[-1])
            if total > limit:
                raise UnreadableSourceError(
                    f"is a gzip that unpacks to more than {limit} bytes ({name}); if it is sound, unpack it first, or "
                    f"{how_to_raise(name)}"
                )
            if not member.eof:
                raise UnreadableSourceError("is a damaged or truncated gzip file (it ends early); fetch it again")
            content = member.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise UnreadableSourceError(f"is a damaged or truncated gzip file ({error}); fetch it again") from error
    return b"".join(parts)


def shown(path: str | os.PathLike[str]) -> str:
    """The name of a file as text that any file can hold: bytes that are no UTF-8 are spelled out.

    >>> shown(os.fsdecode(b"gold-\\xff.cif"))
    'gold-\\\\xff.cif'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def decode(content: bytes) -> str:
    """Text of bytes in UTF-8, or else Latin-1, without a byte-order mark and with plain ends of lines."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            text = content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise UnreadableSourceError(f"is no text: {error}") from error
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            # old files hold names in Latin-1; every byte means something there
            text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def integer_of(text: str, what: str, *, most: int = 10**9, limit: str = "") -> int:
    """A count in a file; `ValueError` where it is none, or too large to be one.

    Args:
        text: of the file.
        what: is counted, for the message.
        most: the largest count that is taken.
        limit: the name among `ReaderLimits` of what says so, if it is one of them.
    """
    word = text.strip()
    if not (word.isascii() and word.isdigit()) or len(word) > 18 or int(word) > most:
        shown = word if len(word) <= 40 else f"{word[:20]}... ({len(word)} characters)"
        advice = f"; {how_to_raise(limit)}" if limit and word.isascii() and word.isdigit() else ""
        raise ValueError(f"expected {what}, an integer up to {most}, got {shown!r}{advice}")
    return int(word)


class RecordError(ValueError):
    """A record that cannot be understood; what is wrong with an understood crystal is a `CrystalError`."""
