"""What the tolerance of the symmetric description costs: distance to the idealised crystal, P1 share, freedom.

python -m tests.benchmarks.tolerance_price FOLDER

FOLDER holds perov_5, carbon_24 and mp_20. Some 150 crystals of each validation split, evenly spaced.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from cdvae_kit.crystal.symmetric import describe
from cdvae_kit.datasets import load_dataset

NUM_CRYSTALS = 150
TOLERANCES = {"perov_5": (0.01, 0.03, 0.1), "carbon_24": (0.01, 0.03, 0.1), "mp_20": (0.01, 0.05, 0.1)}


def main(folder: Path) -> None:
    matcher = StructureMatcher(stol=0.5, ltol=0.3, angle_tol=10)
    print("| data | tolerance | RMSE, mean | largest | P1 % | free parameters | group changes from 0.01 A % |")
    print("|---|---|---|---|---|---|---|")
    for name, tolerances in TOLERANCES.items():
        crystals = load_dataset(folder / name, split="val").crystals
        crystals = crystals.select(torch.arange(0, len(crystals), len(crystals) // NUM_CRYSTALS))
        originals = crystals.structures()
        finest = None
        for tolerance in tolerances:
            described = describe(crystals, tolerance=tolerance)
            finest = described.space_group if finest is None else finest
            pairs = zip(originals, described.plain().structures(), strict=True)
            rms = np.array([found[0] for pair in pairs if (found := matcher.get_rms_dist(*pair)) is not None])
            p1 = 100 * float((described.space_group == 1).float().mean())
            free = float(described.orbits.is_free.sum()) / len(described)
            changed = 100 * float((described.space_group != finest).float().mean())
            print(
                f"| {name} | {tolerance} | {rms.mean():.5f} | {rms.max():.4f} | {p1:.1f} | {free:.1f} | {changed:.1f} |"
            )


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(Path(sys.argv[1]))
