"""How one quantity is spread among generated crystals and in the reference: histograms, and bars for labels.

The numbers that such figures are summed up to are in `cdvae_kit.metrics.distributions` and `divergences`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args, overload

import numpy as np

from cdvae_kit.crystal.symmetry import CrystalSystem
from cdvae_kit.visualization import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

    from cdvae_kit.metrics.evaluation_result import Distribution

NUM_BINS = 40
MOST_LABELS = 16
"""Bars of a categorical figure; what is rarer goes into one bar of its own."""

_FENCE = 2.0
"""Interquartile ranges beyond the quartiles of either set after which values only count as beyond the axis."""
_MOST_INTEGERS = 60
_NO_VALUE = "no crystal has a value"
_MOST_TICKS = 20


@dataclass(frozen=True)
class Binned:
    """A quantity, ready to be drawn.

    Attributes:
        edges: (num_bins + 1,) of a continuous quantity; empty for labels.
        labels: one a bin; empty for a continuous quantity.
        generated: (num_bins,) shares of the generated values.
        reference: likewise; None without a reference.
        num_generated: values that there are, those beyond the axis included.
        num_reference: likewise.
        beyond: generated and reference values beyond the axis.
    """

    edges: np.ndarray
    labels: list[str]
    generated: np.ndarray
    reference: np.ndarray | None
    num_generated: int
    num_reference: int
    beyond: tuple[int, int] = (0, 0)


@overload
def plot_distribution(distribution: Distribution, *, interactive: Literal[False] = False) -> Figure: ...
@overload
def plot_distribution(distribution: Distribution, *, interactive: Literal[True]) -> go.Figure: ...
def plot_distribution(distribution: Distribution, *, interactive: bool = False) -> Figure | go.Figure:
    """Shares of the generated values over those of the reference, in the same bins.

    A matplotlib figure for paper, whose `savefig` writes PNG or PDF; with `interactive` a plotly figure for a notebook.
    Far outliers are counted beside the axis, so that one crushed cell does not hide the rest.

    Args:
        distribution: one entry of `Evaluation.distributions`.
        interactive: a figure of plotly's.

    >>> from cdvae_kit.metrics.evaluation_result import Distribution
    >>> density = Distribution("density", "g/cm³", np.array([2.0, 3.0, 3.5]), None, "continuous")
    >>> plot_distribution(density).axes[0].get_xlabel()
    'density (g/cm³)'
    """
    drawing = _Drawing(
        bin_values(distribution),
        theme.quantity_label(distribution.name, distribution.unit),
        f"share of {theme.COUNTED.get(distribution.name, 'crystals')} (%)",
        distribution.kind == "categorical",
    )
    return _interactive(drawing) if interactive else _static(drawing)


def bin_values(distribution: Distribution) -> Binned:
    """The shares that `plot_distribution` draws."""
    return _labelled(distribution) if distribution.kind == "categorical" else _continuous(distribution)


def _continuous(distribution: Distribution) -> Binned:
    ours = _finite(distribution.generated)
    theirs = None if distribution.reference is None else _finite(distribution.reference)
    sets = [values for values in (ours, theirs) if values is not None and len(values)]
    edges = _edges(sets) if sets else np.array([0.0, 1.0])

    def share(values: np.ndarray) -> np.ndarray:
        return np.histogram(values, edges)[0] / max(1, len(values))

    def outside(values: np.ndarray | None) -> int:
        return 0 if values is None else int(((values < edges[0]) | (values > edges[-1])).sum())

    return Binned(
        edges,
        [],
        share(ours),
        None if theirs is None else share(theirs),
        len(ours),
        0 if theirs is None else len(theirs),
        (outside(ours), outside(theirs)),
    )


def _edges(sets: list[np.ndarray]) -> np.ndarray:
    values = np.concatenate(sets)
    low, high = values.min(), values.max()
    if (values == np.round(values)).all() and high - low <= _MOST_INTEGERS and max(-low, high) < 1e6:
        return np.arange(low - 0.5, high + 1.0)
    fences = []
    for one in sets:
        first, third = np.percentile(one, [25, 75])
        # a set of one value alone has no width to judge by
        reach = _FENCE * (third - first) or np.inf
        fences.append((max(one.min(), first - reach), min(one.max(), third + reach)))
    low, high = min(fence[0] for fence in fences), max(fence[1] for fence in fences)
    if not high > low:
        # NumPy can tell no bins apart that are narrower than the spacing of floats
        margin = max(0.5, 1e-6 * abs(low))
        low, high = low - margin, high + margin
    return np.linspace(low, high, NUM_BINS + 1)


def _labelled(distribution: Distribution) -> Binned:
    ours = [str(label) for label in distribution.generated if _is_label(label)]
    theirs = (
        None if distribution.reference is None else [str(label) for label in distribution.reference if _is_label(label)]
    )
    counts = [Counter(labels or ()) for labels in (ours, theirs)]
    sizes = [max(1, sum(count.values())) for count in counts]
    largest = {label: max(counts[k][label] / sizes[k] for k in (0, 1)) for label in counts[0] | counts[1]}
    shown = sorted(largest, key=lambda label: (-largest[label], label))
    systems: tuple[str, ...] = get_args(CrystalSystem)
    if set(shown) <= set(systems):
        shown = list(systems) if shown else []
    rest = shown[MOST_LABELS:]
    shown = shown[:MOST_LABELS]

    def share(which: int) -> np.ndarray:
        tail = [sum(counts[which][label] for label in rest)] if rest else []
        return np.array([*(counts[which][label] for label in shown), *tail]) / sizes[which]

    names = [_label(distribution.name, label) for label in shown] + ([f"{len(rest)} others"] if rest else [])
    return Binned(
        np.zeros(0),
        names,
        share(0),
        None if theirs is None else share(1),
        len(ours),
        0 if theirs is None else len(theirs),
    )


def _label(name: str, label: str) -> str:
    if name == "space_group" and label.isdecimal() and 1 <= int(label) <= 230:
        from moyopy import SpaceGroupType

        return f"{SpaceGroupType(int(label)).hm_short.replace(' ', '')} ({label})"
    return label


def _is_label(label: object) -> bool:
    return label is not None and not (isinstance(label, float) and np.isnan(label))


def _finite(values: np.ndarray) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]


@dataclass(frozen=True)
class _Drawing:
    """What matplotlib and plotly draw alike.

    Attributes:
        binned: the shares.
        label: of the quantity; a name from a file may stand in it.
        share: label of the other axis.
        is_categorical: bars in place of a histogram.
    """

    binned: Binned
    label: str
    share: str
    is_categorical: bool

    @property
    def is_empty(self) -> bool:
        return self.binned.num_generated + self.binned.num_reference == 0

    @property
    def names(self) -> tuple[str, str]:
        """Of the generated set and of the reference, for a legend."""
        return f"generated ({self.binned.num_generated:,})", f"reference ({self.binned.num_reference:,})"


def beyond_in_words(binned: Binned) -> str:
    """What is not on the axis: `beyond the axis: 3 generated, 0 reference`, "" where all is on it."""
    if not any(binned.beyond):
        return ""
    return f"beyond the axis: {binned.beyond[0]:,} generated, {binned.beyond[1]:,} reference"


def _interactive(drawing: _Drawing) -> go.Figure:
    import plotly.graph_objects as go

    binned, share, (ours, theirs) = drawing.binned, drawing.share, drawing.names
    label = theme.plain(drawing.label)
    if drawing.is_empty:
        return _empty(label)
    if drawing.is_categorical:
        traces = [_bars(binned, binned.generated, ours, theme.GENERATED_COLOR)]
        if binned.reference is not None:
            traces.append(_bars(binned, binned.reference, theirs, theme.REFERENCE_COLOR))
        # so high that no name of a bar is left out
        height = max(240, 110 + (19 * len(traces) + 6) * len(binned.labels))
        layout = theme.plotly_layout(
            xaxis={"title": {"text": share}, "rangemode": "tozero"},
            yaxis={"autorange": "reversed", "type": "category", "showgrid": False, "ticks": ""},
            barmode="group",
            bargap=0.25,
            height=height,
        )
        return go.Figure(traces, layout)
    traces = []
    if binned.reference is not None:
        traces.append(
            go.Bar(
                x=(binned.edges[:-1] + binned.edges[1:]) / 2,
                y=100 * binned.reference,
                width=np.diff(binned.edges),
                name=theirs,
                marker={"color": theme.REFERENCE_COLOR, "opacity": 0.55, "line": {"width": 0}},
                hovertemplate="%{y:.2f} % of the reference<extra></extra>",
            )
        )
    x, y = _steps(binned.edges, 100 * binned.generated)
    traces.append(
        go.Scatter(
            x=x,
            y=y,
            name=ours,
            mode="lines",
            line={"color": theme.GENERATED_COLOR, "width": 2},
            fill="tozeroy",
            fillcolor="rgba(22,104,184,0.18)",
            hovertemplate="%{y:.2f} % of the generated<extra></extra>",
        )
    )
    if outside := beyond_in_words(binned):
        label += f"<br><span style='font-size:11px'>{outside}</span>"
    # integers have one bin each, in the middle of which they lie
    whole = len(binned.edges) > 1 and binned.edges[0] % 1 == 0.5 and np.ptp(binned.edges) <= _MOST_TICKS
    ticks = {"tick0": binned.edges[0] + 0.5, "dtick": 1} if whole else {}
    layout = theme.plotly_layout(
        xaxis={"title": {"text": label}, "showgrid": False} | ticks,
        yaxis={"title": {"text": share}, "rangemode": "tozero"},
        height=320,
        hovermode="closest",
    )
    return go.Figure(traces, layout)


def _bars(binned: Binned, shares: np.ndarray, name: str, color: str) -> go.Bar:
    import plotly.graph_objects as go

    return go.Bar(
        y=[theme.plain(label) for label in binned.labels],
        x=100 * shares,
        orientation="h",
        name=name,
        marker={"color": color},
        hovertemplate="%{y}: %{x:.2f} %<extra></extra>",
    )


def _steps(edges: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outline of a histogram, from the floor and back to it."""
    return np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(heights, 2), [0.0]])


def _empty(label: str) -> go.Figure:
    import plotly.graph_objects as go

    note = {"text": _NO_VALUE, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    return go.Figure([], theme.plotly_layout(xaxis={"title": {"text": label}}, annotations=[note], height=240))


def _static(drawing: _Drawing) -> Figure:
    from cdvae_kit.visualization.crystals.canvas import new_figure

    binned, share, (ours, theirs) = drawing.binned, drawing.share, drawing.names
    figure = new_figure(4.6, max(2.2, 0.9 + 0.26 * len(binned.labels)) if drawing.is_categorical else 3.1)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    # parse_math: a name from a file may hold a dollar
    if drawing.is_empty:
        axes.text(0.5, 0.5, _NO_VALUE, ha="center", va="center", transform=axes.transAxes)
        axes.set_xlabel(drawing.label, parse_math=False)
        return figure
    if drawing.is_categorical:
        rows = np.arange(len(binned.labels))
        half = 0.0 if binned.reference is None else 0.2
        axes.barh(rows - half, 100 * binned.generated, height=0.38, color=theme.GENERATED_COLOR, label=ours)
        if binned.reference is not None:
            axes.barh(rows + half, 100 * binned.reference, height=0.38, color=theme.REFERENCE_COLOR, label=theirs)
        axes.set_yticks(rows, binned.labels, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlabel(share)
        axes.set_ylabel(drawing.label, parse_math=False)
    else:
        if binned.reference is not None:
            axes.stairs(
                100 * binned.reference, binned.edges, fill=True, color=theme.REFERENCE_COLOR, alpha=0.55, label=theirs
            )
        axes.stairs(100 * binned.generated, binned.edges, color=theme.GENERATED_COLOR, linewidth=1.6, label=ours)
        axes.set_xlabel(drawing.label, parse_math=False)
        axes.set_ylabel(share)
        axes.text(1.0, 1.0, beyond_in_words(binned), ha="right", va="bottom", fontsize=7, transform=axes.transAxes)
    axes.legend(frameon=False, fontsize="small")
    return figure
