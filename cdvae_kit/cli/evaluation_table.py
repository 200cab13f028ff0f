"""The table of numbers that `evaluate` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cdvae_kit.cli.console import output, print_table
from cdvae_kit.cli.table import UNKNOWN

if TYPE_CHECKING:
    from cdvae_kit.metrics.evaluation_result import Evaluation, MetricValue

WIDE = 130
"""Columns of a terminal from which on the meaning of a number fits beside it."""

_NAME_WIDTH = 31
"""Of the longest name with its arrow; a longer heading is folded."""

_ARROWS = {"higher": "↑", "lower": "↓"}


def print_evaluation(evaluation: Evaluation) -> None:
    """Every number with its interval, how many crystals it rests on, and what it means, on standard output."""
    metrics = {
        name: {"value": metric.value, "low": metric.low, "high": metric.high, "unit": metric.unit}
        | {"num_crystals": metric.num_crystals, "better": metric.better, "label": metric.label, "note": metric.note}
        for name, metric in evaluation.metrics.items()
    }
    print_table(evaluation_table(evaluation, width=output().width), metrics=metrics)


def evaluation_table(evaluation: Evaluation, *, width: int) -> RenderableType:
    """One row a number under the heading of its section; what it means stands beside it, below where it is narrow."""
    from cdvae_kit.metrics.evaluation_result import SECTIONS

    wide = width >= WIDE
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    table.add_column("", min_width=min(_NAME_WIDTH, width // 2))
    for title in ("value", "95 % interval", "crystals"):
        table.add_column(title, justify="right", no_wrap=True)
    if wide:
        table.add_column("", overflow="fold", style="dim")
    metrics = list(evaluation.metrics.values())
    for section, heading in SECTIONS.items():
        members = [metric for metric in metrics if metric.section == section]
        if members:
            table.add_row(f"[bold]{heading}[/]")
        for metric in members:
            row = [f"  {_name(metric)}", _value(metric), _interval(metric), f"{metric.num_crystals:,}"]
            table.add_row(*row, *([escape(_meaning(metric))] if wide else []))
    key = Text("↑ higher is better, ↓ lower is better", style="dim")
    return Group(table, key) if wide else Group(table, key, *_meanings(metrics))


def _meanings(metrics: Sequence[MetricValue]) -> list[RenderableType]:
    """What each number is, one paragraph each."""
    return [
        Padding(Text.assemble((metric.name, "bold"), f"  {_meaning(metric)}", style="dim"), (0, 0, 0, 2))
        for metric in metrics
    ]


def _meaning(metric: MetricValue) -> str:
    return ": ".join(filter(None, [metric.label, metric.note]))


def _name(metric: MetricValue) -> str:
    return escape(metric.name) + (f" {_ARROWS[metric.better]}" if metric.better else "")


def _value(metric: MetricValue) -> str:
    if metric.value is None:
        return UNKNOWN
    return " ".join(filter(None, [_number(metric.value, metric), _unit(metric)]))


def _interval(metric: MetricValue) -> str:
    if metric.low is None or metric.high is None:
        return ""
    return f"{_number(metric.low, metric)} to {_number(metric.high, metric)}"


def _unit(metric: MetricValue) -> str:
    from cdvae_kit.metrics.evaluation_result import COUNT

    return "%" if metric.is_rate else "" if metric.unit == COUNT else metric.unit


def _number(value: float, metric: MetricValue) -> str:
    from cdvae_kit.metrics.evaluation_result import COUNT

    if metric.unit == COUNT:
        return f"{value:,.0f}"
    return f"{100 * value:.2f}" if metric.is_rate else f"{value:.4f}"
