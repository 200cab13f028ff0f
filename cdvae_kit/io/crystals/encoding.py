"""Crystals as the content of files: one function a format, from a batch to text, bytes or a filled path.

Where the content goes, and that it gets there whole, is the business of `writing`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from torch import Tensor

from cdvae_kit.crystal.arrays import CrystalArrays, right_handed, split
from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.lattice import lattice_parameters
from cdvae_kit.io.atomic import parts_of, remove
from cdvae_kit.io.crystals.cif import NAME_TAG, PROPERTY_TAGS
from cdvae_kit.io.crystals.json_tables import DEFAULT_ID_COLUMN
from cdvae_kit.io.crystals.structure_tables import ARRAY_COLUMNS
from cdvae_kit.io.crystals.tables import CIF_COLUMN, JOURNAL_KIND, JOURNAL_VERSION, checked_line
from cdvae_kit.io.results.files import inert

_XYZ_RESERVED = {"lattice", "properties", "pbc", "cell", "stress", "virial", DEFAULT_ID_COLUMN}
_TABLE_RESERVED = {DEFAULT_ID_COLUMN, CIF_COLUMN, *ARRAY_COLUMNS, ""}
# all that a CIF word may hold, less the percent sign that marks the rest
_CIF_SAFE = "!$&()*+,-./:;<=>?@[]^_`{|}~"


def crystal_rows(crystals: CrystalBatch) -> Iterator[CrystalArrays]:
    """Each crystal as arrays, with those properties that it has, as the shortest text that gives them back."""
    columns = {name: _shortest(values) for name, values in crystals.properties.items()}
    for i, row in enumerate(split(crystals)):
        yield replace(row, properties={name: columns[name][i] for name in row.properties})


def _shortest(values: Tensor) -> list[float]:
    """Floats whose text is the shortest that gives the tensor's own values back: 0.1, not 0.10000000149."""
    return [float(str(value)) for value in values.detach().cpu().numpy()]


def _symbols() -> list[str]:
    from ase.data import chemical_symbols

    return chemical_symbols


def extxyz_text(crystals: CrystalBatch) -> str:
    """All crystals as frames of extended XYZ; name and properties stand in each frame's second line."""
    _refuse_names(crystals, _XYZ_RESERVED, "extxyz", fold=True)
    symbols = _symbols()
    frames = []
    for row in crystal_rows(crystals):
        lattice = row.lattice
        words = [
            f'Lattice="{" ".join(f"{x:.10f}" for x in lattice.ravel())}"',
            "Properties=species:S:1:pos:R:3",
            *([] if row.name is None else [f"{DEFAULT_ID_COLUMN}={_xyz_word(row.name, always=True)}"]),
            *(f"{_xyz_word(name)}={value!r}" for name, value in row.properties.items()),
            'pbc="T T T"',
        ]
        positions = row.frac_coords @ lattice
        atoms = [
            f"{symbols[number]:2s} {x:16.10f} {y:16.10f} {z:16.10f}"
            for number, (x, y, z) in zip(row.atomic_numbers.tolist(), positions.tolist(), strict=True)
        ]
        frames.append("\n".join([str(len(atoms)), " ".join(words), *atoms]) + "\n")
    return "".join(frames)


def _xyz_word(text: str, *, always: bool = False) -> str:
    if not always and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", text):
        return text
    escaped = re.sub(r"([\"\\])", r"\\\1", text.replace("\n", " "))
    return f'"{escaped}"'


def _refuse_names(crystals: CrystalBatch, reserved: set[str], what: str, *, fold: bool = False) -> None:
    taken = [name for name in crystals.properties if (name.lower() if fold else name) in reserved]
    if taken:
        raise ValueError(f"{what} has its own use for the name of the property {taken[0]!r}; rename the property")


def cif_texts(crystals: CrystalBatch, *, with_properties: bool = True) -> list[str]:
    """One CIF block a crystal, every atom listed (P 1); name and properties stand in tags of our own.

    A left-handed cell is written with its axes turned around: the same crystal, not its mirror image.
    """
    symbols = _symbols()
    lengths, angles = lattice_parameters(crystals.lattice.detach().cpu().double())
    texts = []
    for i, row in enumerate(crystal_rows(crystals)):
        species = [symbols[number] for number in row.atomic_numbers]
        # a CIF has lengths and angles alone, those of a right-handed cell
        _, frac_coords = right_handed(row.lattice, row.frac_coords)
        counts = Counter(species)
        formula = " ".join(f"{symbol}{count}" for symbol, count in sorted(counts.items()))
        name = row.name or f"crystal-{i}"
        header = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:70] or "_"
        lines = [
            f"data_{header}",
            *([] if row.name is None else [f"{NAME_TAG} {_cif_word(row.name)}"]),
            f"_chemical_formula_sum '{formula}'",
            *(f"_cell_length_{axis} {x:.10f}" for axis, x in zip("abc", lengths[i].tolist(), strict=True)),
            *(
                f"_cell_angle_{axis} {x:.10f}"
                for axis, x in zip(("alpha", "beta", "gamma"), angles[i].tolist(), strict=True)
            ),
            "_symmetry_space_group_name_H-M 'P 1'",
            "_symmetry_Int_Tables_number 1",
            "loop_",
            "_symmetry_equiv_pos_site_id",
            "_symmetry_equiv_pos_as_xyz",
            "1 'x, y, z'",
        ]
        if with_properties and row.properties:
            lines += ["loop_", *PROPERTY_TAGS]
            lines += [f"{_cif_word(key)} {value!r}" for key, value in row.properties.items()]
        lines += ["loop_", "_atom_site_type_symbol", "_atom_site_label"]
        lines += [f"_atom_site_fract_{axis}" for axis in "xyz"] + ["_atom_site_occupancy"]
        lines += [
            f"{symbol} {symbol}{k} {x:.10f} {y:.10f} {z:.10f} 1"
            for k, (symbol, (x, y, z)) in enumerate(zip(species, frac_coords.tolist(), strict=True))
        ]
        texts.append("\n".join(lines) + "\n")
    return texts


def cif_text(crystals: CrystalBatch) -> str:
    """All crystals as the blocks of one CIF."""
    return "\n".join(cif_texts(crystals))


def _cif_word(text: str) -> str:
    """A text as one plain word; "_" and the like may not come first."""
    word = quote(text, safe=_CIF_SAFE)
    return f"'{word}'" if not word or word[0] in "_;[]$#" else word


def poscar_texts(crystals: CrystalBatch) -> list[str]:
    """One VASP 5 POSCAR a crystal, atoms in their order; it has no place for properties."""
    symbols = _symbols()
    texts = []
    for i, row in enumerate(crystal_rows(crystals)):
        groups: list[tuple[str, int]] = []
        for number in row.atomic_numbers:
            if groups and groups[-1][0] == symbols[number]:
                groups[-1] = (symbols[number], groups[-1][1] + 1)
            else:
                groups.append((symbols[number], 1))
        lines = [(row.name or f"crystal-{i}").replace("\n", " "), "1.0"]
        lines += [" ".join(f"{x:.12f}" for x in vector) for vector in row.lattice.tolist()]
        lines += [" ".join(symbol for symbol, _ in groups), " ".join(str(count) for _, count in groups), "Direct"]
        lines += [" ".join(f"{x:.12f}" for x in position) for position in row.frac_coords.tolist()]
        texts.append("\n".join(lines) + "\n")
    return texts


def file_names(crystals: CrystalBatch, pattern: str) -> list[str]:
    """A name a crystal for a folder of files: its number first, so that their order is that of the batch.

    Args:
        crystals: the batch.
        pattern: for instance "{}.cif".
    """
    width = len(str(len(crystals) - 1))
    ids = crystals.material_ids or ["crystal"] * len(crystals)
    return [
        pattern.format(f"{i:0{width}d}-" + (re.sub(r"[^A-Za-z0-9_.+-]", "_", name)[:100] or "crystal"))
        for i, name in enumerate(ids)
    ]


def csv_text(crystals: CrystalBatch) -> str:
    """CDVAE's form: `material_id`, the properties, `cif`; an empty cell where a crystal has no value."""
    _refuse_names(crystals, _TABLE_RESERVED, "the table")
    names = list(crystals.properties)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([DEFAULT_ID_COLUMN, *map(inert, names), CIF_COLUMN])
    for i, (row, cif) in enumerate(
        zip(crystal_rows(crystals), cif_texts(crystals, with_properties=False), strict=True)
    ):
        name = f"crystal-{i}" if row.name is None else row.name
        writer.writerow([inert(name), *(row.properties.get(key, "") for key in names), cif])
    return buffer.getvalue()


def fill_parquet(crystals: CrystalBatch, path: Path) -> None:
    """CDVAE's form, and the exact crystal in `ARRAY_COLUMNS`."""
    import pyarrow
    import pyarrow.parquet

    _refuse_names(crystals, _TABLE_RESERVED, "the table")
    rows = list(crystal_rows(crystals))
    real = pyarrow.float64() if crystals.lattice.dtype == torch.float64 else pyarrow.float32()
    columns: dict[str, Any] = {
        DEFAULT_ID_COLUMN: [f"crystal-{i}" if row.name is None else row.name for i, row in enumerate(rows)],
        CIF_COLUMN: cif_texts(crystals, with_properties=False),
        "lattice": pyarrow.array([row.lattice.ravel().tolist() for row in rows], pyarrow.list_(real)),
        "frac_coords": pyarrow.array([row.frac_coords.ravel().tolist() for row in rows], pyarrow.list_(real)),
        "atomic_numbers": pyarrow.array([row.atomic_numbers.tolist() for row in rows], pyarrow.list_(pyarrow.int64())),
    }
    for name in crystals.properties:
        columns[name] = pyarrow.array([row.properties.get(name) for row in rows], pyarrow.float64())
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def json_text(crystals: CrystalBatch) -> str:
    """A list of pymatgen structures; name and properties stand in `Structure.properties`."""
    return json.dumps([structure.as_dict() for structure in crystals.structures()])


def fill_database(crystals: CrystalBatch, path: Path) -> None:
    """An ASE database (SQLite): name and properties as `data`, and as key-value pairs where ASE takes them."""
    import ase.db

    # SQLite writes files of its own beside the database
    folder = parts_of(path)
    folder.mkdir()
    try:
        unfinished = folder / "crystals.db"
        try:
            with ase.db.connect(unfinished, type="db", use_lock_file=False) as database:
                for row, atoms in zip(crystal_rows(crystals), crystals.atoms(), strict=True):
                    atoms.info = {}
                    named = {} if row.name is None else {DEFAULT_ID_COLUMN: row.name}
                    pairs = _allowed_pairs({**named, **row.properties})
                    database.write(atoms, key_value_pairs=pairs, data={**named, "properties": row.properties})
        except sqlite3.Error as error:
            raise OSError(f"the database {path.name} cannot be written ({error}); is the disk full?") from error
        unfinished.replace(path)
    finally:
        remove(folder)


def _allowed_pairs(table: dict[str, Any]) -> dict[str, Any]:
    from ase.db.core import check

    allowed = {}
    for key, value in table.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check({key: value})
        except ValueError:
            # the value is in `data` all the same
            continue
        allowed[key] = value
    return allowed


def journal_header() -> bytes:
    """The first line of a journal."""
    return json.dumps({"kind": JOURNAL_KIND, "version": JOURNAL_VERSION}).encode() + b"\n"


def journal_lines(crystals: CrystalBatch, *, first: int = 0) -> bytes:
    """One line of JSON a crystal that gives back every bit of it; `first` is how many stand before them."""
    lines = [
        json.dumps(
            {
                DEFAULT_ID_COLUMN: row.name,
                "lattice": row.lattice.ravel().tolist(),
                "frac_coords": row.frac_coords.ravel().tolist(),
                "atomic_numbers": row.atomic_numbers.tolist(),
                "properties": row.properties,
            }
        )
        for row in crystal_rows(crystals)
    ]
    return "".join(f"{checked_line(line, first + i)}\n" for i, line in enumerate(lines)).encode()
