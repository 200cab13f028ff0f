"""How much faster crystals are relaxed in batches than through ASE one by one, on one thread.

    python tests/benchmarks/measure_relaxation.py FILE [NUM_CRYSTALS [NUM_ATOMS]]

Takes the first crystals of FILE that have NUM_ATOMS atoms (10), moves their atoms a little, and relaxes them by CHGNet
and by SevenNet in both ways, alternating in halves. Prints seconds and their ratio.
"""

import sys
import time

import torch

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.io import read_crystals
from cdvae_kit.relaxation import make_calculator, make_potential, relax

MAX_STEPS = 100


def seconds(crystals: CrystalBatch, name: str, *, batched: bool) -> tuple[float, int]:
    """Wall-clock seconds and steps of all crystals."""
    calculator = make_potential(name, device="cpu") if batched else make_calculator(name, device="cpu")
    assert calculator is not None
    relax(crystals.select([0]), calculator, max_steps=2)
    start = time.perf_counter()
    results = relax(crystals, calculator, max_steps=MAX_STEPS)
    return time.perf_counter() - start, sum(result.steps for result in results)


def main(path: str, num_crystals: int = 100, num_atoms: int = 10) -> None:
    torch.set_num_threads(1)
    read = read_crystals(path, dtype=torch.float64).crystals
    chosen = [i for i, size in enumerate(read.num_atoms.tolist()) if size == num_atoms][:num_crystals]
    crystals = read.select(chosen)
    noise = torch.randn(crystals.frac_coords.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    crystals = crystals.replace(frac_coords=(crystals.frac_coords + 0.01 * noise) % 1.0)
    for name in ("chgnet", "sevenn"):
        totals = {True: 0.0, False: 0.0}
        steps = {True: 0, False: 0}
        halves = [range(0, len(crystals), 2), range(1, len(crystals), 2)]
        for half in halves:
            for batched in (True, False):
                took, done = seconds(crystals.select(half), name, batched=batched)
                totals[batched] += took
                steps[batched] += done
        print(
            f"{name}: {len(crystals)} crystals of {num_atoms} atoms, at most {MAX_STEPS} steps: one by one "
            f"{totals[False]:.0f} s ({steps[False]} steps), in batches {totals[True]:.0f} s ({steps[True]} steps), "
            f"{totals[False] / totals[True]:.2f} times",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1], *(int(word) for word in sys.argv[2:4]))
