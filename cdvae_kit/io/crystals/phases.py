"""Reference phases for a convex hull, from the files that people keep them in.

What is read stays plain: compositions and energies. What a hull is belongs to `cdvae_kit.relaxation`.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from cdvae_kit.io.crystals.reading import ReadError
from cdvae_kit.io.crystals.records import UnreadableSourceError, read_text

_EXPECTED = (
    "expected a list of phases, each with a composition and an energy_per_atom (eV/atom) or the energy of that "
    "composition (eV)"
)

_FORMATION = "formation_energy_per_atom"


def read_phases(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """One mapping a phase: `composition` (a formula or counts by symbol), `energy_per_atom` in eV/atom, `name`.

    Args:
        path: JSON, a list of such mappings or of pymatgen's entries (`ComputedEntry.as_dict()`), or CSV with these
            columns; either may end with `.gz`. An entry's `correction` (eV) is added to its energy.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "phases.csv"
    >>> _ = path.write_text("composition,energy_per_atom\\nFe2O3,-6.7\\n")
    >>> read_phases(path)
    [{'composition': 'Fe2O3', 'energy_per_atom': -6.7, 'name': 'Fe2O3'}]
    """
    path = Path(path)
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in (".json", ".csv"):
        raise ReadError(f"cannot read phases from {path}: expected a .json or .csv file")
    try:
        text = _text(path)
        records: Any = json.loads(text) if kind == ".json" else list(csv.DictReader(StringIO(text)))
    except (UnreadableSourceError, ValueError, RecursionError, csv.Error) as error:
        raise ReadError(f"cannot read phases from {path}: {error}") from error
    if not isinstance(records, list) or not records:
        raise ReadError(f"no phases in {path}: {_EXPECTED}")
    return [_phase(record, f"{path}, phase {i + 1}") for i, record in enumerate(records)]


def read_formation_energies(paths: Iterable[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """One mapping a compound of data-set tables such as MP-20's, for `cdvae_kit.relaxation.formation_hull`.

    `composition` (a formula), `energy_per_atom` (formation energy, eV/atom), `energy_above_hull` (eV/atom, None where
    the table has none) and `name`. Rows without a formation energy are left out.

    Args:
        paths: CSV, also with `.gz`, with the columns `pretty_formula` or `formula`, `formation_energy_per_atom` and,
            where known, `e_above_hull` and `material_id`.
    """
    return [compound for path in paths for compound in _compounds(Path(path))]


def has_formation_energies(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a table for `read_formation_energies`, by the names of its columns."""
    path = Path(path)
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind != ".csv":
        return False
    try:
        columns = next(_rows(_text(path)), [])
    except (UnreadableSourceError, csv.Error) as error:
        raise ReadError(f"cannot read phases from {path}: {error}") from error
    return _FORMATION in columns


def _compounds(path: Path) -> Iterator[dict[str, Any]]:
    try:
        rows = _rows(_text(path))
        columns = next(rows, [])
    except (UnreadableSourceError, csv.Error) as error:
        raise ReadError(f"cannot read formation energies from {path}: {error}") from error
    formula = next((name for name in ("pretty_formula", "formula") if name in columns), None)
    if formula is None or _FORMATION not in columns:
        raise ReadError(
            f"no formation energies in {path}: expected the columns pretty_formula (or formula) and {_FORMATION}, got "
            f"{', '.join(columns)[:99]}"
        )
    for i, values in enumerate(rows):
        record = dict(zip(columns, values, strict=False))
        try:
            energy, above = _number(record, (_FORMATION,)), _number(record, ("e_above_hull",))
        except ValueError as error:
            raise ReadError(f"{path}, row {i + 1}: {error}") from error
        if energy is not None:
            name = record.get("material_id") or record[formula]
            yield {
                "composition": record[formula],
                "energy_per_atom": energy,
                "energy_above_hull": above,
                "name": name,
            }


def _text(path: Path) -> str:
    """The text of a file that is packed if its name says so."""
    if not path.exists():
        raise UnreadableSourceError("there is no such file; check the spelling")
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    if path.suffix == ".gz" and not is_packed:
        raise UnreadableSourceError("it is no gzip file, though its name says so")
    return read_text(path)


def _rows(text: str) -> Iterator[list[str]]:
    """Of a CSV whose fields may be whole CIFs; the limit of the process is left as it was."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        rows = list(csv.reader(StringIO(text)))
    finally:
        csv.field_size_limit(before)
    yield from rows


def _phase(record: Any, where: str) -> dict[str, Any]:
    from pymatgen.core import Composition, Element

    if not isinstance(record, Mapping) or not record.get("composition"):
        raise ReadError(f"{where}: {_EXPECTED}, got {str(record)[:80]}")
    given = record["composition"]
    if not isinstance(given, str) and not _counts_symbols(given):
        raise ReadError(f"{where}: {_EXPECTED}, got the composition {str(given)[:80]}")
    try:
        composition = Composition(given)
        strange = [str(species) for species in composition if not isinstance(species, Element)]
        if strange:
            raise ReadError(f"{where}: {', '.join(strange)} is no element")
        if not 0.0 < composition.num_atoms < math.inf:
            raise ReadError(f"{where}: the composition {str(given)[:80]} has {composition.num_atoms:g} atoms")
        formula = composition.reduced_formula
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, SyntaxError) as error:
        raise ReadError(f"{where}: the composition {str(given)[:80]} is no formula") from error
    try:
        per_atom = _number(record, ("energy_per_atom",))
        if per_atom is None:
            total = _number(record, ("energy", "uncorrected_energy"))
            if total is None:
                raise ReadError(f"{where}: {_EXPECTED}, got {', '.join(map(str, record))}")
            per_atom = (total + (_number(record, ("correction",)) or 0.0)) / composition.num_atoms
    except ValueError as error:
        raise ReadError(f"{where}: {error}") from error
    name = record.get("name") or record.get("entry_id") or record.get("material_id") or formula
    return {"composition": record["composition"], "energy_per_atom": per_atom, "name": str(name)}


def _counts_symbols(given: Any) -> bool:
    return isinstance(given, Mapping) and all(
        isinstance(symbol, str) and isinstance(count, int | float) and 0 <= count < math.inf
        for symbol, count in given.items()
    )


def _number(record: Mapping[str, Any], names: Sequence[str]) -> float | None:
    """The first of these that the record has."""
    for name in names:
        value = record.get(name)
        if value not in (None, ""):
            try:
                number = math.nan if isinstance(value, bool) else float(value)
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not math.isfinite(number):
                raise ValueError(f"{name} should be a finite number, got {str(value)[:40]!r}")
            return number
    return None
