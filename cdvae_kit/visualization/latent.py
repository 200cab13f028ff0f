"""A map of the latent space: where generated crystals lie among those of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np

from cdvae_kit.visualization import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

MOST_POINTS = 1500
"""Of each set; more are thinned by a seeded draw."""


class LatentMap(NamedTuple):
    """Codes on a plane.

    Attributes:
        generated: (num_generated, 2), NaN for a crystal without a code.
        reference: (num_reference, 2).
        explained: shares of the reference's variance along both axes.
    """

    generated: np.ndarray
    reference: np.ndarray
    explained: tuple[float, float]


def project_codes(generated: np.ndarray, reference: np.ndarray) -> LatentMap:
    """Both sets on the two directions in which the reference varies most (Pearson, Phil. Mag. 2, 559 (1901)).

    The generated crystals do not move the axes, so that maps of two models over one reference compare; they do where
    fewer than two references have a code. The sign of an axis makes its largest part positive.

    >>> line = np.array([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [4.0, 0.0, 1.0]])
    >>> project_codes(line[:1], line).generated[0, 0].item(), project_codes(line, line).explained
    (-2.0, (1.0, 0.0))
    """
    ours, theirs = (np.asarray(codes, dtype=np.float64) for codes in (generated, reference))
    for name, codes in (("generated", ours), ("reference", theirs)):
        if codes.ndim != 2 or codes.shape[1] != ours.shape[-1]:
            raise ValueError(f"{name} codes must be (num_crystals, latent_dim), one width for both, got {codes.shape}")
    fitted = theirs[np.isfinite(theirs).all(1)]
    if len(fitted) < 2:
        both = np.concatenate([ours, theirs])
        fitted = both[np.isfinite(both).all(1)]
    axes = np.zeros((2, ours.shape[1]))
    if not len(fitted):
        return LatentMap(ours @ axes.T + np.nan, theirs @ axes.T + np.nan, (0.0, 0.0))
    middle = fitted.mean(0)
    _, lengths, directions = np.linalg.svd(fitted - middle, full_matrices=False)
    found = directions[:2]
    largest = np.abs(found).argmax(1)
    axes[: len(found)] = found * np.sign(found[np.arange(len(found)), largest])[:, None]
    variance = np.zeros(2)
    variance[: len(found)] = lengths[:2] ** 2
    first, second = (variance / max(float((lengths**2).sum()), np.finfo(float).tiny)).tolist()
    return LatentMap((ours - middle) @ axes.T, (theirs - middle) @ axes.T, (first, second))


@overload
def plot_latent_map(
    generated: np.ndarray,
    reference: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    interactive: Literal[False] = False,
    seed: int = 0,
) -> Figure: ...
@overload
def plot_latent_map(
    generated: np.ndarray,
    reference: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    interactive: Literal[True],
    seed: int = 0,
) -> go.Figure: ...
def plot_latent_map(
    generated: np.ndarray,
    reference: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    interactive: bool = False,
    seed: int = 0,
) -> Figure | go.Figure:
    """Both sets on the reference's two main directions.

    Args:
        generated: (num_generated, latent_dim) codes; rows of NaN for crystals without one.
        reference: (num_reference, latent_dim).
        labels: one a generated crystal, shown under the mouse.
        interactive: a figure of plotly's.
        seed: of the draw where a set has more than `MOST_POINTS`.
    """
    if labels is not None and len(labels) != len(generated):
        raise ValueError(f"expected one label for each of the {len(generated)} generated crystals, got {len(labels)}")
    found = project_codes(generated, reference)
    ours, theirs = (_thinned(points, seed) for points in (found.generated, found.reference))
    titles = [
        f"{name} principal axis ({100 * share:.0f} % of the variance)"
        for name, share in zip(("first", "second"), found.explained, strict=True)
    ]
    names = [
        f"{name} ({_shown(chosen, points)})"
        for name, chosen, points in (("generated", ours, found.generated), ("reference", theirs, found.reference))
    ]
    if not interactive:
        return _static(found.generated[ours], found.reference[theirs], titles, names)
    return _interactive(
        found.generated[ours],
        found.reference[theirs],
        titles,
        names,
        None if labels is None else [theme.plain(labels[i]) for i in ours],
    )


def _thinned(points: np.ndarray, seed: int) -> np.ndarray:
    there = np.flatnonzero(np.isfinite(points).all(1))
    if len(there) <= MOST_POINTS:
        return there
    return np.sort(np.random.default_rng(seed).choice(there, MOST_POINTS, replace=False))


def _shown(chosen: np.ndarray, points: np.ndarray) -> str:
    there = int(np.isfinite(points).all(1).sum())
    return f"{there:,}" if len(chosen) == there else f"{len(chosen):,} of {there:,}"


def _interactive(
    ours: np.ndarray, theirs: np.ndarray, titles: list[str], names: list[str], labels: list[str] | None
) -> go.Figure:
    import plotly.graph_objects as go

    traces = [
        go.Scatter(
            x=theirs[:, 0],
            y=theirs[:, 1],
            mode="markers",
            name=names[1],
            marker={"color": theme.REFERENCE_COLOR, "size": 6, "opacity": 0.55},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=ours[:, 0],
            y=ours[:, 1],
            mode="markers",
            name=names[0],
            text=labels,
            marker={
                "color": theme.GENERATED_COLOR,
                "size": 6,
                "opacity": 0.75,
                "line": {"width": 0.5, "color": "white"},
            },
            hovertemplate="%{text}<extra></extra>" if labels else "(%{x:.3g}, %{y:.3g})<extra></extra>",
        ),
    ]
    layout = theme.plotly_layout(
        xaxis={"title": {"text": titles[0]}, "showgrid": True},
        yaxis={"title": {"text": titles[1]}, "scaleanchor": "x"},
        height=520,
        hovermode="closest",
    )
    return go.Figure(traces, layout)


def _static(ours: np.ndarray, theirs: np.ndarray, titles: list[str], names: list[str]) -> Figure:
    from cdvae_kit.visualization.crystals.canvas import new_figure

    figure = new_figure(4.8, 4.4)
    axes = figure.subplots()
    # as pixels: thousands of vector marks make a PDF that no reader opens with pleasure
    common: dict[str, Any] = {"s": 12, "linewidths": 0, "rasterized": True}
    axes.scatter(*theirs.T, color=theme.REFERENCE_COLOR, alpha=0.55, label=names[1], **common)
    axes.scatter(*ours.T, color=theme.GENERATED_COLOR, alpha=0.75, label=names[0], **common)
    axes.set(xlabel=titles[0], ylabel=titles[1])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure
