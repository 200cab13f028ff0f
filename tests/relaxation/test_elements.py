"""The elements as crystals: known bonds, and none where there is no structure."""

import numpy as np
import pytest
from ase.data import atomic_numbers, covalent_radii

from cdvae_kit.relaxation.elements import element_crystals

NEAREST = {  # angstrom: Pauling, The Nature of the Chemical Bond; Wyckoff, Crystal Structures
    "H": 0.74,
    "N": 1.10,
    "O": 1.21,
    "F": 1.42,
    "Cl": 1.98,
    "Br": 2.28,
    "I": 2.72,
    "P": 2.22,
    "Se": 2.32,
    "Te": 2.83,
    "Ga": 2.44,
    "C": 1.54,
    "Si": 2.35,
    "Cu": 2.56,
    "Fe": 2.48,
    "Na": 3.66,
}


@pytest.mark.parametrize(("symbol", "distance"), NEAREST.items())
def test_nearest_atoms_are_as_far_apart_as_is_known(symbol: str, distance: float) -> None:
    atoms = element_crystals([atomic_numbers[symbol]])[atomic_numbers[symbol]]
    distances = (atoms * (2, 2, 2)).get_all_distances(mic=True)
    assert distances[distances > 0].min() == pytest.approx(distance, rel=0.06)


def test_no_element_has_atoms_on_top_of_each_other() -> None:
    for number, atoms in element_crystals(range(1, 95)).items():
        distances = (atoms * (2, 2, 2)).get_all_distances(mic=True)
        assert distances[distances > 0].min() > 0.9 * covalent_radii[number], number
        assert set(atoms.get_atomic_numbers()) == {number} and np.all(atoms.pbc)


def test_elements_without_a_simple_structure_are_left_out() -> None:
    assert element_crystals([atomic_numbers["B"], atomic_numbers["Mn"]]) == {} and element_crystals([]) == {}
