"""The vectors: matminer as the oracle, invariances, crystals that have none."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics import fingerprints, reconstruction
from cdvae_kit.metrics.fingerprints.vectors import composition_fingerprint, composition_scaler, stack


@pytest.fixture(scope="module")
def rutile() -> Structure:
    return Structure(
        Lattice.tetragonal(4.6, 2.95),
        ["Ti", "Ti", "O", "O", "O", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.3, 0.3, 0], [0.7, 0.7, 0], [0.8, 0.2, 0.5], [0.2, 0.8, 0.5]],
    )


def test_structure_vectors_are_matminers_mean_over_sites(rutile):
    pytest.importorskip("matminer")
    from matminer.featurizers.site import CrystalNNFingerprint
    from matminer.featurizers.structure import SiteStatsFingerprint

    oracle = SiteStatsFingerprint(CrystalNNFingerprint.from_preset("ops"), stats=("mean",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = oracle.featurize(rutile)
    np.testing.assert_allclose(fingerprints([rutile])[0].structure, theirs, atol=1e-9)


def test_composition_vectors_are_standardised_by_the_published_constants():
    means, deviations = composition_scaler()
    raw = composition_fingerprint(((8, 2), (22, 1))) * deviations + means
    # the first six magpie statistics are of the atomic number: minimum, maximum, range, mean, deviation, mode
    np.testing.assert_allclose(raw[:6], [8, 22, 14, 38 / 3, 56 / 9, 8], atol=1e-9)


def test_an_element_without_a_value_is_not_lost():
    # helium has no electronegativity, astatine and radium no melting point or space group
    assert np.isfinite(composition_fingerprint(((2, 1), (85, 1), (88, 1)))).all()


@pytest.mark.parametrize("change", ["permuted", "translated", "turned", "doubled"])
def test_another_description_of_a_crystal_has_the_same_vectors(rutile, change):
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    other = {
        "permuted": Structure.from_sites([rutile[i] for i in (3, 0, 5, 1, 4, 2)]),
        "translated": Structure(rutile.lattice, rutile.species, rutile.frac_coords + np.array([0.13, -0.4, 2.2])),
        "turned": Structure(Lattice(rutile.lattice.matrix @ turn), rutile.species, rutile.frac_coords),
        "doubled": rutile * [[1, 1, 0], [0, 1, 0], [0, 0, 2]],
    }[change]
    first, second = fingerprints([rutile, other])
    np.testing.assert_allclose(second.structure, first.structure, atol=1e-6)
    np.testing.assert_allclose(second.composition, first.composition, atol=1e-12)


def test_a_moved_atom_changes_only_the_structure_vector(rutile):
    moved = rutile.copy()
    moved.translate_sites([2], [0.1, 0, 0])
    first, second = fingerprints([rutile, moved])
    assert np.abs(first.structure - second.structure).max() > 0.01
    assert np.array_equal(first.composition, second.composition)


def test_crystals_without_vectors_keep_their_place_and_a_reason(rutile):
    flat = Structure(Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0]])
    unknown = Structure(Lattice.cubic(4), ["Og"], [[0, 0, 0]])
    found = fingerprints([None, rutile, flat, unknown])
    assert [fingerprint.complete for fingerprint in found] == [False, True, False, False]
    assert found[0].reason == "there is no crystal: it could not be built"
    assert "under 0.1" in found[2].reason
    assert found[3].reason == "no fingerprint: no covalent radius is known of Og"
    assert [len(vectors) for vectors in stack(found)] == [1, 1]


def test_fingerprints_in_the_filter_of_reconstruction_reject_what_has_none():
    """Oganesson alone is a valid element in a valid cell, but has no radius to find neighbours with."""
    crystal = Structure(Lattice.cubic(4), ["Og"], [[0, 0, 0]])
    without, asked = (reconstruction([crystal], [crystal], fingerprints=flag) for flag in (False, True))
    assert (without.match_rate, asked.match_rate, asked.match_rate_unfiltered) == (1.0, 0.0, 1.0)
    assert asked.pairs[0].reason.startswith("the prediction is not valid: no fingerprint")
    assert asked.filter.endswith("fingerprints asked")


def test_neither_matminer_nor_pymatgen_is_loaded():
    """The processes that work on many crystals start in a fraction of a second."""
    code = (
        "import sys, numpy as np\n"
        "from cdvae_kit.metrics.crystals import CrystalArrays\n"
        "from cdvae_kit.metrics.fingerprints.vectors import fingerprint\n"
        "rng = np.random.default_rng(0)\n"
        "assert fingerprint(CrystalArrays(4 * np.eye(3), rng.random((3, 3)), np.array([8, 8, 22]))).complete\n"
        "print([name for name in ('matminer', 'pymatgen', 'pandas', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_two_processes_give_what_one_gives(rutile):
    crystals = [rutile, None, rutile * (1, 1, 2)]
    one, two = (fingerprints(crystals, num_workers=number) for number in (1, 2))
    assert [found.reason for found in one] == [found.reason for found in two]
    np.testing.assert_array_equal(stack(one)[0], stack(two)[0])


def test_the_caller_cannot_spoil_a_remembered_vector():
    with pytest.raises(ValueError, match="read-only"):
        composition_fingerprint(((8, 1), (12, 1)))[0] = 1.0
