"""Tables and databases cut into records: CSV and Parquet in CDVAE's form, ASE databases, pymatgen JSON, journals.

Numbers beside a crystal become its properties. What a record says of its crystal is found out in `parsing`.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import sqlite3
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from cdvae_kit.io.crystals.records import ReadFailure, Record, RecordKind, UnreadableSourceError, read_text, stem_of

logger = logging.getLogger(__name__)

DEFAULT_ID_COLUMN = "material_id"
CIF_COLUMN = "cif"
ARRAY_COLUMNS = ("lattice", "frac_coords", "atomic_numbers")
"""Columns of the exact crystal: 9 numbers, 3 an atom, 1 an atom, each row by row in one flat list."""

JOURNAL_KIND = "cdvae_kit.journal"
JOURNAL_VERSION = 1

_MISSING = {"", "-", "na", "n/a", "nan", "none", "null"}
_LONGEST_CELL = 2**31 - 1


def csv_records(path: Path, id_column: str) -> Iterator[Record | ReadFailure]:
    """One record a row of a CSV file that has a column `cif`; columns of numbers are properties."""
    text, source = read_text(path), str(path)
    rows, broken = _csv_rows(text)
    if not rows:
        raise UnreadableSourceError(f"is no CSV table: {broken or 'the file is empty'}")
    header, body = rows[0], rows[1:]
    _need_columns(header, [CIF_COLUMN], id_column)
    sound = [row for row in body if len(row) == len(header)]
    columns = {
        name: _numbers([row[i] for row in sound], name, source)
        for i, name in enumerate(header)
        # pandas gives its index a column without a name
        if name not in (id_column, CIF_COLUMN, "") and not name.startswith("Unnamed:")
    }
    place = {name: header.index(name) for name in (id_column, CIF_COLUMN) if name in header}
    position = 0
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            yield ReadFailure(source, f"row {number}", f"expected {len(header)} columns, got {len(row)}")
            continue
        name = row[place[id_column]] if id_column in place else f"{stem_of(path)}-{number}"
        properties = {key: values[position] for key, values in columns.items() if values is not None}
        yield Record(source, f"row {number} ({name})", "cif", row[place[CIF_COLUMN]], name, properties)
        position += 1
    if broken:
        yield ReadFailure(source, f"row {len(body) + 1} and all after it", broken)


def _csv_rows(text: str) -> tuple[list[list[str]], str]:
    """The rows, and why they end before the file does ("" if they do not)."""
    rows: list[list[str]] = []
    # the CIF of a large cell is longer than what the module takes by default
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows.extend(row for row in reader if row)
    except csv.Error as error:
        return rows, f"not valid CSV ({error}); the file may be truncated"
    finally:
        csv.field_size_limit(limit)
    return rows, ""


def _numbers(cells: Sequence[str], name: str, source: str) -> list[float] | None:
    """A column as floats, NaN where it is empty; None where it is not a column of numbers."""
    values: list[float] = []
    num_text = num_numbers = 0
    for cell in cells:
        word = cell.strip()
        value = math.nan
        if word.lower() not in _MISSING:
            try:
                value = float(word)
                # "InF" is a formula too: infinities and NaNs speak neither for numbers nor against them
                num_numbers += math.isfinite(value)
            except ValueError:
                num_text += 1
        values.append(value)
    if num_numbers <= num_text:
        return None
    if num_text:
        logger.warning("%s: %d cells of the column %r are not numbers and become NaN", source, num_text, name)
    return values


def _need_columns(columns: Sequence[str], needed: Sequence[str], id_column: str) -> None:
    # everybody's tables have no names; who asks for another column wants exactly that one
    wanted = list(needed) + ([id_column] if id_column != DEFAULT_ID_COLUMN else [])
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise UnreadableSourceError(
            f"has no column {', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, columns[:20]))}"
        )


def parquet_records(path: Path, id_column: str) -> Iterator[Record | ReadFailure]:
    """One record a row: the exact crystal from `ARRAY_COLUMNS` if they are there, else from the column `cif`."""
    import pyarrow
    import pyarrow.parquet

    source = str(path)
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UnreadableSourceError(f"is not a Parquet file, or a damaged one ({error}); fetch it again") from error
    has_arrays = all(name in table.column_names for name in ARRAY_COLUMNS)
    _need_columns(table.column_names, [] if has_arrays else [CIF_COLUMN], id_column)
    crystal_columns = list(ARRAY_COLUMNS) if has_arrays else [CIF_COLUMN]
    types = pyarrow.types
    numeric = [
        column.name
        for column in table.schema
        if (types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type))
        and column.name != id_column
        # the index of a pandas table
        and not column.name.startswith("__index_level_")
    ]
    has_ids = id_column in table.column_names
    table = table.select([*crystal_columns, *numeric, *([id_column] if has_ids else [])])
    number = 0
    for part in table.to_batches(max_chunksize=1024):
        for row in part.to_pylist():
            number += 1
            name = str(row[id_column]) if has_ids else f"{stem_of(path)}-{number}"
            properties = {key: math.nan if row[key] is None else float(row[key]) for key in numeric}
            content = {key: row[key] for key in ARRAY_COLUMNS} if has_arrays else row[CIF_COLUMN]
            kind: RecordKind = "arrays" if has_arrays else "cif"
            yield Record(source, f"row {number} ({name})", kind, content, name, properties)


def json_records(path: Path) -> Iterator[Record | ReadFailure]:
    """The structures of a pymatgen JSON file (one, a list, or a table of them), or the rows of an ASE JSON database."""
    text, source = read_text(path), str(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableSourceError(f"is not JSON ({error}); the file may be truncated") from error
    if isinstance(content, dict) and "ids" in content and "nextid" in content:
        yield from database_records(path, "json")
        return
    found = list(_structures_in(content, source, "", stem_of(path)))
    if not any(isinstance(record, Record) for record in found):
        raise UnreadableSourceError(
            "holds no pymatgen structure: expected a table with 'lattice' and 'sites', or a list of such tables"
        )
    yield from found


def _structures_in(content: Any, source: str, place: str, name: str) -> Iterator[Record | ReadFailure]:
    if isinstance(content, list):
        for i, item in enumerate(content):
            yield from _structures_in(item, source, f"{place}[{i}]", f"{name}-{i}")
    elif isinstance(content, dict) and "sites" in content:
        numbers = numeric_items(content.get("properties") or {})
        yield Record(source, place, "structure", content, _own_name(content.get("properties") or {}, name), numbers)
    elif isinstance(content, dict) and isinstance(content.get("structure"), dict):
        inner = content["structure"]
        beside = {**(inner.get("properties") or {}), **content}
        yield Record(source, place, "structure", inner, _own_name(beside, name), numeric_items(beside))
    elif isinstance(content, dict) and any(isinstance(item, dict | list) for item in content.values()):
        for key, item in content.items():
            if isinstance(item, dict | list):
                yield from _structures_in(item, source, f"{place}[{key!r}]", key)
    else:
        yield ReadFailure(source, place, f"expected a table with 'lattice' and 'sites', got {str(content)[:60]!r}")


def _own_name(table: dict[str, Any], otherwise: str) -> str:
    name = table.get(DEFAULT_ID_COLUMN)
    return otherwise if name is None else str(name)


def numeric_items(table: dict[str, Any]) -> dict[str, float]:
    """The entries that are numbers; flags are not."""
    return {
        str(key): float(value)
        for key, value in table.items()
        if isinstance(value, Real) and not isinstance(value, bool) and key != DEFAULT_ID_COLUMN
    }


def database_records(path: Path, kind: str) -> Iterator[Record | ReadFailure]:
    """One record a row of an ASE database; key-value pairs that are numbers, and the energy, are properties.

    Args:
        path: the file.
        kind: "db" (SQLite) or "json".
    """
    import ase.db

    source = str(path)
    try:
        database = ase.db.connect(path, type=kind)
        row_ids = [row.id for row in database.select(include_data=False)]
    except (sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableSourceError(f"is not an ASE database, or a damaged one ({error})") from error
    for row_id in row_ids:
        place = f"row {row_id}"
        try:
            row = database.get(id=row_id)
            content = {name: row[name] for name in ("numbers", "positions", "cell", "pbc")}
            pairs, data, energy = row.key_value_pairs, row.data, row.get("energy")
        except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            # a damaged row fails wherever ASE's decoder first trips over it
            yield ReadFailure(source, place, f"cannot be decoded: {error}")
            continue
        properties = numeric_items({"energy": energy, **pairs})
        stored = data.get("properties")
        if isinstance(stored, dict):
            # names and values that key-value pairs do not take
            properties.update(numeric_items(stored))
        name = _own_name({**pairs, **data}, f"{stem_of(path)}-{row_id}")
        yield Record(source, f"{place} ({name})", "atoms", content, name, properties)


def journal_records(path: Path) -> Iterator[Record | ReadFailure]:
    """The crystals that a `CrystalWriter` had appended before it was killed; a last line cut short is a failure."""
    source = str(path)
    head, *lines = read_text(path).splitlines() or [""]
    check_journal_header(head)
    for number, line in enumerate(lines, start=2):
        try:
            row = json.loads(line)
            properties = {key: math.nan if value is None else float(value) for key, value in row["properties"].items()}
            name = _own_name(row, f"{stem_of(path)}-{number - 1}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield ReadFailure(source, f"line {number}", f"is cut short or damaged ({error})")
            continue
        yield Record(source, f"line {number} ({name})", "arrays", row, name, properties)


def check_journal_header(line: str) -> None:
    """Raises `UnreadableSourceError` where the first line of a journal is not that of one."""
    try:
        header = json.loads(line)
    except ValueError as error:
        raise UnreadableSourceError(f"is no journal of crystals: its first line is not JSON ({error})") from error
    if not isinstance(header, dict) or header.get("kind") != JOURNAL_KIND or header.get("version") != JOURNAL_VERSION:
        raise UnreadableSourceError(
            f"is no journal of crystals: its first line should name kind {JOURNAL_KIND!r}, version {JOURNAL_VERSION}"
        )
