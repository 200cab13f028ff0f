"""Novelty: against every pair in turn, against itself, with awkward sets, and the index that it looks in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal.conversion import structures_to_batch
from cdvae_kit.io.results.store import ResultStore
from cdvae_kit.metrics import MATCHERS, TrainingIndex, novelty
from cdvae_kit.metrics.crystals import CrystalArrays, as_arrays
from cdvae_kit.metrics.matching import comparisons as comparisons_module
from cdvae_kit.metrics.matching.training_index import composition_keys
from tests.metrics.same_crystals import (
    DESCRIPTIONS,
    caesium_chloride,
    perovskite,
    plain,
    rock_salt,
    stop_matching,
    swapped,
)


def training_set() -> list[Structure]:
    return [rock_salt(), perovskite(), caesium_chloride(), caesium_chloride("Na")]


def test_a_set_is_not_new_to_itself() -> None:
    result = novelty(training_set(), training_set())
    assert result.rate == 0.0
    assert result.match.tolist() == [0, 1, 2, 3]
    assert result.reasons[1] == "the same as training crystal 1"


@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_another_description_of_a_known_crystal_is_not_new(description) -> None:
    assert novelty([description(perovskite())], training_set()).match.tolist() == [1]


def test_a_swap_of_elements_and_another_composition_are_new() -> None:
    result = novelty([swapped(perovskite()), rock_salt("K")], training_set())
    assert result.rate == 1.0 and result.match.tolist() == [-1, -1]
    # nothing has potassium, so there is nothing to compare it with
    assert result.num_pairs == 1


def polymorphs_of_salt(seed: int) -> list[Structure]:
    generator = np.random.default_rng(seed)
    return [
        Structure(
            Lattice(np.eye(3) * 4 + amount * generator.normal(size=(3, 3))),
            ["Cs", "Cl"],
            [[0, 0, 0], 0.5 + amount * generator.normal(size=3) / 4],
        )
        for amount in np.linspace(0, 0.9, 8)
    ]


@pytest.mark.parametrize("name", ["cdvae", "mattergen"])
def test_verdicts_are_those_of_every_pair_in_turn(name: str) -> None:
    seed = 0
    generated, training = polymorphs_of_salt(seed), [*polymorphs_of_salt(seed + 1), rock_salt()]
    judge = plain(MATCHERS[name])
    expected = [next((j for j, other in enumerate(training) if judge.fit(one, other)), -1) for one in generated]
    assert novelty(generated, training, matcher=name).match.tolist() == expected, f"seed {seed}"  # type: ignore[arg-type]
    assert len(set(expected)) > 1


def test_what_cannot_be_used_is_not_new_and_counts() -> None:
    nan = Structure(Lattice.cubic(4), ["Ba"], [[float("nan"), 0, 0]])
    result = novelty([None, nan, rock_salt("K")], [None, perovskite(), nan])
    assert result.novel.tolist() == [False, False, True]
    assert (result.num_novel, result.num_usable, result.num_crystals) == (1, 1, 3)
    assert (result.num_training, result.num_training_unusable) == (3, 2)
    assert "NaN" in str(result.reasons[1])


def test_empty_sets() -> None:
    assert novelty([], training_set()).rate == 0.0
    assert novelty([perovskite(), None], []).rate == 0.5
    assert novelty([], []).num_crystals == 0


def test_a_pair_on_which_the_matcher_stops_counts_as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_matching(monkeypatch, RuntimeError("lost"))
    result = novelty([perovskite()], training_set())
    assert result.rate == 1.0 and result.failures == ((0, 1, "the matcher failed: RuntimeError: lost"),)


def test_blocks_and_processes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    generated = [*polymorphs_of_salt(2), None, perovskite(), rock_salt("K")]
    seen: list[tuple[int, int]] = []
    whole = novelty(generated, training_set())
    monkeypatch.setattr(import_module("cdvae_kit.metrics.novelty"), "_BLOCK", 1)
    pieces = novelty(generated, training_set(), num_workers=2, progress=lambda *told: seen.append(told))
    assert pieces.match.tolist() == whole.match.tolist() and pieces.reasons == whole.reasons
    assert seen[-1] == (11, 11)


def test_a_second_run_asks_the_matcher_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated = [*polymorphs_of_salt(3), perovskite()]
    with ResultStore(tmp_path / "results.sqlite") as store:
        before = novelty(generated, training_set(), store=store)

        def stop(*_: object) -> None:
            raise AssertionError("asked again")

        monkeypatch.setattr(comparisons_module, "compare", stop)
        after = novelty(generated, training_set(), store=store)
    assert after.match.tolist() == before.match.tolist()


def test_an_index_is_the_same_from_structures_batches_and_arrays() -> None:
    structures = training_set()
    batch = structures_to_batch(structures)
    indices = [
        TrainingIndex.from_crystals(structures),
        TrainingIndex.from_batches([structures[:1], [], structures[1:]]),
        TrainingIndex.from_crystals(batch),
        TrainingIndex.from_arrays(
            batch.lattice.to(torch.float64).numpy(),
            batch.frac_coords.to(torch.float64).numpy(),
            batch.atomic_numbers.numpy(),
            batch.num_atoms.numpy(),
        ),
    ]
    for index in indices:
        assert len(index) == 4 and index.keys.tolist() == indices[0].keys.tolist()
        assert index.order.tolist() == indices[0].order.tolist()
        np.testing.assert_allclose(index.frac_coords, indices[0].frac_coords, atol=1e-6)


def test_candidates_are_all_crystals_of_the_composition_and_only_those() -> None:
    generator = np.random.default_rng(8)
    crystals = [
        CrystalArrays(4 * np.eye(3), generator.random((n, 3)), generator.integers(1, 4, size=n))
        for n in generator.integers(1, 7, size=400)
    ]
    index = TrainingIndex.from_crystals(crystals)
    for crystal in crystals[:50]:
        expected = [i for i, c in enumerate(crystals) if c.reduced_composition == crystal.reduced_composition]
        assert index.candidates(crystal.reduced_composition).tolist() == expected


def test_crystals_come_out_of_the_index_as_they_went_in() -> None:
    arrays = as_arrays([*training_set(), None])
    index = TrainingIndex.from_crystals(arrays)
    for i, crystal in enumerate(arrays[:-1]):
        np.testing.assert_array_equal(index.crystal(i).frac_coords, crystal.frac_coords)
        np.testing.assert_array_equal(index.crystal(i).atomic_numbers, crystal.atomic_numbers)
    assert index.crystal(4).fault is not None


def test_an_atom_takes_25_bytes_and_a_crystal_under_110() -> None:
    index = TrainingIndex.from_crystals([rock_salt()] * 50)
    assert index.num_bytes <= 25 * 50 * 8 + 110 * 50


def test_a_hash_does_not_see_order_or_multiples() -> None:
    numbers = np.array([8, 22, 8, 56, 8, 56, 8, 8, 22, 8, 8, 8, 22])
    keys = composition_keys(numbers, np.array([0, 5, 10, 10, 13]))
    assert keys[0] == keys[1] != keys[3] and keys[2] == 0


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 crystals of 2 atoms need a lattice of shape \(1, 3, 3\)"):
        TrainingIndex.from_arrays(np.zeros((1, 3, 3)), np.zeros((1, 3)), np.array([1, 2]), np.array([2]))
    with pytest.raises(ValueError, match="between 1 and 118"):
        TrainingIndex.from_arrays(np.eye(3)[None], np.zeros((1, 3)), np.array([0]), np.array([1]))
