"""Cards of single crystals in the report: picture, verdicts, reason, and the rule that chose the crystal."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cdvae_kit.metrics.evaluation_result import CrystalRow, Evaluation
from cdvae_kit.visualization.crystals.scene import element_symbol
from cdvae_kit.visualization.crystals.vector_picture import (
    conventional_cell,
    css_color,
    gradients,
    picture,
    scene_of_arrays,
    turning,
)
from cdvae_kit.visualization.report.selection import Chosen, select_crystals

MOST_ATOMS = 2000
"""In a picture; a page with more in it is slow to turn."""

_HEADINGS = {
    "best": ("Best", "Crystals that pass every test that was run."),
    "worst": ("Worst", "One for each of the most frequent kinds of failure."),
    "odd": ("Odd", "Valid crystals at the ends of the set: look here for what a metric lets pass."),
}
_BADGES = {
    "valid": "valid",
    "unique": "unique",
    "novel": "novel",
    "stable": "stable",
    "covered_joint": "near a reference",
}
_NO_FAILURE = frozenset({"covered_joint"})
"""Verdicts that a good crystal may lack: what is new lies near no reference."""

_VALUES = {
    "energy_above_hull": ("{:.3f} eV/atom above the hull"),
    "nearest_structure": ("structure distance {:.2f}"),
    "nearest_composition": ("composition distance {:.1f}"),
}


@dataclass(frozen=True)
class Cards:
    """What stands on the cards.

    Attributes:
        groups: heading, a line below it, and what each card of the group says.
        gradients: the shading that the pictures need.
        turning: what turns, by the number that its card holds.
    """

    groups: Sequence[tuple[str, str, Sequence[dict[str, Any]]]]
    gradients: Markup
    turning: Sequence[dict[str, Any]]


def crystal_cards(evaluation: Evaluation) -> Cards:
    """The crystals that `select_crystals` chooses, group by group."""
    chosen = select_crystals(evaluation.crystals)
    turns: list[dict[str, Any]] = []
    elements: set[int] = set()
    groups = []
    for group, (heading, words) in _HEADINGS.items():
        members = [entry for entry in chosen if entry.group == group]
        if members:
            groups.append((heading, words, [_card(evaluation, entry, turns, elements) for entry in members]))
    return Cards(groups, Markup(gradients(elements)), turns)


def _card(evaluation: Evaluation, entry: Chosen, turns: list[dict[str, Any]], elements: set[int]) -> dict[str, Any]:
    row = evaluation.crystals[entry.index]
    facts = [f"#{row.index}"]
    if row.material_id:
        facts.append(row.material_id)
    if row.num_atoms:
        facts.append(f"{row.num_atoms} atom{'' if row.num_atoms == 1 else 's'}")
    if row.space_group is not None:
        facts.append(_space_group(row.space_group))
    if row.density is not None:
        facts.append(f"{row.density:.3g} g/cm³")
    values = ((row.values.get(name), words) for name, words in _VALUES.items())
    return {
        "formula": _formula(row.formula) or "no crystal",
        "facts": facts,
        "measured": [words.format(value) for value, words in values if value is not None],
        "legend": _legend(evaluation, row),
        "badges": _badges(row),
        "reason": row.reason,
        "rule": entry.rule,
        **_picture(evaluation, row, turns, elements),
    }


def _picture(
    evaluation: Evaluation, row: CrystalRow, turns: list[dict[str, Any]], elements: set[int]
) -> dict[str, Any]:
    try:
        if row.num_atoms > MOST_ATOMS:
            raise ValueError(f"{row.num_atoms:,} atoms are too many for a picture here, {MOST_ATOMS:,} at most")
        drawn = conventional_cell(evaluation.generated[row.index])
        scene = scene_of_arrays(drawn)
    except ValueError as error:
        return {"picture": None, "no_picture": str(error)}
    elements.update(scene.elements)
    turns.append(turning(scene))
    label = f"Crystal {row.index}, {row.formula}"
    if drawn is not evaluation.generated[row.index]:
        label += f", conventional cell of {len(drawn.atomic_numbers)} atoms"
    return {"picture": Markup(picture(scene, label)), "number": len(turns) - 1, "label": label}


def _legend(evaluation: Evaluation, row: CrystalRow) -> list[dict[str, str]]:
    """Which colour is which element."""
    numbers = sorted(set(evaluation.generated[row.index].atomic_numbers.tolist()))
    return [{"color": css_color(number), "symbol": element_symbol(number)} for number in numbers]


def _badges(row: CrystalRow) -> list[dict[str, Any]]:
    verdicts = ((name, words, row.verdicts.get(name)) for name, words in _BADGES.items())
    return [
        {"holds": holds, "fails": not holds and name not in _NO_FAILURE, "words": words}
        for name, words, holds in verdicts
        if holds is not None
    ]


def _formula(formula: str) -> Markup:
    # a plain string: what is put into `Markup`, of which `escape` gives one, is escaped again
    return Markup(re.sub(r"(?<=[A-Za-z)])(\d+(?:\.\d+)?)", r"<sub>\1</sub>", html.escape(formula)))


def _space_group(number: int) -> str:
    if not 1 <= number <= 230:
        return f"space group {number}"
    from moyopy import SpaceGroupType

    return f"{SpaceGroupType(number).hm_short.replace(' ', '')} ({number})"
