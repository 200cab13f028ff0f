"""The folder of a run: who may work in it, what may lie there before, and what a kill left behind.

Every command that writes a folder lays it out here, so that no moment at which it can be killed leaves a folder that
can neither be gone on with nor begun anew. What the files mean belongs to the runs.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cdvae_kit.io.atomic import is_temporary, remove

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_CANNOT_LOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class InUseError(FileExistsError):
    """Another process works there now."""


class ResumeError(ValueError):
    """A run that cannot be gone on with: other data, another model, other settings, or nothing there."""


@contextmanager
def result_folder(
    folder: str | os.PathLike[str],
    *,
    ours: Collection[str],
    resume: bool = False,
    overwrite: bool = False,
    must_exist: bool = True,
) -> Iterator[Path]:
    """Makes the folder of a run and keeps other processes out of it while the block runs.

    What killed runs leave (unfinished writes, empty folders of ours, a lock without an owner) is known and removed; a
    folder with nothing else counts as empty.

    Args:
        folder: made where it is not there, with its parents.
        ours: names of the files and folders that such a run leaves; anything else is never touched.
        resume: what is there stays.
        overwrite: what a run left is removed.
        must_exist: a folder that is to be resumed must be there.

    Raises:
        InUseError: another process works in it.
        FileExistsError: it holds something, and neither `resume` nor `overwrite` was said; or it holds other files.
        ResumeError: there is nothing to resume.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "run"
    >>> with result_folder(place, ours=["numbers.csv"]):
    ...     _ = (place / "numbers.csv").write_text("1")
    >>> with result_folder(place, ours=["numbers.csv"], overwrite=True):
    ...     list(place.glob("*.csv"))
    []
    """
    folder = Path(folder)
    if resume and overwrite:
        raise ValueError("a run is either resumed or overwritten, not both")
    if os.path.lexists(folder) and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give the name of a folder")
    if resume and must_exist and not folder.is_dir():
        raise ResumeError(f"there is no run to resume: {folder} does not exist; check its name, or do not resume")
    # nothing is written into the folder of somebody else
    if folder.is_dir() and not (folder / LOCK_FILE).exists():
        _refuse(folder, ours, resume=resume, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK_FILE, str(folder)):
        _refuse(folder, ours, resume=resume, overwrite=overwrite)
        if not resume:
            for name in ours:
                remove(folder / name)
        for child in list(folder.rglob("*")):
            if is_temporary(child):
                remove(child)
        yield folder


@contextmanager
def locked(lock_file: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Holds a lock while the block runs; the death of the process frees it, whatever ends it.

    Args:
        lock_file: made and removed again.
        what: it guards, for messages.

    Raises:
        InUseError: another process, or another part of this one, holds it.
    """
    lock_file = Path(lock_file)
    # it brings a database along, which processes that compute have no need of
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file, timeout=0)
    is_locked = False
    try:
        lock.acquire()
        is_locked = True
    except Timeout:
        raise InUseError(
            f"{what} is in use by {_owner(lock_file)}; wait for it to end, stop it, or choose another name"
        ) from None
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            if error.errno is not None:
                error.filename = what
            raise
        logger.warning("%s cannot be locked (%s): see that no second run writes there", what, error.strerror)
    try:
        # a file system without locks has the lock's own content there
        if is_locked and type(lock) is FileLock:
            # on a full disk it holds all the same, and what is written next names its own path
            with suppress(OSError):
                lock_file.write_text(f"{os.getpid()} {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        if is_locked:
            if os.name != "nt":
                # a waiter that has it open notices that it is gone
                lock_file.unlink(missing_ok=True)
            lock.release()


def _owner(lock_file: Path) -> str:
    try:
        process, host = lock_file.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return "another process"
    where = "" if host == platform.node() else f" on {host}"
    return f"process {process}{where}"


def _refuse(folder: Path, ours: Collection[str], *, resume: bool, overwrite: bool) -> None:
    found = [child for child in folder.iterdir() if child.name != LOCK_FILE and not is_temporary(child)]
    foreign = sorted(child.name for child in found if child.name not in ours)
    if foreign and (overwrite or len(foreign) == len(found)):
        raise FileExistsError(
            f"{folder} holds files that are not of such a run ({', '.join(foreign[:5])}); choose another folder"
        )
    if not resume and not overwrite and any(_holds_something(child) for child in found):
        raise FileExistsError(
            f"{folder} holds files already; go on with the run in it (resume=True), remove that run "
            "(overwrite=True), or choose another folder"
        )


def _holds_something(path: Path) -> bool:
    if not path.is_dir() or path.is_symlink():
        return True
    return any(not is_temporary(child) and _holds_something(child) for child in path.iterdir())
