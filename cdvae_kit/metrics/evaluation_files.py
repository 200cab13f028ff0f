"""What an evaluation leaves on disk: `metrics.json`, `crystals.csv` and `rates_by_size.csv`.

The report is drawn in `visualization`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cdvae_kit.io.atomic import refuse_several, several_files
from cdvae_kit.io.result_folder import LOCK_FILE, locked
from cdvae_kit.io.results.files import write_csv, write_json
from cdvae_kit.metrics.by_size import rates_by_size
from cdvae_kit.metrics.evaluation_result import CrystalRow, Evaluation

METRICS_FILE = "metrics.json"
CRYSTALS_FILE = "crystals.csv"
SIZES_FILE = "rates_by_size.csv"
FILES = (METRICS_FILE, CRYSTALS_FILE, SIZES_FILE)

_OWN_COLUMNS = ("index", "material_id", "formula", "num_atoms", "space_group", "density", "volume_per_atom")


def save_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Writes three files into a folder, which is made where it is missing, and returns their paths.

    `metrics.json` holds every number by its name, then under "details" its interval, denominator and meaning, and under
    "settings" what it depends on. `crystals.csv` has one line a generated crystal: verdicts, values, the reason.
    `rates_by_size.csv` has each verdict's rate by the number of atoms.
    """
    paths = refuse_evaluation(folder, overwrite=overwrite)
    with several_files(paths, overwrite=overwrite):
        _write(evaluation, paths)
    return paths


def _write(evaluation: Evaluation, paths: Sequence[Path]) -> None:
    write_json(_content(evaluation), paths[0], overwrite=True)
    verdicts = _names(row.verdicts for row in evaluation.crystals)
    values = _names(row.values for row in evaluation.crystals)
    columns = [*_OWN_COLUMNS, *verdicts, *(_value_column(name, verdicts) for name in values), "reason"]
    write_csv((_fields(row, verdicts) for row in evaluation.crystals), columns, paths[1], overwrite=True)
    sizes = (
        {
            "name": entry.name,
            "num_atoms": entry.sizes,
            "rate": entry.rate.value,
            "low": entry.rate.low,
            "high": entry.rate.high,
            "num_crystals": entry.rate.num_crystals,
        }
        for entry in rates_by_size(evaluation)
    )
    columns = ["name", "num_atoms", "rate", "low", "high", "num_crystals"]
    write_csv(sizes, columns, paths[2], overwrite=True)


def refuse_evaluation(folder: str | os.PathLike[str], *, overwrite: bool, names: Sequence[str] = FILES) -> list[Path]:
    """The paths of the files to be, in a folder that is there; raises before the work where one is taken already."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / name for name in names]
    refuse_several(paths, overwrite=overwrite)
    return paths


@contextmanager
def evaluation_folder(
    folder: str | os.PathLike[str], *, overwrite: bool, names: Sequence[str] = FILES
) -> Iterator[list[Path]]:
    """`refuse_evaluation`, and a block in which no other process evaluates into that folder.

    A folder that may not be written is found out here. What an evaluation that was killed between two of its files left
    there is replaced without being asked for.
    """
    paths = refuse_evaluation(folder, overwrite=overwrite, names=names)
    with locked(Path(folder) / LOCK_FILE, os.fspath(folder)):
        yield paths


def _content(evaluation: Evaluation) -> dict[str, Any]:
    details = {
        name: {
            "value": metric.value,
            "low": metric.low,
            "high": metric.high,
            "num_crystals": metric.num_crystals,
            "section": metric.section,
            "note": metric.note,
        }
        for name, metric in evaluation.metrics.items()
    }
    return {**evaluation.numbers(), "details": details, "settings": dict(evaluation.settings)}


def _fields(row: CrystalRow, verdicts: list[str]) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in (*_OWN_COLUMNS, "reason")}
    return own | dict(row.verdicts) | {_value_column(name, verdicts): value for name, value in row.values.items()}


def _value_column(name: str, verdicts: list[str]) -> str:
    """A property may be called like a column of ours."""
    return f"property_{name}" if name in (*_OWN_COLUMNS, *verdicts, "reason") else name


def _names(tables: Iterator[Any]) -> list[str]:
    return list(dict.fromkeys(name for table in tables for name in table))
