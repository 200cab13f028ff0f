"""Graphs by chemistry: the bonds that pymatgen's CrystalNN finds, the published alternative to a cutoff.

Slow (some 10 to 100 ms a crystal, one after the other): made once, in preprocessing, never while a model trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.errors import BondError
from cdvae_kit.graph.periodic_graph import PeriodicGraph

if TYPE_CHECKING:
    from pymatgen.analysis.local_env import CrystalNN
    from pymatgen.core import Structure


def crystal_nn_graph(batch: CrystalBatch) -> PeriodicGraph:
    """The CrystalNN bonds (Zimmermann and Jain 2020, RSC Adv. 10, 6063, doi 10.1039/C9RA07755C) of each crystal.

    With CDVAE's options: no distance cutoffs, no weight on electronegativity, no porous adjustment. A bond that one of
    its two atoms sees is there for both, as in CDVAE. It takes a batch, not structures, because the offsets belong to
    the batch's wrapped coordinates. A crystal that CrystalNN cannot work on raises `BondError`.
    """
    from pymatgen.analysis.local_env import CrystalNN

    finder = CrystalNN(distance_cutoffs=None, x_diff_weight=-1, porous_adjustment=False)
    edges: list[tuple[int, int, int, int, int]] = []
    num_edges: list[int] = []
    first = 0
    for number, structure in enumerate(batch.structures()):
        bonds = _bonds(finder, structure, number)
        edges += [(first + i, first + j, a, b, c) for i, j, a, b, c in sorted(bonds)]
        num_edges.append(len(bonds))
        first += len(structure)
    table = torch.tensor(edges, dtype=torch.long).reshape(-1, 5)
    return PeriodicGraph(table[:, [1, 0]].T.contiguous(), table[:, 2:], torch.tensor(num_edges, dtype=torch.long)).to(
        batch.lattice.device
    )


def _bonds(finder: CrystalNN, structure: Structure, number: int) -> set[tuple[int, int, int, int, int]]:
    """Target, source and the source's cell, each bond in both directions."""
    try:
        neighbors = finder.get_all_nn_info(structure)
    except (ValueError, RuntimeError) as error:
        raise BondError(
            f"crystal {number} ({structure.composition.reduced_formula}): CrystalNN finds no bonds ({error}); "
            "leave it out, or use neighbor_list"
        ) from error
    bonds = set()
    for i, found in enumerate(neighbors):
        for neighbor in found:
            j, (a, b, c) = neighbor["site_index"], (int(n) for n in neighbor["image"])
            bonds |= {(i, j, a, b, c), (j, i, -a, -b, -c)}
    return bonds
