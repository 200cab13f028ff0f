"""The numbers of a report: tiles at the top, rates at a glance, the table of all of them beside what papers print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from cdvae_kit.metrics.evaluation_result import COUNT, SECTIONS, SHARE, Evaluation, MetricValue
from cdvae_kit.metrics.published import PUBLISHED_SIZES, PublishedResult
from cdvae_kit.visualization.report.figures import Figures, evaluation_html
from cdvae_kit.visualization.report.html_page import Section
from cdvae_kit.visualization.scores import plot_metrics, rates_of

DATASETS = {"perov_5": "Perov-5", "carbon_24": "Carbon-24", "mp_20": "MP-20", "mpts_52": "MPTS-52"}
_TILES = (
    "sun",
    "metasun",
    "stable",
    "valid",
    "unique",
    "novel",
    "match_rate",
    "metre",
    "cov_recall",
    "cov_precision",
    "share_p1",
)
_MOST_TILES = 6


def tiles_of(metrics: Mapping[str, MetricValue]) -> Markup | str:
    """The first numbers."""
    shown = [metrics[name] for name in _TILES if name in metrics and metrics[name].value is not None][:_MOST_TILES]
    if not shown:
        return ""
    return evaluation_html(
        "tiles",
        shown=[
            {
                "name": metric.label,
                "value": plain_value(metric),
                "range": " of ".join(filter(None, [_interval(metric), f"{metric.num_crystals:,}"])),
            }
            for metric in shown
        ],
    )


def numbers_section(
    evaluation: Evaluation, dataset: str | None, published: Sequence[PublishedResult], figures: Figures
) -> Section:
    """Rates at a glance and the table of all numbers."""
    metrics = evaluation.metrics
    if not metrics:
        return Section("numbers", "Numbers", "Numbers", evaluation_html("panel", words="Nothing was measured."))
    figure: Markup | str = ""
    if rates := rates_of(metrics):
        words = "; ".join(f"{metric.label} {plain_value(metric)}" for metric in rates)
        figure = figures.add(
            "rates",
            plot_metrics(metrics, published=published, interactive=True),
            "Rates at a glance",
            f"Rates with their intervals: {words}.",
            note="Dots: this set, with 95 % bootstrap intervals over crystals."
            + (" Open diamonds: what papers print." if published else ""),
        )
    groups = []
    for name, heading in SECTIONS.items():
        if members := [metric for metric in metrics.values() if metric.section == name]:
            groups.append((heading, [_row(metric, published) for metric in members]))
    intro = (
        "A rate is a share of the crystals beside it, failures among them unless the last column says otherwise. "
        "Intervals say what another draw of as many crystals might give."
    )
    if published:
        intro += f" Published values are those that papers print for {DATASETS.get(dataset or '', '')}."
    sizes = _sizes(evaluation, dataset) if published else None
    body = evaluation_html("numbers", figure=figure, groups=groups, with_published=bool(published), sizes=sizes)
    return Section("numbers", "Numbers", "Numbers", body, intro)


def _sizes(evaluation: Evaluation, dataset: str | None) -> dict[str, str] | None:
    """What to say where the sets are not as large as those that the published numbers rest on, which changes them."""
    if dataset not in PUBLISHED_SIZES:
        return None
    theirs = PUBLISHED_SIZES[dataset]
    ours = (len(evaluation.crystals), len(evaluation.reference))
    if ours == theirs:
        return None
    return {
        "num_generated": f"{ours[0]:,}",
        "num_reference": f"{ours[1]:,}",
        "published_generated": f"{theirs[0]:,}",
        "published_reference": f"{theirs[1]:,}",
        "dataset": DATASETS.get(dataset, dataset),
    }


def _row(metric: MetricValue, published: Sequence[PublishedResult]) -> dict[str, Any]:
    return {
        "label": metric.label,
        "better": metric.better,
        "name": metric.name,
        "value": plain_value(metric),
        "unit": _unit(metric),
        "interval": _interval(metric),
        "num_crystals": f"{metric.num_crystals:,}",
        "published": [_entry(entry, metric) for entry in published if entry.metric == metric.name],
        "note": metric.note,
    }


def _entry(entry: PublishedResult, metric: MetricValue) -> dict[str, str]:
    return {
        "value": f"{100 * entry.value:.2f} %" if metric.is_rate else f"{entry.value:g}",
        "model": entry.model,
        "arxiv": entry.source.removeprefix("arXiv:") if entry.source.startswith("arXiv:") else "",
        "remark": ", ".join(filter(None, [entry.protocol if entry.protocol != "generation" else "", entry.note])),
    }


def plain_value(metric: MetricValue) -> str:
    """A value as it is printed, without its unit."""
    return "none" if metric.value is None else _number(metric.value, metric.unit)


def _unit(metric: MetricValue) -> str:
    """Behind a value; a rate has its per cent, a count needs none."""
    return "" if metric.value is None or metric.unit in (SHARE, COUNT) else metric.unit


def _interval(metric: MetricValue) -> str:
    if metric.low is None or metric.high is None:
        return ""
    low, high = (_number(end, metric.unit) for end in (metric.low, metric.high))
    return f"{low.removesuffix(' %')} – {high}"


def _number(value: float, unit: str) -> str:
    if unit == COUNT:
        return f"{value:,.0f}"
    if unit == SHARE:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}"
