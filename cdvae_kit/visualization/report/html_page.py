"""A page of sections as one HTML file that needs no network; `evaluation_page` and `experiment_page` fill it.

The look is in `report.css`, the frame in `page.html.jinja`. Templates escape what they are given; only `Markup`, which
other templates and the drawing of crystals make, is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser itself refuses whatever the page would load."""


@dataclass(frozen=True)
class Section:
    """One part of the page; `link` is its name in the menu, `intro` what is said before the body."""

    name: str
    link: str
    title: str
    body: Markup
    intro: str = ""


def document(
    title: str,
    *,
    lead: str,
    sections: Sequence[Section],
    foot: str,
    tiles: Markup | str = "",
    end: Markup | str = "",
) -> Iterator[str]:
    """The file, piece by piece.

    Args:
        title: of the page.
        lead: a line below it.
        sections: in order; the first is what the link for screen readers leads to.
        foot: the last line.
        tiles: what stands before the menu.
        end: data and scripts.
    """
    return (
        _environment()
        .get_template("page.html.jinja")
        .generate(
            title=title,
            lead=lead,
            sections=sections,
            foot=foot,
            tiles=tiles,
            end=end,
            policy=_POLICY,
            styles=Markup(resource("report.css")),
        )
    )


def fragment(template: str, macro: str, **values: Any) -> Markup:
    """What a macro of a template beside this module makes of `values`."""
    made: Markup = getattr(_environment().get_template(template).module, macro)(**values)
    return made


def resource(name: str) -> str:
    """The text of a file that lies beside this module."""
    return (files("cdvae_kit.visualization.report") / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(resource),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
