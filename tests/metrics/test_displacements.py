"""Displacements of many pairs at once: to the last digit those of pymatgen, one pair after the other."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice

from cdvae_kit.io import read_crystals
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.metrics.matching import displacements as module
from cdvae_kit.metrics.matching.displacements import Tolerances, smallest_displacements
from cdvae_kit.metrics.matching.matcher import MATCHERS, Matcher
from cdvae_kit.metrics.matching.prefilter import near_cells
from cdvae_kit.metrics.matching.reduced_bases import reduced_bases
from cdvae_kit.metrics.matching.reduced_cells import Prepared, prepare_all
from tests.metrics.same_crystals import caesium_chloride, plain


@pytest.fixture(scope="module")
def groups(shared_dir: Path) -> list[list[Prepared]]:
    """Crystals of carbon with one number of sites, those with the fewest first."""
    crystals = as_arrays(read_crystals(shared_dir / "data" / "carbon_24" / "test.csv.gz").crystals)
    members = defaultdict(list)
    for crystal in prepare_all(crystals[::60], primitive=True):
        members[len(crystal.reduced.atomic_numbers)].append(crystal)
    return [members[size] for size in sorted(members) if len(members[size]) > 2]


def found(first: Prepared, others: list[Prepared], matcher: Matcher, *, distances: bool) -> np.ndarray:
    cells = near_cells(first, others, ltol=matcher.ltol, angle_tol=matcher.angle_tol, scale=matcher.scale)
    listed = [np.zeros((0, 3, 3), dtype=np.int64) if part is None else part for part in cells]
    tolerances = Tolerances(matcher.ltol, matcher.stol, matcher.angle_tol, matcher.scale)
    return smallest_displacements(first, others, listed, tolerances, distances=distances)


@pytest.mark.parametrize("matcher", ["cdvae", "mattergen"])
def test_displacements_are_pymatgens_to_the_last_digit(groups: list[list[Prepared]], matcher: str) -> None:
    """Of elements alone; of compounds, `test_matching` asks the same of every pair."""
    tolerances, judge = MATCHERS[matcher], plain(MATCHERS[matcher])
    num_matches = num_left = 0
    for group in groups:
        first, others = group[0], group[1:8]
        root_mean_squares = found(first, others, tolerances, distances=True)
        largest = found(first, others, tolerances, distances=False)
        for other, rms, far in zip(others, root_mean_squares.tolist(), largest.tolist(), strict=True):
            if np.isnan(rms) or np.isnan(far):
                num_left += 1
                continue
            theirs = judge.get_rms_dist(first.reduced.structure(), other.reduced.structure())
            assert (rms if rms < tolerances.stol else None) == (None if theirs is None else float(theirs[0]))
            assert (far < tolerances.stol) == judge.fit(first.reduced.structure(), other.reduced.structure())
            num_matches += theirs is not None
    assert num_matches > 0 and num_left <= 2


def test_another_assignment_would_be_noticed(groups: list[list[Prepared]], monkeypatch: pytest.MonkeyPatch) -> None:
    group = max(groups, key=len)
    before = found(group[0], group[1:], MATCHERS["cdvae"], distances=True)
    monkeypatch.setattr(module, "linear_sum_assignment", lambda costs: (None, np.arange(len(costs))))
    after = found(group[0], group[1:], MATCHERS["cdvae"], distances=True)
    assert not np.array_equal(before, after, equal_nan=True)


def test_how_many_are_done_at_once_changes_nothing(
    groups: list[list[Prepared]], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = max(groups, key=len)
    at_once = found(group[0], group[1:], MATCHERS["cdvae"], distances=True)
    assert np.isfinite(at_once).sum() > 1
    monkeypatch.setattr(module, "_MOST_NUMBERS", 1)
    np.testing.assert_array_equal(found(group[0], group[1:], MATCHERS["cdvae"], distances=True), at_once)


def test_what_is_too_near_a_tolerance_is_left_to_pymatgen() -> None:
    cell = caesium_chloride()
    longer = cell.copy()
    longer.lattice = Lattice.tetragonal(4.1, 4.1 * 1.2)
    apart = cell.copy()
    apart.translate_sites([1], [0.0, 0.0, 0.1])
    first, stretched, moved = prepare_all(as_arrays([cell, longer, apart]), primitive=True)
    # without scaling one length is 1.2 times the other: on the edge of a tolerance of 0.2
    edge = Matcher(ltol=0.2, stol=0.3, angle_tol=5.0, scale=False)
    assert np.isnan(found(first, [stretched], edge, distances=False)).all()
    assert np.isfinite(found(first, [stretched], Matcher(0.21, 0.3, 5.0, scale=False), distances=False)).all()
    between = float(found(first, [moved], MATCHERS["cdvae"], distances=False)[0])
    assert 0 < between < 0.5
    assert np.isnan(found(first, [moved], Matcher(stol=between), distances=False)).all()
    # the first way with next to no displacement is taken, and which that is is pymatgen's
    assert np.isnan(found(first, [first], MATCHERS["cdvae"], distances=True)).all()


@pytest.mark.parametrize("amount", [0.0, 0.3, 2.0])
def test_bases_are_reduced_as_pymatgen_reduces_them(amount: float) -> None:
    seed = 3
    generator = np.random.default_rng(seed)
    face_centred = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 4.0
    hexagonal = np.array(Lattice.hexagonal(3.0, 5.0).matrix)
    lattices = np.concatenate([[face_centred, hexagonal], np.repeat(np.eye(3)[None] * 3, 40, axis=0)])
    lattices += amount * generator.normal(size=lattices.shape)
    reduced, mappings = reduced_bases(lattices)
    for lattice, rows, mapping in zip(lattices, reduced, mappings, strict=True):
        theirs = Lattice(lattice)
        assert (rows == theirs.lll_matrix).all() and (mapping == theirs.lll_mapping).all(), f"seed {seed}"
    changed = [not np.array_equal(mapping, np.eye(3)) for mapping in mappings]
    assert any(changed) == (amount > 0)
