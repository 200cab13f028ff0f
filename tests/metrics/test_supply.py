"""The concentration of supply: by hand from the paper's table, and what has none."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics import EvaluationSettings, evaluate
from cdvae_kit.metrics.crystals import CrystalArrays, as_arrays
from cdvae_kit.metrics.supply import supply_concentration

LITHIA = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.6), ["Li", "O"], [[0.25, 0.25, 0.25], [0, 0, 0]])


def test_a_compound_has_the_mean_of_its_elements_by_mass() -> None:
    # Gaultois et al.: Li 2900 and 4200, O 500 and 500
    lithium, oxygen = 2 * 6.94 / (2 * 6.94 + 15.999), 15.999 / (2 * 6.94 + 15.999)
    [produced], [reserved] = (supply_concentration(as_arrays([LITHIA]), kind) for kind in ("production", "reserve"))
    assert produced == pytest.approx(2900 * lithium + 500 * oxygen, rel=1e-3)
    assert reserved == pytest.approx(4200 * lithium + 500 * oxygen, rel=1e-3)


def test_a_copy_in_a_larger_cell_has_the_same() -> None:
    first, second = supply_concentration(as_arrays([LITHIA, LITHIA * (2, 1, 1)]), "production")
    assert first == pytest.approx(second)


def test_what_has_no_index_has_no_value() -> None:
    oganesson = CrystalArrays(np.eye(3) * 5, np.zeros((1, 3)), np.array([118]))
    values = supply_concentration([oganesson, *as_arrays([None])], "production")
    assert np.isnan(values).all()


def test_an_evaluation_gives_the_mean_of_the_valid_crystals_beside_the_reference() -> None:
    found = evaluate([LITHIA, None], reference=[LITHIA], settings=EvaluationSettings(fingerprints=False)).metrics
    assert found["hhi_production"].value == pytest.approx(found["hhi_production_reference"].value)
    assert found["hhi_production"].num_crystals == 1
