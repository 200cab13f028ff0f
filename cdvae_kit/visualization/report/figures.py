"""The figures of a report while its sections are written: each has its place in the page, and its data at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from markupsafe import Markup

from cdvae_kit.visualization.report.html_page import fragment

if TYPE_CHECKING:
    import plotly.graph_objects as go

evaluation_html = partial(fragment, "evaluation.html.jinja")
"""What a macro of the template of evaluations makes of its values."""


@dataclass
class Figures:
    """Collects the figures while the sections are written."""

    found: dict[str, go.Figure] = field(default_factory=dict)

    def add(self, name: str, figure: go.Figure, heading: str, words: str, *, note: str = "") -> Markup:
        """The element of a figure; `words` tell a reader who does not see it what it shows."""
        name = f"figure-{len(self.found) + 1}-{''.join(c if c.isalnum() and c.isascii() else '-' for c in name)}"
        self.found[name] = figure
        height = f"{figure.layout.height or 400:g}"
        return evaluation_html("figure", name=name, height=height, heading=heading, words=words, note=note)
