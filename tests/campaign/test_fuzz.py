"""Damaged files of every kind: read or refused with a name, within ten seconds and two gigabytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign.fuzz import Figures, fuzz, open_sound
from tests.campaign.targets import Target, crystal_targets, other_targets, own_targets

FILES_OF_A_KIND = 150
FILES_OF_A_ROUND = 1150


@pytest.fixture(scope="module")
def targets(place: Path) -> list[Target]:
    folder = place / "sound"
    folder.mkdir()
    return [*crystal_targets(folder), *other_targets(), *own_targets(folder / "own")]


def test_a_damaged_file_is_read_or_refused_by_name(
    targets: list[Target], place: Path, factor: float, first_seed: int, kinds: list[str]
) -> None:
    tried = [target for target in targets if not kinds or target.name in kinds]
    assert len(tried) == (len(set(kinds)) or len(targets)), [target.name for target in targets]
    last = first_seed + round(FILES_OF_A_KIND * factor)
    all_figures = {target.name: Figures() for target in tried}
    for target in tried:
        open_sound(target, place / "fuzz")
    # in rounds, so that a campaign that is broken off has tried all kinds
    for start in range(first_seed, last, FILES_OF_A_ROUND):
        for target in tried:
            figures = all_figures[target.name]
            known = len(figures.examples)
            fuzz(target, range(start, min(start + FILES_OF_A_ROUND, last)), place / "fuzz", figures)
            print(f"{target.name}: {dict(figures.counts)}, {figures.foreign} of {figures.reasons} reasons foreign")
            for example in figures.examples[known:]:
                print(example)
    total = sum(figures.counts.total() for figures in all_figures.values())
    foreign = sum(figures.foreign for figures in all_figures.values())
    print(f"{total} files, {foreign} of {sum(figures.reasons for figures in all_figures.values())} reasons foreign")
    faults = [example for figures in all_figures.values() for example in figures.examples[:10]]
    assert not faults, "\n".join(faults)
