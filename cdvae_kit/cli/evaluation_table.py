"""The table of numbers that `evaluate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cdvae_kit.cli.console import output
from cdvae_kit.cli.table import UNKNOWN

if TYPE_CHECKING:
    from cdvae_kit.metrics.evaluation_result import Evaluation, MetricValue


def print_evaluation(evaluation: Evaluation) -> None:
    """Every number with its interval, how many crystals it rests on, and what it means, on standard output."""
    output().print(evaluation_table(evaluation))


def evaluation_table(evaluation: Evaluation) -> Table:
    """One row a number, under the name of what it belongs to."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for title in ("", "value", "95 % interval", "crystals"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    table.add_column("", overflow="fold", style="dim")
    metrics = list(evaluation.metrics.values())
    for section in dict.fromkeys(metric.section for metric in metrics):
        table.add_row(f"[bold]{section}[/]")
        for metric in metrics:
            if metric.section == section:
                table.add_row(
                    f"  {escape(metric.name)}",
                    _value(metric.value),
                    _interval(metric),
                    str(metric.num_crystals),
                    escape(metric.note),
                )
    return table


def _value(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if isinstance(value, int) else f"{value:.4f}"


def _interval(metric: MetricValue) -> str:
    return "" if metric.low is None or metric.high is None else f"{metric.low:.4f} to {metric.high:.4f}"
