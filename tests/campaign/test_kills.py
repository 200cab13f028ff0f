"""Every command killed at its changes to files, and on a disk that is full: nothing lost, stuck or half-written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.campaign.commands import commands
from tests.campaign.kills import Unbroken, fill, kill, rooms_of_every_write, some_places, some_times

KILLS_OF_A_COMMAND = 6
FILLINGS_OF_A_COMMAND = 5
MEGABYTES = 24
NAMES = [command.name for command in commands(Path())]


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_goes_on_to_the_same_end(
    name: str, ends: Callable[[str], Unbroken], inputs: Path, place: Path, factor: float, first_seed: int
) -> None:
    end = ends(name)
    # what it changes in the first moment and in the last ones is where most is at stake
    num = round(KILLS_OF_A_COMMAND * factor)
    places = some_places(end.num_changes, num, first_seed)
    # and, where it changes fewer files, at any time
    seconds = some_times(end, place / "run", inputs, num - len(places), first_seed)
    figures = kill(end, place / "run", inputs, places, seconds)
    print(
        f"{name}: {end.num_changes} changes to files, killed at {len(places)} of them and at {len(seconds)} times: "
        f"{dict(figures.counts)}",
        *figures.examples,
        sep="\n",
    )
    assert figures.counts["gone on"] and not figures.num_faults, "\n".join(figures.examples[:5])


@pytest.fixture(scope="module")
def small_disk(place: Path) -> Iterator[Path]:
    folder = place / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system needs the right to mount one: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_leaves_no_half_file(
    name: str, ends: Callable[[str], Unbroken], inputs: Path, small_disk: Path, factor: float
) -> None:
    end = ends(name)
    # where it is full at a change to a file is where most is at stake; a longer campaign takes all of these places
    rooms = rooms_of_every_write(end, small_disk, inputs)
    num = min(round(FILLINGS_OF_A_COMMAND * factor), len(rooms))
    chosen = sorted({rooms[round(i * (len(rooms) - 1) / max(num - 1, 1))] for i in range(num)})
    figures = fill(end, small_disk, inputs, chosen)
    print(f"{name}: full at {len(chosen)} of {len(rooms)} places, {dict(figures.counts)}", *figures.examples, sep="\n")
    assert not figures.num_faults, "\n".join(figures.examples[:5])
