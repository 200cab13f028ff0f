"""JSON files cut into records: structures, lists and tables of them, in every orientation that pandas writes.

Known are pymatgen's structures alone or in lists and tables, its entries, tables of pandas and Matbench (columns,
split, records, index, table), JARVIS's data sets, answers of OPTIMADE, ASE's JSON databases, and lines of JSON. Names
and numbers beside a crystal are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from cdvae_kit.io.crystals.records import ReadFailure, Record, UnreadableSourceError
from cdvae_kit.io.crystals.structure_tables import kind_of_table

DEFAULT_ID_COLUMN = "material_id"

_NAME_KEYS = (DEFAULT_ID_COLUMN, "jid", "mbid", "entry_id", "task_id", "_id", "id", "name")
_CRYSTAL_KEYS = ("structure", "atoms", "final_structure", "attributes", "cif", "crystal", "structures")
_INDEX_KEYS = {"index", "level_0", "nsites", "nelements", ""}
_EXPECTED = "expected a structure (a table with 'lattice' and 'sites' or the like), or a table or list of them"


def cut_json(text: str, source: str, stem: str, id_column: str = DEFAULT_ID_COLUMN) -> Iterator[Record | ReadFailure]:
    """The records of a JSON file.

    Raises:
        UnreadableSourceError: it is no JSON, or holds no crystal.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and "Extra data" in str(error) and "\n" in text.strip():
            yield from cut_json_lines(text, source, stem, id_column)
            return
        raise UnreadableSourceError(f"is not JSON ({error}); the file may be truncated") from error
    try:
        found = list(_records(content, source, stem, id_column))
    except RecursionError as error:
        raise UnreadableSourceError("holds tables within tables too deep to look through") from error
    if not found or (len(found) == 1 and not found[0].record and isinstance(found[0], ReadFailure)):
        raise UnreadableSourceError(
            "holds no crystal: expected a table with 'lattice' and 'sites' or the like, or a list or table of such"
        )
    yield from found


def cut_json_lines(
    text: str, source: str, stem: str, id_column: str = DEFAULT_ID_COLUMN
) -> Iterator[Record | ReadFailure]:
    """One record a line of JSON."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield ReadFailure(source, place, f"is no JSON ({error}); it may be cut short or damaged")
            continue
        yield record_of_row(content, source, place, f"{stem}-{number}", id_column)


def _records(content: Any, source: str, stem: str, id_column: str) -> Iterator[Record | ReadFailure]:
    if isinstance(content, Mapping):
        if "ids" in content and "nextid" in content:
            yield from _ase_rows(content, source, stem)
            return
        rows = _rows_of_table(content)
        if rows is not None:
            for place, name, row in rows:
                yield record_of_row(row, source, f"row {place}", name, id_column)
            return
    yield from _search(content, source, "", stem, id_column)


def _rows_of_table(content: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]] | None:
    """The rows of a table of pandas, whichever way it lies; None where it is none."""
    columns, data, index = content.get("columns"), content.get("data"), content.get("index")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        names = index if isinstance(index, list) and len(index) == len(data) else list(range(len(data)))
        # a row of another length is told as one without a crystal
        return [
            (str(name), str(name), dict(zip(map(str, columns), row, strict=False)))
            for name, row in zip(names, data, strict=True)
        ]
    if "schema" in content and isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        key = _primary_key(content["schema"])
        return [(str(i), str(row.get(key, i)), dict(row)) for i, row in enumerate(data)]
    crystals = next((content[key] for key in _CRYSTAL_KEYS if _is_column(content.get(key))), None)
    if crystals is None or not all(isinstance(column, Mapping) for column in content.values()):
        return None
    return [(str(name), str(name), {key: column.get(name) for key, column in content.items()}) for name in crystals]


def _primary_key(schema: Any) -> str:
    keys = schema.get("primaryKey") if isinstance(schema, Mapping) else None
    return str(keys[0]) if isinstance(keys, list) and keys else "index"


def _is_column(value: Any) -> bool:
    """Whether a mapping is a column of crystals by row name, rather than a crystal."""
    if not isinstance(value, Mapping) or not value or kind_of_table(value) is not None:
        return False
    return any(kind_of_table(item) is not None or _is_cif(item) for item in value.values())


def _is_cif(value: Any) -> bool:
    return isinstance(value, str) and "data_" in value.lower() and "_cell" in value.lower()


def _search(content: Any, source: str, place: str, name: str, id_column: str) -> Iterator[Record | ReadFailure]:
    """The crystals at any depth: each list and table is looked through."""
    if _crystal_of(content) is not None:
        yield record_of_row(content, source, place, name, id_column)
    elif isinstance(content, list):
        for i, item in enumerate(content):
            yield from _search(item, source, f"{place}[{i}]", f"{name}-{i}", id_column)
    elif isinstance(content, Mapping) and any(isinstance(item, Mapping | list) for item in content.values()):
        for key, item in content.items():
            # what an answer of OPTIMADE says of itself is no record
            if isinstance(item, Mapping | list) and not (key in ("meta", "links", "included") and "data" in content):
                yield from _search(item, source, f"{place}[{key!r}]", str(key), id_column)
    else:
        yield ReadFailure(source, place, f"{_EXPECTED}, got {str(content)[:60]!r}")


def _crystal_of(content: Any) -> Any:
    """The crystal in a row: the row itself, or what stands under one of the usual names."""
    if kind_of_table(content) is not None:
        return content
    if not isinstance(content, Mapping):
        return None
    for key in _CRYSTAL_KEYS:
        if kind_of_table(content.get(key)) is not None or _is_cif(content.get(key)):
            return content[key]
    texts = [value for value in content.values() if isinstance(value, str) and value.lstrip()[:1] == "{"]
    for text in texts:
        try:
            inner = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if kind_of_table(inner) is not None:
            return inner
    return None


def record_of_row(content: Any, source: str, place: str, name: str, id_column: str) -> Record | ReadFailure:
    """The record of a row of a table, with the names and numbers beside the crystal."""
    crystal = _crystal_of(content)
    if crystal is None:
        return ReadFailure(source, place, f"{_EXPECTED}, got {str(content)[:60]!r}")
    inner = _table(crystal.get("properties")) if isinstance(crystal, Mapping) else {}
    if kind_of_table(crystal) == "optimade":
        # properties stand among the attributes, beside the cell
        inner = crystal
    beside = {} if crystal is content else {key: value for key, value in content.items() if value is not crystal}
    properties = {**numeric_items(inner, id_column), **numeric_items(beside, id_column)}
    own = own_name({**inner, **_table(beside.get("data")), **beside}, name, id_column)
    where = f"{place} ({own})" if own != name and place else place
    kind = "cif" if isinstance(crystal, str) else "structure"
    return Record(source, where, kind, crystal, own, properties)  # type: ignore[arg-type]


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def own_name(table: Mapping[str, Any], otherwise: str, id_column: str = DEFAULT_ID_COLUMN) -> str:
    """What a table calls its crystal, or else `otherwise`."""
    for key in (id_column, *_NAME_KEYS):
        value = table.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
    return otherwise


def numeric_items(table: Mapping[str, Any], id_column: str = DEFAULT_ID_COLUMN) -> dict[str, float]:
    """The entries that are numbers; flags and names are not."""
    found = {}
    for key, value in table.items():
        if (
            isinstance(value, Real)
            and not isinstance(value, bool)
            and key not in (*_NAME_KEYS, *_INDEX_KEYS, id_column)
        ):
            try:
                number = float(value)
            except OverflowError:
                continue
            if not math.isnan(number):
                found[str(key)] = number
    return found


def _ase_rows(content: Mapping[str, Any], source: str, stem: str) -> Iterator[Record | ReadFailure]:
    """The rows of an ASE JSON database."""
    ids = content["ids"]
    if not isinstance(ids, list):
        raise UnreadableSourceError(f"is a damaged ASE database: expected a list of rows as 'ids', got {ids!r:.60}")
    for row_id in ids:
        row, place = content.get(str(row_id)), f"row {row_id}"
        if kind_of_table(row) != "ase" or not isinstance(row, Mapping):
            yield ReadFailure(
                source, place, f"is damaged: it has no numbers, positions and cell, got {str(row)[:60]!r}"
            )
            continue
        pairs, data = _table(row.get("key_value_pairs")), _table(row.get("data"))
        stored = _table(data.get("properties"))
        properties = {**numeric_items({"energy": row.get("energy"), **pairs}), **numeric_items(stored)}
        table = {key: value for key, value in {**pairs, **data}.items() if key == DEFAULT_ID_COLUMN}
        name = own_name(table, f"{stem}-{row_id}")
        yield Record(source, f"{place} ({name})", "structure", row, name, properties)
