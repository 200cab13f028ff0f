"""An evaluation as one HTML file that needs no network: numbers, distributions, crystals to turn, what to make of it.

What stands in each section is in `sections`, what moves in `report.js`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from markupsafe import Markup

from cdvae_kit.io.atomic import atomic_file, refuse_existing
from cdvae_kit.metrics.evaluation_result import Evaluation
from cdvae_kit.metrics.published import published_results
from cdvae_kit.visualization.report.html_page import document, resource
from cdvae_kit.visualization.report.sections import Page, page_of

REPORT_FILE = "report.html"


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
        file.writelines(
            document(
                page.title, lead=page.lead, tiles=page.tiles, sections=page.sections, foot=page.foot, end=_end(page)
            )
        )
    return Path(path)


def _end(page: Page) -> Markup:
    from plotly.offline import get_plotlyjs

    pieces = [f"{page.gradients}\n"]
    pieces += [_data(f"{name}-data", figure.to_json()) for name, figure in page.figures.items()]
    pieces.append(_data("crystals-data", json.dumps(page.crystals, separators=(",", ":"))))
    pieces.append(f"<script>{get_plotlyjs()}</script>\n<script>\n{resource('report.js')}</script>\n")
    return Markup("".join(pieces))


def _data(name: str, content: str) -> str:
    # no text in it can end the element early
    safe = content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{name}">{safe}</script>\n'
