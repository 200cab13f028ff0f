"""How much of a file, a record or a server is read: every limit has a setting here, or in `crystal.faults` for cells.

A limit holds where a `with` block says so; the default ones take every file that is known to be sound, and keep one
that is damaged or hostile from taking the memory or the day.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

MAX_BYTES = 2**30
"""Of text that a file may hold or unpack to; a gigabyte holds some half a million crystals of twenty atoms."""

_SMALL = 2**26


class ReaderLimits(NamedTuple):
    """What files and their records may hold. Raise what a refusal names, where the file is really so.

    Attributes:
        max_sites: positions in the cell of a CIF once its operations are applied.
        max_operations: symmetry operations of a CIF, listed or generated. The largest group of the Tables has 192; a
            cell that is doubled along each axis has eight times as many.
        max_operation_length: characters of one such operation.
        max_listed_atoms: atoms that a POSCAR or a frame of extxyz says that it lists.
        max_files: in a zip archive.
        max_ratio: how many times its own size a gzip or a zip may unpack to, where that is more than 64 MiB. Text of
            crystals packs 5 to 20 times.
        max_steps: of the program that puts the tensors of a saved file (.pt) together.
    """

    max_sites: int = 200_000
    max_operations: int = 1536
    max_operation_length: int = 200
    max_listed_atoms: int = 10_000_000
    max_files: int = 5_000_000
    max_ratio: float = 200.0
    max_steps: int = 5_000_000


class QueryLimits(NamedTuple):
    """How much of a server is asked.

    Attributes:
        max_records: structures.
        max_seconds: for all answers together.
    """

    max_records: int = 100_000
    max_seconds: float = 600.0


_DEFAULT_READER, _DEFAULT_QUERY = ReaderLimits(), QueryLimits()
_max_bytes: ContextVar[int] = ContextVar("max_bytes", default=MAX_BYTES)
_reader_limits: ContextVar[ReaderLimits] = ContextVar("reader_limits", default=_DEFAULT_READER)
_query_limits: ContextVar[QueryLimits] = ContextVar("query_limits", default=_DEFAULT_QUERY)


def current_max_bytes() -> int:
    """What a file may hold or unpack to where nothing else is said."""
    return _max_bytes.get()


def current_reader_limits() -> ReaderLimits:
    """What files and their records may hold where nothing else is said."""
    return _reader_limits.get()


def current_query_limits() -> QueryLimits:
    """The limits of questions to servers."""
    return _query_limits.get()


@contextmanager
def bytes_limit(max_bytes: int) -> Iterator[None]:
    """Within the block files may hold or unpack to so many bytes where nothing else is said."""
    token = _max_bytes.set(max_bytes)
    try:
        yield
    finally:
        _max_bytes.reset(token)


@contextmanager
def reader_limits(limits: ReaderLimits) -> Iterator[None]:
    """Within the block files and their records may hold so much where nothing else is said.

    >>> with reader_limits(ReaderLimits(max_sites=10**6)):
    ...     current_reader_limits().max_sites
    1000000
    """
    token = _reader_limits.set(limits)
    try:
        yield
    finally:
        _reader_limits.reset(token)


@contextmanager
def query_limits(limits: QueryLimits) -> Iterator[None]:
    """Within the block questions to servers have these limits."""
    token = _query_limits.set(limits)
    try:
        yield
    finally:
        _query_limits.reset(token)


def how_to_raise(name: str) -> str:
    """How to raise `max_bytes` or one of `ReaderLimits`, as the end of a refusal.

    >>> how_to_raise("max_sites")
    'raise the limit max_sites (--limit max_sites=N before the command, ReaderLimits from Python)'
    """
    from_python = "ReaderLimits" if name in ReaderLimits._fields else f"the argument {name}"
    return f"raise the limit {name} (--limit {name}=N before the command, {from_python} from Python)"


def largest_unpacked(num_bytes: int, max_bytes: int | None = None) -> tuple[int, str]:
    """To how much so many packed bytes may unpack, and the limit that says so: "max_bytes" or "max_ratio"."""
    max_bytes = current_max_bytes() if max_bytes is None else max_bytes
    by_ratio = max(_SMALL, int(min(current_reader_limits().max_ratio * num_bytes, 2.0**62)))
    return (by_ratio, "max_ratio") if by_ratio < max_bytes else (max_bytes, "max_bytes")
