"""Symmetry of crystals: the reduced cell and the space group. Equality of two crystals is a metric, not here."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, overload

from cdvae_kit.crystal.batch import CrystalBatch

if TYPE_CHECKING:
    from pymatgen.core import Structure


CrystalSystem: TypeAlias = Literal[
    "triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic"
]

_LAST_OF_SYSTEM: tuple[tuple[int, CrystalSystem], ...] = (
    (2, "triclinic"),
    (15, "monoclinic"),
    (74, "orthorhombic"),
    (142, "tetragonal"),
    (167, "trigonal"),
    (194, "hexagonal"),
    (230, "cubic"),
)


class SpaceGroup(NamedTuple):
    """A space group, or the reason why there is none."""

    number: int | None
    symbol: str | None
    reason: str | None


def crystal_system(number: int) -> CrystalSystem:
    """The crystal system of a space group.

    >>> crystal_system(1), crystal_system(225)
    ('triclinic', 'cubic')
    """
    if not 1 <= number <= 230:
        raise ValueError(f"space groups are numbered from 1 to 230, got {number}")
    return next(system for last, system in _LAST_OF_SYSTEM if number <= last)


def niggli_reduce(structure: Structure) -> Structure:
    """The Niggli-reduced crystal in the frame that lengths and angles alone define, as CDVAE prepares its data.

    c lies along z and a in the xz plane, so crystals that differ by a rotation become the same. Properties are kept.

    >>> from pymatgen.core import Lattice, Structure
    >>> doubled = Structure(Lattice([[3, 0, 0], [3, 3, 0], [0, 0, 3]]), ["Po"], [[0, 0, 0]])
    >>> niggli_reduce(doubled).lattice.angles
    (90.0, 90.0, 90.0)
    """
    from pymatgen.core import Lattice, Structure

    reduced = structure.get_reduced_structure(reduction_algo="niggli")
    return Structure(
        Lattice.from_parameters(*reduced.lattice.parameters),
        reduced.species_and_occu,
        reduced.frac_coords,
        site_properties=reduced.site_properties,
        properties=structure.properties,
    )


@overload
def space_group(crystals: CrystalBatch, symprec: float = 0.1) -> list[SpaceGroup]: ...
@overload
def space_group(crystals: Structure, symprec: float = 0.1) -> SpaceGroup: ...
def space_group(crystals: Structure | CrystalBatch, symprec: float = 0.1) -> SpaceGroup | list[SpaceGroup]:
    """The space group of a structure, or of each crystal of a batch; a failed search is told, not raised.

    Args:
        crystals: a pymatgen structure or a batch.
        symprec: angstrom; 0.1 suits generated crystals, whose atoms are not quite on their sites.
    """
    if isinstance(crystals, CrystalBatch):
        bounds = crystals.ptr.tolist()
        lattice = crystals.lattice.detach().cpu().double().tolist()
        frac_coords = crystals.frac_coords.detach().cpu().double().tolist()
        numbers = crystals.atomic_numbers.tolist()
        return [
            find_space_group(lattice[i], frac_coords[start:end], numbers[start:end], symprec)
            for i, (start, end) in enumerate(pairwise(bounds))
        ]
    structure: Structure = crystals
    return find_space_group(
        structure.lattice.matrix.tolist(), structure.frac_coords.tolist(), list(structure.atomic_numbers), symprec
    )


def find_space_group(
    lattice: list[list[float]], frac_coords: list[list[float]], atomic_numbers: list[int], symprec: float = 0.1
) -> SpaceGroup:
    """The space group of one crystal that is given as plain lists, in the shapes of the batch's own fields."""
    from moyopy import Cell, MoyoDataset, SpaceGroupType

    try:
        number = MoyoDataset(Cell(lattice, frac_coords, atomic_numbers), symprec=symprec).number
    except ValueError as error:
        return SpaceGroup(None, None, f"no space group found at symprec {symprec}: {error}")
    return SpaceGroup(number, SpaceGroupType(number).hm_short.replace(" ", ""), None)
