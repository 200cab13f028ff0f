"""Small results on the disk by the content that they belong to, so that nothing is computed twice.

What a result means is its caller's affair: here it is bytes under a key of 32 bytes, and nothing is ever unpickled.
Results of an evaluation are worth seconds to hours each set, never more than the time to compute them again; so a
damaged file costs time, not an evaluation.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

from filelock import FileLock, Timeout

from cdvae_kit.io.user_cache import default_cache_dir

logger = logging.getLogger(__name__)

KEY_BYTES = 32
DEFAULT_MAX_BYTES = 2 * 1024**3
MIN_MAX_BYTES = 64 * 1024

_FORMAT = 1
_FILE = f"results-{_FORMAT}.sqlite"
_LOCK = f"results-{_FORMAT}.lock"
_COMPANIONS = ("-wal", "-shm", "-journal")
# SQLite takes 999 values a statement in its older releases
_KEYS_AT_ONCE = 500
_WRITES_AT_ONCE = 2_000
_SECONDS_TO_WAIT = 60.0
# when a result was last used is known to the hour, so that a look-up seldom writes
_USE_RESOLUTION = 3_600

_TABLES = (
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS results"
    " (key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL, used INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS results_by_use ON results (used)",
)

Part = TypeVar("Part")

_connections_of_parents: list[sqlite3.Connection] = []


class ResultStoreError(OSError):
    """The store cannot be read or written, and why."""


class _DamagedStoreError(Exception):
    """A file that is not what a store wrote."""


class ResultStore:
    """Results by key in one SQLite file of a folder; several processes may read and write it at once.

    Only the process that holds the store opens the file, never the workers that compute: a cluster needs no shared
    folder. The file should lie on a disk of the machine; SQLite's log does not work between machines.

    A damaged file is set aside under another name, with a warning, and a new one begun. Where a folder was named, one
    that cannot be used raises `ResultStoreError`; the folder of the user's cache, which nobody asked for, costs a
    warning, and the store then keeps nothing. `required` says it otherwise.

    Args:
        folder: made where it is not there; by default one in the user's cache.
        max_bytes: size of the file (and some MB of log beside it) beyond which the results that were not used for
            longest go.
        required: raise where the store cannot be used; False warns once and goes on without.

    >>> import hashlib, tempfile
    >>> key = hashlib.sha256(b"quartz").digest()
    >>> with ResultStore(tempfile.mkdtemp()) as store:
    ...     store.put({key: b"valid"})
    ...     store.get([key]), len(store)
    ({b'...': b'valid'}, 1)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        required: bool | None = None,
    ) -> None:
        if max_bytes < MIN_MAX_BYTES:
            raise ValueError(f"a result store needs at least {MIN_MAX_BYTES:,} bytes, got max_bytes={max_bytes:,}")
        self.max_bytes = max_bytes
        self._required = folder is not None if required is None else required
        self._connection: sqlite3.Connection | None = None
        self._process = os.getpid()
        self._identity: tuple[int, int] | None = None
        # a generator of joblib may be read in another thread than the one that made the store
        self._thread_lock = threading.RLock()
        self._closed = False
        self.folder: Path | None = None
        try:
            self.folder = Path(folder) if folder is not None else default_cache_dir() / "results"
        except RuntimeError as error:
            # the user has no home
            self._give_up(ResultStoreError(f"there is no folder for results: {error}"))
            return
        with self._excused():
            self._open()

    @property
    def path(self) -> Path | None:
        """The file; None where the store keeps nothing."""
        return None if self.folder is None else self.folder / _FILE

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The results at hand among `keys`; a damaged one counts as absent."""
        wanted = list(dict.fromkeys(_checked_key(key) for key in keys))
        found: dict[bytes, bytes] = {}
        with self._excused():
            for part in _parts(wanted, _KEYS_AT_ONCE):
                found |= self._attempt(partial(_look_up, keys=part)) or {}
        return found

    def put(self, results: Mapping[bytes, bytes]) -> None:
        """Keeps results, in place of older ones under the same keys; on return a kill of the process loses none."""
        rows = []
        for key, value in results.items():
            if len(value) > self.max_bytes // 4:
                logger.warning("a result of %d bytes is too large for a store of %d bytes", len(value), self.max_bytes)
                continue
            rows.append((_checked_key(key), bytes(value), zlib.crc32(value, zlib.crc32(key)), int(time.time())))
        with self._excused():
            for part in _parts(rows, _WRITES_AT_ONCE):
                self._attempt(partial(_write, rows=part, max_bytes=self.max_bytes))

    def clear(self) -> None:
        """Forgets every result and gives their room back to the disk."""
        with self._excused():
            self._attempt(_forget)

    def __len__(self) -> int:
        with self._excused():
            return self._attempt(_count_results) or 0
        return 0

    def __bool__(self) -> bool:
        # an empty store is a store
        return True

    def close(self) -> None:
        """Closes the file; the store cannot be used afterwards."""
        with self._thread_lock:
            self._closed = True
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempt(self, action: Callable[[sqlite3.Connection], Part]) -> Part | None:
        """What `action` returns; on a damaged file it gets a second try with a new one. None where nothing is kept."""
        with self._thread_lock:
            if self._closed:
                raise ValueError("the result store is closed; open another one")
            if self.folder is None:
                return None
            # a connection must not cross a fork; and another process may have set the file aside, or a user removed it
            if self._connection is None or self._process != os.getpid() or _identity(self._file()) != self._identity:
                self._disconnect()
                self._open()
            try:
                return action(self._live())
            except (_DamagedStoreError, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.DatabaseError) and not _tells_of_damage(error):
                    raise
                self._set_aside(error)
                return action(self._live())

    def _live(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _open(self) -> None:
        """Connects; a file that is no store of this format goes aside first."""
        with self._folder_lock():
            self._connect_or_replace()

    def _set_aside(self, error: Exception) -> None:
        """After damage: connects to a new file, or to the one that another process has begun meanwhile."""
        seen = self._identity
        self._disconnect()
        with self._folder_lock():
            if seen is not None and _identity(self._file()) == seen:
                self._move_away(error)
            self._connect_or_replace()

    def _connect_or_replace(self) -> None:
        try:
            self._connect()
        except (_DamagedStoreError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.DatabaseError) and not _tells_of_damage(error):
                raise
            self._disconnect()
            self._move_away(error)
            self._connect()

    def _connect(self) -> None:
        path = self._file()
        self._process = os.getpid()
        # each statement is a transaction of its own unless one is begun
        connection = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT, isolation_level=None, check_same_thread=False)
        self._connection = connection
        with _transaction(connection):
            try:
                for table in _TABLES:
                    connection.execute(table)
            except UnicodeDecodeError as error:
                # of SQLite's own message, which names what is damaged
                raise _DamagedStoreError("the names of its tables are no text") from error
            connection.execute("INSERT OR IGNORE INTO about VALUES ('format', ?)", (_FORMAT,))
        version = connection.execute("SELECT value FROM about WHERE name = 'format'").fetchone()
        if version != (_FORMAT,):
            raise _DamagedStoreError(f"it says that its format is {version}, not {_FORMAT}")
        # only now, for it changes the file
        connection.execute("PRAGMA journal_mode=WAL")
        # a kill of the process loses nothing; a power cut may lose the last results, which can be computed again
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA journal_size_limit=4194304")
        self._identity = _identity(path)

    def _move_away(self, error: Exception) -> None:
        path = self._file()
        moment = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        aside = next(
            candidate
            for number in count(1)
            if not (candidate := path.with_name(f"{path.name}.damaged-{moment}-{number}")).exists()
        )
        os.replace(path, aside)
        for companion in _COMPANIONS:
            if os.path.exists(f"{path}{companion}"):
                os.replace(f"{path}{companion}", f"{aside}{companion}")
        logger.warning(
            "the result store %s is damaged (%s); it is now %s, and a new one is begun: delete the old one if nobody"
            " wants to look at it",
            path,
            error,
            aside.name,
        )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._process == os.getpid():
            connection.close()
        else:
            # after a fork it is the parent's: to close it here, or to let it be collected, would touch the file
            _connections_of_parents.append(connection)

    def _file(self) -> Path:
        assert self.folder is not None
        return self.folder / _FILE

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        """One process at a time opens or replaces the file: else one might set aside what another has just begun."""
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / _LOCK, timeout=_SECONDS_TO_WAIT):
            yield

    @contextmanager
    def _excused(self) -> Iterator[None]:
        """Turns what SQLite and the system say into a `ResultStoreError`, or into a warning where none is required."""
        try:
            yield
        except (sqlite3.Error, OSError, Timeout) as error:
            self._give_up(ResultStoreError(f"cannot use the result store {self.path}: {_explain(error)}"), error)

    def _give_up(self, failure: ResultStoreError, cause: Exception | None = None) -> None:
        with self._thread_lock:
            self._disconnect()
            if self._required:
                raise failure from cause
            logger.warning("%s; going on without it, so what is computed from here on is not kept", failure)
            self.folder = None


Row: TypeAlias = tuple[bytes, bytes, int, int]
"""Key, value, checksum, seconds since 1970 of the last use."""


def _look_up(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    marks = ",".join("?" * len(keys))
    rows = connection.execute(f"SELECT key, value, checksum, used FROM results WHERE key IN ({marks})", keys)
    found, damaged, stale = {}, [], []
    now = int(time.time())
    for key, value, checksum, used in rows:
        if not isinstance(key, bytes):
            raise _DamagedStoreError("its index names rows that have no key")
        if not isinstance(value, bytes) or not isinstance(used, int) or zlib.crc32(value, zlib.crc32(key)) != checksum:
            damaged.append((key,))
            continue
        found[key] = value
        if used < now - _USE_RESOLUTION:
            stale.append((now, key))
    if damaged:
        logger.warning("%d results in the store do not fit their checksums; they are made anew", len(damaged))
    if damaged or stale:
        with _transaction(connection):
            connection.executemany("DELETE FROM results WHERE key = ?", damaged)
            connection.executemany("UPDATE results SET used = ? WHERE key = ?", stale)
    return found


def _write(connection: sqlite3.Connection, rows: Sequence[Row], max_bytes: int) -> None:
    with _transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", rows)
        if _bytes_in_use(connection) > max_bytes:
            _forget_oldest(connection, max_bytes * 9 // 10)


def _forget_oldest(connection: sqlite3.Connection, max_bytes: int) -> None:
    """Until the pages in use, those of this transaction included, have `max_bytes`."""
    while _bytes_in_use(connection) > max_bytes and (num_results := _count_results(connection)):
        connection.execute(
            "DELETE FROM results WHERE rowid IN (SELECT rowid FROM results ORDER BY used, rowid LIMIT ?)",
            (max(1, num_results // 20),),
        )


def _bytes_in_use(connection: sqlite3.Connection) -> int:
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return (pages - free) * size


def _count_results(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM results").fetchone()[0])


def _forget(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM results")
    try:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        # another process reads; the room is used again by what comes next
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; waits for other processes that write."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # a full disk has ended the transaction already
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _parts(items: Sequence[Part], size: int) -> Iterator[Sequence[Part]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _checked_key(key: bytes) -> bytes:
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        got = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
        raise ValueError(f"a key has {KEY_BYTES} bytes (sha256(...).digest()), got {got}")
    return key


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of the same name; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _tells_of_damage(error: sqlite3.DatabaseError) -> bool:
    # the first is a table or column that is not there: a database of something else
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _explain(error: Exception) -> str:
    advice = {
        sqlite3.SQLITE_FULL: "the disk is full: free some room or name another folder",
        sqlite3.SQLITE_IOERR: "the disk refuses to write (full, over a quota or gone): free some room or name another",
        sqlite3.SQLITE_READONLY: "it may not be written: name another folder",
        sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: name a folder that can be written",
        sqlite3.SQLITE_BUSY: f"another process had it open for {_SECONDS_TO_WAIT:.0f} s",
    }
    words = advice.get(getattr(error, "sqlite_errorcode", -1) & 0xFF)
    if isinstance(error, OSError):
        words = "name a folder that can be written"
    return f"{words} ({error})" if words else str(error)
