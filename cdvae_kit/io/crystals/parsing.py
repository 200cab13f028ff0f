"""What one record says: its crystal, or the reason why it has none. Runs in worker processes.

Crystals come out as the file has them: atoms in their order, no reduction, no rounding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from cdvae_kit.crystal.arrays import CrystalArrays, right_handed
from cdvae_kit.crystal.batch import batch_of_arrays
from cdvae_kit.crystal.errors import CrystalError, EmptyCrystalError
from cdvae_kit.crystal.faults import NON_FINITE, CellLimits, crystal_faults
from cdvae_kit.io.crystals.cif import CifError, read_cif
from cdvae_kit.io.crystals.cif_grammar import GrammarError
from cdvae_kit.io.crystals.extxyz import read_frame
from cdvae_kit.io.crystals.limits import ReaderLimits, reader_limits
from cdvae_kit.io.crystals.operations import OperationError
from cdvae_kit.io.crystals.poscar import read_poscar
from cdvae_kit.io.crystals.records import ReadFailure, ReadNote, Record, RecordError, RecordKind
from cdvae_kit.io.crystals.structure_tables import read_arrays, read_table
from cdvae_kit.io.crystals.symmetry import SymmetryError

if TYPE_CHECKING:
    from cdvae_kit.crystal.batch import CrystalBatch

_DEUTERIUM = "deuterium and tritium (D, T) are read as hydrogen"
_BLOCK = re.compile(r"^[ \t]*data_", re.IGNORECASE | re.MULTILINE)
_NO_BLOCK = "holds no CIF data block (a line that starts with data_)"
_TOLD = (CrystalError, RecordError, CifError, GrammarError, OperationError, SymmetryError)
"""Errors whose text is the reason; all others are slips of this package, and are told as such."""


class ParseOptions(NamedTuple):
    """What a crystal must be, and what is done with it before it comes back."""

    max_atoms: int | None
    min_distance: float | None
    reduce: Literal["niggli"] | None
    limits: CellLimits = CellLimits()
    lenient: bool = False
    reader_limits: ReaderLimits = ReaderLimits()


@dataclass(frozen=True)
class ParsedRecords:
    """The crystals of a run of records, as arrays (cheap to send between processes), and the failures among them.

    `failed_at` holds the place in the run of each failure.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    num_atoms: np.ndarray
    names: list[str]
    properties: list[dict[str, float]]
    failures: list[ReadFailure]
    failed_at: list[int]
    notes: list[ReadNote]


class _Parsed(NamedTuple):
    crystal: CrystalArrays
    notes: tuple[str, ...]


def parse_records(records: Sequence[Record], options: ParseOptions) -> ParsedRecords:
    """The crystals of `records` in order, float64, and the failures in order; nothing that a record holds raises."""
    import torch

    # a worker process does not know the block that the reader stands in
    with reader_limits(options.reader_limits):
        parsed: list[_Parsed | ReadFailure] = [_parse_guarded(record, options) for record in records]
    sound = [i for i, item in enumerate(parsed) if isinstance(item, _Parsed)]
    batch = batch_of_arrays([parsed[i].crystal for i in sound], dtype=torch.float64)  # type: ignore[union-attr]
    faults = crystal_faults(
        batch, max_atoms=options.max_atoms, min_distance=options.min_distance, limits=options.limits
    )
    for i, fault in zip(sound, faults, strict=True):
        record = records[i]
        if fault is not None:
            parsed[i] = ReadFailure(record.source, record.record, str(fault))
        elif options.reduce == "niggli":
            parsed[i] = _reduced(parsed[i], record)  # type: ignore[arg-type]
    if options.reduce is not None or any(fault is not None for fault in faults):
        batch = batch_of_arrays([item.crystal for item in parsed if isinstance(item, _Parsed)], dtype=torch.float64)
    return _gathered(batch, records, parsed)


def _gathered(batch: CrystalBatch, records: Sequence[Record], parsed: Sequence[_Parsed | ReadFailure]) -> ParsedRecords:
    crystals = [item.crystal for item in parsed if isinstance(item, _Parsed)]
    return ParsedRecords(
        batch.lattice.numpy(),
        batch.frac_coords.numpy(),
        batch.atomic_numbers.numpy(),
        batch.num_atoms.numpy(),
        [crystal.name or "" for crystal in crystals],
        [dict(crystal.properties) for crystal in crystals],
        [item for item in parsed if isinstance(item, ReadFailure)],
        [i for i, item in enumerate(parsed) if isinstance(item, ReadFailure)],
        [
            ReadNote(record.source, record.record, note)
            for record, item in zip(records, parsed, strict=True)
            if isinstance(item, _Parsed)
            for note in item.notes
        ],
    )


def _parse_guarded(record: Record, options: ParseOptions) -> _Parsed | ReadFailure:
    try:
        # what is not finite gets a reason below, and needs no warning on the way
        with np.errstate(all="ignore"):
            parsed = _PARSERS[record.kind](record, options)
        if not len(parsed.crystal.atomic_numbers):
            raise EmptyCrystalError("expected at least one atom, got none")
        return parsed
    except _TOLD as error:
        reason = str(error)
    except np.linalg.LinAlgError:
        reason = f"{NON_FINITE}; or its cell has no volume"
    except Exception as error:  # noqa: BLE001  one record must not end the others, whatever was overlooked
        reason = f"cannot be read as {record.kind}, for a reason that was not foreseen: {type(error).__name__}: {error}"
    return ReadFailure(record.source, record.record, reason)


def _reduced(parsed: _Parsed, record: Record) -> _Parsed | ReadFailure:
    import torch

    from cdvae_kit.crystal.arrays import split
    from cdvae_kit.crystal.conversion import structures_to_batch
    from cdvae_kit.crystal.symmetry import niggli_reduce

    crystal = parsed.crystal
    # lengths and angles of the reduced cell alone would make the mirror image of a left-handed one
    lattice, frac_coords = right_handed(crystal.lattice, crystal.frac_coords)
    plain = CrystalArrays(lattice, frac_coords, crystal.atomic_numbers)
    try:
        structure = niggli_reduce(batch_of_arrays([plain], dtype=torch.float64).structures()[0])
    except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
        # pymatgen's search can fail to end where rounding plays with it
        return ReadFailure(record.source, record.record, f"its Niggli reduction failed: {error}")
    reduced = next(split(structures_to_batch([structure], dtype=torch.float64)))
    return parsed._replace(
        crystal=CrystalArrays(
            reduced.lattice, reduced.frac_coords, reduced.atomic_numbers, crystal.name, crystal.properties
        )
    )


def _parse_cif(record: Record, options: ParseOptions) -> _Parsed:
    text = record.content
    block = _BLOCK.search(text) if isinstance(text, str) else None
    if block is None:
        raise GrammarError(_NO_BLOCK)
    # what stands before the block is comment
    found = read_cif(text[block.start() :], first_line=record.first_line, lenient=options.lenient)
    crystal = CrystalArrays(
        found.lattice,
        found.frac_coords,
        found.atomic_numbers,
        found.name if found.name is not None else record.name,
        {**record.properties, **found.properties},
    )
    return _Parsed(crystal, found.notes)


def _parse_poscar(record: Record, _: ParseOptions) -> _Parsed:
    lattice, frac_coords, numbers, deuterium = read_poscar(record.content)
    return _plain(record, lattice, frac_coords, numbers, deuterium=deuterium)


def _parse_extxyz(record: Record, _: ParseOptions) -> _Parsed:
    found = read_frame(record.content)
    crystal = CrystalArrays(
        found.lattice,
        found.frac_coords,
        found.atomic_numbers,
        record.name if found.name is None else found.name,
        {**record.properties, **found.properties},
    )
    return _Parsed(crystal, (_DEUTERIUM,) if found.has_deuterium else ())


def _parse_table(record: Record, _: ParseOptions) -> _Parsed:
    lattice, frac_coords, numbers, deuterium = read_table(record.content)
    return _plain(record, lattice, frac_coords, numbers, deuterium=deuterium)


def _parse_arrays(record: Record, _: ParseOptions) -> _Parsed:
    lattice, frac_coords, numbers, deuterium = read_arrays(record.content)
    return _plain(record, lattice, frac_coords, numbers, deuterium=deuterium)


def _plain(
    record: Record, lattice: np.ndarray, frac_coords: np.ndarray, numbers: np.ndarray, *, deuterium: bool
) -> _Parsed:
    crystal = CrystalArrays(lattice, frac_coords, numbers, record.name, record.properties)
    return _Parsed(crystal, (_DEUTERIUM,) if deuterium else ())


_PARSERS: dict[RecordKind, Callable[[Record, ParseOptions], _Parsed]] = {
    "cif": _parse_cif,
    "poscar": _parse_poscar,
    "extxyz": _parse_extxyz,
    "structure": _parse_table,
    "arrays": _parse_arrays,
}
