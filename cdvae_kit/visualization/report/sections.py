"""What stands in the report: its sections as HTML, its figures, the crystals that it shows.

All text from files (names, reasons, settings) is escaped here. How the page is put together is in
`evaluation_page`; what is to be warned of is in `advice`, the cards of single crystals are in `crystal_cards`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from cdvae_kit.metrics.evaluation_result import Distribution, Evaluation, MetricValue
from cdvae_kit.metrics.published import PublishedResult
from cdvae_kit.visualization import theme
from cdvae_kit.visualization.distributions import bin_values, plot_distribution
from cdvae_kit.visualization.elements import plot_elements
from cdvae_kit.visualization.latent import MOST_POINTS, plot_latent_map
from cdvae_kit.visualization.report.advice import advice
from cdvae_kit.visualization.report.crystal_cards import Cards, crystal_cards
from cdvae_kit.visualization.report.figures import Figures
from cdvae_kit.visualization.report.html_page import Section
from cdvae_kit.visualization.report.numbers import DATASETS, numbers_section, plain_value, tiles_of
from cdvae_kit.visualization.report.selection import failure_kinds
from cdvae_kit.visualization.space_groups import MISSING, can_draw_wheels, plot_space_groups

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MOST_REASONS = 25


@dataclass(frozen=True)
class Page:
    """All that the page is made of, HTML throughout.

    Attributes:
        title: of the page.
        lead: a line on what was judged.
        tiles: the first numbers.
        sections: in order.
        foot: the last line.
        gradients: shading of the elements that the pictures use.
        figures: name to plotly figure; the element of that id is in a section.
        crystals: what turns, by the number that its card holds.
    """

    title: str
    lead: str
    tiles: str
    sections: Sequence[Section]
    foot: str
    gradients: str
    figures: Mapping[str, go.Figure]
    crystals: Sequence[Mapping[str, Any]]


def page_of(
    evaluation: Evaluation, *, title: str | None, dataset: str | None, published: Sequence[PublishedResult]
) -> Page:
    """The page of an evaluation, `published` beside its numbers."""
    figures = Figures()
    cards = crystal_cards(evaluation)
    sections = [
        numbers_section(evaluation, dataset, published, figures),
        _distributions(evaluation, figures),
        _elements(evaluation, figures),
        _latent(evaluation, figures),
        _crystals(cards),
        _failures(evaluation),
        Section("reading", "How to read this", "How to read this", advice(evaluation, dataset)),
        _settings(evaluation),
    ]
    num_generated, num_reference = len(evaluation.crystals), len(evaluation.reference)
    against = f"held against {num_reference:,} reference crystals" if num_reference else "without a reference set"
    if dataset is not None:
        against += f" ({DATASETS.get(dataset, escape(dataset))})"
    version = _text(evaluation.settings.get("versions", {}).get("cdvae-kit", ""))
    return Page(
        escape(title or f"Evaluation of {_crystals_in_words(num_generated)}"),
        f"{_crystals_in_words(num_generated).capitalize()}, {against}.",
        tiles_of(evaluation.metrics),
        sections,
        f"Made by cdvae-kit {version}. Everything on this page is in this file; nothing is loaded from elsewhere.",
        cards.gradients,
        figures.found,
        cards.turning,
    )


def _crystals_in_words(number: int) -> str:
    return f"{number:,} generated crystal{'' if number == 1 else 's'}"


# Distributions


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _distributions(evaluation: Evaluation, figures: Figures) -> Section:
    shown = [entry for entry in evaluation.distributions.values() if entry.name != "element"]
    if not shown:
        body = '<p class="panel">There is no distribution to draw.</p>\n'
        return Section("distributions", "Distributions", "Distributions", body)
    ordered = [entry for entry in shown if entry.kind == "continuous"]
    ordered += [entry for entry in shown if entry.kind == "categorical"]
    drawn = "".join(_distribution(entry, evaluation.metrics, figures) for entry in ordered)
    body = f'<div class="two">\n{drawn}</div>\n'
    groups = evaluation.distributions.get("space_group")
    if groups is not None:
        if can_draw_wheels():
            body += '<div style="margin-top:16px">' + figures.add(
                "space-group-wheels",
                plot_space_groups(groups),
                "Crystal systems and space groups",
                "Wheels of crystal systems and space groups, with the shares that the bars above show.",
                note="Inside the crystal systems, outside their space groups by number.",
            )
            body += "</div>\n"
        else:
            body += f'<p class="note">Not drawn: {escape(MISSING)}.</p>\n'
    intro = "Blue: generated crystals, of which most quantities count the valid ones. Grey: the reference."
    return Section("distributions", "Distributions", "Distributions", body, intro)


def _distribution(entry: Distribution, metrics: Mapping[str, MetricValue], figures: Figures) -> str:
    notes = []
    for prefix in ("wdist_", "jsd_"):
        metric = metrics.get(prefix + entry.name)
        if metric is not None and metric.value is not None:
            detail = f" ({metric.note})" if metric.note else ""
            notes.append(f"{metric.label.split(',')[0]}: {plain_value(metric)}{detail}.")
    label = theme.quantity_label(entry.name, entry.unit)
    return figures.add(
        entry.name,
        plot_distribution(entry, interactive=True),
        escape(_first_upper(label)),
        _in_words(entry, label),
        note=escape(" ".join(notes)),
    )


def _in_words(entry: Distribution, label: str) -> str:
    """What a distribution shows, for a reader who does not see it."""
    sets = [("generated", entry.generated), ("reference", entry.reference)]
    if entry.kind == "continuous":
        numbers = [(name, np.asarray(values, dtype=np.float64)) for name, values in sets if values is not None]
        medians = [f"{name} median {np.nanmedian(v):.3g}" for name, v in numbers if np.isfinite(v).any()]
        return f"Histogram of {label}: {', '.join(medians) or 'no values'}."
    binned = bin_values(entry)
    parts = []
    for name, shares in (("generated", binned.generated), ("reference", binned.reference)):
        if shares is not None and len(shares):
            parts.append(f"{name} most often {binned.labels[int(shares.argmax())]} ({100 * shares.max():.0f} %)")
    return f"Bars of {label}: {', '.join(parts) or 'no values'}."


def _elements(evaluation: Evaluation, figures: Figures) -> Section:
    entry = evaluation.distributions.get("element")
    if entry is None:
        return Section("elements", "Elements", "Elements", '<p class="panel">Elements were not counted.</p>\n')
    metric = evaluation.metrics.get("jsd_elements")
    note = ""
    if metric is not None and metric.value is not None:
        note = escape(
            f"Jensen–Shannon divergence: {plain_value(metric)}" + (f" ({metric.note})." if metric.note else ".")
        )
    versus = "Generated over reference: blue boxes hold more than the reference, orange ones less"
    body = figures.add(
        "elements",
        plot_elements(entry, interactive=True),
        "Share of atoms by element",
        f"Periodic table, {_in_words(entry, 'elements')[0].lower()}{_in_words(entry, 'elements')[1:]}",
        note=note,
    )
    intro = f"{versus}. In each box the per cent of atoms, generated above reference."
    if entry.reference is None:
        intro = "In each box the per cent of generated atoms."
    return Section("elements", "Elements", "Elements", body, intro)


def _latent(evaluation: Evaluation, figures: Figures) -> Section:
    name, title = "latent", "Latent space"
    if evaluation.codes is None:
        body = '<p class="panel">No model was given, so there are no latent codes to map.</p>\n'
        return Section(name, title, title, body)
    ours, theirs = evaluation.codes
    labels = [f"#{row.index} {row.formula} {row.material_id}".strip() for row in evaluation.crystals]
    body = figures.add(
        "latent-map",
        plot_latent_map(ours, theirs, labels=labels if len(labels) == len(ours) else None, interactive=True),
        "Map of the latent space",
        f"Scatter plot of {len(ours)} generated crystals among {len(theirs)} references on two principal axes.",
        note="The axes are the two directions in which the reference varies most; what differs along others is not "
        f"seen. At most {MOST_POINTS:,} crystals of each set are drawn.",
    )
    return Section(name, title, title, body)


# Crystals


def _crystals(cards: Cards) -> Section:
    intro = (
        "Chosen by the rule that stands below each. Rest the mouse on a picture, or press its button, to turn it; "
        "the arrow keys turn it too."
    )
    body = cards.html or '<p class="panel">There is no crystal to show.</p>\n'
    body += (
        '<p class="note no-webgl" hidden>This browser draws no WebGL, so the pictures stand still.</p>\n'
        "<noscript><p>Without JavaScript the pictures stand still and the figures are not drawn.</p></noscript>\n"
    )
    return Section("crystals", "Crystals", "Crystals: best, worst and odd", body, intro)


def _failures(evaluation: Evaluation) -> Section:
    kinds = failure_kinds(evaluation.crystals)
    total = len(evaluation.crystals)
    failed = sum(row.reason is not None for row in evaluation.crystals)
    if not kinds:
        body = '<p class="panel">No crystal has a reason against it.</p>\n'
        return Section("failures", "Failures", "What goes wrong", body)
    rows = "".join(
        f'<tr><th scope="row" class="reason">{escape(_short(kind.kind))}</th><td class="number">{kind.num_crystals:,}'
        f'</td><td class="number">{100 * kind.num_crystals / total:.1f} %</td><td style="width:16%"><span class="bar" '
        f'style="width:{100 * kind.num_crystals / kinds[0].num_crystals:.1f}%"></span></td>'
        f'<td class="words reason">{escape(_short(kind.example))} (#{kind.indices[0]})</td></tr>\n'
        for kind in kinds[:_MOST_REASONS]
    )
    rest = kinds[_MOST_REASONS:]
    if rest:
        rows += (
            f'<tr><th scope="row">{len(rest)} rarer reasons</th><td class="number">'
            f'{len({index for kind in rest for index in kind.indices}):,}</td><td colspan="3"></td></tr>\n'
        )
    body = (
        f'<div class="panel long"><div class="scroll"><table><caption>{failed:,} of {total:,} crystals have a reason '
        "against them. X stands for elements, … for numbers; a crystal with two reasons counts in both.</caption>"
        '<thead><tr><th scope="col">Reason</th><th scope="col" class="number">Crystals</th>'
        '<th scope="col" class="number">Share of all</th><th scope="col"><span hidden>Bar</span></th>'
        f'<th scope="col">For example</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div></div>\n'
    )
    return Section("failures", "Failures", "What goes wrong", body)


def _short(text: str, most: int = 220) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# Settings


def _settings(evaluation: Evaluation) -> Section:
    settings = dict(evaluation.settings)
    command = settings.pop("command", None)
    body = f"<pre>{_text(command)}</pre>\n" if command else ""
    rows = "".join(
        f'<tr><th scope="row">{_text(name.replace("_", " "))}</th><td class="reason">{_setting(value)}</td></tr>\n'
        for name, value in settings.items()
    )
    if rows:
        body += (
            '<div class="scroll"><table><caption>What the numbers depend on beside the crystals.</caption>'
            f"<tbody>\n{rows}</tbody></table></div>\n"
        )
    body = f'<div class="panel long">{body or "<p>No settings are on record.</p>"}</div>\n'
    return Section("settings", "Settings", "Settings", body)


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_text(key)} {_setting(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_setting(inner) for inner in value)
    return _text(value)


def _text(value: object) -> str:
    words = {True: "yes", False: "no", None: "none"}
    return words[value] if value is None or isinstance(value, bool) else escape(str(value))
