"""Features of crystals by a potential."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.relaxation.calculators import CalculatorError
from cdvae_kit.relaxation.embeddings import make_embedder

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_features_are_of_the_crystal_and_not_of_its_description() -> None:
    pytest.importorskip("chgnet")
    embed = make_embedder("chgnet", device="cpu")
    turned = SALT.copy()
    turned.translate_sites(range(len(turned)), [0.2, 0.3, 0.1])
    heavy = Structure(Lattice.cubic(4.0), ["Cm"], [[0, 0, 0]])
    small, large, moved, none = embed(as_arrays([SALT.get_primitive_structure(), SALT, turned, heavy]))
    np.testing.assert_allclose(small, large, atol=1e-4)
    np.testing.assert_allclose(large, moved, atol=1e-4)
    assert np.isfinite(large).all() and len(large) == 64
    assert np.isnan(none).all()
    other = embed(
        as_arrays([Structure.from_spacegroup("Pm-3m", Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])])
    )
    assert np.abs(other[0] - large).max() > 1e-2


def test_a_potential_without_features_is_refused() -> None:
    with pytest.raises(CalculatorError, match="choose chgnet"):
        make_embedder("lj")
