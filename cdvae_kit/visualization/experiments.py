"""The figure of an experiment on representations: bars, curves, tables and pictures beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.representation.panels import Bars, Lines, Matrix, Panel, Pictures, Points
from cdvae_kit.representation.protocol import standard_error
from cdvae_kit.visualization.crystals.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IN_A_ROW = 3
_SIDE = 4.2
"""Inches of a panel."""
_DOT_SPREAD = 0.12
_TITLE_WIDTH = 34
"""Characters; matplotlib's own wrapping makes no room for the lines that it adds."""
_MOST_DOTS = 60
"""A curve of more points is a line alone."""
_MOST_TICKS = 8
"""A logarithmic axis names its points where they are so few; its own ticks would overlap on a short range."""


def plot_experiment(panels: Sequence[Panel]) -> Figure:
    """One figure of all panels, three in a row."""
    if not panels:
        raise ValueError("there are no panels to draw")
    columns = min(_IN_A_ROW, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(_SIDE * columns, 0.85 * _SIDE * rows)
    panes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes, panel in zip(panes, panels, strict=False):
        _draw(axes, panel)
        axes.set_title(fill(panel.title, _TITLE_WIDTH), fontsize="medium")
    for axes in panes[len(panels) :]:
        axes.set_axis_off()
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    match panel:
        case Bars():
            _draw_bars(axes, panel)
        case Lines():
            _draw_lines(axes, panel)
        case Matrix():
            _draw_matrix(axes, panel)
        case Pictures():
            _draw_pictures(axes, panel)
        case Points():
            _draw_points(axes, panel)


def _draw_bars(axes: Axes, panel: Bars) -> None:
    labels = list(panel.values)
    beside = axes.get_yaxis_transform()
    if panel.log:
        axes.set_xscale("log")
        axes.grid(axis="y", color="0.9", linewidth=0.6)
    for place, label in enumerate(labels):
        values = np.array([value for value in panel.values[label] if math.isfinite(value)])
        if not len(values):
            axes.text(0.0, place, " no number", va="center", fontsize="small", color="0.4", transform=beside)
            continue
        if panel.log:
            if not (values > 0.0).all():
                axes.text(0.0, place, " 0", va="center", fontsize="small", color="0.4", transform=beside)
            axes.plot(values[values > 0.0], np.full(int((values > 0.0).sum()), place), "o", color="tab:blue", alpha=0.6)
            continue
        error = standard_error(values.tolist())
        axes.barh(
            place, values.mean(), xerr=error if math.isfinite(error) else None, color="tab:blue", alpha=0.6, capsize=3
        )
        spread = np.linspace(-_DOT_SPREAD, _DOT_SPREAD, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(values, place + spread, ".", color="0.2", markersize=5)
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.set_ylim(len(labels) - 0.4, -0.6)  # the first on top
    axes.set_xlabel(panel.y_label)
    if panel.reference is not None:
        label, level = panel.reference
        axes.axvline(level, color="tab:red", linestyle="--", linewidth=1)
        # below the last bar, where no bar can lie under it
        axes.set_ylim(len(labels) + 0.1, -0.6)
        low, high = axes.get_xlim()
        left = level > (low * high) ** 0.5 if panel.log else level > 0.5 * (low + high)
        axes.text(
            level, len(labels) - 0.25, f" {label} ", color="tab:red", fontsize="x-small", va="center",
            ha="right" if left else "left",
        )  # fmt: skip


def _draw_lines(axes: Axes, panel: Lines) -> None:
    for label, curve in panel.curves.items():
        x, y = np.asarray(curve.x, dtype=float), np.asarray(curve.y, dtype=float)
        (line,) = axes.plot(x, y, marker="." if len(x) <= _MOST_DOTS else "", label=label)
        if curve.standard_error is not None:
            error = np.nan_to_num(np.asarray(curve.standard_error, dtype=float))
            axes.fill_between(x, y - error, y + error, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if panel.log_x:
        axes.set_xscale("log")
        points = sorted({float(x) for curve in panel.curves.values() for x in curve.x})
        if 0 < len(points) <= _MOST_TICKS:
            axes.set_xticks(points, [f"{x:g}" for x in points])
            axes.set_xticks([], minor=True)
    if panel.log_y:
        axes.set_yscale("log")
    if panel.curves:
        axes.legend(fontsize="x-small", frameon=False)


def _draw_matrix(axes: Axes, panel: Matrix) -> None:
    values = np.array(panel.values, dtype=float)
    if values.shape != (len(panel.rows), len(panel.columns)):
        raise ValueError(
            f"the table {panel.title!r} has {len(panel.rows)} rows and {len(panel.columns)} columns, its values are "
            f"{values.shape}"
        )
    axes.imshow(values, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(panel.columns)), panel.columns, rotation=45, ha="right", fontsize="x-small")
    axes.set_yticks(range(len(panel.rows)), panel.rows, fontsize="x-small")
    axes.set_xlabel(panel.column_label)
    axes.set_ylabel(panel.row_label)
    finite = values[np.isfinite(values)]
    middle = 0.5 * (finite.min() + finite.max()) if len(finite) else 0.0
    for (row, column), value in np.ndenumerate(values):
        if math.isfinite(value):
            color = "black" if value > middle else "white"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize="x-small", color=color)


def _draw_pictures(axes: Axes, panel: Pictures) -> None:
    images = panel.images.detach().cpu().float().clamp(0.0, 1.0)
    if images.ndim != 5 or images.shape[2] not in (1, 3):
        raise ValueError(
            f"pictures are (rows, columns, channels, h, w) with 1 or 3 channels, got {tuple(images.shape)}"
        )
    rows, columns, _, h, w = images.shape
    # a white line between neighbours
    sheet = np.ones((rows * (h + 1) - 1, columns * (w + 1) - 1, 3))
    for row in range(rows):
        for column in range(columns):
            picture = images[row, column].expand(3, h, w).permute(1, 2, 0).numpy()
            sheet[row * (h + 1) : row * (h + 1) + h, column * (w + 1) : column * (w + 1) + w] = picture
    axes.imshow(sheet, interpolation="nearest")
    axes.set_xticks([])
    if panel.row_labels:
        axes.set_yticks([row * (h + 1) + h / 2 for row in range(rows)], panel.row_labels, fontsize="x-small")
    else:
        axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_points(axes: Axes, panel: Points) -> None:
    for place, (label, (x, y)) in enumerate(panel.groups.items()):
        color = f"C{place % 10}"
        axes.plot(x, y, ".", color=color, markersize=3, alpha=0.7)
        if len(x):
            axes.text(float(np.median(x)), float(np.median(y)), label, color=color, weight="bold", ha="center")
    axes.set_xticks([])
    axes.set_yticks([])
