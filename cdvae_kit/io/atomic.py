"""Files and folders that appear whole or not at all.

What is written goes to a hidden neighbour of the final path and is renamed over it when it is complete; a failure,
an interrupt or a full disk leaves the final path as it was. A killed process can leave the hidden neighbour behind
(its name starts with `.tmp-`), never a half-written file under the final name; the next one that writes the same path
removes it. What the system says of a failure names the final path.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import platform
import secrets
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

_PREFIX, _PARTS = ".tmp-", ".parts"
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
    # Windows knows no folders that may not be written
    if os.name != "nt" and not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: the folder {path.parent} may not be written; choose another path")


def refuse_several(paths: Sequence[str | os.PathLike[str]], *, overwrite: bool) -> None:
    """`refuse_existing` of files that belong together; those that a killed `several_files` left may be replaced."""
    targets = [Path(path) for path in paths]
    left = _left_unfinished(targets)
    for path in targets:
        refuse_existing(path, overwrite=overwrite or path.name in left)


@contextmanager
def several_files(paths: Sequence[str | os.PathLike[str]], *, overwrite: bool = False) -> Iterator[None]:
    """A block that writes files of one folder which belong together, each of them with overwriting allowed.

    A hidden note beside them tells whoever comes after a kill or a failure in between that the files that are there
    are no whole set: they may be replaced without `overwrite`.
    """
    targets = [Path(path) for path in paths]
    note = _note(targets)
    if note in _notes_of_this_process:
        # a part of what an outer block writes
        yield
        return
    refuse_several(targets, overwrite=overwrite)
    with atomic_file(note, overwrite=True) as temporary:
        temporary.write_text(json.dumps([path.name for path in targets]), encoding="utf-8")
    _notes_of_this_process.add(note)
    try:
        yield
    finally:
        _notes_of_this_process.discard(note)
    note.unlink(missing_ok=True)


_notes_of_this_process: set[Path] = set()


def is_unfinished(path: str | os.PathLike[str]) -> bool:
    """Whether a killed `several_files` left this file, the first of its set."""
    path = Path(path)
    return path.name in _left_unfinished([path])


def _note(paths: Sequence[Path]) -> Path:
    return paths[0].with_name(f".{paths[0].name}.unfinished")


def _left_unfinished(paths: Sequence[Path]) -> list[str]:
    try:
        names = json.loads(_note(paths).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return names if isinstance(names, list) else []


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
        with errors_naming(path, temporary):
            yield temporary
            sync(temporary)
            # another process may have written it meanwhile
            refuse_existing(path, overwrite=overwrite)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
    _remove_remains(path)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to fill; leaving the block without an exception gives it the name `path`.

    An empty folder of that name is taken over. With `overwrite` a full one changes places with the new one and is then
    removed. Where the system has no call for that, a kill between two renames leaves the old one beside `path` under a
    name that starts with `.tmp-`.
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
        with errors_naming(path, temporary):
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
    _remove_remains(path)


@contextmanager
def errors_naming(path: str | os.PathLike[str], temporary: Path | None = None) -> Iterator[None]:
    """Lets errors of the system in the block name `path`: a full disk names no file, and nobody knows `temporary`."""
    try:
        yield
    except OSError as error:
        # our own errors have a sentence in place of a number
        if error.errno is not None and (
            error.filename is None or (temporary is not None and os.fspath(error.filename) == os.fspath(temporary))
        ):
            error.filename = os.fspath(path)
        raise
    except Exception as error:
        # an error of a database can come from one that is loaded alone
        sqlite3 = sys.modules.get("sqlite3")
        if sqlite3 is not None and isinstance(error, sqlite3.Error):
            raise OSError(f"cannot write {os.fspath(path)}: {error}") from error
        raise


def temporary_beside(path: str | os.PathLike[str]) -> Path:
    """A hidden, unused name in the same folder, so that a rename to `path` stays within one file system."""
    path = Path(path)
    return path.with_name(f"{_PREFIX}{_host()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def is_temporary(path: str | os.PathLike[str]) -> bool:
    """Whether the name is one that an unfinished write leaves behind."""
    return Path(path).name.startswith(_PREFIX)


def parts_of(temporary: Path) -> Path:
    """A folder beside an unfinished file, for writers that need several files."""
    return temporary.with_name(f"{temporary.name}{_PARTS}")


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _remove_remains(path: Path) -> None:
    """Removes what processes of this machine that were killed while they wrote `path` left; it is whole now."""
    prefix = f"{_PREFIX}{_host()}-"
    for child in path.parent.glob(f"{prefix}*-{glob.escape(path.name)}*"):
        process, _, name = child.name.removeprefix(prefix).partition("-")
        # eight digits and a hyphen come before the name
        if name[9:] in (path.name, f"{path.name}{_PARTS}") and process.isdigit() and not process_is_alive(int(process)):
            remove(child)


def process_is_alive(process: int) -> bool:
    """Whether a process of this machine has that number; True where that cannot be told."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that it holds; what is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
    if _exchange(temporary, path):
        shutil.rmtree(temporary)
        return
    old = temporary_beside(path)
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old)


_WORKING_FOLDER, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""


def _exchange(first: Path, second: Path) -> bool:
    """Lets two names change places in one step; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return rename(_WORKING_FOLDER, os.fsencode(first), _WORKING_FOLDER, os.fsencode(second), _EXCHANGE) == 0
