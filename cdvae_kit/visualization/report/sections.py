"""What stands in the report: its sections, its figures, the crystals that it shows.

Their HTML is in `evaluation.html.jinja`. How the page is put together is in `evaluation_page`; what is to be warned of
is in `advice`, the table of numbers in `numbers`, the cards of single crystals are in `crystal_cards`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from cdvae_kit.metrics.evaluation_result import Distribution, Evaluation, MetricValue
from cdvae_kit.metrics.published import PublishedResult
from cdvae_kit.visualization import theme
from cdvae_kit.visualization.distributions import bin_values, plot_distribution
from cdvae_kit.visualization.elements import plot_elements
from cdvae_kit.visualization.latent import MOST_POINTS, plot_latent_map
from cdvae_kit.visualization.report.advice import advice
from cdvae_kit.visualization.report.crystal_cards import Cards, crystal_cards
from cdvae_kit.visualization.report.figures import Figures, evaluation_html
from cdvae_kit.visualization.report.html_page import Section
from cdvae_kit.visualization.report.numbers import DATASETS, numbers_section, plain_value, tiles_of
from cdvae_kit.visualization.report.selection import failure_kinds
from cdvae_kit.visualization.space_groups import MISSING, can_draw_wheels, plot_space_groups

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MOST_REASONS = 25


@dataclass(frozen=True)
class Page:
    """All that the page is made of.

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
    tiles: Markup | str
    sections: Sequence[Section]
    foot: str
    gradients: Markup
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
        _reading(evaluation, dataset),
        _settings(evaluation),
    ]
    num_generated, num_reference = len(evaluation.crystals), len(evaluation.reference)
    against = f"compared with {num_reference:,} reference crystals" if num_reference else "without a reference set"
    if dataset is not None:
        against += f" ({DATASETS.get(dataset, dataset)})"
    version = _text(evaluation.settings.get("versions", {}).get("cdvae-kit", ""))
    return Page(
        title or f"Evaluation of {_crystals_in_words(num_generated)}",
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
        body = evaluation_html("panel", words="There is no distribution to draw.")
        return Section("distributions", "Distributions", "Distributions", body)
    ordered = [entry for entry in shown if entry.kind == "continuous"]
    ordered += [entry for entry in shown if entry.kind == "categorical"]
    drawn = [_distribution(entry, evaluation.metrics, figures) for entry in ordered]
    groups = evaluation.distributions.get("space_group")
    wheels: Markup | str = ""
    if groups is not None and can_draw_wheels():
        wheels = figures.add(
            "space-group-wheels",
            plot_space_groups(groups),
            "Crystal systems and space groups",
            "Wheels of crystal systems and space groups, with the shares that the bars above show.",
            note="Inside the crystal systems, outside their space groups by number.",
        )
    missing = MISSING if groups is not None and not wheels else ""
    body = evaluation_html("distributions", figures=drawn, wheels=wheels, missing=missing)
    intro = "Blue: generated crystals, of which most quantities count the valid ones. Grey: the reference."
    return Section("distributions", "Distributions", "Distributions", body, intro)


def _distribution(entry: Distribution, metrics: Mapping[str, MetricValue], figures: Figures) -> Markup:
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
        _first_upper(label),
        _in_words(entry, label),
        note=" ".join(notes),
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
        return Section("elements", "Elements", "Elements", evaluation_html("panel", words="Elements were not counted."))
    metric = evaluation.metrics.get("jsd_elements")
    note = ""
    if metric is not None and metric.value is not None:
        note = f"Jensen–Shannon divergence: {plain_value(metric)}" + (f" ({metric.note})." if metric.note else ".")
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
        body = evaluation_html("panel", words="No model was given, so there are no latent codes to map.")
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
    body = evaluation_html("crystals", groups=cards.groups)
    return Section("crystals", "Crystals", "Crystals: best, worst and odd", body, intro)


def _failures(evaluation: Evaluation) -> Section:
    name, link, title = "failures", "Failures", "What goes wrong"
    kinds = failure_kinds(evaluation.crystals)
    total = len(evaluation.crystals)
    failed = sum(row.reason is not None for row in evaluation.crystals)
    if not kinds:
        return Section(name, link, title, evaluation_html("panel", words="No crystal has a reason against it."))
    rows = [
        {
            "kind": _short(kind.kind),
            "num_crystals": f"{kind.num_crystals:,}",
            "share": f"{100 * kind.num_crystals / total:.1f} %",
            "bar": f"{100 * kind.num_crystals / kinds[0].num_crystals:.1f}%",
            "example": _short(kind.example),
            "index": kind.indices[0],
        }
        for kind in kinds[:_MOST_REASONS]
    ]
    rarer = kinds[_MOST_REASONS:]
    body = evaluation_html(
        "failures",
        failed=f"{failed:,}",
        total=f"{total:,}",
        rows=rows,
        num_rarer=len(rarer),
        num_rarer_crystals=f"{len({index for kind in rarer for index in kind.indices}):,}",
    )
    return Section(name, link, title, body)


def _short(text: str, most: int = 220) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# Advice and settings


def _reading(evaluation: Evaluation, dataset: str | None) -> Section:
    title = "How to read this"
    return Section("reading", title, title, evaluation_html("advice", items=advice(evaluation, dataset)))


def _settings(evaluation: Evaluation) -> Section:
    settings = dict(evaluation.settings)
    command = settings.pop("command", None)
    rows = [(_text(name.replace("_", " ")), _setting(value)) for name, value in settings.items()]
    body = evaluation_html("settings", command=_text(command) if command else "", rows=rows)
    return Section("settings", "Settings", "Settings", body)


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_text(key)} {_setting(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_setting(inner) for inner in value)
    return _text(value)


def _text(value: object) -> str:
    words = {True: "yes", False: "no", None: "none"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
