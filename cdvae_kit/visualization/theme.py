"""How the figures of an evaluation look and speak: colours, names of quantities, the layout of plotly figures.

No figure is drawn here; nothing here imports matplotlib or plotly.
"""

from __future__ import annotations

from html import escape
from typing import Any

GENERATED_COLOR = "#1668b8"
REFERENCE_COLOR = "#8d99a6"
PUBLISHED_COLOR = "#c2570c"
INK = "#1f2933"
GRID = "#e4e7eb"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MORE_AND_LESS = ((0.0, "#c2570c"), (0.25, "#f0b27a"), (0.5, "#f7f7f5"), (0.75, "#85b4de"), (1.0, "#1668b8"))
"""Less than the reference, as much, more."""
SHARES = ((0.0, "#eef4fa"), (0.5, "#85b4de"), (1.0, "#0d4a86"))

_AXIS = {
    "gridcolor": GRID,
    "zeroline": False,
    "linecolor": "#9aa5b1",
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": "#9aa5b1",
    "automargin": True,
}


QUANTITIES = {
    "density": "density",
    "num_elems": "number of elements",
    "num_atoms": "atoms in the cell",
    "volume_per_atom": "volume per atom",
    "element": "element",
    "elements": "elements",
    "space_group": "space group",
    "crystal_system": "crystal system",
    "coordination": "coordination number",
    "energy_above_hull": "energy above the hull",
}

COUNTED = {"element": "atoms", "coordination": "sites"}
"""What a value belongs to, crystals where it is not here."""


def quantity_label(name: str, unit: str = "") -> str:
    """For an axis: `density (g/cm³)`."""
    return QUANTITIES.get(name, name.replace("_", " ")) + (f" ({unit})" if unit else "")


def plain(text: str) -> str:
    """Text that comes from a file, for plotly, which takes some HTML for markup."""
    return escape(text, quote=False)


def plotly_layout(**more: Any) -> dict[str, Any]:
    """What all plotly figures have in common, `more` on top; nothing is left to a template."""
    axes = {}
    for name in ("xaxis", "yaxis"):
        own = more.pop(name, {})
        title = {"font": {"size": 13}, "standoff": 10} | own.get("title", {})
        axes[name] = _AXIS | own | {"title": title}
    return {
        "template": "none",
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 60, "r": 16, "t": 36, "b": 52},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": FONT}},
        **axes,
        **more,
    }
