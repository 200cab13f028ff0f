"""Formation energies of relaxed crystals, and the Materials Project's corrections to them."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Lattice, Structure

from cdvae_kit.io.crystals.phases import has_formation_energies
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.metrics.evidence import silent
from cdvae_kit.metrics.relaxing import StabilityRequest, judge_stability
from cdvae_kit.relaxation import formation_hull, relax
from cdvae_kit.relaxation.formation import element_energies, formation_energies, mp_correction, needs_corrections
from cdvae_kit.relaxation.result import RelaxationSettings

CU, AU = 29, 79
SINGLE_POINT = RelaxationSettings(max_steps=0)


def cubic(group: str, length: float, symbols: list[str], sites: list[list[float]]) -> Structure:
    return Structure.from_spacegroup(group, Lattice.cubic(length), symbols, sites).get_primitive_structure()


ROCK_SALT = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        # Wang et al., Scientific Reports 11, 15496 (2021), table 1, eV an atom: O -0.687, Cl -0.614, Fe -2.256
        (cubic("Fm-3m", 4.2, ["Mg", "O"], ROCK_SALT), -0.687),
        (cubic("Fm-3m", 5.6, ["Na", "Cl"], ROCK_SALT), -0.614),
        (cubic("Fm-3m", 4.3, ["Fe", "O"], ROCK_SALT), -0.687 - 2.256),
        # no U, and no correction, in a metal
        (cubic("Im-3m", 2.87, ["Fe"], [[0.0, 0.0, 0.0]]), 0.0),
    ],
)
def test_corrections_are_the_published_ones_and_go_with_the_cell(structure: Structure, expected: float) -> None:
    assert mp_correction(structure) == pytest.approx(expected, abs=1e-3)
    assert mp_correction(structure * (2, 1, 1)) == pytest.approx(2 * expected, abs=2e-3)


def alloy() -> Structure:
    return cubic("Pm-3m", 3.75, ["Cu", "Au"], [[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]])


def test_a_formation_energy_is_the_total_one_less_the_elements() -> None:
    elements, missing = element_energies([CU, AU], "emt", SINGLE_POINT)
    assert not missing and set(elements) == {CU, AU}
    total = relax([alloy()], "emt", max_steps=0)[0]
    (found,) = formation_energies([total], elements)
    counts = total.composition
    expected = total.energy - counts[CU] * elements[CU] - counts[AU] * elements[AU]  # type: ignore[operator]
    assert found.energy == pytest.approx(expected)
    # a pure element has none
    pure = relax([bulk("Cu")], "emt", max_steps=0)
    assert formation_energies(pure, elements)[0].energy == pytest.approx(0.0, abs=1e-6)


def test_what_has_no_zero_and_what_failed_says_why() -> None:
    good = relax([alloy()], "emt", max_steps=0)[0]
    (found,) = formation_energies([good], {CU: -1.0})
    assert found.failed and found.reason == "there is no energy of pure Au by this calculator"
    bad = relax([bulk("Pu", "fcc", a=4.6)], "emt", max_steps=0)[0]
    assert formation_energies([bad], {}) == [bad]


def test_corrections_are_added_where_they_are_asked_for() -> None:
    from dataclasses import replace

    oxide = cubic("Fm-3m", 4.2, ["Mg", "O"], ROCK_SALT)
    template = relax([bulk("Cu")], "emt", max_steps=0)[0]
    one = replace(
        template,
        atomic_numbers=np.array([12, 8]),
        lattice=np.array(oxide.lattice.matrix),
        frac_coords=np.array(oxide.frac_coords),
        energy=-12.0,
        initial_energy=-11.0,
    )
    elements = {12: -1.5, 8: -4.9}
    raw, corrected = (formation_energies([one], elements, corrected=flag)[0].energy for flag in (False, True))
    assert raw == pytest.approx(-12.0 + 6.4)
    assert corrected == pytest.approx(-12.0 + 6.4 - 0.687)


def test_which_calculators_are_raw() -> None:
    assert needs_corrections("sevenn") and needs_corrections("mace")
    assert needs_corrections("chgnet") is False
    assert needs_corrections("emt") is None and needs_corrections("my:own") is None


def test_a_calculator_is_held_against_tabulated_formation_energies() -> None:
    elements, _ = element_energies([CU, AU], "emt", SINGLE_POINT)
    own = formation_energies(relax([alloy()], "emt", max_steps=0), elements)[0].energy_per_atom
    assert own is not None
    table = [{"composition": "Cu3Au", "energy_per_atom": own - 0.05}]
    request = StabilityRequest("emt", formation_hull(table, name="one alloy"), max_steps=0)
    found = judge_stability(as_arrays([alloy()]), None, request, report=lambda title: silent(title, ""))
    assert found.result.crystals[0].energy_above_hull == pytest.approx(0.05, abs=1e-5)
    assert "formation energies from 2 of 2 elements by the same calculator, without MP2020" in found.result.convention
    # with the Materials Project's corrections it says so; an alloy has none
    corrected = StabilityRequest("emt", formation_hull(table, name="one alloy"), max_steps=0, mp_corrections=True)
    again = judge_stability(as_arrays([alloy()]), None, corrected, report=lambda title: silent(title, ""))
    assert again.result.crystals[0].energy_above_hull == pytest.approx(0.05, abs=1e-5)
    assert "with MP2020 corrections" in again.result.convention


def test_tables_of_formation_energies_are_known_by_their_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("material_id,pretty_formula,formation_energy_per_atom\nx,NaCl,-2.0\n")
    (tmp_path / "b.csv").write_text("composition,energy_per_atom\nNaCl,-3.0\n")
    assert has_formation_energies(tmp_path / "a.csv") and not has_formation_energies(tmp_path / "b.csv")
    assert not has_formation_energies(tmp_path / "phases.json")
