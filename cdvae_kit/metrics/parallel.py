"""One function over many crystals, in several processes, results in order and a report of how far it is.

What the function does with a bad crystal is its own affair: here nothing is caught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Progress: TypeAlias = Callable[[int, int], object]
"""Called with the number of crystals done and the number of all, in the calling process."""

# many chunks a worker even the load out, and each costs about a millisecond
_CHUNKS_PER_WORKER = 16
_LARGEST_CHUNK = 64


def map_crystals(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int = 1,
    progress: Progress | None = None,
) -> list[Result]:
    """`function` of every item, in order.

    Args:
        function: importable by name where there is more than one worker.
        items: what can be sent to another process.
        num_workers: processes; 1 stays in this one, -1 takes every core.
        progress: told after every chunk.
    """
    if num_workers == 0 or num_workers < -1:
        raise ValueError(f"num_workers must be a number of processes, or -1 for every core, got {num_workers}")
    results: list[Result] = []
    if progress is not None:
        progress(0, len(items))
    for chunk in _chunk_results(function, items, num_workers):
        results.extend(chunk)
        if progress is not None:
            progress(len(results), len(items))
    return results


def _chunk_results(
    function: Callable[[Item], Result], items: Sequence[Item], num_workers: int
) -> Iterator[list[Result]]:
    if num_workers == 1 or len(items) < 2:
        for item in items:
            yield [function(item)]
        return
    from joblib import Parallel, delayed, effective_n_jobs

    workers = min(effective_n_jobs(num_workers), len(items))
    size = max(1, min(_LARGEST_CHUNK, len(items) // (workers * _CHUNKS_PER_WORKER)))
    run = Parallel(n_jobs=workers, return_as="generator", batch_size=1)
    yield from run(delayed(_apply)(function, items[start : start + size]) for start in range(0, len(items), size))


def _apply(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
