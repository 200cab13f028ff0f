"""Crystals to pymatgen and ASE; the way from them is in `conversion`.

Formulas are written as pymatgen writes them. Both libraries are imported only when a function is called. Nothing here
needs the class of the batch, whose own methods these functions are.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from cdvae_kit.crystal.arrays import CrystalArrays, split

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from cdvae_kit.crystal.batch import CrystalBatch

MATERIAL_ID = "material_id"
"""The key of a crystal's name in `Structure.properties` and `Atoms.info`."""


def batch_to_structures(batch: CrystalBatch) -> list[Structure]:
    """pymatgen structures, one a crystal; properties that are not NaN go to `Structure.properties`."""
    from pymatgen.core import Element, Lattice, Structure

    elements = {number: Element.from_Z(number) for number in batch.atomic_numbers.unique().tolist()}
    return [
        Structure(
            Lattice(crystal.lattice),
            [elements[number] for number in crystal.atomic_numbers.tolist()],
            crystal.frac_coords,
            properties=_beside(crystal),
        )
        for crystal in split(batch)
    ]


def batch_to_atoms(batch: CrystalBatch) -> list[Atoms]:
    """ASE atoms, one a crystal; properties that are not NaN go to `Atoms.info`."""
    from ase import Atoms

    return [
        Atoms(
            numbers=crystal.atomic_numbers,
            positions=crystal.frac_coords @ crystal.lattice,
            cell=crystal.lattice,
            pbc=True,
            info=_beside(crystal),
        )
        for crystal in split(batch)
    ]


def _beside(crystal: CrystalArrays) -> dict[str, Any]:
    """What goes beside the crystal in an object of another library: properties, and the name where it has one."""
    return {**crystal.properties, **({MATERIAL_ID: crystal.name} if crystal.name else {})}


def formulas(batch: CrystalBatch) -> list[str]:
    """The reduced formula of each crystal."""
    from pymatgen.core import Composition, Element

    found = []
    with warnings.catch_warnings():
        # it orders elements by electronegativity, and warns of those that have none, which go last
        warnings.simplefilter("ignore", UserWarning)
        for numbers in batch.atomic_numbers.split(batch.num_atoms.tolist()):
            counts = Counter(numbers.tolist())
            found.append(Composition({Element.from_Z(z): counts[z] for z in sorted(counts)}).reduced_formula)
    return found
