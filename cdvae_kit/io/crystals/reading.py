"""Crystals from files: `read_crystals` takes any format, one bad record costs only itself.

Paths are cut into records by `containers`, as `formats` lists; what a record says is found out in `parsing`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.faults import CellLimits, current_limits
from cdvae_kit.io.crystals.containers import records_of
from cdvae_kit.io.crystals.formats import ReadFormat, query_of
from cdvae_kit.io.crystals.json_tables import DEFAULT_ID_COLUMN
from cdvae_kit.io.crystals.limits import (
    ReaderLimits,
    bytes_limit,
    current_max_bytes,
    current_reader_limits,
    reader_limits,
)
from cdvae_kit.io.crystals.parsing import ParsedRecords, ParseOptions, parse_records
from cdvae_kit.io.crystals.records import (
    ReadFailure,
    ReadNote,
    Record,
    UnreadableSourceError,
)
from cdvae_kit.typing import OpenProgress

logger = logging.getLogger(__name__)

_RECORDS_A_TASK = 64
_TASKS_A_WAVE = 8


class ReadError(Exception):
    """A path that gives no crystal, or with `strict` a record that gives none."""


@dataclass(frozen=True)
class ReadResult:
    """What was read from a path.

    Attributes:
        crystals: those that could be read, in the order of the file.
        failures: the other records, in the order of the file.
        failed_at: which record each failure is, counted from 0; empty where that was not kept.
        notes: what to know of records that gave a crystal, in the order of the file: deuterium read as hydrogen, a
            setting that the file left open and its formula settled, with `lenient` its contradictions.
    """

    crystals: CrystalBatch
    failures: list[ReadFailure]
    failed_at: tuple[int, ...] = ()
    notes: tuple[ReadNote, ...] = ()

    @property
    def num_records(self) -> int:
        return len(self.crystals) + len(self.failures)

    def with_elements_up_to(self, most: int, source: str) -> ReadResult:
        """The same without crystals of heavier elements, which become failures.

        Args:
            most: an atomic number.
            source: where the crystals are from, for the failures.

        Raises:
            ReadError: no crystal is left.
        """
        crystals = self.crystals
        heaviest = torch.zeros(len(crystals), dtype=torch.long, device=crystals.batch.device)
        heaviest = heaviest.scatter_reduce(0, crystals.batch, crystals.atomic_numbers, "amax")
        fits = heaviest <= most
        if bool(fits.all()):
            return self
        names = crystals.material_ids or [f"crystal {i + 1}" for i in range(len(crystals))]
        heavy = [
            ReadFailure(source, names[i], f"has an atom of element {int(heaviest[i])}, at most {most} are known here")
            for i in (~fits).nonzero().flatten().tolist()
        ]
        if not bool(fits.any()):
            raise ReadError(f"no crystal of {source} is left: {heavy[0]}")
        # which record each of them was is not known any more
        return ReadResult(crystals.select(fits.nonzero().flatten()), [*self.failures, *heavy], notes=self.notes)


def read_crystals(
    path: str | os.PathLike[str],
    *,
    format: ReadFormat = "auto",
    strict: bool = False,
    max_atoms: int | None = None,
    min_distance: float | None = 0.1,
    reduce: Literal["niggli"] | None = None,
    limits: CellLimits | None = None,
    lenient: bool = False,
    id_column: str = DEFAULT_ID_COLUMN,
    max_bytes: int | None = None,
    record_limits: ReaderLimits | None = None,
    num_workers: int = 1,
    progress: OpenProgress | None = None,
    dtype: torch.dtype = torch.float32,
) -> ReadResult:
    """All crystals of a file, a folder or an archive, and what is wrong with the records that give none.

    Numbers beside a crystal (columns, key-value pairs, entries of `properties`) become properties, NaN where a crystal
    has none. Crystals come as the file has them; the frame of a CIF, which has no orientation, is pymatgen's. A file
    that contradicts itself (its operations and its symbol, its sites and its formula) is a failure.

    Args:
        path: CIF (one or many blocks), POSCAR, extxyz, ASE database, CSV or Parquet in CDVAE's form, JSON and lines of
            it (pymatgen, tables of pandas and Matbench, JARVIS, OPTIMADE), what CDVAE's scripts save (`eval_*.pt`), a
            `CrystalWriter`'s journal, each also as .gz where it is text; a folder or a zip of CIF, POSCAR and extxyz;
            `optimade://HOST?FILTER`, a question to an OPTIMADE provider.
        format: what it is, where its name does not say so.
        strict: raise `ReadError` at the first record that fails, in place of listing it.
        max_atoms: crystals with more atoms fail.
        min_distance: angstrom; crystals with atoms closer than this, periodic images included, fail. By default only
            what cannot be told from a site given twice: whether a crystal is physical is a metric's question.
        reduce: "niggli" gives the Niggli-reduced cell in its standard frame, as CDVAE prepares its data.
        limits: sizes and shapes of cells that are taken; by default those of a `cell_limits` block, or else what leaves
            out what must be a slip.
        lenient: take a file that contradicts itself as its atoms and operations stand, with a note.
        id_column: the column of the names in tables.
        max_bytes: what a file may hold or unpack to, and all answers of a server; by default what a `bytes_limit` block
            says, or else a gibibyte. `query_limits` blocks have the other limits of questions to servers.
        record_limits: what else files and their records may hold: positions, operations, listed atoms, files of an
            archive; by default what a `reader_limits` block says. A refusal names the limit that was met.
        num_workers: processes that parse.
        progress: called after each part of the work with the records done and in all, None while a server answers.
        dtype: of coordinates, lattices and properties.

    Raises:
        ReadError: the path cannot be read, or nothing in it gives a crystal.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "salt.extxyz"
    >>> lines = ["2", 'Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3', "Cs 0 0 0", "Cl 1.5 1.5 1.5"]
    >>> _ = file.write_text("\\n".join(lines))
    >>> read_crystals(file).crystals.atomic_numbers
    tensor([55, 17])
    """
    query = query_of(path)
    if query is None and not Path(path).exists():
        raise ReadError(f"cannot read {path}: there is no such file or folder; check the spelling")
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    try:
        most = current_max_bytes() if max_bytes is None else max_bytes
        within = current_reader_limits() if record_limits is None else record_limits
        with bytes_limit(most), reader_limits(within):
            if query is None:
                records = list(records_of(Path(path), format, id_column, max_bytes=most))
            else:
                records = _answers(query, id_column, progress)
    except UnreadableSourceError as error:
        raise ReadError(f"cannot read {query or path}: it {_predicate(str(error))}") from error
    cells = current_limits() if limits is None else limits
    options = ParseOptions(max_atoms, min_distance, reduce, cells, lenient, within)
    runs: list[list[ReadFailure] | ParsedRecords] = []
    num_done = 0
    if progress is not None:
        progress(0, len(records))
    with contextlib.closing(_parsed_runs(_runs(records), options, num_workers)) as parsed_runs:
        for run in parsed_runs:
            runs.append(run)
            failures = run.failures if isinstance(run, ParsedRecords) else run
            if strict and failures:
                raise ReadError(f"{failures[0]} (strict reading stops at the first bad record)")
            num_done += len(failures) + (len(run.names) if isinstance(run, ParsedRecords) else 0)
            if progress is not None:
                progress(num_done, len(records))
    failures, failed_at = _failures(runs)
    parsed = [run for run in runs if isinstance(run, ParsedRecords) and run.names]
    if not parsed:
        first = f"; the first: {failures[0]}" if failures else ""
        raise ReadError(
            f"no crystal could be read from {query or path}: {len(failures)} of {len(records)} records failed{first}"
        )
    notes = tuple(note for run in parsed for note in run.notes)
    return ReadResult(_assemble(parsed, dtype), failures, tuple(failed_at), notes)


def read(
    path: str | os.PathLike[str],
    *,
    format: ReadFormat = "auto",
    strict: bool = False,
    max_atoms: int | None = None,
    lenient: bool = False,
) -> CrystalBatch:
    """The crystals of a file, a folder or an archive; a warning says how many records give none, and why the first.

    `read_crystals` gives every failure, and has more settings; the arguments are its own.
    """
    result = read_crystals(path, format=format, strict=strict, max_atoms=max_atoms, lenient=lenient)
    if result.failures:
        logger.warning(
            "%d of %d records of %s are left out; the first: %s",
            *(len(result.failures), result.num_records, path, result.failures[0]),
        )
    for note in result.notes:
        logger.info("note: %s", note)
    return result.crystals


def _answers(query: str, id_column: str, progress: OpenProgress | None) -> list[Record | ReadFailure]:
    from cdvae_kit.io.crystals.optimade import query_records

    records: list[Record | ReadFailure] = []
    for record in query_records(query, id_column):
        records.append(record)
        if progress is not None and len(records) % _RECORDS_A_TASK == 0:
            progress(len(records), None)
    return records


def _failures(runs: Sequence[list[ReadFailure] | ParsedRecords]) -> tuple[list[ReadFailure], list[int]]:
    """The failures of all runs, and which record each of them is."""
    failures: list[ReadFailure] = []
    indices: list[int] = []
    start = 0
    for run in runs:
        found, where = (run.failures, run.failed_at) if isinstance(run, ParsedRecords) else (run, range(len(run)))
        failures.extend(found)
        indices.extend(start + index for index in where)
        start += len(found) + (len(run.names) if isinstance(run, ParsedRecords) else 0)
    return failures, indices


def _predicate(message: str) -> str:
    return message if message.startswith(("is ", "holds ", "has ", "cannot be ")) else f"is not understood: {message}"


def _runs(records: Sequence[Record | ReadFailure]) -> list[list[Record] | list[ReadFailure]]:
    """The records in order, cut where the kind changes and into tasks for the workers."""
    runs: list[list] = []
    for record in records:
        if not runs or type(runs[-1][0]) is not type(record) or len(runs[-1]) >= _RECORDS_A_TASK:
            runs.append([])
        runs[-1].append(record)
    return runs


def _parsed_runs(
    runs: Sequence[list[Record] | list[ReadFailure]], options: ParseOptions, num_workers: int
) -> Generator[list[ReadFailure] | ParsedRecords, None, None]:
    if num_workers == 1 or len(runs) == 1:
        for run in runs:
            yield _parse_run(run, options)
        return
    from joblib import Parallel, delayed

    # in waves: tasks that are under way cannot be called off cleanly when strict reading stops
    wave = num_workers * _TASKS_A_WAVE
    with Parallel(n_jobs=num_workers) as workers:
        for start in range(0, len(runs), wave):
            yield from workers(delayed(_parse_run)(run, options) for run in runs[start : start + wave])


def _parse_run(run: list[Record] | list[ReadFailure], options: ParseOptions) -> list[ReadFailure] | ParsedRecords:
    if isinstance(run[0], ReadFailure):
        return run
    return parse_records(run, options)


def _assemble(parsed: Sequence[ParsedRecords], dtype: torch.dtype) -> CrystalBatch:
    tables = [properties for run in parsed for properties in run.properties]
    names = dict.fromkeys(name for table in tables for name in table)
    columns = {
        name: torch.tensor([table.get(name, float("nan")) for table in tables], dtype=torch.float64).to(dtype)
        for name in names
    }

    def joined(field: str) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([getattr(run, field) for run in parsed]))

    return CrystalBatch(
        joined("frac_coords").to(dtype),
        joined("lattice").to(dtype),
        joined("atomic_numbers"),
        joined("num_atoms"),
        properties=columns,
        material_ids=[name for run in parsed for name in run.names],
    )
