"""Distances without a tolerance: by hand, by what they must not change with, and by other people's packages."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics import EvaluationSettings, evaluate
from cdvae_kit.metrics.continuous import mean_distances, nearer_share, nearest_distances
from cdvae_kit.metrics.crystals import CrystalArrays, as_arrays
from cdvae_kit.metrics.fingerprints.average_distances import average_distances_of, average_minimum_distances
from cdvae_kit.metrics.fingerprints.element_scale import SCALE, cumulative_shares

SALT = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
NEEDLE = Structure(Lattice.orthorhombic(2.0, 2.1, 30.0), ["Po", "Po"], [[0, 0, 0], [0.5, 0.5, 0.1]])
SKEWED = Structure(Lattice.from_parameters(3.0, 9.0, 9.0, 30, 70, 65), ["U", "O", "O"], np.eye(3) * 0.3)
EXTENDED = EvaluationSettings(fingerprints=False, extended=True)


def amd(structure: Structure, num_neighbors: int = 100) -> np.ndarray:
    return average_minimum_distances(as_arrays([structure])[0], num_neighbors)


def elmd(first: dict[int, int], second: dict[int, int]) -> float:
    rows = cumulative_shares([tuple(sorted(first.items())), tuple(sorted(second.items()))])
    return float(np.abs(rows[0] - rows[1]).sum())


# Average minimum distances


def test_shells_of_simple_lattices_are_those_of_the_text_book() -> None:
    # neighbours of body- and face-centred cubic: 8, 6, 12 and 12, 6, 24
    bcc = Structure(Lattice.cubic(3.0), ["W", "W"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    fcc = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    np.testing.assert_allclose(amd(bcc, 26), 3.0 * np.sqrt([0.75] * 8 + [1.0] * 6 + [2.0] * 12))
    np.testing.assert_allclose(amd(fcc, 42), 3.6 * np.sqrt([0.5] * 12 + [1.0] * 6 + [1.5] * 24))


def test_two_kinds_of_atoms_are_averaged() -> None:
    # a chain of pairs, far from its images: each atom of a pair has the other one nearest
    pair = Structure(Lattice.cubic(20.0), ["H", "H", "H"], [[0, 0, 0], [0.05, 0, 0], [0.15, 0, 0]])
    # nearest: 1, 1 and 2 angstrom; second: 3, 2 and 3
    np.testing.assert_allclose(amd(pair, 2), [4 / 3, 8 / 3])


@pytest.mark.parametrize("structure", [SALT, NEEDLE, SKEWED])
def test_neither_cell_nor_frame_nor_origin_matters(structure: Structure) -> None:
    expected = amd(structure)
    turned = structure.copy()
    turned.translate_sites(range(len(turned)), [0.123, 0.456, 0.789])
    angle = 0.7
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = Structure(turned.lattice.matrix @ turn, turned.species, turned.frac_coords)
    np.testing.assert_allclose(amd(turned), expected, atol=1e-9)
    np.testing.assert_allclose(amd(structure * [[1, 1, 0], [0, 1, 0], [0, 0, 2]]), expected, atol=1e-9)
    # the control
    stretched = Structure(structure.lattice.matrix * 1.01, structure.species, structure.frac_coords)
    assert np.abs(amd(stretched) - expected).max() > 1e-3


def test_it_moves_no_more_than_the_atoms() -> None:
    moved = SALT * 2
    for i, shift in enumerate(np.random.default_rng(6).uniform(-0.025, 0.025, (len(moved), 3))):
        moved.translate_sites([i], shift, frac_coords=False)
    assert 0 < np.abs(amd(moved) - amd(SALT)).max() < 0.1


@pytest.mark.parametrize("structure", [SALT, NEEDLE, SKEWED])
def test_it_is_that_of_its_authors(structure: Structure) -> None:
    theirs = pytest.importorskip("amd", reason="average-minimum-distance is not installed")
    expected = theirs.AMD(theirs.PeriodicSet(structure.cart_coords, structure.lattice.matrix), 100)
    np.testing.assert_allclose(amd(structure), expected, atol=1e-9)


def test_a_crystal_that_cannot_be_used_has_none() -> None:
    rows = average_distances_of(as_arrays([None, SALT]))
    assert np.isnan(rows[0]).all() and np.isfinite(rows[1]).all()


# Compositions


def test_the_scale_has_each_element_once() -> None:
    assert len(set(SCALE.split())) == len(SCALE.split()) == 103


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({11: 1, 17: 1}, {17: 1, 19: 1}, 0.5),  # Na to K, half of the atoms, one step
        ({38: 1, 22: 1, 8: 3}, {56: 1, 22: 1, 8: 3}, 0.2),  # Sr to Ba
        ({8: 3, 26: 2}, {8: 4, 26: 3}, 26 * (3 / 5 - 4 / 7)),  # from O to Fe, 26 places
        ({2: 1}, {1: 1}, 102),  # the two ends
        ({8: 2, 26: 2}, {8: 1, 26: 1}, 0.0),
    ],
)
def test_the_work_between_two_compositions_is_that_by_hand(first: dict, second: dict, expected: float) -> None:
    assert elmd(first, second) == pytest.approx(expected) == elmd(second, first)


def test_it_is_that_of_its_own_package() -> None:
    theirs = pytest.importorskip("ElMD", reason="ElMD is not installed")
    from pymatgen.core import Composition

    formulas = ["NaCl", "KCl", "SrTiO3", "BaTiO3", "Fe2O3", "CsPbI3", "GaAs", "UO2"]
    rows = cumulative_shares([tuple(sorted((e.Z, int(n)) for e, n in Composition(f).items())) for f in formulas])
    for i, first in enumerate(formulas):
        for j, second in enumerate(formulas):
            assert np.abs(rows[i] - rows[j]).sum() == pytest.approx(theirs.ElMD(first).elmd(second), abs=1e-9)


def test_an_element_off_the_scale_has_no_place() -> None:
    assert np.isnan(cumulative_shares([((8, 1), (105, 1)), None])).all()


# Sets


def test_distances_of_sets_are_those_by_hand_and_leave_out_what_is_missing() -> None:
    rows = np.array([[0.0, 0.0], [1.0, 3.0], [np.nan, np.nan]])
    others = np.array([[0.0, 1.0], [np.nan, np.nan]])
    np.testing.assert_allclose(nearest_distances(rows, others, "chebyshev"), [1.0, 2.0, np.nan])
    np.testing.assert_allclose(nearest_distances(rows, others[1:], "chebyshev"), [np.nan] * 3)
    np.testing.assert_allclose(mean_distances(rows, "cityblock"), [4.0, 4.0, np.nan])
    np.testing.assert_allclose(mean_distances(rows[:1], "cityblock"), [np.nan])


def test_the_share_that_is_nearer_counts_ties_half() -> None:
    assert nearer_share(np.array([1.0, np.nan]), np.array([1.0])) == 0.5
    assert nearer_share(np.array([0.0, 0.0]), np.array([1.0])) == 1.0
    assert nearer_share(np.array([2.0]), np.array([1.0, 3.0, 0.0, 0.5])) == 0.25
    assert nearer_share(np.array([np.nan]), np.array([1.0])) is None


def other_salt(length: float) -> Structure:
    return Structure(Lattice.cubic(length), ["K", "Br"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_copies_are_neither_new_nor_many_and_are_known_for_memorised() -> None:
    train = [SALT, other_salt(4.0)]
    copies = evaluate([SALT, SALT, None], reference=[other_salt(4.6)], train=train, settings=EXTENDED).metrics
    for name in ("amd_uniqueness", "elmd_uniqueness", "amd_novelty", "elmd_novelty"):
        assert copies[name].value == pytest.approx(0.0, abs=1e-9) and copies[name].num_crystals == 2
    assert copies["memorisation_amd"].value == 1.0 and copies["memorisation_elmd"].value == 0.5
    fresh = evaluate([other_salt(5.0), SALT], reference=[other_salt(4.6)], train=train, settings=EXTENDED).metrics
    assert fresh["amd_novelty"].value == pytest.approx((amd(other_salt(5.0)) - amd(SALT)).max() / 2)
    assert fresh["elmd_uniqueness"].value == pytest.approx(elmd({55: 1, 17: 1}, {19: 1, 35: 1}))


def test_they_are_left_out_unless_asked_for() -> None:
    found = evaluate([SALT], train=[SALT], settings=EvaluationSettings(fingerprints=False))
    assert "amd_novelty" not in found.metrics and "extended" not in found.settings


def test_the_nearest_training_crystal_stands_beside_each() -> None:
    found = evaluate([SALT, None], train=[other_salt(4.1)], settings=EXTENDED).crystals
    assert found[0].values["nearest_training_amd"] == pytest.approx(0.0)
    assert found[0].values["nearest_training_elmd"] and found[1].values["nearest_training_elmd"] is None


def test_a_dense_crystal_with_many_atoms_is_no_trouble() -> None:
    generator = np.random.default_rng(1)
    crystal = CrystalArrays(np.eye(3) * 9.0, generator.random((60, 3)), np.full(60, 6))
    assert np.all(np.diff(average_minimum_distances(crystal)) >= 0)
