"""Time to judge the parity sets, beside the published way of one process, in one run.

OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_evaluation_speed.py -n 0 --benchmark-enable -s

Both ways do the same: vectors of 600 crystals, validity of the 300 generated ones, the matcher on 300 pairs. Worker
processes are started within the time that is measured.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from pymatgen.core import Structure
from pytest_benchmark.fixture import BenchmarkFixture

from cdvae_kit.metrics import fingerprints, reconstruction, validity
from cdvae_kit.metrics.fingerprints.vectors import composition_fingerprint
from tests.benchmarks.published_evaluation import Published
from tests.metrics.conftest import load_parity_set

Task = Callable[[], object]


@pytest.fixture(scope="module")
def crystals(shared_dir: Path) -> tuple[list[Structure], list[Structure]]:
    """References and generated ones of both sets."""
    sets = [load_parity_set(shared_dir, name) for name in ("perov_a", "inorg_a")]
    return [s for one in sets for s in one.reference], [s for one in sets for s in one.generated]


def published_tasks(reference: list[Structure], generated: list[Structure]) -> dict[str, Task]:
    published = Published()
    return {
        "fingerprints": lambda: published.fingerprints(reference + generated),
        "validity": lambda: published.validity(generated),
        "matching": lambda: published.matches(generated, reference),
    }


def our_tasks(reference: list[Structure], generated: list[Structure], num_workers: int) -> dict[str, Task]:
    return {
        "fingerprints": lambda: fingerprints(reference + generated, num_workers=num_workers),
        "validity": lambda: validity(generated),
        "matching": lambda: reconstruction(generated, reference, num_workers=num_workers),
    }


def seconds(tasks: dict[str, Task]) -> dict[str, float]:
    found = {}
    for name, run in tasks.items():
        start = time.perf_counter()
        run()
        found[name] = time.perf_counter() - start
    return found | {"whole": sum(found.values())}


def start_afresh() -> None:
    """Nothing of an earlier run is remembered or still running."""
    composition_fingerprint.cache_clear()
    get_reusable_executor().shutdown(wait=True)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_fingerprints(
    benchmark: BenchmarkFixture, crystals: tuple[list[Structure], list[Structure]], num_workers: int
) -> None:
    reference, generated = crystals
    benchmark.pedantic(
        fingerprints,
        args=(reference + generated,),
        kwargs={"num_workers": num_workers},
        setup=start_afresh,
        rounds=3,
    )


def test_ratio_of_the_two_ways(crystals: tuple[list[Structure], list[Structure]]) -> None:
    published = seconds(published_tasks(*crystals))
    for num_workers in (1, 2):
        start_afresh()
        ours = seconds(our_tasks(*crystals, num_workers))
        for part, time_taken in ours.items():
            print(
                f"{num_workers} worker(s), {part}: {time_taken:.2f} s, published {published[part]:.2f} s, "
                f"{published[part] / time_taken:.1f} times as fast"
            )


def test_both_ways_find_the_same(crystals: tuple[list[Structure], list[Structure]]) -> None:
    """A tenth of the crystals: times of different answers would say nothing."""
    reference, generated = (some[::10] for some in crystals)
    published = Published()
    theirs = published.fingerprints(reference + generated)
    ours = fingerprints(reference + generated)
    assert [one is not None for one in theirs] == [one.complete for one in ours]
    for one, other in zip(theirs, ours, strict=True):
        if one is not None:
            np.testing.assert_allclose(other.structure, one[0], atol=1e-6)
            np.testing.assert_allclose(other.composition, one[1], atol=1e-9)
    assert published.validity(generated) == [verdict.valid for verdict in validity(generated)]
    matched = published.matches(generated, reference)
    found = [pair.rms for pair in reconstruction(generated, reference).pairs]
    assert [one is None for one in matched] == [one is None for one in found]
    np.testing.assert_allclose(
        [one for one in matched if one is not None], [one for one in found if one is not None], atol=1e-8
    )
