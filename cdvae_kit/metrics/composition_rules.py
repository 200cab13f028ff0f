"""Whether a composition can be neutral: the rules that the field calls SMACT validity.

Four rules. `smact-2014` is what published numbers rest on: the tables of SMACT 2.2.1 (Davies et al., J. Open Source
Softw. 4, 1361 (2019), doi 10.21105/joss.01361) and its test, oddities included. `smact` gives the verdict of the
installed SMACT release by its own defaults. `smact-mixed` is `smact` where the atoms of one element may differ in
charge, as iron's do in Fe3O4; SMACT gives up where there are too many choices, this does not. `charge` is `smact-2014`
without the electronegativity test.
Verdicts on whole crystals are in `validity`.

The published code tries every choice of oxidation states; here the charges that are within reach are the set bits of
one integer, so ten elements cost no more than ten shifts an oxidation state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal, TypeAlias, get_args

from cdvae_kit.metrics.crystals import Composition, formula, symbol

CompositionRule: TypeAlias = Literal["smact-2014", "smact", "smact-mixed", "charge"]
COMPOSITION_RULES: tuple[CompositionRule, ...] = get_args(CompositionRule)

MIXED_VALENCE = frozenset(
    {22, 23, 24, 25, 26, 27, 28, 29, 41, 42, 44, 46, 47, 50, 51, 58, 63, 70, 74, 75, 76, 79, 83, 92}
)
"""Atomic numbers of the elements that SMACT 4 lets take several oxidation states in one compound."""


@dataclass(frozen=True)
class ElementTable:
    """What a rule knows of one element; `electronegativity` is Pauling's, None where it has none."""

    oxidation_states: tuple[int, ...]
    electronegativity: float | None
    metal: bool


def check_composition(composition: Composition, rule: CompositionRule = "smact-2014") -> str | None:
    """None where the composition is valid, else the reason. Every composition is worked out once.

    One element alone is valid, and so are metals alone; else some choice of one oxidation state an element must be
    neutral at the reduced counts and put every cation below every anion in Pauling electronegativity.

    >>> check_composition(((8, 1), (11, 1))) is None  # NaO: sodium 1+ and oxygen 1-
    True
    >>> check_composition(((9, 3), (11, 1)))
    'no neutral choice of oxidation states for NaF3'
    """
    if rule not in COMPOSITION_RULES:
        raise ValueError(f"composition rule must be one of {', '.join(COMPOSITION_RULES)}, got {rule!r}")
    return _check_composition(composition, rule)


@lru_cache(maxsize=1_000_000)
def _check_composition(composition: Composition, rule: CompositionRule) -> str | None:
    if len(composition) == 1:
        return None
    known = [element_table(number, rule) for number, _ in composition]
    missing = [symbol(number) for (number, _), table in zip(composition, known, strict=True) if table is None]
    if missing:
        return f"the tables of the rule {rule} know nothing of {', '.join(missing)}"
    tables = [table for table in known if table is not None]
    if all(table.metal for table in tables):
        return None
    inert = [symbol(n) for (n, _), table in zip(composition, tables, strict=True) if not table.oxidation_states]
    if inert:
        return f"{', '.join(inert)} has no oxidation state"
    counts = [count for _, count in composition]
    if rule == "smact-mixed":
        counts, tables = _expanded(composition, tables)
    if not _neutral(counts, [table.oxidation_states for table in tables]):
        return f"no neutral choice of oxidation states for {formula(composition)}"
    if rule == "charge" or any(_neutral(counts, allowed) for allowed in _pauling_choices(tables, rule)):
        return None
    return f"no neutral choice of oxidation states for {formula(composition)} passes the electronegativity test"


def _expanded(composition: Composition, tables: list[ElementTable]) -> tuple[list[int], list[ElementTable]]:
    """Counts and tables with each atom of an element of mixed valence for itself."""
    parts = [
        (1 if number in MIXED_VALENCE else count, table)
        for (number, count), table in zip(composition, tables, strict=True)
        for _ in range(count if number in MIXED_VALENCE else 1)
    ]
    return [count for count, _ in parts], [table for _, table in parts]


def _neutral(counts: Sequence[int], oxidation_states: Sequence[Sequence[int]]) -> bool:
    """Whether one oxidation state for each element can add up to zero."""
    if not all(oxidation_states):
        return False
    # bit k set: the charge `lowest + k` is within reach
    reach, lowest = 1, 0
    for count, states in zip(counts, oxidation_states, strict=True):
        first = min(states)
        shifted = 0
        for state in states:
            shifted |= reach << (count * (state - first))
        reach = shifted
        lowest += count * first
    return lowest <= 0 and bool(reach >> -lowest & 1)


def _pauling_choices(tables: Sequence[ElementTable], rule: CompositionRule) -> Iterator[list[list[int]]]:
    """The oxidation states that the electronegativity test leaves to each element, one list a way to pass it."""
    values = [table.electronegativity for table in tables]
    missing = [i for i, value in enumerate(values) if value is None]
    if missing:
        # releases from 3 on fail whatever lacks a value
        if rule == "smact-2014":
            yield from _choices_with_missing(tables, missing[0])
        return
    # a cation must lie below every anion, so some level splits the elements: cations under it, anions from it on
    for level in [*sorted({value for value in values if value is not None}), float("inf")]:
        yield [
            [state for state in table.oxidation_states if (state >= 0 if value < level else state <= 0)]
            for table, value in zip(tables, values, strict=True)
            if value is not None
        ]


def _choices_with_missing(tables: Sequence[ElementTable], first_missing: int) -> Iterator[list[list[int]]]:
    """The same for SMACT 2.2.1 where an element has no electronegativity.

    That release compares pairs in the order of atomic numbers. A pair of ions of opposite charge with a missing value
    raises, which the published metric counts as passed; any other pair with a missing value fails. So all is settled
    by the first element: its pairs up to the first one with a missing value.
    """
    decisive = first_missing if first_missing > 0 else 1
    for sign in (1, -1):
        allowed = [list(table.oxidation_states) for table in tables]
        allowed[0] = [state for state in allowed[0] if state * sign > 0]
        allowed[decisive] = [state for state in allowed[decisive] if state * sign < 0]
        own = tables[0].electronegativity
        for j in range(1, decisive):
            other = tables[j].electronegativity
            if own is not None and other is not None and (own - other) * sign >= 0:
                allowed[j] = [state for state in allowed[j] if state * sign >= 0]
        yield allowed


@cache
def element_table(atomic_number: int, rule: CompositionRule) -> ElementTable | None:
    """What the rule knows of an element, None where it knows nothing."""
    if rule in ("smact", "smact-mixed"):
        return _installed_table(atomic_number)
    return _tables_2014().get(symbol(atomic_number))


@lru_cache(maxsize=1)
def _tables_2014() -> dict[str, ElementTable]:
    content = json.loads(files("cdvae_kit.metrics").joinpath("smact_2014.json").read_text(encoding="utf-8"))
    return {
        name: ElementTable(tuple(row["oxidation_states"]), row["electronegativity"], row["metal"])
        for name, row in content["elements"].items()
    }


def _installed_table(atomic_number: int) -> ElementTable | None:
    import smact

    name = symbol(atomic_number)
    try:
        element = smact.Element(name)
    except (KeyError, NameError):
        # what releases raise for an element that they have no data of
        return None
    return ElementTable(_installed_oxidation_states().get(name, ()), element.pauling_eneg, name in smact.metals)


@lru_cache(maxsize=1)
def _installed_oxidation_states() -> dict[str, tuple[int, ...]]:
    """What `smact.screening.smact_validity` reads when it is given no options; `Element` holds another selection."""
    from smact.utils.oxidation import ICSD24OxStatesFilter

    table = ICSD24OxStatesFilter().filter()
    return {
        str(name): tuple(int(state) for state in str(states).split())
        for name, states in zip(table["element"], table["oxidation_state"], strict=True)
    }
