"""Which crystals are shown, and how failures are told apart."""

import pytest

from cdvae_kit.visualization.report.selection import failure_kinds, reason_kind, select_crystals
from tests.visualization.evaluations import row


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("Os and O 0.49 A apart", "X and X … A apart"),
        ("K and its own image 1.2e-05 A apart", "X and its own image … A apart"),
        ("no neutral choice of oxidation states for Ba(TiO3)2", "no neutral choice of oxidation states for X"),
        ("the cell has -0.05 cubic angstrom, under 0.1", "the cell has … cubic angstrom, under …"),
        ("He has no oxidation state", "X has no oxidation state"),
        # a word with a capital is no formula
        ("Fingerprint failed: ValueError", "Fingerprint failed: ValueError"),
        ("", ""),
    ],
)
def test_a_kind_of_reason_has_neither_elements_nor_numbers(reason: str, kind: str) -> None:
    assert reason_kind(reason) == kind


def test_kinds_are_counted_the_most_frequent_first() -> None:
    rows = [
        row(0, reason="He has no oxidation state"),
        row(1, reason="Os and O 0.49 A apart; He has no oxidation state"),
        row(2),
        row(3, reason="Na and Cl 0.2 A apart; Na and O 0.1 A apart; Ne has no oxidation state"),
    ]
    kinds = failure_kinds(rows)
    # a crystal counts once in a kind, however often it has it
    assert [(kind.num_crystals, kind.indices) for kind in kinds] == [(3, (0, 1, 3)), (2, (1, 3))]
    assert kinds[1].example == "Os and O 0.49 A apart"


def test_nothing_fails_and_nothing_is_chosen_of_nothing() -> None:
    assert failure_kinds([]) == [] and select_crystals([]) == []


def test_no_crystal_is_chosen_twice() -> None:
    rows = [row(i, reason="there is no atom" if i % 3 == 0 else None) for i in range(30)]
    chosen = [entry.index for entry in select_crystals(rows)]
    assert len(chosen) == len(set(chosen)) > 8


def test_the_best_are_those_of_lowest_energy_where_there_is_one() -> None:
    rows = [row(i, values={"energy_above_hull": 0.9 - 0.1 * i, "nearest_structure": 0.1 * i}) for i in range(8)]
    best = [entry for entry in select_crystals(rows) if entry.group == "best"]
    assert [entry.index for entry in best] == [7, 6, 5, 4, 3]
    assert best[0].rule == "valid; lowest energy above the hull"


def test_the_best_pass_every_verdict_that_was_reached() -> None:
    rows = [row(i, verdicts={"valid": True, "unique": i != 0, "novel": None}) for i in range(3)]
    best = [entry for entry in select_crystals(rows) if entry.group == "best"]
    assert [entry.index for entry in best] == [1, 2]
    assert best[0].rule == "valid, unique; nearest to a reference in structure"


def test_without_a_reference_the_best_are_the_first() -> None:
    rows = [row(i, values={}) for i in range(9)]
    best = [entry for entry in select_crystals(rows) if entry.group == "best"]
    assert [entry.index for entry in best] == [0, 1, 2, 3, 4] and best[0].rule == "valid; first in the set"


def test_each_kind_of_failure_is_shown_once() -> None:
    rows = [row(i, reason=("Os and O 0.4 A apart", "Ne has no oxidation state")[i % 2]) for i in range(8)]
    worst = [entry for entry in select_crystals(rows) if entry.group == "worst"]
    assert [(entry.index, entry.rule) for entry in worst] == [
        (0, "the first of 4 that fail so"),
        (1, "the first of 4 that fail so"),
    ]


def test_the_odd_ones_are_at_the_ends_and_valid() -> None:
    rows = [row(i, values={}, density=1.0 + i) for i in range(9)] + [row(9, reason="crushed", density=500.0)]
    odd = {entry.rule: entry.index for entry in select_crystals(rows) if entry.group == "odd"}
    # 0 to 4 are the best already
    assert odd == {"valid; densest": 8, "valid; least dense": 5}


def test_values_that_are_not_finite_are_never_an_end() -> None:
    rows = [
        row(i, values={"nearest_structure": value}) for i, value in enumerate([0.1, float("nan"), float("inf"), 0.2])
    ]
    assert len(select_crystals(rows)) >= 3
