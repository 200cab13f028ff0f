"""Cards of single crystals in the report: picture, verdicts, reason, and the rule that chose the crystal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

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
    """HTML of all cards, the shading that their pictures need, and what turns, by number."""

    html: str
    gradients: str
    turning: Sequence[dict[str, Any]]


def crystal_cards(evaluation: Evaluation) -> Cards:
    """The crystals that `select_crystals` chooses, group by group."""
    chosen = select_crystals(evaluation.crystals)
    turns: list[dict[str, Any]] = []
    elements: set[int] = set()
    html = ""
    for group, (heading, words) in _HEADINGS.items():
        members = [entry for entry in chosen if entry.group == group]
        if not members:
            continue
        cards = "".join(_card(evaluation, entry, turns, elements) for entry in members)
        html += f'<h3>{heading}</h3>\n<p class="note">{words}</p>\n<div class="crystals">\n{cards}</div>\n'
    return Cards(html, gradients(elements), turns)


def _card(evaluation: Evaluation, entry: Chosen, turns: list[dict[str, Any]], elements: set[int]) -> str:
    row = evaluation.crystals[entry.index]
    name = _formula(row.formula) or "no crystal"
    facts = [f"#{row.index}"]
    if row.material_id:
        facts.append(escape(row.material_id))
    if row.num_atoms:
        facts.append(f"{row.num_atoms} atom{'' if row.num_atoms == 1 else 's'}")
    if row.space_group is not None:
        facts.append(_space_group(row.space_group))
    if row.density is not None:
        facts.append(f"{row.density:.3g} g/cm³")
    measured = [words.format(value) for key, words in _VALUES.items() if (value := row.values.get(key)) is not None]
    reason = f'<p class="reason">{escape(row.reason)}</p>' if row.reason else ""
    values = f'<p class="facts">{", ".join(measured)}</p>' if measured else ""
    return (
        f'<article class="crystal">{_stage(evaluation, row, turns, elements)}{_legend(evaluation, row)}<h4>{name}</h4>'
        f'<p class="facts">{" · ".join(facts)}</p>{values}{_badges(row)}{reason}'
        f'<p class="why">Chosen: {escape(entry.rule)}.</p></article>\n'
    )


def _stage(evaluation: Evaluation, row: CrystalRow, turns: list[dict[str, Any]], elements: set[int]) -> str:
    try:
        if row.num_atoms > MOST_ATOMS:
            raise ValueError(f"{row.num_atoms:,} atoms are too many for a picture here, {MOST_ATOMS:,} at most")
        drawn = conventional_cell(evaluation.generated[row.index])
        scene = scene_of_arrays(drawn)
    except ValueError as error:
        return f'<div class="stage"><div class="nothing">{escape(str(error))}</div></div>'
    elements.update(scene.elements)
    turns.append(turning(scene))
    label = f"Crystal {row.index}, {row.formula}"
    if drawn is not evaluation.generated[row.index]:
        label += f", conventional cell of {len(drawn.atomic_numbers)} atoms"
    return (
        f'<div class="stage" data-crystal="{len(turns) - 1}" data-label="{escape(label)}">{picture(scene, label)}'
        f'<button type="button" class="turn" aria-label="turn {escape(label)}">turn</button></div>'
    )


def _legend(evaluation: Evaluation, row: CrystalRow) -> str:
    """Which colour is which element."""
    numbers = sorted(set(evaluation.generated[row.index].atomic_numbers.tolist()))
    items = "".join(
        f'<li><span class="dot" style="background:{css_color(number)}"></span>{element_symbol(number)}</li>'
        for number in numbers
    )
    return f'<ul class="legend">{items}</ul>' if items else ""


def _badges(row: CrystalRow) -> str:
    items = "".join(
        _badge(verdict, words, fails=name not in _NO_FAILURE)
        for name, words in _BADGES.items()
        if (verdict := row.verdicts.get(name)) is not None
    )
    return f'<ul class="badges">{items}</ul>' if items else ""


def _badge(verdict: bool, words: str, *, fails: bool) -> str:
    if verdict:
        return f'<li class="yes">✓ {words}</li>'
    return f'<li class="no">✗ {words}</li>' if fails else f"<li>not {words}</li>"


def _formula(formula: str) -> str:
    return re.sub(r"(?<=[A-Za-z)])(\d+(?:\.\d+)?)", r"<sub>\1</sub>", escape(formula))


def _space_group(number: int) -> str:
    if not 1 <= number <= 230:
        return f"space group {number}"
    from moyopy import SpaceGroupType

    return f"{escape(SpaceGroupType(number).hm_short.replace(' ', ''))} ({number})"
