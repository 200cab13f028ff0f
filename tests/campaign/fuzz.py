"""Damaged files of one kind after another, and what came of them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.campaign.forked import outcomes
from tests.campaign.mutations import mutated
from tests.campaign.targets import FOREIGN, Target


@dataclass
class Figures:
    """Counts of one kind of file.

    Attributes:
        counts: by what came of a file: read, refused, and the faults raw, hang, memory, died, silent, unnamed.
        foreign: reasons and refusals in the words of Python's insides.
        reasons: how many reasons there were.
        examples: of each fault, with the seed that makes the file again.
    """

    counts: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    reasons: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def num_faults(self) -> int:
        return sum(count for kind, count in self.counts.items() if kind not in ("read", "refused"))


def damaged_file(target: Target, seed: int) -> bytes:
    """The damaged file that a seed stands for."""
    random_ = random.Random(f"{target.name}-{seed}")
    return mutated(random_.choice(target.files), random_, target.files)


def open_sound(target: Target, folder: Path) -> None:
    """Opens the sound files, which must be read; forked processes then start with all that this has imported.

    Raises:
        AssertionError: one is not read, or a record of it is not.
    """
    for content in target.files:
        kind, reasons = _open_one(target, folder, content)
        assert kind == "read" and not reasons, f"{target.name}: a sound file is {kind}: {reasons}"


def fuzz(target: Target, seeds: range, folder: Path, figures: Figures) -> None:
    """Opens the damaged files of these seeds, each in an empty folder, and adds what came of them to the figures."""
    for seed, (kind, word) in zip(seeds, outcomes(partial(_open, target, folder), list(seeds)), strict=True):
        if kind == "done":
            kind, reasons = word
            foreign = [reason for reason in reasons if FOREIGN.search(reason)]
            figures.reasons += len(reasons)
            figures.foreign += len(foreign)
            if foreign:
                figures.examples.append(f"{target.name}, seed {seed}: foreign: {foreign[0][:200]}")
            word = reasons[:1]
        figures.counts[kind] += 1
        if kind not in ("read", "refused"):
            figures.examples.append(f"{target.name}, seed {seed}: {kind}: {word}")


def _open(target: Target, folder: Path, seed: int) -> tuple[str, list[str]]:
    return _open_one(target, folder, damaged_file(target, seed))


def _open_one(target: Target, folder: Path, content: bytes) -> tuple[str, list[str]]:
    """What came of it, and the reasons that were given."""
    place = folder / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    for name, written in {**target.beside, target.place: content}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(written)
    try:
        found = target.read(place)
    except target.refusals as error:
        return ("refused" if str(place) in str(error) else "unnamed"), [str(error)]
    if target.truth is None:
        return "read", list(found)
    return ("read" if found in target.truth else "silent"), []
