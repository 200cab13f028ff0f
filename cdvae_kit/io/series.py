"""Series with labels from files: `.ts` (the form of the UEA and UCR archives) and tables with one series a row.

All series of a set go into one tensor (n, channels, t), so that a set of unequal lengths or with missing values is
refused unless the caller says what is to be done about it. Crystals are read by `crystals.reading`.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.io.crystals.records import UnreadableSourceError, read_text

_MISSING = {"", "?", "na", "n/a", "nan", "null", "none", "-"}
_DELIMITERS = ",;\t "
_NAMED = 5
"""So many faulty series are named in an error."""


class SeriesReadError(Exception):
    """A file that gives no set of series, and why."""


@dataclass(frozen=True)
class LabelledSeries:
    """Series of one length.

    Attributes:
        values: (n, channels, t) float.
        labels: one a series, as the file has it; empty where the file has none.
        source: the path.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "waves.csv"
    >>> _ = file.write_text("kind,t0,t1,t2\\nsine,0,1,0\\nflat,2,2,2\\n")
    >>> read_series(file, label_column="kind").labels
    ('sine', 'flat')
    """

    values: Tensor
    labels: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.values)


class _Row(NamedTuple):
    """One series as a file has it: its place for messages, channels of numbers (NaN is missing), and its label."""

    place: str
    channels: list[list[float]]
    label: str


def read_series(
    path: str | os.PathLike[str],
    *,
    format: Literal["auto", "ts", "table"] = "auto",
    label_column: int | str | None = 0,
    unequal: Literal["refuse", "shortest"] = "refuse",
    missing: Literal["refuse", "interpolate"] = "refuse",
    dtype: torch.dtype = torch.float32,
) -> LabelledSeries:
    """The series of a file with their labels.

    Args:
        path: `.ts`, or a table (`.csv`, `.tsv`, `.txt`) of one channel with one series a row, separated by commas,
            semicolons, tabs or blanks, with or without a line of names; each also as .gz.
        format: what it is, where its name does not say so.
        label_column: of a table: its index from 0 (−1 is the last), its name, or None where there are no labels.
        unequal: what becomes of series of several lengths; `shortest` cuts all of them at the end.
        missing: what becomes of missing values (empty, `?`, `NaN`); `interpolate` draws a line between the neighbours
            in time and goes on with the nearest value at the ends.
        dtype: of the values.

    Raises:
        SeriesReadError: what is wrong, with the line, and what to do.
    """
    path = Path(path)
    kind = format if format != "auto" else "ts" if path.name.lower().removesuffix(".gz").endswith(".ts") else "table"
    try:
        text = read_text(path)
        rows = _ts_rows(text) if kind == "ts" else _table_rows(text, label_column)
        if not rows:
            raise UnreadableSourceError("holds no series")
        return LabelledSeries(_as_tensor(rows, unequal, missing, dtype), _labels(rows), str(path))
    except UnreadableSourceError as error:
        raise SeriesReadError(f"{path} {error}") from error


def class_labels(*sets: LabelledSeries) -> tuple[tuple[str, ...], list[Tensor]]:
    """The classes of several sets together, sorted, and for each set the index of its labels among them (n,) long.

    Labels that are all numbers are sorted as numbers.

    >>> train = LabelledSeries(torch.zeros(3, 1, 2), ("10", "9", "10"), "train")
    >>> class_labels(train)
    (('9', '10'), [tensor([1, 0, 1])])
    """
    if without := [found.source for found in sets if not found.labels]:
        raise ValueError(f"there are no labels in {', '.join(without)}")
    known = {label for found in sets for label in found.labels}
    numeric = all(_number(label) is not None for label in known)
    classes = tuple(sorted(known, key=lambda label: (float(label), label) if numeric else (0.0, label)))
    index = {label: i for i, label in enumerate(classes)}
    return classes, [torch.tensor([index[label] for label in found.labels]) for found in sets]


def _labels(rows: Sequence[_Row]) -> tuple[str, ...]:
    return tuple(row.label for row in rows) if all(row.label for row in rows) else ()


def _number(word: str) -> float | None:
    """A finite number, NaN for what is missing, None for anything else."""
    word = word.strip()
    if word.lower() in _MISSING:
        return math.nan
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(words: Sequence[str], place: str) -> list[float]:
    values = []
    for position, word in enumerate(words, start=1):
        value = _number(word)
        if value is None:
            raise UnreadableSourceError(
                f"is damaged at {place}: value {position} is no finite number: {word.strip()[:30]!r}"
            )
        values.append(value)
    return values


# .ts


def _ts_rows(text: str) -> list[_Row]:
    header: dict[str, str] = {}
    rows: list[_Row] = []
    in_data = False
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if in_data:
            rows.append(_ts_row(line, f"line {number}", header))
        elif line.lower() == "@data":
            in_data = True
            _check_header(header)
        elif line.startswith("@"):
            key, _, value = line[1:].partition(" ")
            header[key.lower()] = value.strip()
        else:
            raise UnreadableSourceError(
                f"is no .ts file: line {number} stands before @data and is neither a comment nor begins with @"
            )
    if not in_data:
        raise UnreadableSourceError("is no .ts file, or was cut short: it has no line @data")
    widths = {len(row.channels) for row in rows}
    if len(widths) > 1:
        odd = next(row for row in rows if len(row.channels) != len(rows[0].channels))
        raise UnreadableSourceError(
            f"is damaged at {odd.place}: {len(odd.channels)} channels, the first series has {len(rows[0].channels)}"
        )
    return rows


def _check_header(header: dict[str, str]) -> None:
    if header.get("timestamps", "false").lower() == "true":
        raise UnreadableSourceError(
            "has time stamps (@timeStamps true), which are not read: bring the series onto a regular grid first"
        )


def _ts_row(line: str, place: str, header: dict[str, str]) -> _Row:
    parts = line.split(":")
    label = ""
    words = header.get("classlabel", header.get("targetlabel", "false")).split()
    if words and words[0].lower() == "true":
        *parts, label = parts
        label = label.strip()
        if not parts or not label or label == "?":
            raise UnreadableSourceError(
                f"is damaged at {place}: no label behind the last colon, though the head says so"
            )
        if "classlabel" in header and len(words) > 1 and label not in words[1:]:
            known = ", ".join(words[1:11])
            raise UnreadableSourceError(
                f"is damaged at {place}: the label {label[:30]!r} is none of those of the head, {known}"
            )
    declared = header.get("dimensions", header.get("dimension", "1" if header.get("univariate") == "true" else ""))
    # as text: a head may say a number of thousands of digits
    if declared.isdecimal() and str(len(parts)) != (declared.lstrip("0") or "0"):
        raise UnreadableSourceError(f"is damaged at {place}: {len(parts)} channels, the head says {declared[:20]}")
    channels = [_numbers(part.split(","), f"{place}, channel {i}") for i, part in enumerate(parts, start=1)]
    return _Row(place, channels, label)


# tables


def _table_rows(text: str, label_column: int | str | None) -> list[_Row]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise UnreadableSourceError("is empty")
    split = _splitter(lines[0][1])
    names = split(lines[0][1])
    column = _label_place(names, label_column)
    others = [name for i, name in enumerate(names) if column is None or i != column % len(names)]
    # one word among numbers is a damaged value, and no line of names
    has_names = isinstance(label_column, str) or 2 * sum(_number(name) is None for name in others) > len(others)
    if has_names:
        lines = lines[1:]
    rows = []
    for number, line in lines:
        cells, place = split(line), f"line {number}"
        if len(cells) > len(names) and has_names:
            raise UnreadableSourceError(f"is damaged at {place}: {len(cells)} cells under {len(names)} names")
        if column is not None and not -len(cells) <= column < len(cells):
            raise UnreadableSourceError(
                f"is damaged at {place}: {len(cells)} cells, and no column {column} for the label"
            )
        label = "" if column is None else cells.pop(column).strip()
        if column is not None and label.lower() in _MISSING:
            raise UnreadableSourceError(f"is damaged at {place}: its label is missing")
        rows.append(_Row(place, [_numbers(_without_padding(cells), place)], label))
    return rows


def _without_padding(cells: list[str]) -> list[str]:
    """Without the missing cells at the end: tables of unequal series are filled up with them."""
    end = len(cells)
    while end and cells[end - 1].strip().lower() in _MISSING:
        end -= 1
    return cells[:end]


def _splitter(line: str) -> Callable[[str], list[str]]:
    delimiter = max(_DELIMITERS, key=lambda mark: (line.count(mark) > 0, -_DELIMITERS.index(mark)))
    if delimiter == " ":
        return lambda text: text.split()
    return lambda text: next(csv.reader(io.StringIO(text), delimiter=delimiter))


def _label_place(names: Sequence[str], label_column: int | str | None) -> int | None:
    if label_column is None:
        return None
    if isinstance(label_column, int):
        if not -len(names) <= label_column < len(names):
            raise UnreadableSourceError(f"has {len(names)} columns, and no column {label_column} for the label")
        return label_column
    stripped = [name.strip() for name in names]
    if label_column not in stripped:
        raise UnreadableSourceError(
            f"has no column {label_column!r}; its columns are {', '.join(map(repr, stripped[:20]))}"
        )
    return stripped.index(label_column)


# both


def _as_tensor(
    rows: Sequence[_Row],
    unequal: Literal["refuse", "shortest"],
    missing: Literal["refuse", "interpolate"],
    dtype: torch.dtype,
) -> Tensor:
    lengths = [len(channel) for row in rows for channel in row.channels]
    shortest, longest = min(lengths), max(lengths)
    if shortest < 2:
        raise UnreadableSourceError(f"holds a series of {shortest} points; 2 at least")
    if shortest < longest and unequal == "refuse":
        shorter = _places(rows, lambda row: min(map(len, row.channels)) < longest)
        raise UnreadableSourceError(
            f"holds series of {shortest} to {longest} points ({shorter} are shorter; missing values that end a line "
            "of a table count as its end); unequal='shortest' cuts them to one length"
        )
    gaps = {row.place: sum(math.isnan(value) for channel in row.channels for value in channel) for row in rows}
    if any(gaps.values()) and missing == "refuse":
        raise UnreadableSourceError(
            f"has {sum(gaps.values())} missing values ({_places(rows, lambda row: gaps[row.place] > 0)}); "
            "missing='interpolate' fills them from their neighbours"
        )
    # filled before they are cut: the next value may be among what is cut off
    return torch.tensor(
        [[_filled(channel, row.place)[:shortest] for channel in row.channels] for row in rows], dtype=torch.float64
    ).to(dtype)


def _places(rows: Sequence[_Row], faulty: Callable[[_Row], bool]) -> str:
    found = [row.place for row in rows if faulty(row)]
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _filled(channel: Sequence[float], place: str) -> list[float]:
    """A channel without gaps: linear between neighbours, the nearest value at the ends."""
    known = [i for i, value in enumerate(channel) if not math.isnan(value)]
    if len(known) == len(channel):
        return list(channel)
    if not known:
        raise UnreadableSourceError(f"has no value at all at {place}")
    return np.interp(range(len(channel)), known, [channel[i] for i in known]).tolist()
