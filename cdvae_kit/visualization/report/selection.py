"""Which of thousands of crystals a reader should look at, by rules that are said beside each, and what goes wrong most.

Pictures of them are drawn elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ase.data import chemical_symbols

from cdvae_kit.metrics.evaluation_result import CrystalRow
from cdvae_kit.missing import is_finite

Group: TypeAlias = Literal["best", "worst", "odd"]

NUM_BEST = 5
NUM_WORST = 5
NUM_ODD = 5

_ELEMENTS = frozenset(chemical_symbols[1:])
_GOOD = ("valid", "unique", "novel", "stable")
"""Verdicts that a best crystal passes, as far as it was judged."""


@dataclass(frozen=True)
class Chosen:
    """A crystal to show.

    Attributes:
        index: its index in the generated set.
        group: why, in one word.
        rule: why, in a sentence's length.
    """

    index: int
    group: Group
    rule: str


@dataclass(frozen=True)
class FailureKind:
    """Crystals that fail for one kind of reason.

    Attributes:
        kind: the reason without its elements and numbers: "X and X … A apart".
        num_crystals: that have it, among other reasons.
        example: the reason of the first of them, as it is.
        indices: all of them, in order.
    """

    kind: str
    num_crystals: int
    example: str
    indices: tuple[int, ...]


def reason_kind(reason: str) -> str:
    """A reason without what is particular to one crystal.

    >>> reason_kind("Os and O 0.49 A apart")
    'X and X … A apart'
    >>> reason_kind("no neutral choice of oxidation states for KBiO2F")
    'no neutral choice of oxidation states for X'
    """
    general = re.sub(r"(?<![A-Za-z)])[-+]?\d+(\.\d+)?([eE][-+]?\d+)?", "…", reason)
    return re.sub(r"\b[A-Z][A-Za-z\d.()]*", _element_free, general)


def _element_free(word: re.Match[str]) -> str:
    parts = re.findall(r"[A-Z][a-z]?|[\d.()]+|.", word.group())
    symbols = [part for part in parts if not re.fullmatch(r"[\d.()]+", part)]
    return "X" if set(symbols) <= _ELEMENTS else word.group()


def failure_kinds(rows: Sequence[CrystalRow]) -> list[FailureKind]:
    """Every kind of reason with its crystals, the most frequent first; a crystal with two reasons counts in both."""
    members: dict[str, list[int]] = {}
    examples: dict[str, str] = {}
    for row in rows:
        for reason in dict.fromkeys(row.reason.split("; ") if row.reason else ()):
            kind = reason_kind(reason)
            examples.setdefault(kind, reason)
            if row.index not in members.setdefault(kind, []):
                members[kind].append(row.index)
    order = sorted(members, key=lambda kind: -len(members[kind]))
    return [FailureKind(kind, len(members[kind]), examples[kind], tuple(members[kind])) for kind in order]


def select_crystals(rows: Sequence[CrystalRow]) -> list[Chosen]:
    """The best, one for each of the most frequent kinds of failure, and the oddest valid ones; none twice.

    The rules use what was judged: without relaxation the best are those nearest to a reference in structure, which
    rewards copies as much as skill.
    """
    taken: set[int] = set()
    chosen: list[Chosen] = []

    def take(index: int, group: Group, rule: str) -> None:
        taken.add(index)
        chosen.append(Chosen(index, group, rule))

    rule, best = _best(rows)
    for row in best[:NUM_BEST]:
        take(row.index, "best", rule)
    for failure in failure_kinds(rows)[:NUM_WORST]:
        first = next((index for index in failure.indices if index not in taken), None)
        if first is not None:
            count = failure.num_crystals
            take(first, "worst", f"the first of {count:,} that fail so" if count > 1 else "the only one that fails so")
    for rule, measure in _ODD.items():
        measured = [(_finite(measure(row)), -row.index) for row in rows if _passes(row)]
        left = [(value, index) for value, index in measured if -index not in taken and value > -math.inf]
        num_odd = sum(entry.group == "odd" for entry in chosen)
        # where all are alike none is odd
        if num_odd < NUM_ODD and left and max(measured)[0] > min(measured)[0]:
            take(-max(left)[1], "odd", rule)
    return chosen


def _best(rows: Sequence[CrystalRow]) -> tuple[str, list[CrystalRow]]:
    judged = [name for name in _GOOD if any(row.verdicts.get(name) is not None for row in rows)]
    good = [row for row in rows if row.reason is None and all(row.verdicts.get(name) for name in judged)]
    words = ", ".join(judged) or "without a fault"
    for name, meaning in (
        ("energy_above_hull", "lowest energy above the hull"),
        ("nearest_structure", "nearest to a reference in structure"),
    ):
        measured = [row for row in good if row.values.get(name) is not None]
        if measured:
            return f"{words}; {meaning}", sorted(measured, key=lambda row: _finite(row.values[name], math.inf))
    return f"{words}; first in the set", good


def _passes(row: CrystalRow) -> bool:
    return row.reason is None and row.verdicts.get("valid") is not False


def _finite(value: float | None, otherwise: float = -math.inf) -> float:
    return value if is_finite(value) else otherwise


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


_ODD: dict[str, Callable[[CrystalRow], float | None]] = {
    "valid; farthest from every reference in structure": lambda row: row.values.get("nearest_structure"),
    "valid; farthest from every reference in composition": lambda row: row.values.get("nearest_composition"),
    "valid; densest": lambda row: row.density,
    "valid; least dense": lambda row: _minus(row.density),
    "valid; most atoms in the cell": lambda row: float(row.num_atoms),
    "valid; most energy above the hull": lambda row: row.values.get("energy_above_hull"),
}
