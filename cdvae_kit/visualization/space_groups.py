"""Wheels of crystal systems and space groups, which pymatviz draws (the extra `cdvae-kit[report]`)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, get_args

import numpy as np

from cdvae_kit.crystal.symmetry import CrystalSystem
from cdvae_kit.visualization import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from cdvae_kit.metrics.evaluation_result import Distribution

MOST_SLICES = 12
"""Space groups of one crystal system that have a slice of their own."""

MISSING = "the wheels of space groups need pymatviz: python -m pip install 'cdvae-kit[report]'"

_SYSTEM_COLORS = dict(
    zip(
        get_args(CrystalSystem),
        ("#b3475a", "#d98032", "#c9a227", "#5c9e5e", "#2f9c95", "#3d74b8", "#7a5aa6"),
        strict=True,
    )
)


def can_draw_wheels() -> bool:
    """Whether pymatviz is installed."""
    return find_spec("pymatviz") is not None


def plot_space_groups(distribution: Distribution) -> go.Figure:
    """Crystal systems inside, their space groups outside, the generated wheel beside that of the reference.

    A plotly figure; `plot_distribution` draws the same numbers as bars, on paper too.

    Args:
        distribution: `Evaluation.distributions["space_group"]`, one number a crystal, None where none was found.
    """
    if not can_draw_wheels():
        raise ModuleNotFoundError(MISSING, name="pymatviz")
    from plotly.subplots import make_subplots

    sets = {"generated": distribution.generated, "reference": distribution.reference}
    groups = {name: _numbers(labels) for name, labels in sets.items() if labels is not None}
    figure = make_subplots(
        1,
        len(groups),
        specs=[[{"type": "domain"}] * len(groups)],
        subplot_titles=[f"{name} ({len(numbers):,})" for name, numbers in groups.items()],
    )
    for column, numbers in enumerate(groups.values(), 1):
        if numbers:
            figure.add_trace(_wheel(numbers), 1, column)
    figure.update_layout(theme.plotly_layout(height=430, margin={"l": 8, "r": 8, "t": 40, "b": 8}))
    figure.layout.xaxis, figure.layout.yaxis = None, None
    return figure


def _wheel(numbers: list[int]) -> go.Sunburst:
    from pymatviz import spacegroup_sunburst

    trace = spacegroup_sunburst(numbers, show_counts=False, max_slices=MOST_SLICES).data[0]
    # pymatviz orders and colours the systems by how often they occur, so that two wheels would not compare
    systems = [str(name).split("/")[0] for name in trace.ids]
    order = sorted(range(len(systems)), key=lambda i: (list(_SYSTEM_COLORS).index(systems[i]), i))
    for name in ("ids", "labels", "parents", "values"):
        trace[name] = [trace[name][i] for i in order]
    trace.marker.colors = [_SYSTEM_COLORS[systems[i]] for i in order]
    trace.marker.line = {"color": "white", "width": 1}
    trace.leaf = {"opacity": 0.75}
    trace.sort = False
    trace.texttemplate = "%{label}<br>%{percentRoot:.0%}"
    trace.hovertemplate = "%{label}: %{value:.0f} crystals, %{percentRoot:.1%}<extra></extra>"
    trace.insidetextfont = {"color": "white"}
    return trace


def _numbers(labels: np.ndarray) -> list[int]:
    return sorted(int(label) for label in labels if label is not None)
