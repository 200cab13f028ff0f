"""The figures of a report while its sections are written: each has its place in the page, and its data at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass
class Figures:
    """Collects the figures while the sections are written."""

    found: dict[str, go.Figure] = field(default_factory=dict)

    def add(self, name: str, figure: go.Figure, heading: str, words: str, *, note: str = "") -> str:
        """The place of a figure; `words` tell a reader who does not see it what it shows. All but `words` is HTML."""
        name = f"figure-{len(self.found) + 1}-{''.join(c if c.isalnum() and c.isascii() else '-' for c in name)}"
        self.found[name] = figure
        height = figure.layout.height or 400
        caption = f"<figcaption>{note}</figcaption>" if note else ""
        return (
            f'<figure class="panel"><h3>{heading}</h3><div class="figure" id="{name}" style="min-height:{height:g}px" '
            f'role="img" aria-label="{escape(words)}"></div>{caption}</figure>\n'
        )
