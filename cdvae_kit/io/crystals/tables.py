"""Tables cut into records: CSV and Parquet in CDVAE's form, ASE's SQLite databases, journals.

Numbers beside a crystal become its properties. What a record says of its crystal is found out in `parsing`.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import re
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cdvae_kit.io.crystals.json_tables import DEFAULT_ID_COLUMN, numeric_items, own_name
from cdvae_kit.io.crystals.records import ReadFailure, Record, UnreadableSourceError
from cdvae_kit.io.crystals.structure_tables import ARRAY_COLUMNS
from cdvae_kit.io.results.files import active

logger = logging.getLogger(__name__)

CIF_COLUMN = "cif"
JOURNAL_KIND = "cdvae_kit.journal"
JOURNAL_VERSION = 1
JOURNAL_PLACE = "place"

_CRYSTAL_COLUMNS = (CIF_COLUMN, "structure", "atoms", "final_structure")
_MISSING = {"", "-", "na", "n/a", "nan", "none", "null"}
_LONGEST_CELL = 2**31 - 1
_SQLITE = b"SQLite format 3\0"


def cut_csv(text: str, source: str, stem: str, id_column: str = DEFAULT_ID_COLUMN) -> Iterator[Record | ReadFailure]:
    """One record a row of a CSV file that has a column `cif`; columns of numbers are properties."""
    rows, broken = _csv_rows(text)
    if not rows:
        raise UnreadableSourceError(f"is no CSV table: {broken or 'the file is empty'}")
    header, body = [active(name) for name in rows[0]], rows[1:]
    crystal_column = _crystal_column(header, id_column)
    sound = [row for row in body if len(row) == len(header)]
    columns = {
        name: _numbers([row[i] for row in sound], name, source)
        for i, name in enumerate(header)
        # pandas gives its index a column without a name
        if name not in (id_column, crystal_column, "") and not name.startswith("Unnamed:")
    }
    place = {name: header.index(name) for name in (id_column, crystal_column) if name in header}
    position = 0
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            yield ReadFailure(source, f"row {number}", f"expected {len(header)} columns, got {len(row)}")
            continue
        name = active(row[place[id_column]]) if id_column in place else f"{stem}-{number}"
        properties = {key: values[position] for key, values in columns.items() if values is not None}
        yield _record(source, f"row {number} ({name})", row[place[crystal_column]], name, properties)
        position += 1
    if broken:
        yield ReadFailure(source, f"row {len(body) + 1} and all after it", broken)


def _record(source: str, place: str, content: Any, name: str, properties: dict[str, float]) -> Record | ReadFailure:
    """A cell that holds a CIF, or a structure in JSON."""
    if isinstance(content, str) and content.lstrip()[:1] == "{":
        try:
            return Record(source, place, "structure", json.loads(content), name, properties)
        except (ValueError, RecursionError) as error:
            return ReadFailure(source, place, f"is no JSON ({error}); it may be cut short or damaged")
    if content is None:
        return ReadFailure(source, place, "has no crystal: the cell of the table is empty")
    return Record(source, place, "cif", content, name, properties)


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


def _crystal_column(columns: Sequence[str], id_column: str) -> str:
    """The column that holds the crystals; an error where it or the column of names that was asked for is missing."""
    found = next((name for name in _CRYSTAL_COLUMNS if name in columns), CIF_COLUMN)
    # everybody's tables have no names; who asks for another column wants exactly that one
    _need_columns(columns, [found, *([id_column] if id_column != DEFAULT_ID_COLUMN else [])])
    return found


def _need_columns(columns: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise UnreadableSourceError(
            f"has no column {', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, columns[:20]))}"
        )


def cut_parquet(path: Path, source: str, stem: str, id_column: str) -> Iterator[Record | ReadFailure]:
    """One record a row: the exact crystal from `ARRAY_COLUMNS` if they are there, else from the column `cif`."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        # names that are not UTF-8 are found out here
        names = table.column_names
    except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UnreadableSourceError(f"is not a Parquet file, or a damaged one ({error}); fetch it again") from error
    has_arrays = all(name in names for name in ARRAY_COLUMNS)
    if has_arrays:
        _need_columns(names, [id_column] if id_column != DEFAULT_ID_COLUMN else [])
        crystal_columns = list(ARRAY_COLUMNS)
    else:
        crystal_columns = [_crystal_column(names, id_column)]
    types = pyarrow.types
    numeric = [
        column.name
        for column in table.schema
        if (types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type))
        and column.name != id_column
        # the index of a pandas table
        and not column.name.startswith("__index_level_")
    ]
    has_ids = id_column in names
    table = table.select([*crystal_columns, *numeric, *([id_column] if has_ids else [])])
    number = 0
    for part in table.to_batches(max_chunksize=1024):
        for row in _rows(part):
            number += 1
            if isinstance(row, UnicodeDecodeError):
                yield ReadFailure(source, f"row {number}", f"holds text that is not UTF-8 ({row.reason})")
                continue
            name = str(row[id_column]) if has_ids else f"{stem}-{number}"
            properties = {key: math.nan if row[key] is None else float(row[key]) for key in numeric}
            place = f"row {number} ({name})"
            if has_arrays:
                content = {key: row[key] for key in ARRAY_COLUMNS}
                yield Record(source, place, "arrays", content, name, properties)
            elif isinstance(row[crystal_columns[0]], dict):
                yield Record(source, place, "structure", row[crystal_columns[0]], name, properties)
            else:
                yield _record(source, place, row[crystal_columns[0]], name, properties)


def _rows(part: Any) -> list[dict[str, Any] | UnicodeDecodeError]:
    """The rows of a batch of Arrow's, and the error of each that holds text that is none."""
    try:
        return list(part.to_pylist())
    except UnicodeDecodeError as error:
        if part.num_rows == 1:
            return [error]
        return [row for i in range(part.num_rows) for row in _rows(part.slice(i, 1))]


class _OtherDatabaseError(ValueError):
    """A file that ASE did not write."""


def cut_database(path: Path, source: str, stem: str, id_column: str) -> Iterator[Record | ReadFailure]:
    """One record a row of an ASE database in SQLite; numbers among its key-value pairs, and the energy, are properties.

    The file is only looked at: ASE would make tables in one that has none.
    """
    import ase.db

    try:
        _refuse_other_databases(path)
        database = ase.db.connect(path, type="db", use_lock_file=False)
        row_ids = [row.id for row in database.select(include_data=False)]
    except (sqlite3.Error, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UnreadableSourceError(f"is not an ASE database, or a damaged one ({_of_database(error)})") from error
    for row_id in row_ids:
        place = f"row {row_id}"
        try:
            row = database.get(id=row_id)
            content = {name: row[name].tolist() for name in ("numbers", "positions", "cell", "pbc")}
            pairs, data, energy = row.key_value_pairs, row.data, row.get("energy")
        except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as error:
            # a damaged row fails wherever ASE's decoder first trips over it
            reason = f"is damaged and cannot be decoded ({_of_database(error)}); write the database anew"
            yield ReadFailure(source, place, reason)
            continue
        properties = numeric_items({"energy": energy, **pairs}, id_column)
        stored = data.get("properties")
        if isinstance(stored, dict):
            # names and values that key-value pairs do not take
            properties.update(numeric_items(stored, id_column))
        named = {key: value for key, value in {**pairs, **data}.items() if key in (id_column, DEFAULT_ID_COLUMN)}
        name = own_name(named, f"{stem}-{row_id}", id_column)
        yield Record(source, f"{place} ({name})", "structure", content, name, properties)


def _of_database(error: Exception) -> str:
    """What an error says of a database: ASE's decoder fails in Python's own words, which tell nobody what is wrong."""
    if isinstance(error, (sqlite3.Error, OSError, _OtherDatabaseError)):
        return str(error)
    return "it holds values that ASE does not write"


def _refuse_other_databases(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(len(_SQLITE))
    if head != _SQLITE:
        raise _OtherDatabaseError("it is empty" if not head else "it is no SQLite file")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True)
    try:
        names = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    finally:
        connection.close()
    if "systems" not in names:
        raise _OtherDatabaseError("it has no table of systems")


def cut_journal(text: str, source: str, stem: str) -> Iterator[Record | ReadFailure]:
    """The crystals that a `CrystalWriter` had appended before it was killed; a last line cut short is a failure."""
    head, *lines = text.splitlines() or [""]
    check_journal_header(head)
    for number, line in enumerate(lines, start=2):
        try:
            row = journal_row(line)
            properties = {key: math.nan if value is None else float(value) for key, value in row["properties"].items()}
            name = own_name({DEFAULT_ID_COLUMN: row[DEFAULT_ID_COLUMN]}, f"{stem}-{number - 1}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            yield ReadFailure(source, f"line {number}", f"is cut short or damaged ({error})")
            continue
        yield Record(source, f"line {number} ({name})", "arrays", row, name, properties)


def checked_line(line: str, place: int) -> str:
    """A journal's line, a table of JSON, with its checksum and its place among the crystals as the first entries."""
    line = f'{{"{JOURNAL_PLACE}": {place}, {line[1:]}'
    return f'{{"crc32": {zlib.crc32(line.encode())}, {line[1:]}'


def journal_row(line: str) -> dict[str, Any]:
    """What a line of a journal says; `ValueError` where it is not what was written."""
    # journals of the first version have no checksums
    if match := re.match(r'\{"crc32": (\d{1,10}), ', line):
        line = "{" + line[match.end() :]
        if zlib.crc32(line.encode()) != int(match[1]):
            raise ValueError("its content does not fit its checksum")
    elif not line.startswith('{"material_id"'):
        raise ValueError("it has no checksum")
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("it holds no table of JSON")
    return row


def is_journal(line: str) -> bool:
    """Whether this is the first line of a journal."""
    try:
        check_journal_header(line)
    except UnreadableSourceError:
        return False
    return True


def check_journal_header(line: str) -> None:
    """Raises `UnreadableSourceError` where the first line of a journal is not that of one."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnreadableSourceError(f"is no journal of crystals: its first line is not JSON ({error})") from error
    if not isinstance(header, dict) or header.get("kind") != JOURNAL_KIND or header.get("version") != JOURNAL_VERSION:
        raise UnreadableSourceError(
            f"is no journal of crystals: its first line should name kind {JOURNAL_KIND!r}, version {JOURNAL_VERSION}"
        )
