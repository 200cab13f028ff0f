"""Damaged files of every kind: read or refused with a name, within ten seconds and two gigabytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.fuzz import fuzz, open_sound
from tests.campaign.targets import Target, crystal_targets, other_targets, own_targets

FILES_OF_A_KIND = 150


@pytest.fixture(scope="module")
def targets(place: Path) -> list[Target]:
    folder = place / "sound"
    folder.mkdir()
    return [*crystal_targets(folder), *other_targets(), *own_targets(folder / "own")]


def test_a_damaged_file_is_read_or_refused_by_name(
    targets: list[Target], place: Path, factor: float, first_seed: int
) -> None:
    seeds = range(first_seed, first_seed + round(FILES_OF_A_KIND * factor))
    faults: list[str] = []
    total = foreign = reasons = 0
    for target in targets:
        open_sound(target, place / "fuzz")
        figures = fuzz(target, seeds, place / "fuzz")
        print(f"{target.name}: {dict(figures.counts)}, {figures.foreign} of {figures.reasons} reasons foreign")
        total += sum(figures.counts.values())
        foreign, reasons = foreign + figures.foreign, reasons + figures.reasons
        if figures.num_faults or figures.foreign:
            faults += figures.examples[:10]
    print(f"{total} files, {len(faults)} faults shown, {foreign} of {reasons} reasons foreign")
    assert not faults, "\n".join(faults)
