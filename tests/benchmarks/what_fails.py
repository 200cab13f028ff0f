"""Which part of a crystal a model loses: number of atoms, composition, group, positions, or what they leave free.

OMP_NUM_THREADS=1 python -m tests.benchmarks.what_fails mp_20 VAL.csv.gz --num-crystals 400

Codes are drawn from the posterior; each part is compared with the canonical description of the crystal. The last rows
decode with the true contents: what is lost there is lost by the free parameters and the cell alone. Choose models on
validation files with it, never on test files.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

import numpy as np
import torch

from cdvae_kit import CDVAE
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.wyckoff import wyckoff_table
from cdvae_kit.datasets import load_dataset
from cdvae_kit.metrics import reconstruction
from cdvae_kit.models.contents import Contents, read_contents, read_num_atoms
from cdvae_kit.models.decoding import decode_contents, default_sampler

Rows = list[Counter[tuple[int, int]]]


def element_rows(orbits: Orbits, elements: torch.Tensor) -> Rows:
    """How many orbits of each (element, position) each crystal has."""
    rows: Rows = [Counter() for _ in range(len(orbits.num_orbits))]
    for crystal, position, element in zip(
        orbits.batch.tolist(), orbits.position.tolist(), elements.tolist(), strict=True
    ):
        rows[crystal][element, position] += 1
    return rows


def atoms_of(rows: Counter[tuple[int, int]]) -> Counter[int]:
    """How many atoms of each element."""
    multiplicity = wyckoff_table().multiplicity
    table: Counter[int] = Counter()
    for (element, position), count in rows.items():
        table[element] += count * int(multiplicity[position])
    return table


def decoded(model: CDVAE, z: torch.Tensor, contents: Contents, seed: int) -> SymmetricCrystals:
    """Crystals of given contents."""
    ids = torch.arange(len(z))
    return decode_contents(model, z, contents, default_sampler(model, None), seed=seed, crystal_ids=ids)


def quality(again: SymmetricCrystals, crystals: SymmetricCrystals) -> tuple[np.ndarray, np.ndarray]:
    """Whether each pair matches, valid or not, and its root mean square displacement (NaN where it does not)."""
    pairs = reconstruction(again.plain(), crystals.plain()).pairs
    rms = np.array([np.nan if pair.rms is None else pair.rms for pair in pairs])
    return np.isfinite(rms), rms


def numbers_of(matches: np.ndarray, rms: np.ndarray) -> dict[str, Any]:
    """Match rate in percent; mean, median and 90th percentile of the RMSE."""
    if not len(matches):
        return {"num": 0}
    there = rms[matches]
    return {
        "num": len(matches),
        "match_percent": round(100.0 * float(matches.mean()), 2),
        "rmse": None if not len(there) else round(float(there.mean()), 4),
        "rmse_median": None if not len(there) else round(float(np.median(there)), 4),
        "rmse_90": None if not len(there) else round(float(np.quantile(there, 0.9)), 4),
    }


@torch.no_grad()
def what_fails(model: CDVAE, crystals: SymmetricCrystals, *, seed: int) -> dict[str, Any]:
    """Shares in percent, and the quality of the crystals by what was read right."""
    z = model.encode(crystals, seed=seed, allow_outside=True)
    ids = torch.arange(len(z))
    orbits = crystals.orbits
    contents = read_contents(model, z, seed=seed, crystal_ids=ids)
    first_group = model.symmetry_head.group_log_probabilities(z).argmax(-1)
    read, truth = element_rows(contents.orbits, contents.elements), element_rows(orbits, crystals.elements)
    positions = np.array([a == b for a, b in zip(read, truth, strict=True)])

    compositions = [atoms_of(a) == atoms_of(b) for a, b in zip(read, truth, strict=True)]
    own = quality(decoded(model, z, contents, seed), crystals)
    held = Contents(orbits, crystals.elements, torch.zeros(len(z)))
    told = quality(decoded(model, z, held, seed), crystals)

    def share(values: Any) -> float:
        return round(100.0 * float(np.mean(np.asarray(values, dtype=float))), 2)

    num_free = np.array(
        [int(part.sum()) for part in orbits.is_free.sum(-1).split(orbits.num_orbits.tolist())], dtype=int
    )
    return {
        "num_crystals": len(z),
        "num_atoms_right": share((read_num_atoms(model, z) == orbits.num_atoms).numpy()),
        "composition_right": share(compositions),
        "group_first_choice_right": share((first_group == orbits.space_group).numpy()),
        "group_right": share((contents.orbits.space_group == orbits.space_group).numpy()),
        "positions_right": share(positions),
        "all": numbers_of(*own),
        "positions_read_right": numbers_of(own[0][positions], own[1][positions]),
        "positions_read_wrong": numbers_of(own[0][~positions], own[1][~positions]),
        "true_contents": numbers_of(*told),
        "true_contents_by_free_parameters": {
            name: numbers_of(told[0][chosen], told[1][chosen])
            for name, chosen in (
                ("0", num_free == 0),
                ("1 to 5", (num_free > 0) & (num_free < 6)),
                ("6 or more", num_free > 5),
            )
        },
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Which part of a crystal a model loses.")
    parser.add_argument("model", help="a model of the package's own, or the folder of a checkpoint")
    parser.add_argument("crystals", help="a file of validation crystals")
    parser.add_argument("--num-crystals", type=int, default=400, help="the first of the file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = CDVAE.from_pretrained(options.model, device="cpu")
    crystals = load_dataset(options.crystals, max_atoms=model.config.max_atoms).crystals
    some = model.prepare(crystals.select(torch.arange(min(options.num_crystals, len(crystals)))))
    print(json.dumps(what_fails(model, some, seed=options.seed), indent=2))


if __name__ == "__main__":
    main()
