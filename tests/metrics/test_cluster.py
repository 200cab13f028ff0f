"""Work on a cluster: two Dask workers on the loopback, one of them killed; what is said when there is no cluster."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdvae_kit.io.results.store import ResultStore
from cdvae_kit.metrics.computing.cluster import workers
from cdvae_kit.metrics.computing.parallel import Memory, map_crystals
from tests.metrics.test_memory import Counted, memory_in, num_calls, square, squares

ROOT = Path(__file__).resolve().parents[2]
has_ray = importlib.util.find_spec("ray") is not None


def slow_square_and_process(number: int) -> tuple[int, int]:
    time.sleep(0.01)
    return number**2, os.getpid()


def kill_own_process(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise ValueError(f"crystal {number} is refused")


def test_a_killed_dask_worker_loses_nothing(dask_cluster):
    from dask.distributed import Client

    killed = []

    def kill_one(done: int, total: int) -> None:
        if done >= 40 and not killed:
            # the processes of the workers, not of the nannies that watch over them
            with Client(dask_cluster.scheduler_address, set_as_default=False) as client:
                killed.extend(list(client.run(os.getpid).values())[:1])
            os.kill(killed[0], signal.SIGKILL)

    with workers("dask", address=dask_cluster.scheduler_address):
        answers = map_crystals(slow_square_and_process, range(200), progress=kill_one)
    assert [result for result, _ in answers] == [slow_square_and_process(i)[0] for i in range(200)]
    processes = [process for _, process in answers]
    assert killed[0] in processes and os.getpid() not in processes and len(set(processes)) >= 2


def test_a_cluster_that_is_named_is_used_whole_whatever_the_number_of_workers_says(dask_cluster):
    """One worker is what commands ask for by default: everything was computed here, and nobody was told."""
    with workers("dask", address=dask_cluster.scheduler_address, num_workers=1):
        answers = map_crystals(slow_square_and_process, range(200))
    assert os.getpid() not in {process for _, process in answers}


def test_what_a_cluster_computed_is_kept_by_the_caller(dask_cluster, tmp_path):
    calls = tmp_path / "calls"
    items = [Counted(i % 50, str(calls)) for i in range(100)]
    with ResultStore(tmp_path / "store") as store:
        with workers("dask", address=dask_cluster.scheduler_address):
            results = map_crystals(square, items, memory=memory_in(store))
        assert results == squares([i % 50 for i in range(100)]) and len(store) == 50
        assert map_crystals(square, items, memory=memory_in(store)) == results
    assert num_calls(calls) == 50


def test_an_error_of_the_function_comes_back_from_a_cluster(dask_cluster):
    with (
        workers("dask", address=dask_cluster.scheduler_address),
        pytest.raises(ValueError, match=r"crystal \d is refused"),
    ):
        map_crystals(refuse, range(4))


KILLER = """
from cdvae_kit.metrics.computing.cluster import workers
from cdvae_kit.metrics.computing.parallel import WorkerLostError, map_crystals
from tests.metrics.test_cluster import kill_own_process
if __name__ == "__main__":
    with workers(BACKEND, num_workers=2):
        try:
            map_crystals(kill_own_process, range(30))
        except WorkerLostError as error:
            print("told:", error)
"""


@pytest.mark.parametrize(
    "backend",
    [
        "processes",
        pytest.param(
            "dask",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="dask is not installed"),
            ],
        ),
        pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.skipif(not has_ray, reason="ray is not installed")]),
    ],
)
def test_a_crystal_that_kills_every_worker_ends_the_call_with_its_suspects(tmp_path, backend):
    """joblib's own Dask backend waits for such a task forever: hence a process with a time limit."""
    script = tmp_path / "killer.py"
    script.write_text(KILLER.replace("BACKEND", repr(backend)))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("told:")]
    assert len(told) == 1, done.stderr
    assert "5" in told[0].split("one of ")[1].split(" (")[0].split(", ")


def die_once(item: tuple[int, str]) -> int:
    number, mark = item
    if number == 5 and not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def number_of(item: tuple[int, str]) -> bytes:
    return str(item[0]).encode()


def test_a_process_that_dies_once_costs_a_warning(tmp_path, caplog):
    items = [(i, str(tmp_path / "mark")) for i in range(30)]
    seen = []
    with ResultStore(tmp_path / "store") as store:
        memory = Memory(store, "number 1", number_of, lambda number: str(number).encode(), int)
        results = map_crystals(
            die_once, items, num_workers=2, memory=memory, progress=lambda done, total: seen.append(done)
        )
        assert results == list(range(30)) and len(store) == 30
    assert caplog.text.count("a worker process died") == 1
    assert seen == sorted(set(seen)) and seen[-1] == 30


@pytest.mark.slow
@pytest.mark.skipif(not has_ray, reason="ray is not installed")
def test_ray_gives_the_same_results():
    with workers("ray", num_workers=2):
        answers = map_crystals(slow_square_and_process, range(50))
    assert [result for result, _ in answers] == [i**2 for i in range(50)]
    assert os.getpid() not in {process for _, process in answers}


def test_within_the_context_one_worker_means_its_workers_and_afterwards_one():
    with workers("processes", num_workers=2):
        inside = {process for _, process in map_crystals(slow_square_and_process, range(20))}
    outside = {process for _, process in map_crystals(slow_square_and_process, range(5))}
    assert os.getpid() not in inside and outside == {os.getpid()}


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("cdvae_kit.metrics.computing.cluster.find_spec", lambda name: None)
    for backend in ("dask", "ray"):
        with pytest.raises(ModuleNotFoundError, match=rf"cdvae-kit\[{backend}\]"), workers(backend):
            pass


def test_a_backend_or_a_number_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="processes, dask, ray"), workers("slurm"):
        pass
    with pytest.raises(ValueError, match="-1 for every core"), workers("processes", num_workers=0):
        pass
    with pytest.raises(ValueError, match="no address"), workers("processes", address="tcp://127.0.0.1:1"):
        pass
