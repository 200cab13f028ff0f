"""METRe and cRMSE: each reference by its best generated crystal, and the tolerance for each that none finds."""

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.io.results.store import ResultStore
from cdvae_kit.metrics import MATCHERS, Matcher, polymorphs, reconstruction
from cdvae_kit.metrics.matching import comparisons as comparisons_module
from tests.metrics.same_crystals import (
    DESCRIPTIONS,
    caesium_chloride,
    perovskite,
    plain,
    rock_salt,
    swapped,
)


def shaken(structure: Structure, seed: int, distance: float = 0.1) -> Structure:
    step = np.random.default_rng(seed).normal(size=(len(structure), 3)) * distance
    return Structure(structure.lattice, structure.species, structure.cart_coords + step, coords_are_cartesian=True)


def test_a_true_polymorph_in_anothers_place_is_found() -> None:
    """What the match rate charges a model for."""
    references = [rock_salt().get_primitive_structure(), caesium_chloride()]
    generated = references[::-1]
    assert polymorphs(generated, references).metre == 1.0
    assert reconstruction(generated, references).match_rate_unfiltered == 0.0


def test_a_set_that_repeats_itself_gains_nothing() -> None:
    references = [rock_salt(), caesium_chloride(), perovskite()]
    result = polymorphs([rock_salt()] * 3, references)
    assert (result.num_found, result.num_references, result.num_generated) == (1, 3, 3)
    assert result.best.tolist() == [0, -1, -1]
    assert result.crmse == pytest.approx(2 * 0.5 / 3, abs=1e-6)
    assert result.reasons == (None, "another structure", "no generated crystal is BaTiO3")


def test_every_reference_has_the_best_distance_of_any_pair() -> None:
    seed = 0
    generated = [shaken(perovskite(), seed + i, 0.05 * (i + 1)) for i in range(4)]
    references = [perovskite(), shaken(perovskite(), 9), swapped(perovskite())]
    judge = plain(MATCHERS["cdvae"])
    result = polymorphs(generated, references)
    for at, reference in enumerate(references):
        distances = [found[0] for one in generated if (found := judge.get_rms_dist(one, reference)) is not None]
        assert result.rms[at] == pytest.approx(min(distances, default=np.nan), abs=1e-9, nan_ok=True), f"seed {seed}"
    expected = [value if np.isfinite(value) else 0.5 for value in result.rms]
    assert result.crmse == pytest.approx(np.mean(expected))
    assert result.rmse == pytest.approx(np.nanmean(result.rms))


def test_crmse_takes_the_tolerance_of_the_matcher() -> None:
    result = polymorphs([], [perovskite()], matcher=Matcher(stol=0.3))
    assert (result.metre, result.crmse, result.rmse) == (0.0, 0.3, None)


@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_a_set_finds_itself_in_any_description(description) -> None:
    references = [rock_salt(), perovskite(), caesium_chloride()]
    result = polymorphs([description(reference) for reference in references], references)
    assert result.metre == 1.0 and result.crmse == pytest.approx(0.0, abs=1e-6)
    assert result.best.tolist() == [0, 1, 2]


def test_what_cannot_be_used_counts() -> None:
    nan = Structure(Lattice.cubic(4), ["Ba"], [[float("nan"), 0, 0]])
    result = polymorphs([None, perovskite()], [nan, perovskite(), None])
    assert result.metre == pytest.approx(1 / 3)
    assert str(result.reasons[0]).startswith("the reference cannot be used: ") and result.reasons[1] is None


def test_empty_sets() -> None:
    nothing = polymorphs([perovskite()], [])
    assert (nothing.metre, nothing.crmse, nothing.rmse, nothing.num_references) == (0.0, None, None, 0)


def test_a_pair_on_which_the_matcher_stops_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    def stop(*_: object, **__: object) -> None:
        raise ValueError("flat")

    monkeypatch.setattr(StructureMatcher, "get_rms_dist", stop)
    result = polymorphs([perovskite()], [perovskite()])
    assert result.metre == 0.0 and result.failures == ((0, 0, "the matcher failed: ValueError: flat"),)


def test_processes_and_a_store_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated = [shaken(perovskite(), i) for i in range(3)] + [rock_salt()]
    references = [perovskite(), caesium_chloride(), rock_salt()]
    seen: list[tuple[int, int]] = []
    alone = polymorphs(generated, references)
    with ResultStore(tmp_path / "results.sqlite") as store:
        together = polymorphs(
            generated, references, num_workers=2, store=store, progress=lambda *told: seen.append(told)
        )
        monkeypatch.setattr(comparisons_module, "compare", None)
        again = polymorphs(generated, references, store=store)
    for result in (together, again):
        np.testing.assert_array_equal(result.rms, alone.rms)
        assert result.best.tolist() == alone.best.tolist()
    assert seen[-1] == (14, 14)
