"""Every rate by the number of atoms in the cell: a rate over all sizes hides what a model cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdvae_kit.metrics.computing.intervals import Interval, wilson_interval
from cdvae_kit.metrics.evaluation_result import Evaluation

EDGES = (5, 10, 15, 20)
"""Largest number of atoms of each class but the last."""


@dataclass(frozen=True)
class RateBySize:
    """A rate of the crystals of one class of sizes.

    Attributes:
        name: of the verdict, "valid" for one.
        sizes: of the class, "6-10" for one.
        rate: with its 95 % interval (Wilson's), over all crystals of the class; those without a verdict count as not.
    """

    name: str
    sizes: str
    rate: Interval


def rates_by_size(evaluation: Evaluation, edges: Sequence[int] = EDGES) -> list[RateBySize]:
    """Each verdict of an evaluation in each class of sizes that holds a crystal, verdict by verdict.

    Crystals that could not be made have no size and are in none; the rates of the whole set count them.

    Args:
        evaluation: of any set.
        edges: largest number of atoms of each class but the last, rising.

    >>> from cdvae_kit.metrics import EvaluationSettings, evaluate
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> found = evaluate([salt, salt * (3, 1, 1)], settings=EvaluationSettings(fingerprints=False))
    >>> [(entry.sizes, entry.rate.value) for entry in rates_by_size(found) if entry.name == "unique"]
    [('1-5', 1.0), ('6-10', 0.0)]
    """
    if list(edges) != sorted(set(edges)) or not edges or edges[0] < 1:
        raise ValueError(f"edges must be numbers of atoms from 1, rising, got {tuple(edges)}")
    rows = [row for row in evaluation.crystals if row.num_atoms > 0]
    bins = np.searchsorted(edges, [row.num_atoms for row in rows], side="left")
    names = list(dict.fromkeys(name for row in rows for name in row.verdicts))
    found = []
    for name in names:
        for number in range(len(edges) + 1):
            members = [row.verdicts.get(name) for row, at in zip(rows, bins, strict=True) if at == number]
            if members:
                hits = sum(bool(flag) for flag in members)
                found.append(RateBySize(name, _label(edges, number), wilson_interval(hits, len(members))))
    return found


def _label(edges: Sequence[int], place: int) -> str:
    low = 1 if place == 0 else edges[place - 1] + 1
    if place == len(edges):
        return f"{low} and more"
    return str(low) if low == edges[place] else f"{low}-{edges[place]}"
