"""An evaluation as one HTML file that needs no network: numbers, distributions, crystals to turn, what to make of it.

What stands in each section is in `report_sections`, the look in `report.css`, what moves in `report.js`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from cdvae_kit.io.atomic import atomic_file, refuse_existing
from cdvae_kit.metrics.evaluation_result import Evaluation
from cdvae_kit.metrics.published import published_results
from cdvae_kit.visualization.report_sections import Page, Section, page_of

REPORT_FILE = "report.html"

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The browser itself refuses whatever the page would load."""


def write_report(
    evaluation: Evaluation,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    title: str | None = None,
    dataset: str | None = None,
) -> Path:
    """Writes the report, some 5 MB of which plotly's script is most, and returns its path.

    The same evaluation gives the same bytes. Wheels of space groups stand in it where pymatviz is installed
    (`cdvae-kit[report]`), and a line that says so where it is not.

    Args:
        evaluation: what `cdvae_kit.metrics.evaluation.evaluate` returns.
        path: of the file, `report.html` for one.
        overwrite: replace a file of that name.
        title: of the page.
        dataset: "perov_5", "carbon_24", "mp_20" or "mpts_52": what the reference is of, whose published results stand
            beside. None of them if None.
    """
    published = [] if dataset is None else published_results(dataset)
    refuse_existing(path, overwrite=overwrite)
    page = page_of(evaluation, title=title, dataset=dataset, published=published)
    with atomic_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(_html(page))
    return Path(path)


def _html(page: Page) -> Iterator[str]:
    from plotly.offline import get_plotlyjs

    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{page.title}</title>\n<style>\n{_resource('report.css')}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#numbers">Skip to the numbers</a>\n'
        f'<header>\n<h1>{page.title}</h1>\n<p class="lead">{page.lead}</p>\n{page.tiles}</header>\n'
    )
    links = "".join(f'<li><a href="#{section.name}">{section.link}</a></li>' for section in page.sections)
    yield f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n'
    yield from (_section(section) for section in page.sections)
    yield f"</main>\n<footer><p>{page.foot}</p></footer>\n{page.gradients}\n"
    for name, figure in page.figures.items():
        yield _data(f"{name}-data", figure.to_json())
    yield _data("crystals-data", json.dumps(page.crystals, separators=(",", ":")))
    yield f"<script>{get_plotlyjs()}</script>\n<script>\n{_resource('report.js')}</script>\n</body>\n</html>\n"


def _section(section: Section) -> str:
    intro = f"<p>{section.intro}</p>\n" if section.intro else ""
    return (
        f'<section id="{section.name}" aria-labelledby="{section.name}-title">\n'
        f'<h2 id="{section.name}-title">{section.title}</h2>\n{intro}{section.body}</section>\n'
    )


def _data(name: str, content: str) -> str:
    # no text in it can end the element early
    safe = content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{name}">{safe}</script>\n'


def _resource(name: str) -> str:
    return (files("cdvae_kit.visualization") / name).read_text(encoding="utf-8")
