"""CrystalNN's description of single sites, asked of pymatgen itself: slow, and alike to the last bit.

For sites at which the definition jumps and rounding alone decides; all others are in `crystal_nn_features`.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.order_parameters import ORDER_PARAMETERS

if TYPE_CHECKING:
    from pymatgen.analysis.local_env import CrystalNN, LocalStructOrderParams
    from pymatgen.core import Structure


def describe_by_pymatgen(
    crystal: CrystalArrays, sites: np.ndarray, *, features: bool
) -> tuple[np.ndarray | None, np.ndarray]:
    """Features (sites, 61) and coordination numbers (sites,) of some sites; raises what pymatgen raises."""
    from pymatgen.analysis.local_env import CrystalNN

    structure = crystal.structure()
    finder = CrystalNN()
    with warnings.catch_warnings():
        # it warns of every site that it has no oxidation state, which no generated crystal has
        warnings.simplefilter("ignore")
        rows = [_site(finder, structure, int(site), features=features) for site in sites]
    numbers = np.array([number for _, number in rows], dtype=np.int64)
    return (np.array([row for row, _ in rows]) if features else None), numbers


def _site(finder: CrystalNN, structure: Structure, site: int, *, features: bool) -> tuple[list[float], int]:
    data = finder.get_nn_data(structure, site)
    number = max(data.cn_weights, key=lambda n: data.cn_weights[n])
    row: list[float] = []
    for n in range(1, 25) if features else ():
        weight = data.cn_weights.get(n, 0)
        row.append(weight)
        for finder_of_one in _order_parameters(n):
            if weight == 0:
                row.append(0.0)
                continue
            around = [structure[site], *(neighbor["site"] for neighbor in data.cn_nninfo[n])]
            value = finder_of_one.get_order_parameters(around, 0, indices_neighs=list(range(1, len(around))))[0]
            row.append(weight * (value or 0.0))
    return row, number


@cache
def _order_parameters(n: int) -> list[LocalStructOrderParams]:
    from pymatgen.analysis.local_env import LocalStructOrderParams

    return [LocalStructOrderParams([kind], parameters=[p]) for kind, p in ORDER_PARAMETERS.get(n, ())]
