"""The pure elements as crystals: what a hull needs at its corners, where a set of compounds has none of them.

The cells are those of ASE's table of reference states (`ase.data.reference_states`), and, for layers, chains and
molecules that it has no builder for, experimental ones (Wyckoff, Crystal Structures, 2nd ed., volume 1, 1963). They are
a start for a relaxation, not more.
"""

from __future__ import annotations

from collections.abc import Iterable

from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols, reference_states
from ase.spacegroup import crystal

_BOX = 8.0
"""Angstrom, edge of the cell of a molecule that stands alone."""

_CMCE, _P3121 = 64, 152
_CRYSTALS: dict[str, tuple[int, tuple[float, float, float], tuple[float, float, float]]] = {
    # space group; a, b, c in angstrom; the one site
    "P": (_CMCE, (3.314, 10.478, 4.376), (0.0, 0.1017, 0.0806)),
    "Cl": (_CMCE, (6.145, 4.395, 8.154), (0.0, 0.1173, 0.1014)),
    "Ga": (_CMCE, (4.519, 7.658, 4.526), (0.0, 0.1539, 0.0810)),
    "Se": (_P3121, (4.366, 4.366, 4.954), (0.2254, 0.0, 1 / 3)),
    "Br": (_CMCE, (6.567, 4.470, 8.694), (0.0, 0.1402, 0.1104)),
    "Te": (_P3121, (4.457, 4.457, 5.929), (0.2636, 0.0, 1 / 3)),
    "I": (_CMCE, (7.136, 4.686, 9.784), (0.0, 0.1543, 0.1174)),
}


def element_crystals(atomic_numbers: Iterable[int]) -> dict[int, Atoms]:
    """The element's crystal by atomic number; those whose structure ASE cannot build are left out.

    H, N, O and F are molecules that stand alone in a box of 8 angstrom. Boron, sulfur, manganese, plutonium and other
    elements of more involved structures are the ones left out.

    >>> sorted(element_crystals([29, 7, 5]))
    [7, 29]
    """
    found = {number: _element(number) for number in sorted(set(atomic_numbers))}
    return {number: atoms for number, atoms in found.items() if atoms is not None}


def _element(number: int) -> Atoms | None:
    state = reference_states[number]
    if state is None:
        return None
    symbol = chemical_symbols[number]
    if state["symmetry"] == "diatom":
        pair = Atoms(f"{symbol}2", positions=[[0, 0, 0], [0, 0, state["d"]]], cell=[_BOX] * 3, pbc=True)
        pair.center()
        return pair
    if symbol in _CRYSTALS:
        group, lengths, site = _CRYSTALS[symbol]
        angles = (90, 90, 120 if group == _P3121 else 90)
        return crystal(symbol, [site], spacegroup=group, cellpar=[*lengths, *angles], primitive_cell=True)
    try:
        return bulk(symbol)
    except (KeyError, RuntimeError, ValueError):
        # what ASE raises for a structure that it has no builder or no parameters for
        return None
