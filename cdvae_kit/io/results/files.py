"""Results into files: JSON and CSV that appear whole or not at all. What the results are is the caller's affair."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cdvae_kit.io.atomic import atomic_file
from cdvae_kit.missing import finite_or_none

_SEAL = "digest"


def write_json(content: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes `plain` of the content: what every reader of JSON knows.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "numbers.json"
    >>> write_json({"rate": 0.5, "rmse": float("nan")}, path)
    >>> json.loads(path.read_text())
    {'rate': 0.5, 'rmse': None}
    """
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


class DamagedResultError(ValueError):
    """A file that the package wrote, and that is not what was written."""


@contextmanager
def whole_content(path: str | os.PathLike[str], advice: str) -> Iterator[None]:
    """A block that makes something of a file's content; what is wrong with the content becomes one kind of error.

    Args:
        path: of the file.
        advice: what to do about a damaged one.

    Raises:
        DamagedResultError: it is damaged. That it is not there, or cannot be opened, comes as the system says it.
    """
    try:
        yield
    except DamagedResultError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise DamagedResultError(f"{os.fspath(path)} is damaged ({_what_is_wrong(error)}); {advice}") from error


_NO_NUMBER = ("could not convert", "invalid literal")


def _what_is_wrong(error: Exception) -> str:
    """In words about a file, where Python's are about its own insides."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if isinstance(error, TypeError | IndexError | AttributeError) or str(error).startswith(_NO_NUMBER):
        return "it holds other entries than were written"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def read_json_table(path: str | os.PathLike[str], advice: str) -> dict[str, Any]:
    """The table of a file that `write_json` wrote; `advice` says what to do about a damaged one."""
    with whole_content(path, advice):
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise DamagedResultError(f"{os.fspath(path)} is damaged (it holds no results, no table of JSON); {advice}")
        return content


def sealed(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with a digest of the rest of it, for files that are read again.

    >>> check_seal(sealed({"seed": 1}), "run.json", "begin anew")
    {'seed': 1}
    """
    return {**table, _SEAL: _digest(table)}


def check_seal(
    table: Mapping[str, Any], path: str | os.PathLike[str], advice: str, *, required: bool = False
) -> dict[str, Any]:
    """The table without its digest; `DamagedResultError` where that does not fit.

    Args:
        table: what was read.
        path: of the file, for the message.
        advice: what to do about a damaged file.
        required: a table without a digest is damaged; otherwise it was written before there were any.
    """
    rest = {name: value for name, value in table.items() if name != _SEAL}
    if (_SEAL in table or required) and table.get(_SEAL) != _digest(rest):
        raise DamagedResultError(f"{os.fspath(path)} is damaged (its content does not fit its digest); {advice}")
    return rest


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain(table), sort_keys=True).encode()).hexdigest()


def write_csv(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Writes one line a row, after a line of names; None is an empty field, a flag is true or false."""
    with (
        atomic_file(path, overwrite=overwrite) as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([inert(column) for column in columns])
        for row in rows:
            writer.writerow([_field(row.get(column)) for column in columns])


def plain(content: Any) -> Any:
    """The same in what JSON knows: arrays as lists, and None for a number that is NaN or infinite.

    >>> plain({"rates": np.array([0.5, np.nan]), 7: (1, float("inf"))})
    {'rates': [0.5, None], '7': [1, None]}
    """
    if isinstance(content, np.ndarray | np.generic):
        content = content.tolist()
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return finite_or_none(content) if isinstance(content, float) else content


def inert(text: str) -> str:
    """The text as a table's cell that no spreadsheet takes for a formula: with an apostrophe before one.

    >>> inert("=cmd"), inert("NaCl"), active(inert("=cmd"))
    ("'=cmd", 'NaCl', '=cmd')
    """
    return f"'{text}" if text.lstrip("'").startswith(_STARTS_FORMULA) else text


def active(text: str) -> str:
    """The text that `inert` was given."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_STARTS_FORMULA) else text


_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return inert(value)
    return "" if value is None else value
