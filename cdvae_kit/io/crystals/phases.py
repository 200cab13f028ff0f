"""Reference phases for a convex hull, from the files that people keep them in.

What is read stays plain: compositions and energies. What a hull is belongs to `cdvae_kit.relaxation`.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from cdvae_kit.io.crystals.reading import ReadError

_EXPECTED = (
    "expected a list of phases, each with a composition and an energy_per_atom (eV/atom) or the energy of that "
    "composition (eV)"
)


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
    content = path.read_bytes()
    try:
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
        records: Any = json.loads(text) if kind == ".json" else list(csv.DictReader(StringIO(text)))
    except (OSError, EOFError, ValueError) as error:
        raise ReadError(f"cannot read phases from {path}: {error}") from error
    if not isinstance(records, list) or not records:
        raise ReadError(f"no phases in {path}: {_EXPECTED}")
    return [_phase(record, f"{path}, phase {i + 1}") for i, record in enumerate(records)]


def _phase(record: Any, where: str) -> dict[str, Any]:
    from pymatgen.core import Composition, Element

    if not isinstance(record, Mapping) or not record.get("composition"):
        raise ReadError(f"{where}: {_EXPECTED}, got {str(record)[:80]}")
    try:
        composition = Composition(record["composition"])
        strange = [str(species) for species in composition if not isinstance(species, Element)]
        if strange:
            raise ReadError(f"{where}: {', '.join(strange)} is no element")
        per_atom = _number(record, ("energy_per_atom",))
        if per_atom is None:
            total = _number(record, ("energy", "uncorrected_energy"))
            if total is None:
                raise ReadError(f"{where}: {_EXPECTED}, got {', '.join(map(str, record))}")
            per_atom = (total + (_number(record, ("correction",)) or 0.0)) / composition.num_atoms
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise ReadError(f"{where}: {error}") from error
    name = record.get("name") or record.get("entry_id") or record.get("material_id") or composition.reduced_formula
    return {"composition": record["composition"], "energy_per_atom": per_atom, "name": str(name)}


def _number(record: Mapping[str, Any], names: Sequence[str]) -> float | None:
    """The first of these that the record has."""
    for name in names:
        if record.get(name) not in (None, ""):
            return float(record[name])
    return None
