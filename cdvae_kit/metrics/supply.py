"""How concentrated the supply of the elements is: the Herfindahl-Hirschman index of production and of reserves.

Gaultois et al., Chem. Mater. 25, 2911 (2013), doi 10.1021/cm400893e: the sum of the squared market shares of the
countries in per cent, at most 10,000; of a compound the mean over its elements by mass. The table is pymatgen's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.metric import Family, Measured, Metric, Need, mean

if TYPE_CHECKING:
    from cdvae_kit.metrics.evidence import Evidence

Kind = Literal["production", "reserve"]
KINDS: tuple[Kind, ...] = ("production", "reserve")
_GAULTOIS = "Gaultois et al., Chem. Mater. 25, 2911 (2013), doi:10.1021/cm400893e"


def supply_concentration(crystals: Sequence[CrystalArrays], kind: Kind) -> np.ndarray:
    """(num_crystals,) index of each crystal, NaN for one that cannot be used or has an element without an index."""
    table = _table()[KINDS.index(kind)]
    masses = _masses()
    values = np.full(len(crystals), np.nan)
    for i, crystal in enumerate(crystals):
        if crystal.fault is None:
            weights = masses[crystal.atomic_numbers]
            values[i] = table[crystal.atomic_numbers] @ weights / weights.sum()
    return values


@cache
def _table() -> np.ndarray:
    """(2, 119) by atomic number, NaN where an element has none."""
    from pymatgen.analysis.hhi import HHIModel
    from pymatgen.core import Element

    found = np.full((2, 119), np.nan)
    for number in range(1, 119):
        values = HHIModel().get_hhi(Element.from_Z(number).symbol)
        if None not in values:
            found[:, number] = values
    return found


@cache
def _masses() -> np.ndarray:
    from pymatgen.core import Element

    return np.array([np.nan, *(float(Element.from_Z(number).atomic_mass) for number in range(1, 119))])


# The numbers of an evaluation


def _metric(kind: Kind, *, of_reference: bool) -> Metric:
    def values(evidence: Evidence) -> np.ndarray:
        if of_reference:
            return supply_concentration(evidence.theirs, kind)
        return supply_concentration([evidence.ours[i] for i in evidence.valid], kind)

    def compute(evidence: Evidence) -> Measured:
        note = "of the reference" if of_reference else "of valid crystals"
        return mean(values(evidence), seed=evidence.seed, note=f"mean, {note}; 1,500 is low, 2,500 high")

    name, label = f"hhi_{kind}", f"concentration of {'production' if kind == 'production' else 'reserves'} (HHI)"
    needs: tuple[Need, ...] = ()
    if of_reference:
        name, label, needs = f"{name}_reference", f"{label}, reference", ("reference",)
    return Metric(name, label, "other", None if of_reference else "lower", "", _GAULTOIS, needs, compute)


FAMILY = Family("supply", tuple(_metric(kind, of_reference=which) for kind in KINDS for which in (False, True)))
