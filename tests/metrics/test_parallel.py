"""Many crystals in several processes: order, reports, errors, and what the processes have to load."""

import subprocess
import sys

import joblib
import pytest

from cdvae_kit.metrics.computing.parallel import map_crystals


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    raise ValueError(f"crystal {number} is refused")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_come_in_order_and_progress_never_goes_back(num_workers):
    seen = []
    results = map_crystals(
        square, range(100), num_workers=num_workers, progress=lambda done, total: seen.append((done, total))
    )
    assert results == [i * i for i in range(100)]
    assert seen == sorted(set(seen)) and seen[0] == (0, 100) and seen[-1] == (100, 100)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_of_the_function_is_not_swallowed(num_workers):
    with pytest.raises(ValueError, match=r"crystal \d is refused"):
        map_crystals(refuse, range(4), num_workers=num_workers)


@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "sequential"])
def test_any_backend_of_joblib_gives_the_same_with_progress_on_the_way(backend):
    """multiprocessing, and Ray behind it, cannot give results before all are there."""
    seen = []
    with joblib.parallel_config(backend=backend):
        results = map_crystals(square, range(300), num_workers=2, progress=lambda done, total: seen.append(done))
    assert results == [i * i for i in range(300)]
    assert seen == sorted(set(seen)) and len(seen) > 4 and seen[-1] == 300


@pytest.mark.parametrize("num_workers", [0, -2])
def test_numbers_of_workers_that_mean_nothing_are_refused(num_workers):
    with pytest.raises(ValueError, match="-1 for every core"):
        map_crystals(square, [1], num_workers=num_workers)


def test_importing_the_metrics_loads_no_heavy_library():
    """Every process that a metric starts pays for what this import loads."""
    heavy = ("torch", "pymatgen", "matminer", "joblib", "sqlite3", "dask")
    code = f"import sys, cdvae_kit.metrics.computing.cluster; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
