"""The course of a training run, from its log."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cdvae_kit.missing import is_finite
from cdvae_kit.training.log import FIRST_COLUMNS, LAST_COLUMNS, read_metrics
from cdvae_kit.visualization.crystals.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_loss(metrics: str | os.PathLike[str]) -> Figure:
    """The loss against the step on training and validation crystals, the best step marked, and each validation term.

    Terms are unweighted, so that they do not sum to the loss. An axis is logarithmic where all of its values allow it.

    Args:
        metrics: the `metrics.csv` of a run, or the run's folder; a run that still goes on may be looked at.
    """
    path = Path(metrics)
    if path.is_dir():
        path = path / "metrics.csv"
    if not path.is_file():
        raise FileNotFoundError(f"there is no log {path}; give the metrics.csv of a training run, or the run's folder")
    rows = read_metrics(path)
    if not rows:
        raise ValueError(f"{path} holds no rows yet; the first is written after `log_every` steps")
    if lacking := [name for name in FIRST_COLUMNS if name not in rows[0]]:
        raise ValueError(f"{path} is no log of a training run: it has no columns {', '.join(lacking)}")
    figure = new_figure(10.4, 3.2)
    left, right = figure.subplots(1, 2)
    for split, color in (("train", "tab:blue"), ("val", "tab:orange")):
        _line(left, rows, split, "loss", label={"train": "training", "val": "validation"}[split], color=color)
    checks = [row for row in rows if row["split"] == "val" and is_finite(row["loss"])]
    if checks:
        best = min(checks, key=lambda row: row["loss"])
        left.plot(best["step"], best["loss"], "*", color="tab:red", markersize=11, label=f"best: step {best['step']}")
    for term in rows[0]:
        if term not in FIRST_COLUMNS + LAST_COLUMNS:
            _line(right, rows, "val", term, label=term.replace("_", " "), color=None)
    left.set_title("loss of the autoencoder", fontsize="medium")
    left.set_ylabel("loss, all terms weighted")
    right.set_title("its terms, validation", fontsize="medium")
    right.set_ylabel("term of the loss, unweighted")
    for panel in (left, right):
        panel.set_xlabel("step of the optimiser")
        if panel.lines:
            # beside the curves, of which it hides none
            panel.legend(fontsize="x-small", frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        if panel.lines and all((np.asarray(line.get_ydata()) > 0).all() for line in panel.lines):
            panel.set_yscale("log")
    return figure


def _line(
    axes: Axes, rows: Sequence[Mapping[str, Any]], split: str, column: str, *, label: str, color: str | None
) -> None:
    points = [(row["step"], row[column]) for row in rows if row["split"] == split and is_finite(row[column])]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, color=color, marker="." if len(points) < 30 else None)
