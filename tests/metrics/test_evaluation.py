"""A whole evaluation: which numbers there are, how failures count, what bad input does, what is written."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics import Cutoffs, validity
from cdvae_kit.metrics.crystal_set import CrystalSet, crystal_set
from cdvae_kit.metrics.evaluation import Evaluation, EvaluationSettings, evaluate
from cdvae_kit.metrics.evaluation_files import save_evaluation
from cdvae_kit.metrics.relaxing import StabilityRequest
from tests.metrics.conftest import ParitySet

PLAIN = EvaluationSettings(fingerprints=False)


def salt(length: float = 4.1, **properties: float) -> Structure:
    return Structure(Lattice.cubic(length), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], properties=properties)


def crushed() -> Structure:
    return Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0, 0, 0.02]])


def low_symmetry() -> Structure:
    lattice = Lattice.from_parameters(4.0, 5.0, 6.0, 80, 95, 105)
    return Structure(lattice, ["Cs", "Cl", "Cs", "Cl"], [[0, 0, 0], [0.4, 0.5, 0.6], [0.5, 0.1, 0.4], [0.9, 0.7, 0.2]])


@pytest.fixture(scope="module")
def mixed() -> Evaluation:
    """Good, crushed, missing, NaN and low-symmetry crystals against two good ones."""
    bad = salt()
    bad.translate_sites([0], [float("nan")] * 3, to_unit_cell=False)
    return evaluate([salt(), crushed(), None, bad, low_symmetry()], reference=[salt(), salt(4.2)], settings=PLAIN)


def test_crystals_that_fail_stay_in_the_denominator(mixed: Evaluation) -> None:
    valid = mixed.metrics["valid"]
    assert (valid.value, valid.num_crystals) == (0.4, 5)
    assert valid.low is not None and valid.high is not None and valid.low < 0.4 < valid.high


def test_every_crystal_has_its_verdicts_and_its_reason(mixed: Evaluation) -> None:
    assert [row.verdicts["valid"] for row in mixed.crystals] == [True, False, False, False, True]
    reasons = [row.reason for row in mixed.crystals]
    assert reasons[0] is None and reasons[4] is None
    assert "apart" in (reasons[1] or "") and "could not be built" in (reasons[2] or "") and "NaN" in (reasons[3] or "")


def test_low_symmetry_shows_in_the_share_of_p1(mixed: Evaluation) -> None:
    assert mixed.metrics["share_p1"].value == 0.5 and mixed.metrics["share_p1_reference"].value == 0.0
    assert mixed.crystals[0].space_group == 221


def test_a_set_against_itself_has_no_distance() -> None:
    found = evaluate([salt(), low_symmetry()], reference=[salt(), low_symmetry()], settings=PLAIN).numbers()
    for name in ("wdist_density", "wdist_num_elems", "jsd_elements", "jsd_space_group", "jsd_volume_per_atom"):
        assert found[name] == pytest.approx(0.0, abs=1e-12), name


def test_without_a_reference_there_are_no_distances_but_rates() -> None:
    found = evaluate([salt()], settings=PLAIN).numbers()
    assert found["valid"] == 1.0 and not [name for name in found if name.startswith(("wdist", "jsd", "cov"))]


def test_no_crystals_at_all_give_zero_with_the_reason() -> None:
    found = evaluate([], reference=[salt()], settings=PLAIN)
    assert found.metrics["valid"].value == 0.0 and found.metrics["valid"].low is None
    assert found.metrics["wdist_density"].value is None and found.metrics["wdist_density"].note
    assert found.crystals == []


def test_no_valid_crystal_gives_zero_where_the_published_code_raises() -> None:
    found = evaluate([crushed()], reference=[salt()], settings=EvaluationSettings())
    assert found.metrics["valid"].value == 0.0 and found.metrics["cov_recall"].value == 0.0
    assert found.metrics["wdist_density"].note == "no generated crystal has a value"
    assert found.metrics["comp_div"].value == 0.0


def test_an_empty_reference_is_said() -> None:
    found = evaluate([salt()], reference=[], settings=PLAIN)
    assert found.metrics["wdist_density"].note == "no reference crystal has a value"
    assert found.metrics["jsd_space_group"].value is None


def test_properties_of_both_sets_are_compared() -> None:
    found = evaluate([salt(gap=1.0), salt(gap=2.0)], reference=[salt(gap=3.0)], settings=PLAIN, units={"gap": "eV"})
    assert found.metrics["wdist_gap"].value == pytest.approx(1.5)
    assert found.distributions["gap"].unit == "eV" and found.crystals[1].values["gap"] == 2.0


def test_a_reference_without_the_property_is_said() -> None:
    found = evaluate([salt(gap=1.0)], reference=[salt()], settings=PLAIN, properties=["gap"])
    assert found.metrics["wdist_gap"].value is None
    assert found.metrics["wdist_gap"].note == "the reference crystals have no gap, and no predictor gives it"


def test_a_predictor_gives_what_no_column_has() -> None:
    def edge(crystals):
        return [np.linalg.norm(crystal.lattice[0]) for crystal in crystals]

    found = evaluate([salt(4.0), None], reference=[salt(4.5, edge=5.0)], settings=PLAIN, predictors={"edge": edge})
    # on both sides, whatever the column of the reference says
    assert found.metrics["wdist_edge"].value == pytest.approx(0.5)


def test_a_predictor_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 values, one a crystal"):
        evaluate([salt(), salt()], settings=PLAIN, predictors={"gap": lambda crystals: [1.0]}, properties=["gap"])


def test_a_property_that_is_named_as_a_number_of_ours_is_an_error() -> None:
    with pytest.raises(ValueError, match="density is computed from the crystals"):
        evaluate([salt(density=1.0)], settings=PLAIN, properties=["density"])
    # unasked, the column is left alone
    assert "density" in evaluate([salt(density=1.0)], reference=[salt(density=2.0)], settings=PLAIN).distributions


def test_features_of_a_potential_give_a_frechet_distance_of_their_own() -> None:
    def embed(crystals):
        return np.array([[float(crystal.volume), 1.0] for crystal in crystals])

    ours, theirs = [salt(4.0), None, salt(4.2)], [salt(4.0), salt(4.2)]
    found = evaluate(ours, reference=theirs, settings=PLAIN, embed=embed)
    assert found.metrics["frechet_distance_potential"].value == pytest.approx(0.0, abs=1e-9)
    assert found.metrics["frechet_distance_potential"].num_crystals == 2
    assert "frechet_distance" not in found.metrics
    apart = evaluate([salt(4.5), salt(4.6)], reference=theirs, settings=PLAIN, embed=embed)
    assert apart.metrics["frechet_distance_potential"].value > 100.0
    with pytest.raises(ValueError, match="leave embed out"):
        evaluate(ours, settings=PLAIN, embed=embed)


def test_codes_give_a_frechet_distance_and_stay_beside_their_crystals() -> None:
    def encode(crystals):
        return np.array([[len(crystal.atomic_numbers), np.linalg.det(crystal.lattice)] for crystal in crystals])

    sets = [salt(), None, low_symmetry()], [salt(), salt(4.3), low_symmetry()]
    found = evaluate(sets[0], reference=sets[1], settings=PLAIN, encode=encode)
    assert found.codes is not None and np.isnan(found.codes[0][1]).all() and len(found.codes[0]) == 3
    assert (found.metrics["frechet_distance"].value or 0) > 0
    with pytest.raises(ValueError, match="give one, or leave encode out"):
        evaluate(sets[0], settings=PLAIN, encode=encode)
    with pytest.raises(ValueError, match="one row a crystal"):
        evaluate(sets[0], reference=sets[1], settings=PLAIN, encode=lambda crystals: np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": "mine"}, "smact-2014"),
        ({"cutoffs": "mp_21"}, "carbon_24"),
        ({"num_samples": 0}, "num_samples"),
        ({"symprec": 0.0}, "symprec"),
    ],
)
def test_settings_that_make_no_sense_are_errors(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EvaluationSettings(**changes)


def test_the_same_seed_gives_the_same_numbers_and_another_one_other_intervals() -> None:
    crystals = [salt(), crushed(), salt(4.4), low_symmetry(), None] * 5
    first, again, other = (
        evaluate(crystals, reference=crystals, settings=EvaluationSettings(fingerprints=False, seed=seed))
        for seed in (0, 0, 1)
    )
    assert first.metrics == again.metrics and first.crystals == again.crystals
    assert first.numbers() == other.numbers() and first.metrics != other.metrics


@pytest.mark.slow
def test_the_numbers_are_the_published_ones(parity_set: ParitySet) -> None:
    cutoffs = {"perov_a": "perov_5", "inorg_a": "mp_20"}[parity_set.name]
    found = evaluate(
        parity_set.generated,
        reference=parity_set.reference,
        settings=EvaluationSettings(cutoffs=cutoffs),
        num_workers=2,
    )
    expected = {name: value for name, value in parity_set.expected.items() if name not in ("name", "per_structure")}
    numbers = found.numbers()
    assert {name: numbers[name] for name in expected} == {
        name: pytest.approx(value, abs=1e-6) for name, value in expected.items()
    }
    for row, published in zip(found.crystals, parity_set.expected["per_structure"], strict=True):
        assert {name: row.verdicts[name] for name in published} == published


# Files


def test_files_hold_the_published_names_and_every_crystal(mixed: Evaluation, tmp_path: Path) -> None:
    save_evaluation(mixed, tmp_path / "new" / "out")
    content = json.loads((tmp_path / "new" / "out" / "metrics.json").read_text())
    assert content["valid"] == 0.4 and content["details"]["valid"]["num_crystals"] == 5
    assert content["settings"]["composition_rule"] == "smact-2014" and content["settings"]["versions"]["smact"]
    with (tmp_path / "new" / "out" / "crystals.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["valid"] for row in rows] == ["true", "false", "false", "false", "true"]
    assert rows[0]["formula"] == "CsCl" and rows[0]["reason"] == "" and "apart" in rows[1]["reason"]
    with (tmp_path / "new" / "out" / "rates_by_size.csv").open() as file:
        [valid] = [row for row in csv.DictReader(file) if row["name"] == "valid"]
    assert (valid["num_atoms"], valid["rate"], valid["num_crystals"]) == ("1-5", "0.5", "4")


def test_a_property_called_like_a_column_keeps_both(tmp_path: Path) -> None:
    found = evaluate([salt(valid=7.0)], reference=[salt(valid=8.0)], settings=PLAIN)
    save_evaluation(found, tmp_path)
    with (tmp_path / "crystals.csv").open() as file:
        row = next(csv.DictReader(file))
    assert (row["valid"], row["property_valid"]) == ("true", "7.0")


def test_nothing_is_overwritten_unasked(mixed: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "crystals.csv").write_text("mine")
    with pytest.raises(FileExistsError):
        save_evaluation(mixed, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["crystals.csv"]
    save_evaluation(mixed, tmp_path, overwrite=True)
    assert (tmp_path / "metrics.json").exists() and (tmp_path / "crystals.csv").read_text() != "mine"


def test_names_of_the_set_are_kept_even_where_they_repeat() -> None:
    twice = CrystalSet(crystal_set([salt(), crushed()]).arrays, ["same", "same"])
    rows = evaluate(twice, settings=PLAIN).crystals
    assert [(row.index, row.material_id) for row in rows] == [(0, "same"), (1, "same")]
    assert [row.verdicts["struct_valid"] for row in rows] == [
        verdict.structure for verdict in validity([salt(), crushed()])
    ]


def test_cutoffs_can_be_numbers() -> None:
    assert EvaluationSettings(cutoffs=Cutoffs(0.1, 1.0)).coverage_cutoffs == Cutoffs(0.1, 1.0)


# With a training set, with pairs, and with a store


def test_copies_are_neither_unique_nor_novel() -> None:
    crystals = [salt(), salt() * (2, 1, 1), low_symmetry(), None]
    found = evaluate(crystals, train=[low_symmetry()], settings=PLAIN)
    assert [row.verdicts["unique"] for row in found.crystals] == [True, False, True, False]
    assert [row.verdicts["novel"] for row in found.crystals] == [True, True, False, False]
    numbers = found.numbers()
    assert (numbers["unique"], numbers["novel"], numbers["unique_novel"]) == (0.5, 0.5, 0.25)
    assert "ltol 0.2" in found.metrics["unique"].note


def test_pairs_give_match_rates_and_their_reasons() -> None:
    found = evaluate([salt(), low_symmetry()], reference=[salt(4.15), salt()], paired=True, settings=PLAIN)
    assert found.numbers()["match_rate"] == 0.5 and found.crystals[0].values["rms"] == pytest.approx(0.0, abs=1e-9)
    assert found.crystals[1].reason is not None and found.numbers()["metre"] == 1.0


def test_what_is_found_of_the_references_needs_no_order() -> None:
    sets = [salt(), None], [low_symmetry(), salt(4.2)]
    assert evaluate(sets[0], reference=sets[1], metre=True, settings=PLAIN).numbers()["metre"] == 0.5
    assert "metre" not in evaluate(sets[0], reference=sets[1], settings=PLAIN).numbers()


def test_pairs_need_two_sets_of_one_length() -> None:
    with pytest.raises(ValueError, match="need a reference"):
        evaluate([salt()], paired=True, settings=PLAIN)
    with pytest.raises(ValueError, match="1 generated and 2 reference"):
        evaluate([salt()], reference=[salt(), salt()], paired=True, settings=PLAIN)


def test_pairs_whose_names_differ_are_told(caplog: pytest.LogCaptureFixture) -> None:
    sets = [CrystalSet(crystal_set([salt()]).arrays, [name]) for name in ("mine", "yours")]
    evaluate(sets[0], reference=sets[1], paired=True, settings=PLAIN)
    assert "1 of 1 pairs have two names" in caplog.text


def test_a_second_evaluation_asks_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cdvae_kit.io.results.store import ResultStore

    with ResultStore(tmp_path) as store:
        first = evaluate([salt(), crushed(), None], reference=[salt(4.3)], store=store)
        # the package's function of that name hides the module
        monkeypatch.setattr(sys.modules["cdvae_kit.metrics.fingerprints.vectors"], "describe_sites", None)
        again = evaluate([salt(), crushed(), None], reference=[salt(4.3)], store=store)
    assert first.metrics == again.metrics and first.crystals == again.crystals


# Stability: copper and its alloys by ASE's EMT


def copper(length: float = 3.7) -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(length), ["Cu"], [[0, 0, 0]]).get_primitive_structure()


def gold_copper() -> Structure:
    return Structure(Lattice.tetragonal(2.8, 3.7), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_stability_and_sun_rates_stand_beside_their_convention(tmp_path: Path) -> None:
    from cdvae_kit.io.results.store import ResultStore

    request = StabilityRequest("emt", fmax=0.02)
    crystals = [copper(), copper(), gold_copper(), salt(), None]
    with ResultStore(tmp_path) as store:
        found = evaluate(
            crystals, reference=[gold_copper()], train=[gold_copper()], stability=request, settings=PLAIN, store=store
        )
        assert len(store) >= 4
        again = evaluate(
            crystals, reference=[gold_copper()], train=[gold_copper()], stability=request, settings=PLAIN, store=store
        )
    assert again.metrics == found.metrics
    rows = found.crystals
    # copper lies on the hull that holds it; one of the two copies is novel, unique and stable
    assert rows[0].values["energy_above_hull"] == pytest.approx(0.0, abs=2e-3)
    assert [row.verdicts["metastable"] for row in rows] == [True, True, True, None, None]
    assert "EMT" in (rows[3].reason or "") and found.numbers()["metasun"] == 0.2
    assert "emt" in found.metrics["stable"].note and found.metrics["sun"].num_crystals == 5
    # copper and its alloy are not P1 at the end either, and stay in their groups
    assert found.numbers()["metassun"] == 0.2 and found.numbers()["relaxed_into_another_group"] == 0.0


def test_what_is_p1_once_it_is_relaxed_is_not_symmetric() -> None:
    request = StabilityRequest("emt", max_steps=0, threshold=5.0)
    # pairs of four like atoms are soon alike within 0.1 angstrom
    exact = EvaluationSettings(fingerprints=False, symprec=0.001)
    shaken = copper() * (2, 2, 1)
    for i, shift in enumerate(np.random.default_rng(4).uniform(-0.3, 0.3, (4, 3))):
        shaken.translate_sites([i], shift, frac_coords=False)
    found = evaluate([shaken], reference=[copper(3.6)], train=[gold_copper()], stability=request, settings=exact)
    assert (found.numbers()["metasun"], found.numbers()["metassun"]) == (1.0, 0.0)


def test_a_crystal_that_relaxes_into_another_group_is_counted() -> None:
    # a stretched cell that relaxes into the cube
    stretched = Structure(Lattice.tetragonal(2.55, 3.4), ["Cu", "Cu"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    request = StabilityRequest("emt", fmax=0.01)
    found = evaluate([stretched, copper(), None], reference=[copper()], stability=request, settings=PLAIN)
    value = found.metrics["relaxed_into_another_group"]
    assert (value.num_crystals, value.value) == (2, 0.5) and "1 into a group of higher number" in value.note


def test_stability_without_a_hull_needs_a_reference() -> None:
    with pytest.raises(ValueError, match="hull"):
        evaluate([copper()], stability=StabilityRequest("emt"), settings=PLAIN)


def test_a_reference_that_the_calculator_cannot_take_is_said() -> None:
    with pytest.raises(ValueError, match="no hull can be built"):
        evaluate([salt()], reference=[salt()], stability=StabilityRequest("emt"), settings=PLAIN)


def test_coordination_is_compared_site_by_site() -> None:
    rock = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    found = evaluate([salt(), salt()], reference=[salt(4.2)])
    assert found.distributions["coordination"].generated.tolist() == [8] * 4
    assert found.numbers()["jsd_coordination"] == 0.0
    assert evaluate([salt()], reference=[rock]).numbers()["jsd_coordination"] == pytest.approx(1.0)
