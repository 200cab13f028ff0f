import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from pymatgen.core import Lattice, Structure

from cdvae_kit.relaxation import LennardJones, RelaxationSettings, relax
from cdvae_kit.relaxation.reference import calculate_hull, elemental_phases, elemental_structure, is_molecule

SHORTEST_BONDS = {
    # angstrom, of the element at room temperature or below (Donohue, The Structures of the Elements, 1974)
    "H": 0.74,
    "B": 1.67,
    "C": 1.42,
    "N": 1.10,
    "O": 1.21,
    "F": 1.41,
    "P": 2.22,
    "S": 2.05,
    "Cl": 1.98,
    "Mn": 2.26,
    "Fe": 2.48,
    "Cu": 2.56,
    "Ga": 2.47,
    "Se": 2.37,
    "Br": 2.27,
    "Te": 2.83,
    "I": 2.72,
    "U": 2.75,
}


@pytest.mark.parametrize(("symbol", "bond"), SHORTEST_BONDS.items())
def test_an_element_has_its_own_bond_length(symbol: str, bond: float) -> None:
    atoms = elemental_structure(atomic_numbers[symbol])
    assert atoms is not None and set(atoms.get_chemical_symbols()) == {symbol}
    repeated = atoms if is_molecule(atomic_numbers[symbol]) else atoms.repeat(3 if len(atoms) < 9 else 1)
    distances = repeated.get_all_distances(mic=True)
    assert distances[np.triu_indices(len(repeated), 1)].min() == pytest.approx(bond, abs=0.06)


def test_a_crystal_of_an_element_has_its_density() -> None:
    from pymatgen.core import Element

    for number in range(1, 95):
        atoms = elemental_structure(number)
        # white phosphorus is what the table has, black what is more stable
        if atoms is None or is_molecule(number) or number == 15:
            continue
        expected = float(Element.from_Z(number).molar_volume) / 0.602214
        assert atoms.cell.volume / len(atoms) == pytest.approx(expected, rel=0.1), atoms.symbols


def test_most_elements_are_known_and_the_others_are_named() -> None:
    unknown = [number for number in range(1, 95) if elemental_structure(number) is None]
    assert unknown == [2, 61, 85, 86, 87, 88, 91, 94]
    phases, missing = elemental_phases([29, 2], LennardJones())
    assert [phase.composition for phase in phases] == [{29: 1}]
    assert missing == {2: "no structure of the element is known here"}


def test_an_element_that_the_calculator_refuses_is_named() -> None:
    phases, missing = elemental_phases([29, 26], "emt")
    assert [phase.name for phase in phases] == ["Cu"]
    assert "No EMT-potential for Fe" in missing[26]


def test_a_molecule_keeps_its_box() -> None:
    phases, missing = elemental_phases([8], "emt")
    assert not missing
    molecule = elemental_structure(8)
    assert molecule is not None
    expected = relax([molecule], "emt", relax_cell=False)[0].energy_per_atom
    assert phases[0].energy_per_atom == expected


def test_a_hull_of_compounds_gets_the_elements_they_are_made_of() -> None:
    compound = Atoms("CuAu", cell=np.diag([2.87, 2.87, 3.6]), scaled_positions=[[0, 0, 0], [0.5] * 3], pbc=True)
    made = calculate_hull([compound, bulk("Pu", "fcc", a=4.6)], "emt", name="two crystals", elements=[47])
    assert made.hull.elements == (29, 47, 79) and made.hull.num_phases == 4
    assert list(made.missing) == [94]
    assert made.relaxations[0].converged and made.relaxations[1].failed
    # EMT binds CuAu, so it lies on the hull, and itself at no distance
    (distance, _) = made.hull.distances(made.relaxations)
    assert distance.energy_above_hull == pytest.approx(0.0, abs=1e-9)
    copper = next(phase for phase in elemental_phases([29], "emt")[0])
    assert made.hull.distance({29: 4}, copper.energy_per_atom).energy_above_hull == pytest.approx(0.0, abs=1e-9)
    assert "two crystals and elements by emt, FIRE" in str(made.hull)


def test_a_reference_without_any_energy_is_an_error_that_gives_the_reason() -> None:
    with pytest.raises(ValueError, match="No EMT-potential for Pu"):
        calculate_hull([bulk("Pu", "fcc", a=4.6)], "emt")
    with pytest.raises(ValueError, match="empty"):
        calculate_hull([], "emt")


@pytest.mark.slow
def test_chgnet_gives_strontium_titanate_its_heat_of_formation_from_the_oxides() -> None:
    pytest.importorskip("chgnet", reason="the extra 'chgnet' is not installed")
    oxide = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.16), ["Sr", "O"], [[0, 0, 0], [0.5] * 3])
    rutile = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
    )
    sites = [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    right = Structure(Lattice.cubic(3.9), ["Sr", "Ti", "O", "O", "O"], sites)
    swapped = Structure(Lattice.cubic(4.3), ["Ti", "Sr", "O", "O", "O"], sites)
    settings = RelaxationSettings(max_steps=60)
    made = calculate_hull([oxide.get_primitive_structure(), rutile], "chgnet", settings, device="cpu")
    assert not made.missing
    crystals = relax([right, swapped], "chgnet", max_steps=60, device="cpu")
    formation, misplaced = (distance.energy_above_hull for distance in made.hull.distances(crystals))
    # some -1.2 to -1.4 eV a formula unit of five atoms, by calorimetry and by DFT
    assert formation == pytest.approx(-0.26, abs=0.06)
    assert misplaced is not None and misplaced > 1.0
