"""One function over many crystals, in several processes, with what is known kept on the disk.

Results come in order whatever the order in which they were computed. What the function does with a bad crystal is its
own affair: an error of it ends the call, once the results that were under way are in; the death of a process is caught.
Where the processes are, on this machine or on a cluster,
is in `cluster`.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

import numpy as np

from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from joblib import Parallel

    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.metrics.crystals import CrystalArrays

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

context_workers: ContextVar[int | None] = ContextVar("context_workers", default=None)
"""Set by `cluster.workers`: what a call that asks for one worker gets."""

# a chunk costs about a millisecond, and a kill loses at most one a worker
_SECONDS_A_CHUNK = 0.5
_GROWTH = 4
_SECONDS_BETWEEN_WRITES = 0.5
_RESULTS_A_WRITE = 500
_LOOK_UPS_AT_ONCE = 1_000
_CHUNKS_A_GROUP = 4
# of `decode`: a value that it cannot read is computed again
_DECODING_ERRORS = (ValueError, LookupError, TypeError)


class WorkerLostError(RuntimeError):
    """Processes that computed died again and again: out of memory, killed, or crashed in compiled code."""


@dataclass(frozen=True)
class Memory(Generic[Item, Result]):
    """How results of one function are kept.

    Attributes:
        store: where; None keeps nothing, but computes items of one key once.
        kind: name and version of the function and of all options that change its result ("fingerprint 1").
        key: digest of an item's content; `crystal_key` for a crystal.
        encode: a result as bytes, `cdvae_kit.io.results.named_arrays` helps; nothing is ever unpickled.
        decode: the same back; a ValueError, LookupError or TypeError of it counts as nothing kept.
    """

    store: ResultStore | None
    kind: str
    key: Callable[[Item], bytes]
    encode: Callable[[Result], bytes]
    decode: Callable[[bytes], Result]

    def __post_init__(self) -> None:
        if not self.kind.strip():
            raise ValueError("a memory needs a kind: the name and version of the function whose results it keeps")

    def key_in_store(self, item: Item) -> bytes:
        """32 bytes that no result of another kind has."""
        return hashlib.sha256(self.kind.encode() + b"\0" + self.key(item)).digest()


def crystal_key(crystal: CrystalArrays) -> bytes:
    """SHA-256 of lattice, fractional coordinates, atomic numbers and fault; the same on every machine.

    The order of atoms and the choice of the cell count: a result may depend on both.

    >>> from cdvae_kit.metrics.crystals import CrystalArrays
    >>> import numpy as np
    >>> silicon = CrystalArrays(3.0 * np.eye(3), np.zeros((1, 3)), np.array([14]))
    >>> crystal_key(silicon).hex()[:8]
    '41155695'
    """
    digest = hashlib.sha256(f"{len(crystal.atomic_numbers)} {crystal.fault!r}".encode())
    for array in (crystal.lattice, crystal.frac_coords):
        plain = np.ascontiguousarray(array, dtype="<f8") + 0.0  # -0.0 becomes 0.0
        # NaN has many bit patterns
        digest.update(np.where(np.isnan(plain), np.nan, plain).tobytes())
    digest.update(np.ascontiguousarray(crystal.atomic_numbers, dtype="<i8").tobytes())
    return digest.digest()


def map_crystals(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int = 1,
    progress: Progress | None = None,
    memory: Memory[Item, Result] | None = None,
) -> list[Result]:
    """`function` of every item, in order.

    With a `memory`, what its store knows is looked up, the rest is computed, once for identical items, and kept as it
    comes: after Ctrl-C or a kill a second call goes on from there. A worker process that dies costs a warning and a
    second try; if one dies again, `WorkerLostError` says which crystals it may have been.

    Args:
        function: importable by name where there is more than one worker.
        items: what can be sent to another process.
        num_workers: processes; 1 stays in this one, -1 takes every core. Within `cluster.workers` 1 means as many as
            that says, and on a Dask cluster any other number means every core of it.
        progress: told after every chunk, and at once of what the store knew.
        memory: what is known already and how to keep what is not.
    """
    if num_workers == 0 or num_workers < -1:
        raise ValueError(f"num_workers must be a number of processes, or -1 for every core, got {num_workers}")
    tally: _Tally[Result] = _Tally(len(items), progress)
    indices_of = _indices_by_key(items, memory)
    keys = {indices[0]: key for key, indices in indices_of.items()}
    for key, result in _recalled(list(indices_of), memory):
        tally.add(indices_of[key], result)
        del keys[indices_of[key][0]]
    tally.report()
    keeper = _Keeper(memory)
    with closing(_computed(function, items, list(keys), num_workers)) as parts:
        try:
            for part in parts:
                for index, result in part:
                    keeper.add(keys[index], result)
                    tally.add(indices_of[keys[index]], result)
                keeper.write_now_and_then()
                tally.report()
        except BaseException:
            keeper.rescue()
            raise
    keeper.write()
    return tally.results


class _Tally(Generic[Result]):
    """Results in the order of the items, and a report whenever more are there."""

    def __init__(self, num_items: int, progress: Progress | None) -> None:
        # every index is filled at the end
        self.results: list[Result] = [cast(Result, None)] * num_items
        self._progress = progress
        self._done = 0
        self._reported = -1
        self.report()

    def add(self, indices: Sequence[int], result: Result) -> None:
        for index in indices:
            self.results[index] = result
        self._done += len(indices)

    def report(self) -> None:
        if self._progress is not None and self._done != self._reported:
            self._reported = self._done
            self._progress(self._done, len(self.results))


class _Keeper(Generic[Item, Result]):
    """Results on their way to the store: few writes, and little to lose."""

    def __init__(self, memory: Memory[Item, Result] | None) -> None:
        self._memory = memory
        self._waiting: dict[bytes, bytes] = {}
        self._last_write = time.monotonic()

    def add(self, key: bytes, result: Result) -> None:
        if self._memory is not None and self._memory.store is not None:
            self._waiting[key] = self._memory.encode(result)

    def write_now_and_then(self) -> None:
        late = time.monotonic() - self._last_write > _SECONDS_BETWEEN_WRITES
        if late or len(self._waiting) >= _RESULTS_A_WRITE:
            self.write()

    def write(self) -> None:
        if self._waiting and self._memory is not None and self._memory.store is not None:
            self._memory.store.put(self._waiting)
        self._waiting = {}
        self._last_write = time.monotonic()

    def rescue(self) -> None:
        """Writes what waits, while another error or Ctrl-C is on its way and must not be hidden by this one."""
        try:
            self.write()
        except OSError as error:
            logger.warning("the last %d results are not kept: %s", len(self._waiting), error)


def _indices_by_key(items: Sequence[Item], memory: Memory[Item, Result] | None) -> dict[bytes, list[int]]:
    """Where each different item stands; without a memory all are different."""
    if memory is None:
        return {index.to_bytes(8, "little"): [index] for index in range(len(items))}
    indices: dict[bytes, list[int]] = {}
    for index, item in enumerate(items):
        indices.setdefault(memory.key_in_store(item), []).append(index)
    return indices


def _recalled(keys: Sequence[bytes], memory: Memory[Item, Result] | None) -> Iterator[tuple[bytes, Result]]:
    """What the store knows, by key."""
    if memory is None or memory.store is None:
        return
    for start in range(0, len(keys), _LOOK_UPS_AT_ONCE):
        for key, content in memory.store.get(keys[start : start + _LOOK_UPS_AT_ONCE]).items():
            try:
                result = memory.decode(content)
            except _DECODING_ERRORS as error:
                logger.warning("a kept result of %r cannot be read (%s) and is made anew", memory.kind, error)
                continue
            yield key, result


def _computed(
    function: Callable[[Item], Result], items: Sequence[Item], indices: Sequence[int], num_workers: int
) -> Generator[list[tuple[int, Result]], None, None]:
    """Some indices with their results at a time, in any order; a second try for those that a dead process had."""
    workers = _num_processes(num_workers, len(indices))
    if workers == 1:
        for index in indices:
            yield [(index, function(items[index]))]
        return
    left = dict.fromkeys(indices)
    for attempt in (1, 2):
        chunks = _Chunks(list(left), workers, largest=None if attempt == 1 else 1)
        try:
            for part in _in_parallel(function, items, chunks, workers):
                for index, _ in part:
                    del left[index]
                yield part
            return
        except _signs_of_death() as error:
            told = f"a worker process died (out of memory, killed, or a crash in compiled code), {len(left)} crystals"
            if attempt == 2 or isinstance(error, WorkerLostError):
                # dealt out in order, so that those on their way when it died are the first that are left
                suspects = ", ".join(str(index) for index in islice(left, _CHUNKS_A_GROUP * workers))
                raise WorkerLostError(
                    f"{told} are left; it may have been one of {suspects} (counted from 0): look at these, or try"
                    f" fewer workers or more memory"
                ) from error
            logger.warning("%s before the end: trying these again, once and one at a time", told)


def _signs_of_death() -> tuple[type[Exception], ...]:
    """What a backend raises when it lost a process that computed."""
    signs: tuple[type[Exception], ...] = (BrokenProcessPool, WorkerLostError)
    ray = sys.modules.get("ray")
    return signs if ray is None else (*signs, ray.exceptions.RayActorError)


def _num_processes(num_workers: int, num_items: int) -> int:
    asked = (context_workers.get() or 1) if num_workers == 1 else num_workers
    if asked == 1 or num_items < 2:
        return 1
    from joblib import effective_n_jobs

    # a cluster answers with its cores
    return min(int(effective_n_jobs(asked)), num_items)


class _Chunks:
    """Deals out indices, as many at once as take half a second; few when little is left, to even the load out."""

    def __init__(self, indices: Sequence[int], workers: int, *, largest: int | None) -> None:
        self._indices = indices
        self._workers = workers
        self._largest = largest
        self._start = 0
        self._size = 1
        self._is_over = False

    def __iter__(self) -> Iterator[Sequence[int]]:
        return self

    def __next__(self) -> Sequence[int]:
        left = len(self._indices) - self._start
        if left == 0 or self._is_over:
            raise StopIteration
        size = max(1, min(self._size, self._largest or left, left // (2 * self._workers)))
        self._start += size
        return self._indices[self._start - size : self._start]

    def learn(self, num_items: int, seconds: float) -> None:
        """That a chunk of so many items took so long."""
        fitting = int(_SECONDS_A_CHUNK * num_items / max(seconds, 1e-6))
        self._size = max(1, min(fitting, _GROWTH * max(num_items, self._size)))

    def end(self) -> None:
        """Deals out nothing more."""
        self._is_over = True


@dataclass(frozen=True)
class _Fault:
    """An error of the function, on its way from another process."""

    error: Exception
    traceback: str


Task: TypeAlias = tuple[Callable[[Item], Result], Sequence[int], Sequence[Item]]
Done: TypeAlias = tuple[list[tuple[int, Result]], float, _Fault | None]
"""Indices with their results, the seconds that they took, and what ended the chunk before its time."""


def _in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], chunks: _Chunks, workers: int
) -> Iterator[list[tuple[int, Result]]]:
    """The chunks' results as they come, by whatever backend of joblib is the current one.

    After an error nothing more is dealt out, and it is raised when all that was dealt out before has come in.
    """
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    # one tuple: of a large argument that stands alone Dask keeps the only copy on one worker, and loses it with that
    tasks = (delayed(_apply)((function, chunk, [items[index] for index in chunk])) for chunk in chunks)
    backend, _ = get_active_backend()
    if getattr(backend, "supports_return_generator", False):
        answers = iter(Parallel(n_jobs=workers, batch_size=1, return_as="generator_unordered")(tasks))
    else:
        answers = _in_groups(Parallel(n_jobs=workers, batch_size=1), tasks, _CHUNKS_A_GROUP * workers)
    fault: _Fault | None = None
    for done, seconds, failed in answers:
        if failed is not None:
            chunks.end()
            fault = fault or failed
        elif done:
            chunks.learn(len(done), seconds)
        yield done
    if fault is not None:
        fault.error.add_note(f"in another process:\n{fault.traceback}")
        raise fault.error


def _in_groups(parallel: Parallel, tasks: Iterator[Any], size: int) -> Iterator[Done]:
    """For backends that give nothing before all is done (Ray, multiprocessing): a little at a time."""
    with parallel as run:
        while group := list(islice(tasks, size)):
            yield from run(group)


def _apply(task: Task[Item, Result]) -> Done[Result]:
    function, indices, items = task
    start = time.perf_counter()
    done: list[tuple[int, Result]] = []
    fault = None
    for index, item in zip(indices, items, strict=True):
        try:
            done.append((index, function(item)))
        except Exception as error:  # noqa: BLE001 - somebody else's function may raise anything
            fault = _Fault(_portable(error), traceback.format_exc())
            break
    return done, time.perf_counter() - start, fault


def _portable(error: Exception) -> Exception:
    """The error, or one that tells of it where it cannot be sent to another process."""
    try:
        # by the same steps as sending does: taken apart, and made anew from its arguments
        copy.deepcopy(error)
    except Exception:  # noqa: BLE001 - somebody else's error may do anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
