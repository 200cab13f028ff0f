"""Every command killed at its changes to files, and on a disk that is full: nothing lost, stuck or half-written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.commands import Command, commands
from tests.campaign.kills import fill, kill, some_places, unbroken

KILLS_OF_A_COMMAND = 6
FILLINGS_OF_A_COMMAND = 5
MEGABYTES = 24
NAMES = [command.name for command in commands(Path())]


def chosen(name: str, inputs: Path) -> Command:
    return next(command for command in commands(inputs) if command.name == name)


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_goes_on_to_the_same_end(name: str, inputs: Path, place: Path, factor: float) -> None:
    command = chosen(name, inputs)
    _, num_changes, _ = unbroken(command, place / "run", inputs)
    # what it changes in the first moment and in the last ones is where most is at stake
    places = some_places(num_changes, round(KILLS_OF_A_COMMAND * factor))
    figures = kill(command, place / "run", inputs, places)
    print(f"{name}: {num_changes} changes to files, {dict(figures.counts)}")
    assert figures.counts["gone on"] and not figures.num_faults, "\n".join(figures.examples[:5])


@pytest.fixture(scope="module")
def small_disk(place: Path) -> Iterator[Path]:
    folder = place / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system needs the right to mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_leaves_no_half_file(name: str, inputs: Path, place: Path, small_disk: Path, factor: float) -> None:
    command = chosen(name, inputs)
    truth, _, names = unbroken(command, place / "run", inputs)
    needed = sum(path.stat().st_size for path in (place / "run").rglob("*") if path.is_file()) + 65536
    num = round(FILLINGS_OF_A_COMMAND * factor)
    room = [round(needed * i / num) for i in range(num)]
    figures = fill(command, small_disk, inputs, room, truth, names)
    print(f"{name}: {needed} bytes needed, {dict(figures.counts)}")
    assert not figures.num_faults, "\n".join(figures.examples[:5])
