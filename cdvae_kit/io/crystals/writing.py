"""Crystals into files: whole at once with `write_crystals`, or while they are made with `CrystalWriter`.

No file ever stands half-written under its final name. What goes into the files is made by `encoding`.
"""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
import torch

from cdvae_kit.crystal.batch import CrystalBatch, concatenate
from cdvae_kit.io.atomic import atomic_file, atomic_folder, errors_naming, sync
from cdvae_kit.io.crystals import encoding
from cdvae_kit.io.crystals.formats import (
    FILE_SUFFIX_IN_FOLDER,
    ReadFormat,
    WriteFormat,
    format_named,
    function,
)
from cdvae_kit.io.crystals.json_tables import DEFAULT_ID_COLUMN
from cdvae_kit.io.crystals.reading import ReadError, read_crystals
from cdvae_kit.io.crystals.records import UnreadableSourceError, read_text
from cdvae_kit.io.crystals.tables import JOURNAL_PLACE, check_journal_header, journal_row
from cdvae_kit.io.crystals.targets import choose_format as choose_format
from cdvae_kit.io.crystals.targets import journal_of, refuse_journal, refuse_target
from cdvae_kit.io.result_folder import locked

logger = logging.getLogger(__name__)


def write_crystals(
    crystals: CrystalBatch, path: str | os.PathLike[str], *, format: WriteFormat = "auto", overwrite: bool = False
) -> None:
    """Writes the file or the folder whole, or raises and leaves what was there.

    Names and properties go along, but for a folder of POSCARs, which have no place for properties. A CIF keeps
    lengths and angles of the cell, not its orientation; Parquet keeps every bit.

    Args:
        crystals: at least one.
        path: `.extxyz`, `.xyz`, `.cif`, `.csv`, `.json` (each also with `.gz`), `.db`, `.parquet`, or a folder.
        format: what to write, where the path does not say so.
        overwrite: replace what is there; a folder only if all of its files are of this kind.

    >>> import tempfile
    >>> salt = CrystalBatch(torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]), 4 * torch.eye(3)[None],
    ...     torch.tensor([55, 17]), torch.tensor([2]))
    >>> write_crystals(salt, Path(tempfile.mkdtemp()) / "salt.cif")
    """
    path = Path(path)
    format = choose_format(path, format)
    refuse_target(path, format, overwrite=overwrite)
    if not len(crystals):
        raise ValueError(f"there are no crystals to write to {path}: the batch is empty")
    # a crystal that is not finite is written as it is; reading it back says so
    with np.errstate(all="ignore"):
        _write(crystals, path, format, overwrite=overwrite)


def _write(crystals: CrystalBatch, path: Path, format: WriteFormat, *, overwrite: bool) -> None:
    chosen = format_named(format)
    if chosen.write is None:
        raise ValueError(f"{format} is read, not written")
    write = function(chosen.write)
    if chosen.writes == "folder":
        texts, names = write(crystals), encoding.file_names(crystals, "{}" + FILE_SUFFIX_IN_FOLDER[format])
        with atomic_folder(path, overwrite=overwrite) as folder:
            for name, text in zip(names, texts, strict=True):
                (folder / name).write_text(text, encoding="utf-8", newline="\n")
    elif chosen.writes == "path":
        with atomic_file(path, overwrite=overwrite) as temporary:
            write(crystals, temporary)
    else:
        content = write(crystals).encode()
        if path.suffix.lower() == ".gz":
            # the time would make two equal files differ
            content = gzip.compress(content, mtime=0)
        with atomic_file(path, overwrite=overwrite) as temporary:
            temporary.write_bytes(content)


class CrystalWriter:
    """Takes crystals as they are made and leaves one valid file of them, however the `with` block ends.

    Until then every appended crystal lies in a journal beside the file (its name plus `.partial.jsonl`), which
    `read_crystals` reads and `resume` goes on from, should the process be killed. When the block ends, by an exception
    or an interrupt too, the file is written in one step and the journal removed; where that fails, say for a full
    disk, the journal stays.

    Args:
        path: as in `write_crystals`; a path that may not be written is refused here, before any work.
        format: as in `write_crystals`.
        overwrite: replace the file that is there, at the end, and drop the journal of a killed run.
        resume: go on from the journal of a killed run, or else from the file of an interrupted one, if there is one.

    Attributes:
        num_crystals: crystals that are in, those of the resumed run included.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: WriteFormat = "auto",
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        self.path = Path(path)
        self.journal = journal_of(self.path)
        self._format = choose_format(self.path, format)
        self._overwrite = overwrite or resume
        refuse_target(self.path, self._format, overwrite=self._overwrite)
        refuse_journal(self.path, overwrite=self._overwrite)
        self._resume = resume
        self.num_crystals = 0
        self._batches: list[CrystalBatch] = []
        self._file: FileIO | None = None
        self._locks = ExitStack()

    @property
    def crystals(self) -> CrystalBatch:
        """All crystals that are in, on the CPU."""
        if not self.num_crystals:
            raise ValueError(f"no crystal has been appended to {self.path} yet")
        dtype = self._batches[-1].lattice.dtype
        return concatenate([_to_dtype(batch, dtype) for batch in self._batches])

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(locked(self.path.with_name(f".{self.path.name}.lock"), str(self.path)))
            self._open_journal()
            self._locks = stack.pop_all()
        return self

    def _open_journal(self) -> None:
        before = self._load() if self._resume else None
        content = encoding.journal_header()
        if before is not None:
            self._keep(before)
            content += encoding.journal_lines(before)
        # a new journal replaces the old one whole, so that a kill right here loses nothing
        with atomic_file(self.journal, overwrite=self._overwrite) as temporary:
            temporary.write_bytes(content)
        self._file = FileIO(self.journal, "ab")

    def append(self, crystals: CrystalBatch) -> None:
        """Puts the crystals on the disk; when it returns, a kill does not lose them."""
        if self._file is None:
            raise RuntimeError(
                "append needs an open writer: with CrystalWriter(path) as writer: writer.append(crystals)"
            )
        crystals = _on_cpu(crystals)
        lines = encoding.journal_lines(crystals, first=self.num_crystals)
        end = self._file.seek(0, os.SEEK_END)
        try:
            with errors_naming(self.journal):
                written = 0
                while written < len(lines):
                    written += self._file.write(lines[written:])
                os.fsync(self._file.fileno())
        except BaseException:
            # half a crystal would hide those that come after it
            self._file.truncate(end)
            raise
        self._keep(crystals)

    def _keep(self, crystals: CrystalBatch) -> None:
        self._batches.append(crystals)
        self.num_crystals += len(crystals)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._locks:
            self._finish()

    def _finish(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.num_crystals:
            try:
                write_crystals(self.crystals, self.path, format=self._format, overwrite=self._overwrite)
            except BaseException as failure:
                failure.add_note(f"the {self.num_crystals} crystals made so far are safe in {self.journal}")
                raise
        else:
            logger.warning("no crystal was made; %s is not written", self.path)
        self.journal.unlink(missing_ok=True)
        sync(self.path.parent)

    def _load(self) -> CrystalBatch | None:
        if self.journal.exists():
            return read_journal(self.journal)
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return None
        kind = "folder" if self._format in FILE_SUFFIX_IN_FOLDER else self._format
        return read_crystals(self.path, format=cast(ReadFormat, kind), min_distance=None, strict=True).crystals


def read_journal(path: str | os.PathLike[str]) -> CrystalBatch | None:
    """Every crystal of a `CrystalWriter`'s journal, however odd, float64; None where it holds none.

    Unlike `read_crystals` nothing is judged: a run that goes on must count what it has made, good or bad. A last line
    that a kill cut short is left out.
    """
    try:
        head, *lines = read_text(Path(path)).splitlines() or [""]
        check_journal_header(head)
    except UnreadableSourceError as error:
        raise ReadError(f"cannot read {path}: it {error}") from error
    batches: list[CrystalBatch] = []
    for number, line in enumerate(lines, start=2):
        try:
            row = journal_row(line)
            if row.get(JOURNAL_PLACE, number - 2) != number - 2:
                raise ValueError(f"it is the line of crystal {row[JOURNAL_PLACE]}; lines are missing, or out of order")
            batches.append(_journal_crystal(row))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            if number == len(lines) + 1:
                break
            raise ReadError(
                f"line {number} of {path} is damaged ({error}); read_crystals reads the other lines, overwriting drops "
                "all of them"
            ) from error
    return concatenate(batches) if batches else None


def _journal_crystal(row: Mapping[str, Any]) -> CrystalBatch:
    real = torch.float64
    name = row[DEFAULT_ID_COLUMN]
    return CrystalBatch(
        torch.tensor(row["frac_coords"], dtype=real).reshape(-1, 3),
        torch.tensor(row["lattice"], dtype=real).reshape(-1, 3, 3),
        torch.tensor(row["atomic_numbers"]),
        torch.tensor([len(row["atomic_numbers"])]),
        properties={key: torch.tensor([value], dtype=real) for key, value in row["properties"].items()},
        material_ids=None if name is None else [str(name)],
    )


def _on_cpu(crystals: CrystalBatch) -> CrystalBatch:
    return _changed(crystals, lambda tensor: tensor.detach().cpu())


def _to_dtype(crystals: CrystalBatch, dtype: torch.dtype) -> CrystalBatch:
    return _changed(crystals, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def _changed(crystals: CrystalBatch, change: Callable[[torch.Tensor], torch.Tensor]) -> CrystalBatch:
    fields = ("frac_coords", "lattice", "atomic_numbers", "num_atoms")
    return CrystalBatch(
        *(change(getattr(crystals, field)) for field in fields),
        properties={name: change(values) for name, values in crystals.properties.items()},
        material_ids=crystals.material_ids,
    )
