"""CIFs with symmetry operations: one site an orbit, in the conventional cell of the standard setting."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.cells import EXACT
from cdvae_kit.crystal.lattice import lattice_from_log_parameters, lattice_parameters, log_parameters, volume
from cdvae_kit.crystal.lattice_families import project_parameters
from cdvae_kit.crystal.symmetric import SymmetricCrystals, describe
from cdvae_kit.crystal.wyckoff import all_positions, parse_coordinates


def symmetrized_cif_texts(crystals: CrystalBatch, *, tolerance: float = EXACT) -> list[str]:
    """One CIF text a crystal, with the operations of its group and its orbits' first sites.

    Args:
        crystals: any batch; symmetry is looked for, and positions are idealised, where there is no description yet.
        tolerance: angstrom, for that search.

    >>> lattice = 1.8 * (1.0 - torch.eye(3))[None]
    >>> copper = CrystalBatch(torch.zeros(1, 3), lattice, torch.tensor([29]), torch.tensor([1]))
    >>> "_space_group_IT_number 225" in symmetrized_cif_texts(copper)[0]
    True
    """
    described = crystals if isinstance(crystals, SymmetricCrystals) else describe(crystals, tolerance=tolerance)
    orbits = described.orbits
    # in double precision, so that what the family makes equal, or 90 degrees, is
    stored = log_parameters(orbits.primitive_to_conventional(described.lattice.double()))
    conventional = lattice_from_log_parameters(project_parameters(stored, orbits.family))
    lengths, angles = (values.tolist() for values in lattice_parameters(conventional))
    volumes = volume(conventional).tolist()
    ends = orbits.num_orbits.cumsum(0).tolist()
    names = described.material_ids or [f"crystal_{i}" for i in range(len(described))]
    texts = []
    for i, (name, end) in enumerate(zip(names, ends, strict=True)):
        rows = slice(end - int(orbits.num_orbits[i]), end)
        group = int(orbits.space_group[i])
        cell = [*lengths[i], *angles[i], volumes[i]]
        sites = _sites(orbits.position[rows].tolist(), described.elements[rows].tolist(), described.free[rows])
        texts.append(_text(name, group, cell, sites))
    return texts


def symmetrized_cif_text(crystals: CrystalBatch) -> str:
    """All crystals in one text, a data block each."""
    return "\n".join(symmetrized_cif_texts(crystals))


def _sites(positions: list[int], elements: list[int], free: torch.Tensor) -> list[str]:
    from ase.data import chemical_symbols

    lines = []
    for number, (position, element, u) in enumerate(zip(positions, elements, free.double().numpy(), strict=True)):
        about = all_positions()[position]
        matrix, offset = parse_coordinates(about.coordinates)
        x, y, z = _exact((matrix @ u + offset) % 1.0)
        symbol = chemical_symbols[element]
        place = f"{about.multiplicity} {about.letter}"
        lines.append(f"{symbol} {symbol}{number + 1} {place} {x} {y} {z} 1")
    return lines


def _exact(point: np.ndarray) -> list[str]:
    """Coordinates with twelve digits, so that thirds and sixths are found again by whoever reads them."""
    # float32 parameters: what is within rounding of a twelfth is one
    twelfths = np.round(point * 24.0) / 24.0
    return [f"{value:.12f}" for value in np.where(np.abs(point - twelfths) < 1e-6, twelfths, point) % 1.0]


def _text(name: str, group: int, cell: list[float], sites: list[str]) -> str:
    from moyopy import SpaceGroupType

    keys = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma", "volume")
    block = "".join(character if character.isalnum() or character in "-_." else "_" for character in name)
    lines = [f"data_{block}"]
    lines += [f"_cell_{key} {value:.8f}" for key, value in zip(keys, cell, strict=True)]
    lines += [
        f"_space_group_IT_number {group}",
        f"_space_group_name_H-M_alt '{SpaceGroupType(group).hm_short}'",
        "loop_",
        "_space_group_symop_id",
        "_space_group_symop_operation_xyz",
        *(f"{i + 1} '{operation}'" for i, operation in enumerate(operations_xyz(group))),
        "loop_",
        "_atom_site_type_symbol",
        "_atom_site_label",
        "_atom_site_symmetry_multiplicity",
        "_atom_site_Wyckoff_symbol",
        "_atom_site_fract_x",
        "_atom_site_fract_y",
        "_atom_site_fract_z",
        "_atom_site_occupancy",
        *sites,
    ]
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=230)
def operations_xyz(number: int) -> tuple[str, ...]:
    """All operations of a group's standard setting in the conventional cell, as `x,y,z`.

    >>> operations_xyz(2)
    ('x,y,z', '-x,-y,-z')
    """
    from moyopy import operations_from_number

    operations = operations_from_number(number)
    words = []
    for rotation, translation in zip(operations.rotations, operations.translations, strict=True):
        words.append(",".join(_axis(row, shift) for row, shift in zip(rotation, translation, strict=True)))
    # the identity first, as the dictionary of CIF asks
    return tuple(sorted(words, key=lambda word: word != "x,y,z"))


def _axis(row: list[int], shift: float) -> str:
    text = ""
    for factor, letter in zip(row, "xyz", strict=True):
        if factor:
            text += ("-" if factor < 0 else "+" if text else "") + letter
    fraction = Fraction(float(shift) % 1.0).limit_denominator(12)
    return f"{text}+{fraction}" if fraction else text
