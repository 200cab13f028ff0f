"""How well MP-20's formation energies give back the energies above the hull that the Materials Project stores.

    python tests/benchmarks/reference_hull.py FOLDER

FOLDER holds `train.csv.gz`, `val.csv.gz` and `test.csv.gz` of MP-20. Each compound of val and test with a stored
`e_above_hull` is compared with two hulls: of the formation energies of all three parts, and of these with the heights
that follow from the stored values of the two other parts. Prints the mean absolute error, the share that changes sides
of 0.05 eV/atom, and of 0 (as a result of stable phases with more than 20 atoms, which MP-20 leaves out). What it
printed is in `reference_hull.md`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from cdvae_kit.io.crystals.phases import read_formation_energies
from cdvae_kit.relaxation import ReferenceHull, formation_hull, phases_of

PARTS = ("train", "val", "test")
LINES = {"0.05": 0.05, "0": 1e-6}


def compare(hull: ReferenceHull, compounds: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Energies above this hull, and the stored ones (eV/atom), of the compounds that have both."""
    ours, stored = [], []
    for compound in compounds:
        if compound["energy_above_hull"] is not None:
            [phase] = phases_of([compound])
            found = hull.distance(phase.composition, phase.energy_per_atom).energy_above_hull
            if found is not None:
                ours.append(found)
                stored.append(compound["energy_above_hull"])
    return np.array(ours), np.array(stored)


def main(folder: Path) -> None:
    parts = {part: read_formation_energies([folder / f"{part}.csv.gz"]) for part in PARTS}
    every = [compound for part in PARTS for compound in parts[part]]
    alone = formation_hull(every, name="compounds", known_hull=False)
    print("| hull | judged on | compounds | mean absolute error, eV/atom | flips at 0.05 | flips at 0 |")
    print("|---|---|---|---|---|---|")
    for judged in ("val", "test"):
        blind = [{**compound, "energy_above_hull": None} for compound in parts[judged]]
        others = [compound for part in PARTS if part != judged for compound in parts[part]]
        with_heights = formation_hull([*blind, *others], name="compounds and heights")
        for hull in (alone, with_heights):
            ours, stored = compare(hull, parts[judged])
            flips = [float(np.mean((ours <= line) != (stored <= line))) for line in LINES.values()]
            error = float(np.abs(ours - stored).mean())
            shares = " | ".join(f"{100 * flip:.2f} %" for flip in flips)
            print(f"| {hull} | {judged} | {len(ours):,} | {error:.4f} | {shares} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
