"""Commands that are killed, or whose disk is full, and what the next try makes of what they left."""

from __future__ import annotations

import csv
import json
import random
import re
import resource
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.numpy

from tests.campaign.commands import KILLED, Command, files_in, run

PAGE = 4096
"""Bytes by which a file in memory grows."""


@dataclass
class Figures:
    """Counts of one command.

    Attributes:
        counts: by how a try ended: "gone on", and the faults lost, stuck, left behind, traceback, half-written, and not
            named.
        examples: of each fault.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    @property
    def num_faults(self) -> int:
        return sum(count for kind, count in self.counts.items() if kind != "gone on")

    def add(self, kind: str, example: str) -> None:
        self.counts[kind] += 1
        if kind != "gone on":
            self.examples.append(f"{kind}: {example}")


def prepared(folder: Path, inputs: Path) -> Path:
    """An empty folder with what commands look for where they run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(inputs / "judges.py", folder)
    return folder


class Unbroken(NamedTuple):
    """A command to which nothing happens.

    Attributes:
        command: what is run.
        truth: what it leaves.
        num_changes: how often it changes a file.
        names: of the files that it leaves.
    """

    command: Command
    truth: Any
    num_changes: int
    names: list[str]


def unbroken(command: Command, folder: Path, inputs: Path) -> Unbroken:
    """Runs the command and lets nothing happen to it."""
    prepared(folder, inputs)
    found = run(command.words, folder, keep_imports=True)
    if found.code:
        raise RuntimeError(f"{command.name} ended with {found.code}: {found.said[-2000:]}")
    return Unbroken(command, command.left(folder), found.num_changes, list(files_in(folder)))


def some_places(num_changes: int, num: int, seed: int) -> list[int]:
    """So many of the places at which a command can be killed: evenly for seed 0, else drawn."""
    if seed:
        return sorted(random.Random(seed).sample(range(num_changes), min(num, num_changes)))
    return sorted({round(i * (num_changes - 1) / max(num - 1, 1)) for i in range(num)})


def some_times(end: Unbroken, folder: Path, inputs: Path, num: int, seed: int) -> list[float]:
    """So many times at which the command can be killed, drawn between its start and its end, in processor seconds."""
    if not num:
        return []
    prepared(folder, inputs)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(end.command.words, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    random_ = random.Random(seed)
    return sorted(seconds * random_.random() for _ in range(num))


def kill(end: Unbroken, folder: Path, inputs: Path, places: Sequence[int], seconds: Sequence[float] = ()) -> Figures:
    """Kills the command at these changes to files, and after these times, and goes on each time."""
    command = end.command
    figures = Figures()
    points: Iterator[dict[str, Any]] = iter([{"kill_at": p} for p in places] + [{"kill_after": s} for s in seconds])
    for point in points:
        prepared(folder, inputs)
        broken = run(command.words, folder, **point)
        if broken.code == KILLED:
            _go_on(end, folder, f"{command.name}, {point}", figures)
    return figures


def _go_on(end: Unbroken, folder: Path, what: str, figures: Figures) -> None:
    """Goes on after a kill as a user would: as before, or with the option that the refusal names."""
    command = end.command
    before = list(files_in(folder))
    again = run(command.words, folder)
    if again.code == 2 and ("--resume" in again.said or "overwriting" in again.said or "resume=True" in again.said):
        option = command.go_on or ("--overwrite",)
        again = run((*command.words, *option), folder)
    told = f"{what}; left {before}; said {again.said[-300:]!r}"
    if "Traceback" in again.said or again.code == 99:
        figures.add("traceback", told)
    elif again.code:
        figures.add("stuck", f"{told}, exit code {again.code}")
    elif command.left(folder) != end.truth:
        figures.add("lost", told)
    elif list(files_in(folder)) != end.names:
        figures.add("left behind", f"{told}; {sorted(set(files_in(folder)) ^ set(end.names))}")
    else:
        figures.add("gone on", told)


def rooms_of_every_write(end: Unbroken, folder: Path, inputs: Path) -> list[int]:
    """Bytes of room with which the disk is full at each change to a file, and half way between it and the next.

    Args:
        end: the command.
        folder: where the small file system is mounted.
        inputs: see `commands`.
    """
    _emptied(folder, inputs)
    before = shutil.disk_usage(folder).used
    record = folder.parent / "taken"
    found = run(end.command.words, folder, used=record)
    if found.code:
        raise RuntimeError(f"{end.command.name} needs a larger file system, it ended with {found.code}: {found.said}")
    taken = [int(line) - before for line in record.read_text().split()] + [shutil.disk_usage(folder).used - before]
    rooms = {max(0, room) // PAGE * PAGE for room in taken}
    rooms |= {max(0, (first + second) // 2) // PAGE * PAGE for first, second in pairwise(taken)}
    return sorted(rooms)


def _emptied(folder: Path, inputs: Path) -> None:
    for child in folder.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    shutil.copy(inputs / "judges.py", folder)


def fill(end: Unbroken, folder: Path, inputs: Path, room: Sequence[int]) -> Figures:
    """Runs the command in a small file system with so many bytes of room, then with all of it.

    Args:
        end: the command.
        folder: where the small file system is mounted.
        inputs: see `commands`.
        room: bytes that are free, one try each.
    """
    command = end.command
    figures = Figures()
    for num_bytes in room:
        _emptied(folder, inputs)
        filler = folder / "filler"
        size = shutil.disk_usage(folder).free - num_bytes
        filler.write_bytes(bytes(max(size, 0)))
        broken = run(command.words, folder)
        filler.unlink()
        what = f"{command.name}, {num_bytes} bytes of room"
        half = _half_written(end, folder, broken.code)
        if "Traceback" in broken.said or broken.code == 99:
            figures.add("traceback", f"{what}; said {broken.said[-600:]!r}")
        elif half:
            figures.add("half-written", f"{what}: {half}")
        elif broken.code and str(folder) not in broken.said and not re.search(r"\bout\b", broken.said):
            figures.add("not named", f"{what}; said {broken.said[-300:]!r}")
        elif broken.code:
            _go_on(end, folder, what, figures)
        else:
            figures.add("gone on", what)
    return figures


def _half_written(end: Unbroken, folder: Path, code: int) -> str:
    """What is wrong with the files under their final names; "" for nothing."""
    command = end.command
    if code == 0:
        return "" if command.left(folder) == end.truth else "it said that all was well"
    for path in (folder / name for name in end.names):
        if path.is_file() and (reason := why_not_whole(path)):
            return f"{path.relative_to(folder)}: {reason}"
    for output in folder.glob("out.*"):
        if output.suffix == ".jsonl":
            continue
        try:
            found = command.left(folder)
        except Exception as error:  # noqa: BLE001 - whatever stops it from being read
            return f"{output.name}: {error}"
        # a full disk ends sampling early, with a whole file of fewer crystals
        if found != end.truth and command.name != "sample":
            return f"{output.name} has other content"
    return ""


def why_not_whole(path: Path) -> str:
    """What shows that a file is not whole, by the rules of its kind; "" for nothing."""
    if path.suffix == ".jsonl":
        # a line at a time, and a last one that is cut short is left out
        return ""
    content = path.read_bytes()
    try:
        match path.suffix:
            case ".json":
                json.loads(content)
            case ".csv":
                rows = list(csv.reader(content.decode().splitlines()))
                if not content.endswith(b"\n") or len({len(row) for row in rows}) != 1:
                    return "rows are missing or cut short"
            case ".html":
                return "" if content.rstrip().endswith(b"</html>") else "has no end"
            case ".png":
                return "" if content.endswith(b"IEND\xaeB`\x82") else "has no end"
            case ".safetensors":
                safetensors.numpy.load(content)
    except Exception as error:  # noqa: BLE001 - whatever stops it from being read
        return f"{type(error).__name__}: {error}"
    return ""
