"""A page of sections as one HTML file that needs no network; `evaluation_page` and `experiment_page` fill it.

The look is in `report.css`. All text is HTML already: what comes from files is escaped by whoever writes the section.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser itself refuses whatever the page would load."""


@dataclass(frozen=True)
class Section:
    """One part of the page, HTML throughout; `link` is its name in the menu."""

    name: str
    link: str
    title: str
    body: str
    intro: str = ""


def document(
    title: str, *, lead: str, tiles: str, sections: Sequence[Section], foot: str, end: Iterable[str] = ()
) -> Iterator[str]:
    """The file, piece by piece.

    Args:
        title: of the page.
        lead: a line below it.
        tiles: what stands before the menu.
        sections: in order; the first is what the link for screen readers leads to.
        foot: the last line.
        end: data and scripts.
    """
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{resource('report.css')}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#{sections[0].name}">Skip to the numbers</a>\n'
        f'<header>\n<h1>{title}</h1>\n<p class="lead">{lead}</p>\n{tiles}</header>\n'
    )
    links = "".join(f'<li><a href="#{section.name}">{section.link}</a></li>' for section in sections)
    yield f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n'
    yield from (_section(section) for section in sections)
    yield f"</main>\n<footer><p>{foot}</p></footer>\n"
    yield from end
    yield "</body>\n</html>\n"


def _section(section: Section) -> str:
    intro = f"<p>{section.intro}</p>\n" if section.intro else ""
    return (
        f'<section id="{section.name}" aria-labelledby="{section.name}-title">\n'
        f'<h2 id="{section.name}-title">{section.title}</h2>\n{intro}{section.body}</section>\n'
    )


def resource(name: str) -> str:
    """The text of a file that lies beside this module."""
    return (files("cdvae_kit.visualization.report") / name).read_text(encoding="utf-8")
