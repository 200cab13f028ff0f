"""Files and folders that appear whole or not at all.

What is written goes to a hidden neighbour of the final path and is renamed over it when it is complete; a failure,
an interrupt or a full disk leaves the final path as it was. A killed process can leave the hidden neighbour behind
(its name starts with `.tmp-`), never a half-written file under the final name.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".tmp-"
_SYNCS_AT_ONCE = 16


def refuse_existing(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raises `FileExistsError` where `path` is taken and may not be overwritten, `FileNotFoundError` without a parent.

    Called before the work starts, so that hours of it do not end in a refusal.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path} exists already; choose another path or allow overwriting (overwrite=True)")


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A path to write to; leaving the block without an exception moves what was written to `path` in one step.

    The temporary path ends with the final file's name, so that writers which choose a format by suffix still can.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_file(folder / "names.txt") as temporary:
    ...     _ = temporary.write_text("Si")
    >>> (folder / "names.txt").read_text()
    'Si'
    """
    path = Path(path)
    refuse_existing(path, overwrite=overwrite)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write the file {path}: a folder has that name")
    temporary = temporary_beside(path)
    try:
        yield temporary
        sync(temporary)
        # another process may have written it meanwhile
        refuse_existing(path, overwrite=overwrite)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to fill; leaving the block without an exception gives it the name `path`.

    An empty folder of that name is taken over. With `overwrite` a full one is moved aside, replaced and then removed;
    no file system call exchanges two folders on every system, so a kill between the two renames leaves the old one
    beside `path` under a name that starts with `.tmp-`.
    """
    path = Path(path)
    if not _is_empty_folder(path):
        refuse_existing(path, overwrite=overwrite)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"cannot write the folder {path}: a file has that name; choose another path")
    refuse_existing(path, overwrite=True)
    temporary = temporary_beside(path)
    temporary.mkdir()
    try:
        yield temporary
        # a file system puts many files on the disk in nearly the time of one when it is asked for all at once
        with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
            list(pool.map(sync, temporary.rglob("*")))
        sync(temporary)
        if not path.exists() or _is_empty_folder(path):
            _rename_onto_empty(temporary, path)
        else:
            refuse_existing(path, overwrite=overwrite)
            _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(path.parent)


def temporary_beside(path: str | os.PathLike[str]) -> Path:
    """A hidden, unused name in the same folder, so that a rename to `path` stays within one file system."""
    path = Path(path)
    return path.with_name(f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def is_temporary(path: str | os.PathLike[str]) -> bool:
    """Whether the name is one that an unfinished write leaves behind."""
    return Path(path).name.startswith(_PREFIX)


def sync(path: str | os.PathLike[str]) -> None:
    """Asks the system to put a file or a folder on the disk: without it a rename can outlive the content."""
    if os.name == "nt" and Path(path).is_dir():
        # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and next(path.iterdir(), None) is None


def _rename_onto_empty(temporary: Path, path: Path) -> None:
    if os.name == "nt" and path.exists():
        path.rmdir()
    os.replace(temporary, path)


def _swap(temporary: Path, path: Path) -> None:
    old = temporary_beside(path)
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old)
