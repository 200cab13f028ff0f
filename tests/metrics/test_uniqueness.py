"""Uniqueness: groups of what pymatgen matches, whatever order and description, and what is in the denominator."""

from importlib import import_module
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from scipy.sparse.csgraph import connected_components

from cdvae_kit.io import read_crystals
from cdvae_kit.io.results.store import ResultStore
from cdvae_kit.metrics import MATCHERS, uniqueness
from cdvae_kit.metrics.crystals import as_arrays
from tests.metrics.same_crystals import (
    DESCRIPTIONS,
    caesium_chloride,
    firsts_of,
    group_structures,
    perovskite,
    plain,
    rock_salt,
    stop_matching,
    supercell,
    swapped,
)

# the package's own name of it is the function
uniqueness_module = import_module("cdvae_kit.metrics.uniqueness")


def test_every_description_of_a_crystal_is_one_group_and_a_swap_is_another() -> None:
    crystals = [perovskite(), *(make(perovskite()) for make in DESCRIPTIONS), swapped(perovskite())]
    result = uniqueness(crystals)
    assert result.groups.tolist() == [0, 0, 0, 0, 0, 1]
    assert result.unique.tolist() == [True, False, False, False, False, True]
    assert result.reasons == (None, *["the same as crystal 0"] * 4, None)


def test_a_set_given_twice_is_half_unique() -> None:
    crystals = [perovskite(), rock_salt(), caesium_chloride(), swapped(perovskite())]
    result = uniqueness([*crystals, *crystals])
    assert result.rate == 0.5
    assert result.groups.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def chain(num_links: int, seed: int) -> list[Structure]:
    """Crystals each near its neighbour and far from the ends, in mixed order: where the convention shows."""
    steps = [
        Structure(Lattice.tetragonal(4, 4 * 1.12**i), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        for i in range(num_links)
    ]
    return [steps[i] for i in np.random.default_rng(seed).permutation(num_links)]


def components(crystals: list[Structure], matcher: StructureMatcher) -> list[int]:
    """The first member of each crystal's component, where pymatgen's matches are the links."""
    links = [[matcher.fit(left, right) or left is right for right in crystals] for left in crystals]
    _, labels = connected_components(np.array(links) | np.array(links).T, directed=False)
    return [labels.tolist().index(label) for label in labels]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["cdvae", "mattergen"])
def test_groups_are_what_matches_of_pymatgen_hold_together(name: str, seed: int) -> None:
    crystals = [*chain(7, seed), rock_salt(), supercell(rock_salt()), perovskite(), perovskite()]
    result = uniqueness(crystals, matcher=name)  # type: ignore[arg-type]
    assert firsts_of(result.groups) == components(crystals, plain(MATCHERS[name])), f"seed {seed}"
    assert result.rule == "connected components"


@pytest.mark.parametrize("order", permutations(range(3)))
def test_the_order_of_the_set_does_not_matter(order: tuple[int, ...]) -> None:
    """The first matches the second and the second the third, but not the first the third."""
    links = [
        Structure(Lattice.tetragonal(4, 4 * c), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]) for c in (1, 1.25, 1.5625)
    ]
    matcher = plain(MATCHERS["mattergen"])
    assert [matcher.fit(links[i], links[j]) for i, j in ((0, 1), (1, 2), (0, 2))] == [True, True, False]
    crystals = [*(links[i] for i in order), perovskite()]
    assert uniqueness(crystals).num_unique == 2
    # the negative control: the convention that depends on the order
    counts = {
        len(set(group_structures([links[i] for i in other], MATCHERS["mattergen"]))) for other in permutations(range(3))
    }
    assert counts == {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mattergen", "cdvae"])
def test_groups_of_carbon_join_those_of_pymatgen(shared_dir: Path, name: str) -> None:
    """Few pairs reach the matcher: 2,063,496 have one composition."""
    crystals = as_arrays(read_crystals(shared_dir / "data" / "carbon_24" / "val.csv.gz").crystals)
    result = uniqueness(crystals, matcher=name)  # type: ignore[arg-type]
    assert result.num_comparisons < 20_000 and not result.failures
    theirs = group_structures([crystal.structure() for crystal in crystals], MATCHERS[name])
    assert all(result.groups[i] == result.groups[first] for i, first in enumerate(theirs))


def test_what_cannot_be_used_is_in_the_denominator_and_in_no_group() -> None:
    nan = Structure(Lattice.cubic(4), ["Ba"], [[float("nan"), 0, 0]])
    result = uniqueness([None, nan, perovskite(), None, perovskite()])
    assert result.groups.tolist() == [-1, -1, 0, -1, 0]
    assert (result.num_unique, result.num_usable, result.num_crystals) == (1, 2, 5)
    assert (result.rate, result.rate_usable) == (0.2, 0.5)
    assert result.reasons[0] == "there is no crystal: it could not be built" and "NaN" in str(result.reasons[1])


def test_no_crystal_and_one_crystal() -> None:
    nothing = uniqueness([])
    assert (nothing.rate, nothing.num_crystals, nothing.groups.shape) == (0.0, 0, (0,))
    assert uniqueness([perovskite()]).rate == 1.0
    assert uniqueness([None]).rate == 0.0


def test_a_pair_on_which_the_matcher_stops_counts_as_different(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_matching(monkeypatch, ZeroDivisionError("flat"))
    result = uniqueness([rock_salt(), perovskite(), perovskite()])
    assert result.num_unique == 3
    assert result.failures == ((1, 2, "the matcher failed: ZeroDivisionError: flat"),)


def test_crystals_without_company_are_not_even_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Structure, "get_primitive_structure", None)
    assert uniqueness([perovskite(), rock_salt()]).num_unique == 2


def test_two_processes_give_what_one_gives_and_report_how_far_they_are() -> None:
    crystals = [*chain(6, 3), perovskite(), perovskite(), None]
    seen: list[tuple[int, int]] = []
    alone = uniqueness(crystals)
    together = uniqueness(crystals, num_workers=2, progress=lambda done, total: seen.append((done, total)))
    assert together.groups.tolist() == alone.groups.tolist()
    assert seen[-1] == (18, 18)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_second_run_asks_the_matcher_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crystals = [*chain(5, 4), perovskite(), perovskite()]
    with ResultStore(tmp_path / "results.sqlite") as store:
        before = uniqueness(crystals, store=store)

        def stop(*_: object) -> None:
            raise AssertionError("asked again")

        monkeypatch.setattr(uniqueness_module, "compare", stop)
        monkeypatch.setattr(Structure, "get_reduced_structure", stop)
        after = uniqueness(crystals, store=store)
        with pytest.raises(AssertionError):
            uniqueness(crystals, matcher="cdvae", store=store)
    assert after.groups.tolist() == before.groups.tolist() and after.num_comparisons == before.num_comparisons
