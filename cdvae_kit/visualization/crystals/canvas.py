"""A crystal on paper: spheres and edges projected by hand and painted from back to front, on plain matplotlib axes.

matplotlib's own 3-D axes order whole artists by one depth each, so that an edge of the cell runs over the atoms that
it passes behind, and their markers do not scale with the cell; hence no 3-D axes. No pyplot either: its list of
figures and its choice of a window are the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cdvae_kit.visualization.crystals.projection import project
from cdvae_kit.visualization.crystals.scene import Scene, element_color, element_symbol

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEGEND_ENTRY = 0.75
"""Inches."""
_SHADES = 14
_MARGIN = 1.22
"""How far the picture reaches to the left and down where it shows the axes, over half its side."""
_EDGE_COLOR = (0.35, 0.35, 0.35)
_AXIS_COLORS = {"a": (0.75, 0.15, 0.15), "b": (0.1, 0.5, 0.15), "c": (0.15, 0.25, 0.75)}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, that no window shows."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw(
    axes: Axes, scene: Scene, *, view: tuple[float, float], atom_scale: float, half_side: float, axis_names: bool
) -> None:
    """Paints a scene, the farthest first.

    Args:
        axes: what to paint on.
        scene: the crystal.
        view: elevation and azimuth of the eye, degrees.
        atom_scale: radius of the drawn sphere over the covalent radius.
        half_side: of the square that is shown, angstrom.
        axis_names: show where a, b and c point, in a margin at the lower left.
    """
    seen = project(scene, view, atom_scale)
    pieces, painted_before = seen.pieces(scene.edges)
    for rank in range(len(seen.order) + 1):
        behind = pieces[painted_before == rank][..., :2]
        if len(behind):
            lines = LineCollection(list(behind), colors=[_EDGE_COLOR], linewidths=0.9, capstyle="round")
            lines.set(zorder=2 * rank, gid="cell")
            axes.add_collection(lines, autolim=False)
        if rank < len(seen.order):
            atom = int(seen.order[rank])
            color = element_color(int(scene.atomic_numbers[atom]))
            sphere = _sphere(axes, seen.atoms[atom, :2], seen.radii[atom], color)
            sphere.set(zorder=2 * rank + 1, gid="image" if scene.is_image[atom] else "atom")
            axes.add_collection(sphere, autolim=False)
    low = -half_side
    if axis_names:
        _triad(axes, scene.lattice, seen.basis, half_side)
        low *= _MARGIN
    axes.set(xlim=(low, half_side), ylim=(low, half_side), aspect="equal")
    axes.set_axis_off()


def add_legend(figure: Figure, elements: Sequence[int]) -> None:
    """Names the colours of elements, at the bottom, in as many rows as it takes."""
    marks = [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            markersize=8,
            markerfacecolor=element_color(number),
            markeredgecolor=(0.2, 0.2, 0.2),
            markeredgewidth=0.5,
            label=element_symbol(number),
        )
        for number in elements
    ]
    in_a_row = max(1, int(figure.get_figwidth() / _LEGEND_ENTRY))
    figure.legend(
        handles=marks, loc="outside lower center", ncols=min(len(marks), in_a_row), frameon=False, handletextpad=0.1
    )


def _sphere(axes: Axes, centre: np.ndarray, radius: float, color: tuple[float, float, float]) -> EllipseCollection:
    """Discs that shrink and brighten towards the light, at the upper left."""
    share = np.linspace(0.0, 1.0, _SHADES)
    diameters = 2 * radius * (1.0 - 0.9 * share)
    centres = centre + radius * 0.38 * share[:, None] * np.array([-1.0, 1.0]) * 2**-0.5
    rgb = np.array(color)
    shaded = (0.72 + 0.28 * share[:, None] ** 0.7) * rgb
    gloss = 1.2 * np.clip(share - 0.45, 0.0, 1.0)[:, None]
    # the largest disc alone has a rim
    rims = np.tile([0.15, 0.15, 0.15, 0.0], (_SHADES, 1))
    rims[0, 3] = 0.9
    return EllipseCollection(
        diameters,
        diameters,
        np.zeros(_SHADES),
        units="xy",
        offsets=centres,
        offset_transform=axes.transData,
        facecolors=shaded + gloss * (1.0 - shaded),
        edgecolors=rims,
        linewidths=0.5,
    )


def _triad(axes: Axes, lattice: np.ndarray, basis: np.ndarray, half_side: float) -> None:
    """The directions of a, b and c, in the margin at the lower left."""
    origin = np.array([-_MARGIN + 0.05, -_MARGIN + 0.05]) * half_side
    for name, vector in zip("abc", lattice, strict=True):
        direction = (basis @ vector)[:2] / np.linalg.norm(vector)
        end = origin + 0.17 * half_side * direction
        arrow = {"arrowstyle": "-|>", "color": _AXIS_COLORS[name], "shrinkA": 0.0, "shrinkB": 0.0, "lw": 1.1}
        axes.annotate("", xy=(end[0], end[1]), xytext=(origin[0], origin[1]), arrowprops=arrow)
        # an axis that points at the eye has its name beside the origin
        x, y = end + 0.06 * half_side * direction / max(float(np.linalg.norm(direction)), 0.2)
        axes.text(x, y, name, color=_AXIS_COLORS[name], ha="center", va="center", style="italic")
