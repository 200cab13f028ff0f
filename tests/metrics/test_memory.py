"""Results that are kept: looked up, computed once, written as they come, and there after Ctrl-C and kills."""

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cdvae_kit.io.results.named_arrays import decode_arrays, encode_arrays
from cdvae_kit.io.results.store import ResultStore, ResultStoreError
from cdvae_kit.metrics.computing.parallel import Memory, crystal_key, map_crystals
from cdvae_kit.metrics.crystals import CrystalArrays, unusable

ROOT = Path(__file__).resolve().parents[2]
NUM_SLOW = 40


@dataclasses.dataclass(frozen=True)
class Counted:
    """A number whose square leaves a byte in a file each time that it is computed."""

    number: int
    calls: str
    seconds: float = 0.0


def square(item: Counted) -> np.ndarray:
    time.sleep(item.seconds)
    # bytes of several processes do not overwrite each other
    with open(item.calls, "ab") as file:
        file.write(b".")
    return np.array([item.number**2])


def number_key(item: Counted) -> bytes:
    return hashlib.sha256(str(item.number).encode()).digest()


def encode(result: np.ndarray) -> bytes:
    return encode_arrays({"square": result})


def decode(content: bytes) -> np.ndarray:
    return decode_arrays(content)[0]["square"]


def memory_in(store: ResultStore | None, kind: str = "square 1") -> Memory[Counted, np.ndarray]:
    return Memory(store, kind, number_key, encode, decode)


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResultStore]:
    with ResultStore(tmp_path / "store") as store:
        yield store


def num_calls(calls: Path) -> int:
    return calls.stat().st_size if calls.exists() else 0


def squares(numbers: list[int]) -> list[int]:
    return [number**2 for number in numbers]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_second_run_computes_only_what_is_new(store, calls, num_workers):
    first = [Counted(i, str(calls)) for i in range(40)]
    assert map_crystals(square, first, num_workers=num_workers, memory=memory_in(store)) == squares(list(range(40)))
    assert num_calls(calls) == len(store) == 40
    seen = []
    second = [Counted(i, str(calls)) for i in range(20, 50)]
    results = map_crystals(
        square,
        second,
        num_workers=num_workers,
        memory=memory_in(store),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert results == squares(list(range(20, 50)))
    assert num_calls(calls) == 50
    # what was kept counts at once
    assert seen[:2] == [(0, 30), (20, 30)] and seen[-1] == (30, 30) and seen == sorted(set(seen))


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("kept", [True, False])
def test_identical_items_are_computed_once(store, calls, num_workers, kept):
    numbers = [3, 1, 3, 3, 2, 1] * 5
    items = [Counted(number, str(calls)) for number in numbers]
    memory = memory_in(store if kept else None)
    seen = []
    results = map_crystals(
        square, items, num_workers=num_workers, memory=memory, progress=lambda done, total: seen.append(done)
    )
    assert results == squares(numbers)
    assert num_calls(calls) == 3 and seen[-1] == 30


def test_results_of_another_kind_are_not_mistaken(store, calls):
    items = [Counted(i, str(calls)) for i in range(5)]
    map_crystals(square, items, memory=memory_in(store, "square 1"))
    map_crystals(square, items, memory=memory_in(store, "square 2"))
    assert num_calls(calls) == len(store) == 10


def test_a_memory_needs_a_kind(store):
    with pytest.raises(ValueError, match="kind"):
        memory_in(store, " ")


def test_a_value_that_cannot_be_decoded_counts_as_absent(store, calls, caplog):
    items = [Counted(i, str(calls)) for i in range(5)]
    memory = memory_in(store)
    broken = {2: b"nonsense", 3: encode_arrays({"cube": np.array([27])})}
    store.put({memory.key_in_store(items[number]): content for number, content in broken.items()})
    assert map_crystals(square, items, memory=memory) == squares(list(range(5)))
    assert num_calls(calls) == 5 and caplog.text.count("made anew") == 2
    assert map_crystals(square, items, memory=memory) == squares(list(range(5)))
    assert num_calls(calls) == 5


def test_nothing_to_do_is_no_error(store):
    assert map_crystals(square, [], memory=memory_in(store)) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_keeps_what_was_computed_before_it(store, calls, num_workers):
    items = [Counted(i, str(calls)) for i in range(30)] + [Counted(-1, "/nowhere/calls")]
    with pytest.raises(FileNotFoundError):
        map_crystals(square, items, num_workers=num_workers, memory=memory_in(store))
    assert len(store) == 30


def test_a_store_that_cannot_be_written_is_an_error_and_hides_no_other_one(store, calls, monkeypatch, caplog):
    def refuse(results: object) -> None:
        raise ResultStoreError("the disk is full")

    monkeypatch.setattr(store, "put", refuse)
    with pytest.raises(ResultStoreError, match="disk is full"):
        map_crystals(square, [Counted(1, str(calls))], memory=memory_in(store))
    with pytest.raises(FileNotFoundError):
        map_crystals(square, [Counted(1, str(calls)), Counted(2, "/nowhere/calls")], memory=memory_in(store))
    assert "the last 1 results are not kept: the disk is full" in caplog.text


# Ctrl-C and kills


def run_slowly(folder: str, num_workers: str) -> None:
    """What the child processes of the tests below do; the first line says that work has begun."""
    with ResultStore(Path(folder) / "store") as store:
        items = [Counted(i, str(Path(folder) / "calls"), seconds=0.04) for i in range(NUM_SLOW)]
        results = map_crystals(
            square,
            items,
            num_workers=int(num_workers),
            memory=memory_in(store),
            progress=lambda done, total: say(str(done)),
        )
    assert [int(result[0]) for result in results] == squares(list(range(NUM_SLOW)))
    say("complete")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def start(folder: Path, num_workers: int) -> "subprocess.Popen[str]":
    # a test run in the background ignores Ctrl-C, and its children inherit that
    listen = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{listen}; from tests.metrics.test_memory import run_slowly; run_slowly(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(num_workers)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a group of its own, as a shell gives it: Ctrl-C reaches the workers too
        start_new_session=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_keeps_what_it_computed_and_goes_on(tmp_path, calls, num_workers, stop):
    with start(tmp_path, num_workers) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 15:
            pass
        os.killpg(process.pid, stop)
        done = [15, *(int(line) for line in process.stdout.read().splitlines())][-1]
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == -stop or "KeyboardInterrupt" in errors, errors
    with ResultStore(tmp_path / "store") as store:
        kept = len(store)
    # Ctrl-C writes what waits; a kill loses at most what half a second brought
    assert kept >= (done if stop == signal.SIGINT else done - 14 * num_workers)
    assert kept < NUM_SLOW
    before = num_calls(calls)
    with start(tmp_path, num_workers) as process:
        output, errors = process.communicate(timeout=60)
    assert output.splitlines()[-1] == "complete", errors
    assert str(kept) in output.splitlines()[1]
    assert num_calls(calls) - before == NUM_SLOW - kept


# Keys


def crystal(shift: float = 0.0, fault: str | None = None) -> CrystalArrays:
    return CrystalArrays(
        3.0 * np.eye(3), np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5 + shift]]), np.array([11, 17]), fault
    )


def test_the_key_of_a_crystal_depends_on_its_content_alone():
    plain = crystal()
    same = CrystalArrays(
        np.asfortranarray(plain.lattice) * [1, 1, 1],
        plain.frac_coords[::-1][::-1] * -1 * -1 - 0.0,
        plain.atomic_numbers.astype(np.int32),
    )
    negative_zero = dataclasses.replace(plain, frac_coords=np.array([[-0.0, 0.0, -0.0], [0.5, 0.5, 0.5]]))
    assert crystal_key(plain) == crystal_key(same) == crystal_key(negative_zero)
    assert len(crystal_key(plain)) == 32


def test_not_a_number_has_one_key():
    other = np.array([0x7FF8000000000001], dtype=np.uint64).view(np.float64)[0]
    assert np.isnan(other)
    assert crystal_key(crystal(np.nan)) == crystal_key(crystal(other)) != crystal_key(crystal())


def test_different_crystals_have_different_keys():
    plain = crystal()
    others = [
        crystal(np.spacing(0.5)),
        crystal(fault="no bonds"),
        dataclasses.replace(plain, lattice=3.1 * np.eye(3)),
        dataclasses.replace(plain, atomic_numbers=np.array([17, 11])),
        dataclasses.replace(plain, frac_coords=plain.frac_coords[:1], atomic_numbers=np.array([11])),
        unusable("it could not be read"),
        unusable("there is no atom"),
    ]
    assert len({crystal_key(each) for each in [plain, *others]}) == 8
