"""Compositions on a scale on which chemically alike elements are neighbours, and the distance between two of them.

The scale is the modified Pettifor scale (Glawe et al., New J. Phys. 18, 093011 (2016), doi
10.1088/1367-2630/18/9/093011); the distance is the least work that moves the one composition into the other along it,
the Element Mover's Distance (Hargreaves et al., Chem. Mater. 32, 10610 (2020), doi 10.1021/acs.chemmater.0c03381).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from cdvae_kit.metrics.crystals import Composition

SCALE = (
    "He Ne Ar Kr Xe Rn Fr Cs Rb K Na Li Ra Ba Sr Ca Eu Yb Lu Tm Y Er Ho Dy Tb Gd Sm Pm Nd Pr Ce La Ac Th Pa U Np Pu Am "
    "Cm Bk Cf Es Fm Md No Lr Sc Zr Hf Ti Ta Nb V Cr Mo W Re Tc Os Ru Ir Rh Pt Pd Au Ag Cu Ni Co Fe Mn Mg Zn Cd Hg Be "
    "Al Ga In Tl Pb Sn Ge Si B C N P As Sb Bi Po Te Se S O At I Br Cl F H"
)
"""103 elements, helium first."""


@cache
def element_positions() -> dict[int, int]:
    """Index of each atomic number on the scale; elements beyond lawrencium have none."""
    from pymatgen.core import Element

    return {Element(symbol).Z: index for index, symbol in enumerate(SCALE.split())}


def cumulative_shares(compositions: Sequence[Composition | None]) -> np.ndarray:
    """(num_compositions, 102) share of the atoms up to each place of the scale; NaN rows where one cannot be placed.

    The sum of absolute differences of two rows is the Element Mover's Distance.

    >>> rows = cumulative_shares([((11, 1), (17, 1)), ((17, 1), (19, 1))])  # NaCl and KCl: half the atoms, one step
    >>> float(np.abs(rows[0] - rows[1]).sum())
    0.5
    """
    indices = element_positions()
    rows = np.full((len(compositions), len(indices)), np.nan)
    for row, composition in zip(rows, compositions, strict=True):
        if composition and all(number in indices for number, _ in composition):
            row[:] = 0.0
            total = sum(count for _, count in composition)
            for number, count in composition:
                row[indices[number]] += count / total
    return np.cumsum(rows, axis=1)[:, :-1]
