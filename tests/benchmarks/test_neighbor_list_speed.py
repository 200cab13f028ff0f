"""Time of the neighbour list of 256 crystals at once, beside vesin's one by one, in one run.

python -m pytest tests/benchmarks/test_neighbor_list_speed.py -n 0 --benchmark-enable -s
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import vesin
from pytest_benchmark.fixture import BenchmarkFixture

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import neighbor_list
from tests.graph.oracles import read_p1

CUTOFF = 6.0
# the fastest of vesin's Python calls that give the same: without copies, every pair in both directions
VESIN = vesin.NeighborList(cutoff=CUTOFF, full_list=True)


@pytest.fixture(scope="module")
def crystals(shared_dir: Path) -> CrystalBatch:
    return read_p1(shared_dir / "data" / "inorganic_20" / "test.csv.gz", 256)


def one_by_one(crystals: CrystalBatch) -> Callable[[], None]:
    cells = [
        (crystals.cart_coords[crystals.batch == k].numpy(), crystals.lattice[k].numpy()) for k in range(len(crystals))
    ]

    def run() -> None:
        for positions, cell in cells:
            VESIN.compute(positions, cell, True, quantities="ijS", copy=False)

    return run


def at_once(crystals: CrystalBatch, dtype: torch.dtype) -> Callable[[], None]:
    batch = crystals.replace(frac_coords=crystals.frac_coords.to(dtype), lattice=crystals.lattice.to(dtype))

    def run() -> None:
        neighbor_list(batch, CUTOFF)

    return run


def test_vesin_one_crystal_at_a_time(benchmark: BenchmarkFixture, crystals: CrystalBatch) -> None:
    benchmark(one_by_one(crystals))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_crystals_at_once(benchmark: BenchmarkFixture, crystals: CrystalBatch, dtype: torch.dtype) -> None:
    benchmark(at_once(crystals, dtype))


def test_ratio_of_the_two_in_turn(crystals: CrystalBatch) -> None:
    runs = {
        "vesin": one_by_one(crystals),
        "float32": at_once(crystals, torch.float32),
        "float64": at_once(crystals, torch.float64),
    }
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(20):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    for name, seconds in best.items():
        ratio = best["vesin"] / seconds
        print(f"{name}: {seconds / len(crystals) * 1e6:.1f} us a crystal, {ratio:.2f} times as fast as vesin")
