"""Work in processes of their own, which may hang, fill the memory or die."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

SECONDS, PATIENCE = 10.0, 120.0
BYTES = 2 * 2**30


class Outcome(NamedTuple):
    """How one piece of work ended.

    Attributes:
        kind: "done", "raw" (an exception that nobody should see), "hang", "memory" or "died".
        word: what the work returned; of an exception its class, message and place.
    """

    kind: str
    word: Any


class _TooLongError(BaseException):
    pass


def outcomes(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Outcome]:
    """What `work` gives for each item, in forked processes that get `SECONDS` of processor and `BYTES` for one."""
    context = multiprocessing.get_context("fork")
    next_item = 0
    while next_item < len(items):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work, items[next_item:]))
        process.start()
        theirs.close()
        while next_item < len(items):
            if not _answers(ours, process.pid):
                process.kill()
                yield Outcome("hang", "")
                next_item += 1
                break
            try:
                outcome = ours.recv()
            except EOFError:
                process.join()
                yield Outcome("died", process.exitcode)
                next_item += 1
                break
            yield outcome
            next_item += 1
        process.kill()
        process.join()
        ours.close()


def _answers(ours: Connection, pid: int | None) -> bool:
    """Waits for an answer, of work in C that does not see the alarm, or waits, on a processor that is shared."""
    start = latest = _seconds_used(pid)
    while not ours.poll(PATIENCE):
        used = _seconds_used(pid)
        if used - latest < 0.1 or used - start > 2 * SECONDS:
            return False
        latest = used
    return True


def _seconds_used(pid: int | None) -> float:
    """The processor's time that a process has had so far."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(to: Connection, work: Callable[[Any], Any], items: Sequence[Any]) -> None:
    def stop(number: int, frame: object) -> None:
        raise _TooLongError

    # the time of the processor: a machine may be busy with other work
    signal.signal(signal.SIGPROF, stop)
    # what the package prints of damage is not what is looked at here
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # what the parent has made is neither searched for garbage again and again nor copied for it
    gc.freeze()
    limit = _bytes_now() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for item in items:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            outcome = Outcome("done", work(item))
        except _TooLongError:
            outcome = Outcome("hang", "")
        except MemoryError:
            outcome = Outcome("memory", "")
        except Exception as error:  # noqa: BLE001 - whatever comes is what is counted
            place = traceback.extract_tb(error.__traceback__)[-1]
            word = f"{type(error).__name__}: {str(error)[:200]} ({os.path.basename(place.filename)}:{place.lineno})"
            outcome = Outcome("memory" if "allocate memory" in str(error) else "raw", word)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        to.send(outcome)
    to.close()


def _bytes_now() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
