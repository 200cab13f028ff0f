"""Reconstruction: what must match whatever the description, what must not, and what counts in the denominator."""

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal.conversion import structures_to_batch
from cdvae_kit.io.results.store import ResultStore
from cdvae_kit.metrics import Tolerances, reconstruction
from tests.metrics.same_crystals import DESCRIPTIONS, permuted, perovskite, supercell


def swapped_species(structure: Structure) -> Structure:
    return Structure(structure.lattice, ["Ti", "Ba", "O", "O", "O"], structure.frac_coords)


def shuffled_species(structure: Structure) -> Structure:
    return Structure(structure.lattice, ["O", "O", "O", "Ba", "Ti"], structure.frac_coords)


@pytest.mark.parametrize("same", DESCRIPTIONS)
def test_another_description_of_a_crystal_matches_it(same):
    result = reconstruction([same(perovskite())], [perovskite()])
    assert result.match_rate == 1.0
    assert result.rmse == pytest.approx(0.0, abs=1e-6)


def test_a_crystal_scaled_as_a_whole_matches():
    assert reconstruction([perovskite(4.3)], [perovskite(3.9)]).match_rate == 1.0


def test_the_same_elements_on_other_sites_do_not_match():
    result = reconstruction([swapped_species(perovskite())], [perovskite()])
    assert result.match_rate == result.match_rate_unfiltered == 0.0
    assert result.pairs[0].reason == "another structure"


def test_tolerances_decide_whether_a_far_cousin_matches():
    """CDVAE's tolerances let barium and an oxygen trade places; pymatgen's own do not."""
    cousin = [shuffled_species(perovskite())]
    tight = Tolerances(ltol=0.2, stol=0.3, angle_tol=5.0)
    assert reconstruction(cousin, [perovskite()]).match_rate == 1.0
    assert reconstruction(cousin, [perovskite()], tolerances=tight).match_rate == 0.0


def test_another_composition_is_named_in_the_reason():
    other = perovskite()
    other.replace(0, "Sr")
    assert reconstruction([other], [perovskite()]).pairs[0].reason == "another composition: SrTiO3 instead of BaTiO3"


@pytest.mark.parametrize("change", [permuted, swapped_species, supercell])
def test_the_distance_is_the_one_of_the_matcher(change):
    moved = change(perovskite()).perturb(0.1)
    truth = perovskite()
    theirs = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10).get_rms_dist(moved, truth)
    assert reconstruction([moved], [truth]).pairs[0].rms == pytest.approx(theirs[0] if theirs else None, abs=1e-9)


def test_rmse_grows_with_the_displacement_until_the_match_is_lost():
    generator = np.random.default_rng(3)
    step = generator.normal(size=(5, 3))
    truth = perovskite()
    moved = [
        Structure(truth.lattice, truth.species, truth.cart_coords + scale * step, coords_are_cartesian=True)
        for scale in (0.0, 0.02, 0.1, 0.2)
    ]
    distances = [pair.rms for pair in reconstruction(moved, [truth] * 4).pairs]
    assert distances == sorted(distances) and distances[1] > 0
    assert reconstruction(moved[-1:], [truth], tolerances=Tolerances(stol=1e-3)).match_rate_unfiltered == 0.0


def invalid_composition() -> Structure:
    # sodium and two fluorines: no neutral choice
    return Structure(Lattice.cubic(4), ["Na", "F", "F"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0]])


def test_an_invalid_pair_matches_only_unfiltered():
    result = reconstruction([invalid_composition(), perovskite()], [invalid_composition(), perovskite()])
    assert (result.match_rate, result.match_rate_unfiltered) == (0.5, 1.0)
    assert (result.num_matches, result.num_matches_unfiltered, result.num_pairs) == (1, 2, 2)
    assert result.pairs[0].reason == ("the prediction is not valid: no neutral choice of oxidation states for NaF2")


def test_a_prediction_that_could_not_be_made_counts_and_stops_nothing():
    nan = Structure(Lattice.cubic(4), ["Ba"], [[float("nan"), 0, 0]])
    flat = Structure(Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), perovskite().species, perovskite().frac_coords)
    result = reconstruction([None, nan, flat, perovskite()], [perovskite()] * 4)
    assert result.match_rate == result.match_rate_unfiltered == 0.25
    assert result.pairs[0].reason == "the prediction cannot be used: there is no crystal: it could not be built"
    assert "NaN" in result.pairs[1].reason
    assert result.pairs[2].reason is not None
    assert sum(result.reasons.values()) == 3


def test_nothing_at_all_matches_nothing():
    result = reconstruction([], [])
    assert (result.match_rate, result.rmse, result.num_pairs) == (0.0, None, 0)


def test_different_numbers_of_crystals_are_refused():
    with pytest.raises(ValueError, match="1 predictions and 2 references"):
        reconstruction([perovskite()], [perovskite()] * 2)


def test_a_batch_is_taken_as_its_structures_are():
    moved = perovskite().perturb(0.1)
    batch = structures_to_batch([moved])
    from_batch = reconstruction(batch, [perovskite()]).rmse
    assert from_batch == pytest.approx(reconstruction([moved], [perovskite()]).rmse, abs=1e-5)


def test_two_processes_give_what_one_gives_and_report_how_far_they_are():
    truth = [perovskite()] * 6
    predicted = [permuted(perovskite()), None, swapped_species(perovskite()), *truth[3:]]
    seen: list[tuple[int, int]] = []
    alone = reconstruction(predicted, truth)
    together = reconstruction(predicted, truth, num_workers=2, progress=lambda done, total: seen.append((done, total)))
    assert together == alone
    assert seen[0] == (0, 6) and seen[-1] == (6, 6)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_second_run_asks_the_matcher_nothing(tmp_path, monkeypatch):
    truth = [perovskite()] * 3
    predicted = [permuted(perovskite()), None, swapped_species(perovskite())]
    with ResultStore(tmp_path) as store:
        before = reconstruction(predicted, truth, store=store)
        monkeypatch.setattr(StructureMatcher, "get_rms_dist", None)
        # an error of the matcher would be a reason, and so a difference
        assert reconstruction(predicted, truth, store=store) == before


def test_the_result_says_what_the_filter_asked():
    assert reconstruction([], []).filter == (
        "structure and composition (smact-2014) valid, CrystalNN fingerprints not asked"
    )


@pytest.mark.parametrize("bad", [{"stol": 0.0}, {"ltol": -1.0}, {"angle_tol": float("nan")}])
def test_tolerances_that_are_not_positive_are_refused(bad):
    with pytest.raises(ValueError, match="must be positive"):
        Tolerances(**bad)
