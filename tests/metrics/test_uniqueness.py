"""Uniqueness: groups as pymatgen makes them, whatever the description, and what counts in the denominator."""

from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.io import read_crystals
from cdvae_kit.io.results.store import ResultStore
from cdvae_kit.metrics import MATCHERS, uniqueness
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.metrics.matching import comparisons as comparisons_module
from tests.metrics.same_crystals import (
    DESCRIPTIONS,
    caesium_chloride,
    firsts_of,
    group_structures,
    perovskite,
    rock_salt,
    supercell,
    swapped,
)


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


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["cdvae", "mattergen"])
def test_groups_are_those_of_pymatgen(name: str, seed: int) -> None:
    crystals = [*chain(7, seed), rock_salt(), supercell(rock_salt()), perovskite(), perovskite()]
    result = uniqueness(crystals, matcher=name)  # type: ignore[arg-type]
    assert firsts_of(result.groups) == group_structures(crystals, MATCHERS[name]), f"seed {seed}"


def test_a_chain_is_cut_where_the_first_of_it_does_not_reach() -> None:
    """Negative control of the convention: neighbours match, the ends do not."""
    links = chain(7, 0)
    assert 1 < uniqueness(links).num_unique < len(links)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mattergen", "cdvae"])
def test_groups_of_carbon_are_those_of_pymatgen(shared_dir: Path, name: str) -> None:
    """About one pair in 600 reaches the matcher: 2,063,496 pairs have one composition."""
    crystals = as_arrays(read_crystals(shared_dir / "data" / "carbon_24" / "val.csv.gz").crystals)
    result = uniqueness(crystals, matcher=name)  # type: ignore[arg-type]
    assert result.num_comparisons < 6_000 and not result.failures
    structures = [crystal.structure() for crystal in crystals]
    assert firsts_of(result.groups) == group_structures(structures, MATCHERS[name])


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
    from pymatgen.analysis.structure_matcher import StructureMatcher

    def stop(*_: object, **__: object) -> None:
        raise ZeroDivisionError("flat")

    monkeypatch.setattr(StructureMatcher, "fit", stop)
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

        monkeypatch.setattr(comparisons_module, "compare", stop)
        monkeypatch.setattr(Structure, "get_reduced_structure", stop)
        after = uniqueness(crystals, store=store)
        with pytest.raises(AssertionError):
            uniqueness(crystals, matcher="cdvae", store=store)
    assert after.groups.tolist() == before.groups.tolist() and after.num_comparisons == before.num_comparisons
