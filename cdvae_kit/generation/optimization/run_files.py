"""What an optimisation leaves on the disk: what is done, batch by batch, and in the end its tables.

Every file appears whole or not at all, so that a run that was killed goes on from its last finished batch.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from torch import nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation.optimization.trials import Trials
from cdvae_kit.io.atomic import atomic_file
from cdvae_kit.io.crystals.writing import write_crystals
from cdvae_kit.io.result_folder import ResumeError, result_folder
from cdvae_kit.io.results.files import (
    DamagedResultError,
    check_seal,
    inert,
    read_json_table,
    sealed,
    whole_content,
    write_json,
)
from cdvae_kit.metrics.crystals import as_arrays, formula
from cdvae_kit.missing import nan_as_none

logger = logging.getLogger(__name__)

RUN_FILE, TRIALS_FOLDER, SUMMARY_FILE = "run.json", "trials", "summary.json"
CANDIDATES_FILE, CANDIDATES_FOLDER = "candidates.extxyz", "candidates"
_OURS = (RUN_FILE, TRIALS_FOLDER, SUMMARY_FILE, CANDIDATES_FILE, CANDIDATES_FOLDER, "history.csv", "history.parquet")


class RunFiles:
    """The folder of one run, for a `with` block; without a folder nothing is kept.

    Args:
        folder: of the run.
        settings: what tells this run from another; a folder with others is not resumed.
        resume: go on with what is there.
        overwrite: remove the run that is there.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        settings: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.settings = json.loads(json.dumps(settings))
        self._resume, self._overwrite = resume, overwrite
        self._held = ExitStack()

    def __enter__(self) -> Self:
        if self.folder is None:
            return self
        with ExitStack() as stack:
            place = result_folder(
                self.folder, ours=_OURS, resume=self._resume, overwrite=self._overwrite, must_exist=False
            )
            stack.enter_context(place)
            if self._resume and (self.folder / RUN_FILE).exists():
                self._check_same()
            else:
                if self._resume and any((self.folder / name).exists() for name in _OURS):
                    self._refuse_without_run_file()
                write_json(sealed(self.settings), self.folder / RUN_FILE, overwrite=True)
            (self.folder / TRIALS_FOLDER).mkdir(exist_ok=True)
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def _check_same(self) -> None:
        assert self.folder is not None
        advice = "choose another folder, or begin anew (overwrite=True)"
        there = check_seal(read_json_table(self.folder / RUN_FILE, advice), self.folder / RUN_FILE, advice)
        other = sorted(
            name for name in {*there, *self.settings} if there.get(name, None) != self.settings.get(name, None)
        )
        if other:
            raise ResumeError(
                f"{self.folder} cannot be resumed: it is a run with another {', '.join(other)}. Give the options of "
                "the first run, or another folder"
            )

    def _refuse_without_run_file(self) -> None:
        """Trials whose settings nobody knows are not gone on with; empty folders are what a kill left."""
        assert self.folder is not None
        if any((self.folder / TRIALS_FOLDER).glob("*.json")) or (self.folder / SUMMARY_FILE).exists():
            raise ResumeError(
                f"{self.folder} cannot be resumed: its {RUN_FILE} is missing; begin anew (overwrite=True), or choose "
                "another folder"
            )

    def load(self, name: str) -> Trials | None:
        """The trials of that name, None where they are not there or cannot be read."""
        if self.folder is None or not (path := self._trials_path(name)).exists():
            return None
        advice = "it is made anew"
        try:
            content = check_seal(read_json_table(path, advice), path, advice, required=True)
            with whole_content(path, advice):
                return Trials.from_table(content)
        except DamagedResultError as error:
            logger.warning("%s", error)
            return None

    def keep(self, name: str, trials: Trials) -> None:
        """Puts trials on the disk."""
        if self.folder is not None:
            # floats read back to the last bit; NaN is a value of its own here
            text = json.dumps(sealed(trials.as_table()))
            with atomic_file(self._trials_path(name), overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def forget(self, prefix: str) -> None:
        """Removes the trials whose name starts so."""
        if self.folder is not None:
            for path in (self.folder / TRIALS_FOLDER).glob(f"{prefix}*.json"):
                path.unlink()

    def _trials_path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / TRIALS_FOLDER / f"{name}.json"

    def write_results(
        self, history: Mapping[str, list[Any]], candidates: CrystalBatch | None, summary: Mapping[str, Any]
    ) -> None:
        """The tables: every trial, the candidates as one file and as CIFs, and what is said of the whole."""
        if self.folder is None:
            return
        import pyarrow
        from pyarrow import parquet

        with atomic_file(self.folder / "history.parquet", overwrite=True) as temporary:
            parquet.write_table(pyarrow.table(dict(history)), temporary)
        with (
            atomic_file(self.folder / "history.csv", overwrite=True) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            table = csv.writer(file)
            table.writerow(history)
            for row in zip(*history.values(), strict=True):
                table.writerow([inert(cell) if isinstance(cell, str) else cell for cell in row])
        for name in (CANDIDATES_FILE, CANDIDATES_FOLDER):
            if candidates is not None:
                write_crystals(candidates, self.folder / name, overwrite=True)
        write_json(summary, self.folder / SUMMARY_FILE, overwrite=True)


def history(trials: Trials, start_names: list[str]) -> dict[str, list[Any]]:
    """Every trial as a row of a table: where from, what it is, what was said of it, and why it is no candidate."""
    arrays = as_arrays(trials.crystals)
    columns: dict[str, list[Any]] = {
        "start_name": [start_names[int(start)] for start in trials.numbers["start"]],
        "formula": [formula(crystal.reduced_composition) for crystal in arrays],
        "num_atoms": [len(crystal.atomic_numbers) for crystal in arrays],
    }
    for name, column in trials.numbers.items():
        if name in ("start", "snapshot", "step"):
            columns[name] = column.astype(int).tolist()
        elif name in ("valid", "allowed", "submitted", "relaxed"):
            columns[name] = (column == 1).tolist()
        else:
            columns[name] = [nan_as_none(value) for value in column.tolist()]
    columns["reason"] = list(trials.reasons)
    return columns


def model_digest(model: nn.Module) -> str:
    """Of all weights: another model's run is not resumed."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
