"""The rates of an evaluation with their intervals, beside what papers print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

from cdvae_kit.visualization import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

    from cdvae_kit.metrics.evaluation_result import MetricValue
    from cdvae_kit.metrics.published import PublishedResult

_THIS_SET = "this set, 95 % interval"
_SHARE, _RANGE = "share of crystals (%)", (-2, 102)


@overload
def plot_metrics(
    metrics: Mapping[str, MetricValue],
    *,
    published: Sequence[PublishedResult] = (),
    interactive: Literal[False] = False,
) -> Figure: ...
@overload
def plot_metrics(
    metrics: Mapping[str, MetricValue], *, published: Sequence[PublishedResult] = (), interactive: Literal[True]
) -> go.Figure: ...
def plot_metrics(
    metrics: Mapping[str, MetricValue], *, published: Sequence[PublishedResult] = (), interactive: bool = False
) -> Figure | go.Figure:
    """Every rate as a dot with its 95 % interval, in per cent; numbers with other units have no place on one axis.

    Args:
        metrics: `Evaluation.metrics`.
        published: of the same data set, as `cdvae_kit.metrics.published.published_results` gives them: diamonds.
        interactive: a figure of plotly's.
    """
    shown = rates_of(metrics)
    rates = _rates(shown)
    beside = [
        _Published(entry.metric, 100 * entry.value, f"{entry.model}, {entry.protocol}")
        for entry in published
        if entry.metric in rates
    ]
    return _interactive(rates, beside) if interactive else _static(rates, beside)


def rates_of(metrics: Mapping[str, MetricValue]) -> list[MetricValue]:
    """Those that are shares of crystals and have a value."""
    return [metric for metric in metrics.values() if metric.value is not None and metric.is_rate]


class _Rate(NamedTuple):
    """One dot: its label, per cent, the two arms of its interval, and the crystals that it rests on."""

    label: str
    percent: float
    below: float
    above: float
    num_crystals: int


class _Published(NamedTuple):
    """One diamond: the metric's name, per cent, and where it is printed."""

    metric: str
    percent: float
    source: str


def _rates(shown: Sequence[MetricValue]) -> dict[str, _Rate]:
    """By the metric's name, in the order of the rows."""
    return {
        metric.name: _Rate(
            metric.label,
            100 * _number(metric.value),
            100 * _reach(metric.low, metric.value),
            100 * _reach(metric.value, metric.high),
            metric.num_crystals,
        )
        for metric in shown
    }


def _interactive(rates: Mapping[str, _Rate], beside: Sequence[_Published]) -> go.Figure:
    import plotly.graph_objects as go

    labels = {name: theme.plain(rate.label) for name, rate in rates.items()}
    traces = [
        go.Scatter(
            x=[entry.percent for entry in beside],
            y=[labels[entry.metric] for entry in beside],
            mode="markers",
            name="published",
            marker={
                "symbol": "diamond-open",
                "size": 10,
                "color": theme.PUBLISHED_COLOR,
                "line": {"width": 1.6, "color": theme.PUBLISHED_COLOR},
            },
            customdata=[entry.source for entry in beside],
            hovertemplate="%{customdata}: %{x:.2f} %<extra></extra>",
            visible=bool(beside),
        ),
        go.Scatter(
            x=[rate.percent for rate in rates.values()],
            y=list(labels.values()),
            mode="markers",
            name=_THIS_SET,
            marker={"size": 10, "color": theme.GENERATED_COLOR},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [rate.above for rate in rates.values()],
                "arrayminus": [rate.below for rate in rates.values()],
                "color": theme.GENERATED_COLOR,
                "thickness": 2,
                "width": 5,
            },
            customdata=[rate.num_crystals for rate in rates.values()],
            hovertemplate="%{x:.2f} % of %{customdata} crystals<extra></extra>",
        ),
    ]
    layout = theme.plotly_layout(
        xaxis={"title": {"text": _SHARE}, "range": list(_RANGE), "dtick": 20},
        yaxis={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": list(labels.values())[::-1],
            "range": [-0.6, max(1, len(rates)) - 0.4],
            "ticks": "",
        },
        height=110 + 30 * max(1, len(rates)),
        hovermode="closest",
    )
    return go.Figure(traces, layout)


def _static(rates: Mapping[str, _Rate], beside: Sequence[_Published]) -> Figure:
    from cdvae_kit.visualization.crystals.canvas import new_figure

    figure = new_figure(5.6, 0.9 + 0.28 * max(1, len(rates)))
    axes = figure.subplots()
    rows = {name: row for row, name in enumerate(rates)}
    if beside:
        axes.plot(
            [entry.percent for entry in beside],
            [rows[entry.metric] for entry in beside],
            "D",
            color=theme.PUBLISHED_COLOR,
            fillstyle="none",
            markersize=6,
            label="published",
        )
    axes.errorbar(
        [rate.percent for rate in rates.values()],
        list(rows.values()),
        xerr=[[rate.below for rate in rates.values()], [rate.above for rate in rates.values()]],
        fmt="o",
        color=theme.GENERATED_COLOR,
        capsize=2.5,
        label=_THIS_SET,
    )
    axes.set_yticks(list(rows.values()), [rate.label for rate in rates.values()], parse_math=False)
    axes.set(xlim=_RANGE, ylim=(len(rates) - 0.4, -0.6), xlabel=_SHARE)
    axes.grid(axis="x", color=theme.GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


def _number(value: float | None) -> float:
    return 0.0 if value is None else value


def _reach(low: float | None, high: float | None) -> float:
    """Length of one arm of an interval, 0 where there is none."""
    return 0.0 if low is None or high is None else max(0.0, high - low)
