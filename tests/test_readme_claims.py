"""The printed table of claims is an extract of `tests/benchmarks/claims.md`, which full runs write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "tests" / "benchmarks" / "claims.md"


def rows_of(table: str) -> list[list[str]]:
    """Cells of each row; a bar within a cell is written `\\|`."""
    lines = [line for line in table.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def full_claims() -> dict[str, list[tuple[str, str, str]]]:
    """By experiment: what was asked for, the number and the verdict."""
    found = {}
    for section in CLAIMS.read_text(encoding="utf-8").split("\n## ")[1:]:
        name = section.splitlines()[0].strip()
        found[name] = [(row[1], row[2], row[3]) for row in rows_of(section)[1:]]
    return found


def not_in(claims: dict[str, list[tuple[str, str, str]]], rows: list[list[str]]) -> list[list[str]]:
    missing, name = [], ""
    for row in rows:
        if named := re.search(r"`([a-z-]+)`", row[0]):
            name = named[1]
        if (row[2], row[3], row[4]) not in claims.get(name, []):
            missing.append(row)
    return missing


@pytest.fixture(scope="module")
def printed() -> list[list[str]]:
    page = (ROOT / "docs" / "results" / "representations.md").read_text(encoding="utf-8")
    # other tables have sections of their own
    return rows_of(page.split("\n## ")[0])[1:]


def test_every_printed_claim_was_measured(printed: list[list[str]]) -> None:
    claims = full_claims()
    assert len(printed) > 20 and len(claims) >= 9
    assert not_in(claims, printed) == []


def test_a_number_that_nobody_measured_is_noticed(printed: list[list[str]]) -> None:
    wrong = [*printed[0][:3], "0.123", printed[0][4]]
    assert not_in(full_claims(), [wrong]) == [wrong]


def test_only_a_number_with_an_error_has_a_verdict(printed: list[list[str]]) -> None:
    for row in printed:
        judged = "±" in row[3]
        assert row[4] in (("holds", "**fails**", "undecided") if judged else ("not judged",)), row


def test_the_page_says_at_its_head_how_many_seeds_stand_behind_it() -> None:
    head = (ROOT / "docs" / "results" / "representations.md").read_text(encoding="utf-8").split("\n| ")[0]
    assert "three seeds" in head
