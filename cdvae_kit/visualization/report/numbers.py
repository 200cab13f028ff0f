"""The numbers of a report: tiles at the top, rates at a glance, the table of all of them beside what papers print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from cdvae_kit.metrics.evaluation_result import COUNT, SECTIONS, SHARE, Evaluation, MetricValue
from cdvae_kit.metrics.published import PUBLISHED_SIZES, PublishedResult
from cdvae_kit.visualization.report.figures import Figures
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


def tiles_of(metrics: Mapping[str, MetricValue]) -> str:
    """The first numbers, HTML."""
    shown = [metrics[name] for name in _TILES if name in metrics and metrics[name].value is not None][:_MOST_TILES]
    if not shown:
        return ""
    tiles = "".join(
        f'<div class="tile"><div class="name">{escape(metric.label)}</div>'
        f'<div class="value">{_value(metric)}</div>'
        f'<div class="range">{" of ".join(filter(None, [_interval(metric), f"{metric.num_crystals:,}"]))}</div></div>'
        for metric in shown
    )
    return f'<div class="tiles">{tiles}</div>\n'


def numbers_section(
    evaluation: Evaluation, dataset: str | None, published: Sequence[PublishedResult], figures: Figures
) -> Section:
    """Rates at a glance and the table of all numbers."""
    metrics = evaluation.metrics
    if not metrics:
        return Section("numbers", "Numbers", "Numbers", '<p class="panel">Nothing was measured.</p>\n')
    body = ""
    if rates := rates_of(metrics):
        words = "; ".join(f"{metric.label} {plain_value(metric)}" for metric in rates)
        body += figures.add(
            "rates",
            plot_metrics(metrics, published=published, interactive=True),
            "Rates at a glance",
            f"Rates with their intervals: {words}.",
            note="Dots: this set, with 95 % bootstrap intervals over crystals."
            + (" Open diamonds: what papers print." if published else ""),
        )
    beside = '<th scope="col">Published</th>' if published else ""
    rows = ""
    for name, heading in SECTIONS.items():
        members = [metric for metric in metrics.values() if metric.section == name]
        if members:
            rows += f'<tr class="section"><th colspan="{6 if published else 5}" scope="colgroup">{heading}</th></tr>\n'
            rows += "".join(_row(metric, published) for metric in members)
    body += (
        '<div class="panel long"><div class="scroll"><table class="numbers">'
        "<caption>All numbers, with what each rests on. ↑ higher is better, ↓ lower is better.</caption>"
        '<thead><tr><th scope="col">Metric</th><th scope="col" class="number">Value</th>'
        '<th scope="col" class="number">95 % interval</th><th scope="col" class="number">Crystals</th>'
        f'{beside}<th scope="col">What it is</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div></div>\n'
    )
    intro = (
        "A rate is a share of the crystals beside it, failures among them unless the last column says otherwise. "
        "Intervals say what another draw of as many crystals might give."
    )
    if published:
        intro += f" Published values are those that papers print for {DATASETS.get(dataset or '', '')}."
        body = _sizes(evaluation, dataset) + body
    return Section("numbers", "Numbers", "Numbers", body, intro)


def _sizes(evaluation: Evaluation, dataset: str | None) -> str:
    """A warning where the sets are not as large as those that the published numbers rest on, which changes them."""
    if dataset not in PUBLISHED_SIZES:
        return ""
    theirs = PUBLISHED_SIZES[dataset]
    ours = (len(evaluation.crystals), len(evaluation.reference))
    if ours == theirs:
        return ""
    return (
        f'<p class="panel sizes"><b>Other sizes than the published ones.</b> Here {ours[0]:,} generated crystals are '
        f"held against {ours[1]:,} references; papers take {theirs[0]:,} against the {theirs[1]:,} of the test split "
        f"of {DATASETS.get(dataset, escape(dataset))}. COV recall rises with the number of generated crystals, COV "
        "precision with the number of references, and uniqueness falls with the number of generated crystals: compare "
        "such rates only at equal sizes.</p>\n"
    )


def _row(metric: MetricValue, published: Sequence[PublishedResult]) -> str:
    label = escape(metric.label)
    if metric.better:
        words = f"{metric.better} is better"
        arrow = {"higher": "↑", "lower": "↓"}[metric.better]
        label += f'&nbsp;<span class="aim" title="{words}" aria-label="{words}">{arrow}</span>'
    entries = [entry for entry in published if entry.metric == metric.name]
    cell = ""
    if published:
        cell = f'<td class="published">{"<br>".join(_entry(entry, metric) for entry in entries)}</td>'
    return (
        f'<tr><th scope="row">{label}<br><code>{escape(metric.name)}</code></th>'
        f'<td class="number">{_value(metric)}{_unit(metric)}</td><td class="number">{_interval(metric)}</td>'
        f'<td class="number">{metric.num_crystals:,}</td>{cell}'
        f'<td class="words">{escape(metric.note)}</td></tr>\n'
    )


def _entry(entry: PublishedResult, metric: MetricValue) -> str:
    value = f"{100 * entry.value:.2f} %" if metric.is_rate else f"{entry.value:g}"
    name = escape(entry.model)
    if entry.source.startswith("arXiv:"):
        number = entry.source.removeprefix("arXiv:")
        name = f'<a href="https://arxiv.org/abs/{number}" rel="noreferrer">{name}</a>'
    remark = ", ".join(filter(None, [entry.protocol if entry.protocol != "generation" else "", entry.note]))
    return f"{value} {name}" + (f" ({escape(remark)})" if remark else "")


def _value(metric: MetricValue) -> str:
    return escape(plain_value(metric))


def plain_value(metric: MetricValue) -> str:
    """A value as it is printed, without its unit."""
    return "none" if metric.value is None else _number(metric.value, metric.unit)


def _unit(metric: MetricValue) -> str:
    """Behind a value; a rate has its per cent, a count needs none."""
    if metric.value is None or metric.unit in ("", SHARE, COUNT):
        return ""
    return f'<span class="unit"> {escape(metric.unit)}</span>'


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
