"""Symmetry of crystals: the reduced cell and the space group. Equality of two crystals is a metric, not here."""

from __future__ import annotations

import logging
from functools import lru_cache
from itertools import pairwise, product
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, overload

import numpy as np

from cdvae_kit.crystal.batch import CrystalBatch

if TYPE_CHECKING:
    from moyopy import MoyoDataset
    from pymatgen.core import Structure

_SILENCE = logging.NullHandler()


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


CRYSTAL_SYSTEMS = tuple(system for _, system in _LAST_OF_SYSTEM)


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


def settle_setting(structure: Structure, *, tolerance: float = 1e-4) -> Structure:
    """The crystal in that setting of its cell which its atoms choose, where the lattice leaves a choice.

    In a cubic cell any axis may be called a: a reduction decides by rounding, so that turned copies come out in
    different settings. Here the one with the largest structure factors wins, |F(h)| of the atomic numbers compared in a
    fixed order of h; they know no origin. Settings that are still alike give the same crystal. Handedness is kept.

    Args:
        structure: with a reduced cell; of others, not all settings are found.
        tolerance: up to which lengths, as a share of the longest, and structure factors, as a share of the sum of
            atomic numbers, are taken for equal.

    >>> from pymatgen.core import Lattice, Structure
    >>> along_a = Structure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.4, 0.5, 0.5]])
    >>> along_c = Structure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.4]])
    >>> a, c = settle_setting(along_a).distance_matrix, settle_setting(along_c).distance_matrix
    >>> bool(abs(a - c).max() < 1e-9)
    True
    """
    from pymatgen.core import Structure

    settings, waves = _settings_and_waves()
    gram = structure.lattice.matrix @ structure.lattice.matrix.T
    change = np.abs(settings @ gram @ settings.transpose(0, 2, 1) - gram).max((1, 2))
    alike = settings[change <= tolerance * gram.diagonal().max()]
    # rows of the lattice become M @ lattice, hence columns of coordinates those of the inverse
    coords = structure.frac_coords @ np.linalg.inv(alike)
    weights = np.array(structure.atomic_numbers, dtype=float)
    factors = np.abs(np.exp(2j * np.pi * coords @ waves.T).transpose(0, 2, 1) @ weights) / weights.sum()
    left = np.arange(len(alike))
    for column in factors.T:
        left = left[column[left] >= column[left].max() - tolerance]
    return Structure(
        structure.lattice,
        structure.species_and_occu,
        coords[left[0]],
        site_properties=structure.site_properties,
        properties=structure.properties,
    )


@lru_cache(maxsize=1)
def _settings_and_waves() -> tuple[np.ndarray, np.ndarray]:
    """(n, 3, 3) changes of a cell's vectors that keep its handedness, the unit first, and (m, 3) wave vectors."""
    whole = np.array(list(product((0, 1, -1), repeat=9)), dtype=float).reshape(-1, 3, 3)
    settings = whole[np.linalg.det(whole).round() == 1]
    unit = (settings == np.eye(3)).all((1, 2))
    half = [h for h in product(range(-2, 3), repeat=3) if h > (0, 0, 0)]
    waves = np.array(sorted(half, key=lambda h: (sum(x * x for x in h), h)), dtype=float)
    return np.concatenate([settings[unit], settings[~unit]]), waves


@overload
def space_group(crystals: CrystalBatch, symprec: float = 0.1) -> list[SpaceGroup]: ...
@overload
def space_group(crystals: Structure, symprec: float = 0.1) -> SpaceGroup: ...
def space_group(crystals: Structure | CrystalBatch, symprec: float = 0.1) -> SpaceGroup | list[SpaceGroup]:
    """The space group of a structure, or of each crystal of a batch.

    Where none is found, `number` and `symbol` are None and `reason` says why; nothing is raised.

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
    from moyopy import SpaceGroupType

    try:
        number = _moyo_dataset(lattice, frac_coords, atomic_numbers, symprec).number
    except ValueError as error:
        return SpaceGroup(None, None, f"no space group found at symprec {symprec}: {error}")
    return SpaceGroup(number, SpaceGroupType(number).hm_short.replace(" ", ""), None)


def symmetry_of(
    lattice: list[list[float]], frac_coords: list[list[float]], atomic_numbers: list[int], symprec: float = 0.1
) -> MoyoDataset | None:
    """All that moyopy finds out of one crystal: operations, orbits, standard cells; None where it finds no group."""
    try:
        return _moyo_dataset(lattice, frac_coords, atomic_numbers, symprec)
    except ValueError:
        return None


def _moyo_dataset(
    lattice: list[list[float]], frac_coords: list[list[float]], atomic_numbers: list[int], symprec: float
) -> MoyoDataset:
    from moyopy import Cell, MoyoDataset

    # it notes each cell that is not primitive, which a screen without a handler would be filled with
    logging.getLogger("moyo").addHandler(_SILENCE)
    return MoyoDataset(Cell(lattice, frac_coords, atomic_numbers), symprec=symprec)
