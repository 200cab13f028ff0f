"""What an evaluation of a set of crystals found, as plain data.

How it is found is in `evaluation` and the modules beside it; how it is drawn in `cdvae_kit.visualization`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays

SectionName: TypeAlias = Literal[
    "validity", "coverage", "distribution", "symmetry", "uniqueness", "reconstruction", "stability", "other"
]
Better: TypeAlias = Literal["higher", "lower"]

SECTIONS: dict[SectionName, str] = {
    "validity": "Validity",
    "coverage": "Coverage",
    "distribution": "Distributions and diversity",
    "symmetry": "Symmetry",
    "uniqueness": "Uniqueness and novelty",
    "reconstruction": "Reconstruction and structure prediction",
    "stability": "Stability",
    "other": "Others",
}
"""Headings, in the order in which a report has them."""

SHARE = "share"
"""The unit of a rate: a share of 1, printed in per cent."""

COUNT = "crystals"
"""The unit of a number of crystals."""


@dataclass(frozen=True)
class MetricValue:
    """One number about the whole set.

    Attributes:
        name: as in `metrics.json`, `cov_recall` for one.
        value: None where there is none.
        low: lower end of the 95 % interval, None where there is no interval.
        high: upper end, likewise.
        num_crystals: the denominator, or how many crystals it rests on.
        section: what it belongs to.
        note: what it means, or why there is no value.
        label: short, for a table or an axis.
        unit: `SHARE`, `COUNT`, "g/cm³" and the like; "" for a pure number.
        better: which way is better; None where neither is.
        source: where it is defined.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    num_crystals: int
    section: SectionName
    note: str = ""
    label: str = ""
    unit: str = ""
    better: Better | None = None
    source: str = ""

    @property
    def is_rate(self) -> bool:
        """A share of 1, which is printed in per cent."""
        return self.unit == SHARE


@dataclass(frozen=True)
class CrystalRow:
    """One generated crystal.

    Attributes:
        index: its place in the set, from 0.
        material_id: "" where it has none.
        formula: reduced; "" where there is no crystal.
        num_atoms: in the cell that was given.
        space_group: number, None where none was found.
        density: g/cm^3.
        volume_per_atom: cubic angstrom.
        verdicts: "struct_valid", "comp_valid", "valid", "unique", "novel" and the like; None where it was not judged.
        values: "nearest_structure", "rms", "energy_above_hull" and the like; None where there is none.
        reason: what is wrong with it in plain words; None where nothing is.
    """

    index: int
    material_id: str
    formula: str
    num_atoms: int
    space_group: int | None
    density: float | None
    volume_per_atom: float | None
    verdicts: Mapping[str, bool | None]
    values: Mapping[str, float | None]
    reason: str | None


@dataclass(frozen=True)
class Distribution:
    """Values of one quantity in both sets.

    Attributes:
        name: `density` for one.
        unit: "" where it has none.
        generated: one value a crystal, an atom or a site; NaN (or None among labels) where there is none.
        reference: None without a reference set.
        kind: how it is binned and drawn.
    """

    name: str
    unit: str
    generated: np.ndarray
    reference: np.ndarray | None
    kind: Literal["continuous", "categorical"]


@dataclass(frozen=True)
class Evaluation:
    """All that was found.

    Attributes:
        metrics: by name.
        crystals: one row a generated crystal, in order.
        distributions: by name.
        generated: the crystals that were judged.
        reference: those that they were compared with.
        settings: composition rule, cutoffs, matcher, seed, versions, and what the caller adds.
        codes: (num_generated, latent_dim) and (num_reference, latent_dim) latent codes; None without a model.
    """

    metrics: Mapping[str, MetricValue]
    crystals: Sequence[CrystalRow]
    distributions: Mapping[str, Distribution]
    generated: Sequence[CrystalArrays] = field(repr=False)
    reference: Sequence[CrystalArrays] = field(repr=False)
    settings: Mapping[str, Any]
    codes: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    def numbers(self) -> dict[str, float | None]:
        """Value by name, as published results are written."""
        return {name: metric.value for name, metric in self.metrics.items()}
