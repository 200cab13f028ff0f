"""CrystalNN's description of single sites, asked of pymatgen itself: slow, and alike to the last bit.

For sites at which the definition jumps and rounding alone decides; all others are in `crystal_nn_features`. Nothing
here is rounded otherwise than in pymatgen: coordinates come from one product of a vector and the lattice each.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.fingerprints.order_parameters import LARGEST_COORDINATION, ORDER_PARAMETERS

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


def order_parameters_in_order(crystal: CrystalArrays, site: int, n: int) -> list[float]:
    """The order parameters of a site with its first `n` neighbours in the order that pymatgen has them in."""
    from pymatgen.analysis.local_env import CrystalNN

    structure = crystal.structure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = CrystalNN().get_nn_data(structure, site)
    return _values(n, [structure[site], *(neighbor["site"] for neighbor in data.cn_nninfo[n])])


def order_parameters_of(crystal: CrystalArrays, site: int, others: np.ndarray, images: np.ndarray) -> list[float]:
    """The order parameters of a site with these neighbours: sites and the cells that they lie in, (n,) and (n, 3)."""
    lattice = np.array(crystal.lattice)
    around = [_Point(np.dot(crystal.frac_coords[site], lattice))]
    for other, image in zip(others.tolist(), images, strict=True):
        around.append(_Point(np.dot(crystal.frac_coords[other] + image, lattice)))
    return _values(len(others), around)


@dataclass(frozen=True)
class _Point:
    """As much of pymatgen's site as its order parameters look at."""

    coords: np.ndarray


def _site(finder: CrystalNN, structure: Structure, site: int, *, features: bool) -> tuple[list[float], int]:
    data = finder.get_nn_data(structure, site)
    number = max(data.cn_weights, key=lambda n: data.cn_weights[n])
    row: list[float] = []
    for n in range(1, LARGEST_COORDINATION + 1) if features else ():
        weight = data.cn_weights.get(n, 0)
        if weight == 0:
            row += [0.0] * (1 + len(ORDER_PARAMETERS.get(n, ())))
            continue
        around = [structure[site], *(neighbor["site"] for neighbor in data.cn_nninfo[n])]
        row += [weight, *(weight * value for value in _values(n, around))]
    return row, number


def _values(n: int, around: Any) -> list[float]:
    """Order parameters of the first of some sites, with the others as its neighbours."""
    neighbors = list(range(1, len(around)))
    return [
        finder.get_order_parameters(around, 0, indices_neighs=neighbors)[0] or 0.0 for finder in _order_parameters(n)
    ]


@cache
def _order_parameters(n: int) -> list[LocalStructOrderParams]:
    from pymatgen.analysis.local_env import LocalStructOrderParams

    # pymatgen reads numbers as names of parameters too, but does not say so
    wanted: list[tuple[str, Any]] = [(kind, p or None) for kind, p in ORDER_PARAMETERS.get(n, ())]
    return [LocalStructOrderParams([kind], parameters=[p]) for kind, p in wanted]
