"""Commands that are killed, or whose disk is full, and what the next try makes of what they left."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign.commands import Command, files_in, run

KILLED = -9


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


def unbroken(command: Command, folder: Path, inputs: Path) -> tuple[Any, int, list[str]]:
    """What the command leaves when nothing happens, how many changes to files it makes, and the names of its files."""
    prepared(folder, inputs)
    found = run(command.words, folder)
    if found.code:
        raise RuntimeError(f"{command.name} ended with {found.code}: {found.said[-2000:]}")
    return command.left(folder), found.num_changes, list(files_in(folder))


def some_places(num_changes: int, num: int) -> list[int]:
    """So many of the places at which a command can be killed, evenly."""
    return sorted({round(i * (num_changes - 1) / max(num - 1, 1)) for i in range(num)})


def kill(command: Command, folder: Path, inputs: Path, places: Sequence[int], seconds: Sequence[float] = ()) -> Figures:
    """Kills the command at these changes to files, and after these times, and goes on each time."""
    truth, _, names = unbroken(command, folder, inputs)
    figures = Figures()
    points: Iterator[dict[str, Any]] = iter([{"kill_at": p} for p in places] + [{"kill_after": s} for s in seconds])
    for point in points:
        prepared(folder, inputs)
        broken = run(command.words, folder, **point)
        what = f"{command.name}, {point}"
        if broken.code == KILLED:
            _go_on(command, folder, truth, names, what, figures)
    return figures


def _go_on(command: Command, folder: Path, truth: Any, names: list[str], what: str, figures: Figures) -> None:
    """Goes on after a kill as a user would: as before, or with the option that the refusal names."""
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
    elif command.left(folder) != truth:
        figures.add("lost", told)
    elif list(files_in(folder)) != names:
        figures.add("left behind", f"{told}; {sorted(set(files_in(folder)) ^ set(names))}")
    else:
        figures.add("gone on", told)


def fill(command: Command, folder: Path, inputs: Path, room: Sequence[int], truth: Any, names: list[str]) -> Figures:
    """Runs the command in a small file system with so many bytes of room, then with all of it.

    Args:
        command: to run.
        folder: where the small file system is mounted.
        inputs: see `commands`.
        room: bytes that are free, one try each.
        truth: what the command leaves when nothing happens.
        names: of the files then.
    """
    figures = Figures()
    for num_bytes in room:
        for child in folder.iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        shutil.copy(inputs / "judges.py", folder)
        filler = folder / "filler"
        size = shutil.disk_usage(folder).free - num_bytes
        filler.write_bytes(bytes(max(size, 0)))
        broken = run(command.words, folder)
        filler.unlink()
        what = f"{command.name}, {num_bytes} bytes of room"
        half = _half_written(command, folder, truth, broken.code)
        if "Traceback" in broken.said or broken.code == 99:
            figures.add("traceback", f"{what}; said {broken.said[-600:]!r}")
        elif half:
            figures.add("half-written", f"{what}: {half}")
        elif broken.code and str(folder) not in broken.said and "out" not in broken.said:
            figures.add("not named", f"{what}; said {broken.said[-300:]!r}")
        elif broken.code:
            _go_on(command, folder, truth, names, what, figures)
        else:
            figures.add("gone on", what)
    return figures


def _half_written(command: Command, folder: Path, truth: Any, code: int) -> str:
    """What is wrong with the files under their final names; "" for nothing."""
    if code == 0:
        return "" if command.left(folder) == truth else "it said that all was well"
    for output in folder.glob("out.*"):
        if output.suffix == ".jsonl":
            continue
        try:
            found = command.left(folder)
        except Exception as error:  # noqa: BLE001 - whatever stops it from being read
            return f"{output.name}: {error}"
        # a full disk ends sampling early, with a whole file of fewer crystals
        if found != truth and command.name != "sample":
            return f"{output.name} has other content"
    return ""
