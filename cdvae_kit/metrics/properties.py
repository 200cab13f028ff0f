"""Whether properties of the generated crystals are spread as those of the reference: by column, or by a predictor.

A predictor judges both sets, as in published distances of energies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.crystal_set import CrystalSet
from cdvae_kit.metrics.distributions import QUANTITIES, distance
from cdvae_kit.metrics.evaluation_result import Distribution
from cdvae_kit.metrics.metric import Columns, Family, Measured, Metric, missing

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence, PropertyFunction

_CDVAE = "Xie et al., ICLR 2022, arXiv:2110.06197"


def property_names(
    ours: CrystalSet,
    theirs: CrystalSet | None,
    asked: Sequence[str] | None,
    predictors: Mapping[str, PropertyFunction],
) -> list[str]:
    """The properties that are compared: those asked for, else what both sets have and the predictors give."""
    both = set(ours.properties) & set(ours.properties if theirs is None else theirs.properties)
    names = sorted(both - set(QUANTITIES)) + sorted(set(predictors) - both) if asked is None else list(asked)
    taken = [name for name in names if name in QUANTITIES]
    if taken:
        raise ValueError(
            f"{', '.join(taken)} is computed from the crystals themselves, under this name; "
            "rename the property to compare a column of that name"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"each property is asked for once, got {', '.join(names)}")
    return names


def property_values(crystals: CrystalSet, name: str, functions: Mapping[str, PropertyFunction]) -> np.ndarray | None:
    """By the caller's function where there is one, else by the column; None where there is neither."""
    if name not in functions:
        return crystals.properties.get(name)
    usable = [i for i, crystal in enumerate(crystals.arrays) if crystal.fault is None]
    given = functions[name]([crystals.arrays[i] for i in usable]) if usable else []
    found = np.asarray(given, dtype=np.float64)
    if found.shape != (len(usable),):
        raise ValueError(f"the predictor of {name} must give {len(usable)} values, one a crystal, got {found.shape}")
    values = np.full(len(crystals), np.nan)
    values[usable] = found
    # what is infinite has no place in a mean or a distance
    return np.where(np.isfinite(values), values, np.nan)


# The numbers of an evaluation


def _values(evidence: Evidence) -> dict[str, tuple[np.ndarray | None, np.ndarray | None]]:
    """Each property of both sets."""
    return {
        name: (
            property_values(evidence.generated, name, evidence.predictors),
            None if evidence.reference is None else property_values(evidence.reference, name, evidence.predictors),
        )
        for name in evidence.property_names
    }


def _metric(name: str, unit: str) -> Metric:
    def compute(evidence: Evidence) -> Measured:
        ours, theirs = evidence.once(_values)[name]
        if ours is None or theirs is None:
            lacking = "generated" if ours is None else "reference"
            return missing(f"the {lacking} crystals have no {name}, and no predictor gives it")
        return distance(ours[evidence.sampled], theirs, unit)

    label = f"Wasserstein distance, {name.replace('_', ' ')}"
    return Metric(f"wdist_{name}", label, "distribution", "lower", unit, _CDVAE, ("reference",), compute)


def _metrics(evidence: Evidence) -> list[Metric]:
    return [_metric(name, evidence.units.get(name, "")) for name in evidence.property_names]


def _columns(evidence: Evidence) -> Columns:
    found = evidence.once(_values)
    return Columns(
        values={name: ours for name, (ours, _) in found.items() if ours is not None},
        distributions=[
            Distribution(name, evidence.units.get(name, ""), ours[evidence.sampled], theirs, "continuous")
            for name, (ours, theirs) in found.items()
            if ours is not None and theirs is not None
        ],
    )


FAMILY = Family("properties", more=_metrics, columns=_columns)
