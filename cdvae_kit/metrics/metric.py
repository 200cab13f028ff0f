"""What a metric is: a number about a set of crystals that says itself how it is called, read and computed.

A family of metrics is a module of its own (`validity`, `coverage`, ...) that ends with its `FAMILY`; `registry` lists
them. What the metrics read is `evidence.Evidence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from cdvae_kit.metrics.computing.intervals import bootstrap_interval
from cdvae_kit.metrics.evaluation_result import (
    COUNT,
    SECTIONS,
    SHARE,
    Better,
    Distribution,
    MetricValue,
    SectionName,
)

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence

__all__ = [
    "COUNT",
    "SHARE",
    "Columns",
    "Family",
    "Measured",
    "Metric",
    "Need",
    "labels_of",
    "mean",
    "missing",
    "number",
    "rate",
]

Need: TypeAlias = Literal[
    "reference", "train", "fingerprints", "codes", "embeddings", "stability", "predicted", "pairs", "extended"
]
"""What must be given: sets, fingerprints, codes of a model, embeddings of a potential, a calculator, predicted
structures, pairs, more time."""

NEEDS: tuple[Need, ...] = get_args(Need)


@dataclass(frozen=True)
class Measured:
    """A number and what it rests on.

    Attributes:
        value: None where there is none; `note` says why.
        num_crystals: the denominator, or how many crystals it rests on.
        low: lower end of the 95 % interval, None where there is no interval.
        high: upper end, likewise.
        note: what it means here, or why there is no value.
        per_crystal: one value a generated crystal, NaN where there is none, for `crystals.csv`; None leaves it out.
    """

    value: float | None
    num_crystals: int
    low: float | None = None
    high: float | None = None
    note: str = ""
    per_crystal: np.ndarray | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation: how it is called, which way is better, where it comes from, how it is computed.

    Attributes:
        name: as in `metrics.json`: lower case with underscores.
        label: short, for a table or an axis.
        section: under which heading it stands, one of `evaluation_result.SECTIONS`.
        better: which way is better; None where neither is.
        unit: `SHARE` for a share of 1 (printed in per cent), `COUNT` for a number of crystals, else "g/cm³" and the
            like, "" for a pure number.
        source: where it is defined; "this package" for what is ours.
        needs: what must be given for it to be computed.
        compute: from the evidence; None where these sets have no such number.

    >>> from cdvae_kit.metrics import evaluate
    >>> atoms = Metric("mean_atoms", "mean number of atoms", "other", None, "", "this package", (),
    ...                lambda evidence: number(float(np.mean([len(c.atomic_numbers) for c in evidence.ours])), 1))
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> evaluate([salt], metrics=[atoms]).metrics["mean_atoms"].value
    2.0
    """

    name: str
    label: str
    section: SectionName
    better: Better | None
    unit: str
    source: str
    needs: tuple[Need, ...]
    compute: Callable[[Evidence], Measured | None] = field(repr=False)

    def __post_init__(self) -> None:
        if not (self.name and self.label):
            raise ValueError(f"a metric needs a name and a label, got {self.name!r} and {self.label!r}")
        if self.section not in SECTIONS:
            raise ValueError(f"metric {self.name}: section must be one of {', '.join(SECTIONS)}, got {self.section!r}")
        if unknown := set(self.needs) - set(NEEDS):
            raise ValueError(
                f"metric {self.name}: needs must be among {', '.join(NEEDS)}, got {', '.join(sorted(unknown))}"
            )

    def value_of(self, found: Measured) -> MetricValue:
        """The number as it stands in an evaluation, with what is said of it."""
        return MetricValue(
            self.name,
            found.value,
            found.low,
            found.high,
            found.num_crystals,
            self.section,
            found.note,
            self.label,
            self.unit,
            self.better,
            self.source,
        )


@dataclass(frozen=True)
class Columns:
    """What a family says of each crystal, and of the distributions.

    Attributes:
        verdicts: name to one flag a generated crystal, None where it was not judged.
        values: name to (num_generated,) numbers, NaN where there is none.
        reasons: what is wrong with each generated crystal, None where nothing is; () where the family gives none.
        distributions: of both sets.
    """

    verdicts: Mapping[str, Sequence[bool | None]] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    reasons: Sequence[str | None] = ()
    distributions: Sequence[Distribution] = ()


@dataclass(frozen=True)
class Family:
    """Metrics that belong together.

    Attributes:
        name: of the module.
        metrics: in the order in which they are shown.
        more: metrics that depend on what is given, one a property for instance.
        columns: what is said of each crystal.
    """

    name: str
    metrics: Sequence[Metric] = ()
    more: Callable[[Evidence], Sequence[Metric]] | None = None
    columns: Callable[[Evidence], Columns] | None = None

    def metrics_of(self, evidence: Evidence) -> list[Metric]:
        """Those that can be computed from what is given."""
        every = [*self.metrics, *([] if self.more is None else self.more(evidence))]
        return [metric for metric in every if evidence.has(metric.needs)]


def rate(flags: Sequence[bool] | np.ndarray, *, seed: int, note: str = "") -> Measured:
    """Share of crystals with a flag, over all of them, with its bootstrap interval; 0 of no crystals, as published."""
    interval = bootstrap_interval(np.asarray(flags, dtype=bool), seed=seed)
    if interval.value is None:
        return Measured(0.0, 0, note=note or "there is no crystal")
    return Measured(interval.value, interval.num_crystals, interval.low, interval.high, note)


def mean(values: Sequence[float] | np.ndarray, *, seed: int, note: str) -> Measured:
    """Mean over the crystals that have a value, with its bootstrap interval; `note` is kept where there is one."""
    interval = bootstrap_interval(np.asarray(values, dtype=np.float64), seed=seed)
    return Measured(interval.value, interval.num_crystals, interval.low, interval.high, note)


def number(value: float | None, num_crystals: int, *, note: str = "") -> Measured:
    """A number without an interval."""
    return Measured(value, num_crystals, note=note)


def missing(reason: str) -> Measured:
    """A metric without a value, and the reason."""
    return Measured(None, 0, note=reason)


def labels_of(name: str, ours: Sequence[object], theirs: Sequence[object] | None) -> Distribution:
    """Labels of both sets, None where there is none, as a distribution."""
    return Distribution(
        name,
        "",
        np.array(ours, dtype=object),
        None if theirs is None else np.array(theirs, dtype=object),
        "categorical",
    )
