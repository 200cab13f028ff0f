"""Novelty of 1,000 crystals against training sets of a thousand to a million: seconds and memory.

OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_novelty_growth.py -n 0 -m slow -s

The training sets are prototypes filled with elements and slightly distorted, drawn with a seed. Half of the generated
crystals are drawn from the set and moved a little, so they are known; the other half are drawn anew.
"""

import resource
import time
from typing import NamedTuple

import numpy as np
import pytest

from cdvae_kit.metrics import TrainingIndex, novelty
from cdvae_kit.metrics.crystals import CrystalArrays

SEED = 0
NUM_GENERATED = 1_000

PROTOTYPES = {
    "rock salt": ("AB", [[0, 0, 0], [0.5, 0.5, 0.5]], [60, 60, 60]),
    "caesium chloride": ("AB", [[0, 0, 0], [0.5, 0.5, 0.5]], [90, 90, 90]),
    "zinc blende": ("AB", [[0, 0, 0], [0.25, 0.25, 0.25]], [60, 60, 60]),
    "fluorite": ("ABB", [[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]], [60, 60, 60]),
    "half-Heusler": ("ABC", [[0, 0, 0], [0.25, 0.25, 0.25], [0.5, 0.5, 0.5]], [60, 60, 60]),
    "Heusler": ("AABC", [[0.25] * 3, [0.75] * 3, [0, 0, 0], [0.5, 0.5, 0.5]], [60, 60, 60]),
    "perovskite": (
        "ABCCC",
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        [90, 90, 90],
    ),
    "elpasolite": (
        "AABCDDDDDD",
        [
            [0.25] * 3,
            [0.75] * 3,
            [0, 0, 0],
            [0.5] * 3,
            [0.24, 0.76, 0.24],
            [0.76, 0.24, 0.76],
            [0.24, 0.24, 0.76],
            [0.76, 0.76, 0.24],
            [0.76, 0.24, 0.24],
            [0.24, 0.76, 0.76],
        ],
        [60, 60, 60],
    ),
}


class Arrays(NamedTuple):
    """As `TrainingIndex.from_arrays` takes them."""

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    num_atoms: np.ndarray


def cell(angles: list[int]) -> np.ndarray:
    alpha, beta, gamma = np.radians(angles)
    x = (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
    return np.array(
        [
            [1, 0, 0],
            [np.cos(gamma), np.sin(gamma), 0],
            [np.cos(beta), x, np.sqrt(1 - np.cos(beta) ** 2 - x**2)],
        ]
    )


def draw(num_crystals: int, generator: np.random.Generator) -> Arrays:
    """So many filled prototypes, a few percent distorted, in one array an attribute."""
    parts = []
    names = list(PROTOTYPES)
    # large prototypes have more fillings, so a real set has more of them
    weights = np.array([len(set(PROTOTYPES[name][0])) ** 2 for name in names], dtype=float)
    for name, share in zip(names, generator.multinomial(num_crystals, weights / weights.sum()), strict=True):
        pattern, coords, angles = PROTOTYPES[name]
        kinds = sorted(set(pattern))
        elements = np.argsort(generator.random((share, 89)), axis=1)[:, : len(kinds)] + 1
        numbers = elements[:, [kinds.index(kind) for kind in pattern]]
        volume = generator.uniform(10, 25, size=share) * len(pattern)
        strain = np.eye(3) + 0.02 * generator.normal(size=(share, 3, 3))
        lattice = cell(angles) @ strain
        lattice *= (volume / np.abs(np.linalg.det(lattice)))[:, None, None] ** (1 / 3)
        sites = np.array(coords) + 0.01 * generator.normal(size=(share, len(pattern), 3))
        parts.append(
            Arrays(lattice, sites.reshape(-1, 3), numbers.ravel().astype(np.uint8), np.full(share, len(pattern)))
        )
    return Arrays(*(np.concatenate(pieces) for pieces in zip(*parts, strict=True)))


def crystals_to_judge(index: TrainingIndex, generator: np.random.Generator) -> list[CrystalArrays]:
    """First the known ones, then the others."""
    known = [index.crystal(int(i)) for i in generator.choice(len(index), NUM_GENERATED // 2, replace=False)]
    moved = [
        CrystalArrays(
            c.lattice * 1.03, c.frac_coords + 0.003 * generator.normal(size=c.frac_coords.shape) + 0.3, c.atomic_numbers
        )
        for c in known
    ]
    others = TrainingIndex.from_arrays(*draw(NUM_GENERATED - len(moved), generator))
    return moved + [others.crystal(i) for i in range(len(others))]


@pytest.mark.slow
def test_a_million_training_crystals_are_a_matter_of_minutes() -> None:
    print("\ntraining  build s  index MB  query s  pairs  compared  known  novel of the others  peak MB")
    for size in (1_000, 10_000, 100_000, 1_000_000):
        generator = np.random.default_rng(SEED)
        arrays = draw(size, generator)
        start = time.perf_counter()
        index = TrainingIndex.from_arrays(*arrays)
        built = time.perf_counter() - start
        generated = crystals_to_judge(index, generator)
        start = time.perf_counter()
        result = novelty(generated, index)
        queried = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        known = int((~result.novel[: NUM_GENERATED // 2]).sum())
        novel = int(result.novel[NUM_GENERATED // 2 :].sum())
        print(
            f"{size:8d}  {built:7.2f}  {index.num_bytes / 1e6:8.1f}  {queried:7.1f}  {result.num_pairs:5d}  "
            f"{result.num_comparisons:8d}  {known:5d}  {novel:19d}  {peak:7.0f}"
        )
        assert known == NUM_GENERATED // 2
        assert built + queried < 300
