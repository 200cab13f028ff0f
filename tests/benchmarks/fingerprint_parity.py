"""The fingerprints beside matminer's, number by number, on more than 2,000 crystals; writes fingerprint_parity.csv.

OMP_NUM_THREADS=1 python -m tests.benchmarks.fingerprint_parity ../shared --seed 0

A row is a group of crystals. `site`: largest difference of one of the 61 numbers of a site. `mean`: of their mean over
sites, which is the fingerprint. `composition`: of one of the 132 standardised element statistics. `beyond`: crystals
with a difference of the mean over 1e-6. `numbers`: sites whose most likely coordination number is another. `ours_only`,
`theirs_only`: crystals of which only one has a fingerprint; `neither`: of which none has. `asked`: sites of which part
or all was left to pymatgen because rounding decides. Times: milliseconds a crystal, both ways in turn on one core.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from pymatgen.core import Lattice, Structure

from cdvae_kit.datasets.ionic_prototypes import load_ionic_prototypes
from cdvae_kit.io import read_crystals
from cdvae_kit.metrics.crystals import CrystalArrays, as_arrays
from cdvae_kit.metrics.fingerprints.crystal_nn_features import FEATURE_LABELS, NoFingerprintError, describe_sites
from cdvae_kit.metrics.fingerprints.vectors import composition_fingerprint
from tests.benchmarks.published_evaluation import PUBLISHED_ERRORS, Published
from tests.metrics.conftest import load_parity_set

TOLERANCE = 1e-6
OUTPUT = Path(__file__).with_suffix(".csv")
FILES = {
    "perov_5 val": ("perov_5/val.csv.gz", 300),
    "carbon_24 val": ("carbon_24/val.csv.gz", 300),
    "inorganic_20 train": ("inorganic_20/train.csv.gz", 300),
    "inorganic_20 val": ("inorganic_20/val.csv.gz", 100),
}
_WEIGHTS = [FEATURE_LABELS.index(f"wt CN_{n}") for n in range(1, 25)]


@dataclass
class Row:
    """What one group came to."""

    group: str
    crystals: int = 0
    sites: int = 0
    site: float = 0.0
    mean: float = 0.0
    composition: float = 0.0
    numbers: int = 0
    ours_only: int = 0
    theirs_only: int = 0
    neither: int = 0
    beyond: int = 0
    asked: int = 0
    ours_ms: float = 0.0
    theirs_ms: float = 0.0
    odd: list[str] = field(default_factory=list)

    def numbers_of_row(self) -> dict[str, object]:
        row: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "odd"}
        for name in ("site", "mean", "composition"):
            row[name] = f"{row[name]:.1e}"
        for name in ("ours_ms", "theirs_ms"):
            row[name] = f"{getattr(self, name) / max(self.crystals, 1):.2f}"
        return row | {"ratio": f"{self.theirs_ms / max(self.ours_ms, 1e-9):.1f}"}


def compare(group: str, structures: list[Structure], published: Published) -> Row:
    """Both ways on every crystal in turn."""
    row = Row(group)
    for number, structure in enumerate(structures):
        crystal = as_arrays([structure])[0]
        if crystal.fault is not None:
            continue
        row.crystals += 1
        row.sites += len(structure)
        start = time.perf_counter()
        ours = _ours(crystal)
        middle = time.perf_counter()
        theirs = _theirs(structure, published)
        row.theirs_ms += (time.perf_counter() - middle) * 1e3
        row.ours_ms += (middle - start) * 1e3
        label = f"{group} {number} ({structure.composition.reduced_formula})"
        if ours is None or theirs is None:
            row.ours_only += theirs is None and ours is not None
            row.theirs_only += ours is None and theirs is not None
            row.neither += ours is None and theirs is None
            if (ours is None) != (theirs is None):
                row.odd.append(f"{label}: {'ours' if theirs is None else 'theirs'} alone has a fingerprint")
            continue
        _record(row, label, ours, theirs)
    return row


def _ours(crystal: CrystalArrays) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    try:
        found = describe_sites(crystal)
    except NoFingerprintError:
        return None
    assert found.features is not None
    composition = composition_fingerprint(crystal.reduced_composition)
    return found.features, composition, found.coordination_numbers, found.by_pymatgen


def _theirs(structure: Structure, published: Published) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        return published.site_features(structure), published.composition(structure)
    except PUBLISHED_ERRORS:
        return None


def _record(
    row: Row,
    label: str,
    ours: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    theirs: tuple[np.ndarray, np.ndarray],
) -> None:
    features, composition, numbers, asked = ours
    weights = theirs[0][:, _WEIGHTS]
    likely = np.column_stack((weights, 1 - weights.sum(axis=1))).argmax(axis=1)
    row.numbers += int((np.where(likely == 24, 0, likely + 1) != numbers).sum())
    row.asked += int(asked.sum())
    row.site = max(row.site, float(np.abs(features - theirs[0]).max()))
    mean = float(np.abs(features.mean(axis=0) - theirs[0].mean(axis=0)).max())
    row.mean = max(row.mean, mean)
    row.composition = max(row.composition, float(np.abs(composition - theirs[1]).max()))
    if mean > TOLERANCE:
        row.beyond += 1
        site, feature = np.unravel_index(int(np.abs(features - theirs[0]).argmax()), features.shape)
        row.odd.append(
            f"{label}: {FEATURE_LABELS[feature]} of site {site} is {features[site, feature]:.9f}, "
            f"theirs {theirs[0][site, feature]:.9f}"
        )


def groups(shared: Path, seed: int, share: float) -> Iterator[tuple[str, list[Structure]]]:
    """Names and crystals: the parity sets, real ones, the package's own ideal ones, spoiled ones."""
    rng = np.random.default_rng(seed)
    for name in ("perov_a", "inorg_a"):
        parity_set = load_parity_set(shared, name)
        yield f"{name} reference", parity_set.reference[: round(150 * share)]
        yield f"{name} generated", parity_set.generated[: round(150 * share)]
    real: list[Structure] = []
    for group, (path, count) in FILES.items():
        batch = read_crystals(shared / "data" / path, dtype=torch.float64).crystals
        chosen = rng.permutation(len(batch))[: round(count * share)]
        structures = batch.select(chosen.tolist()).structures()
        real += structures[: round(60 * share)]
        yield group, structures
    ideal = load_ionic_prototypes(split="val", dtype=torch.float64).structures()
    yield "ionic prototypes", [ideal[i] for i in rng.permutation(len(ideal))[: round(100 * share)]]
    for group, spoil in SPOILED.items():
        chosen = rng.permutation(len(real))[: round(125 * share)]
        yield group, [spoil(real[i], rng) for i in chosen]


def _noise(structure: Structure, rng: np.random.Generator) -> Structure:
    moved = structure.cart_coords + rng.normal(scale=0.15, size=structure.cart_coords.shape)
    return Structure(structure.lattice, structure.species, moved, coords_are_cartesian=True)


def _random(structure: Structure, rng: np.random.Generator) -> Structure:
    return Structure(structure.lattice, structure.species, rng.random(structure.frac_coords.shape))


def _squeezed(structure: Structure, rng: np.random.Generator) -> Structure:
    strain = np.diag(rng.uniform(0.6, 1.0, size=3)) + rng.normal(scale=0.05, size=(3, 3))
    return Structure(Lattice(structure.lattice.matrix @ strain), structure.species, structure.frac_coords)


def _layers(structure: Structure, rng: np.random.Generator) -> Structure:
    """Vacuum along one axis: cells that are open within the first cutoff."""
    stretch = np.ones(3)
    stretch[rng.integers(3)] = rng.uniform(2.0, 5.0)
    lattice = Lattice(structure.lattice.matrix * stretch[:, None])
    wrapped = structure.frac_coords - np.floor(structure.frac_coords)
    return Structure(lattice, structure.species, wrapped / stretch)


SPOILED: dict[str, Callable[[Structure, np.random.Generator], Structure]] = {
    "noise of 0.15 A": _noise,
    "random coordinates": _random,
    "squeezed and skewed": _squeezed,
    "vacuum along one axis": _layers,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fingerprint_parity", description=__doc__)
    parser.add_argument("shared", type=Path, help="the folder with data/ and reference/metrics/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of every group, to look at a few")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    published = Published()
    rows: list[Row] = []
    for group, structures in groups(options.shared, options.seed, options.share):
        rows.append(compare(group, structures, published))
        print(*rows[-1].numbers_of_row().items(), *rows[-1].odd, sep="\n  ", flush=True)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].numbers_of_row())
        writer.writeheader()
        writer.writerows(row.numbers_of_row() for row in rows)
    sys.exit(any(row.odd or row.numbers for row in rows))


if __name__ == "__main__":
    main()
