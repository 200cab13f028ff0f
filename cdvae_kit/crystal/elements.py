"""What is known of each element, as numbers that a network can start from."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

NUM_FEATURES = 24
_LAST_ELEMENT = 100
_SHELLS = "spdf"


@lru_cache(maxsize=1)
def pettifor_ranks() -> tuple[int, ...]:
    """The rank of each element, by atomic number, in Pettifor's order, the most electronegative ones first; 0 for 0.

    What is alike in chemistry is close in it, so that the descriptions of alike compounds are alike.
    Source: Pettifor, Solid State Commun. 51, 31 (1984), as pymatgen has it.
    """
    from pymatgen.core import Element

    # beyond lawrencium it has nothing
    listed = sorted(range(1, 104), key=lambda number: -Element.from_Z(number).mendeleev_no)
    ranks = {number: rank for rank, number in enumerate([*listed, *range(104, 119)], start=1)}
    return (0, *(ranks[number] for number in range(1, 119)))


@lru_cache(maxsize=8)
def chemical_order(device: torch.device) -> Tensor:
    """(119,) long: `pettifor_ranks`, on a device."""
    return torch.tensor(pettifor_ranks(), device=device)


def element_features() -> Tensor:
    """(101, 24) float32, row Z: electronegativity, place in the table, radii, energies, bulk values, shells, charges.

    From pymatgen's table of the elements, each column with mean 0 and standard deviation 1 over the elements that
    have a value, and 0 where there is none. Row 0 is 0.

    >>> tuple(element_features().shape)
    (101, 24)
    """
    table = torch.tensor([_row(z) for z in range(1, _LAST_ELEMENT + 1)], dtype=torch.float64)
    there = table.isfinite()
    count = there.sum(0)
    filled = torch.where(there, table, 0.0)
    mean = filled.sum(0) / count
    std = (torch.where(there, table - mean, 0.0).square().sum(0) / count).sqrt()
    scaled = torch.where(there, (table - mean) / std, 0.0)
    return torch.nn.functional.pad(scaled.float(), (0, 0, 1, 0))


def _row(atomic_number: int) -> list[float]:
    from pymatgen.core import Element

    element = Element.from_Z(atomic_number)
    with warnings.catch_warnings():
        # it warns of each value that is not known
        warnings.simplefilter("ignore")
        energies = element.ionization_energies
        values: list[Any] = [
            element.X,
            element.row,
            element.group,
            element.mendeleev_no,
            element.atomic_radius,
            element.atomic_radius_calculated,
            element.average_ionic_radius,
            energies[0] if energies else None,
            element.electron_affinity,
            element.molar_volume,
            element.melting_point,
            element.boiling_point,
            element.density_of_solid,
            torch.tensor(float(element.atomic_mass)).log().item(),
        ]
    # of each kind of shell, the outermost
    electrons = {kind: count for _, kind, count in element.full_electronic_structure}
    charges = element.common_oxidation_states or (0,)
    return [
        *(float("nan") if value is None else float(value) for value in values),
        *(float(element.block == kind) for kind in _SHELLS),
        *(float(electrons.get(kind, 0)) for kind in _SHELLS),
        float(max(charges)),
        float(min(charges)),
    ]
