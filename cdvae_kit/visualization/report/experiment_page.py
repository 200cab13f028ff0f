"""Experiments on representations as one HTML file that needs no network: claims, numbers, pictures.

How the page is put together is in `html_page`, a single picture is drawn in `visualization.experiments`.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from cdvae_kit import __version__
from cdvae_kit.io.atomic import atomic_file, refuse_existing
from cdvae_kit.representation.panels import Panel
from cdvae_kit.representation.protocol import SEEDS_OF_A_CLAIM, Claim, ExperimentResult
from cdvae_kit.visualization.experiments import plot_experiment
from cdvae_kit.visualization.report.html_page import Section, document

_DPI = 120
_ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class ShownExperiment:
    """What the page says of one experiment.

    Attributes:
        summary: one line: what is compared with what.
        result: all numbers.
        claims: judged on them.
        panels: its pictures.
        command: what computes it again.
    """

    summary: str
    result: ExperimentResult
    claims: Sequence[Claim]
    panels: Sequence[Panel]
    command: str


def write_experiment_page(
    shown: Sequence[ShownExperiment],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    title: str = "Experiments on representations",
) -> Path:
    """Writes the page and returns its path; the same results give the same text.

    Args:
        shown: in the order of the page, at least one.
        path: of the file.
        overwrite: replace a file of that name.
        title: of the page.
    """
    if not shown:
        raise ValueError("there are no experiments to show")
    refuse_existing(path, overwrite=overwrite)
    held = sum(claim.holds for one in shown for claim in one.claims)
    count = sum(len(one.claims) for one in shown)
    seconds = math.fsum(one.result.seconds for one in shown)
    pieces = document(
        escape(title),
        lead=f"{held} of {count} claims hold; {len(shown)} experiments, {seconds / 60:.0f} minutes of work.",
        tiles="",
        sections=[_overview(shown), *(_section(one) for one in shown)],
        foot=f"cdvae_kit {escape(__version__)}. A claim that fails is printed as failing.",
    )
    with atomic_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
    return Path(path)


def _overview(shown: Sequence[ShownExperiment]) -> Section:
    rows = []
    for one in shown:
        name, held = one.result.experiment, sum(claim.holds for claim in one.claims)
        rows.append(
            f'<tr><th scope="row"><a href="#{_anchor(name)}">{escape(name)}</a></th><td>{_paper(one.result.paper)}</td>'
            f'<td>{escape(one.summary)}</td><td class="number">{held} of {len(one.claims)}</td></tr>\n'
        )
    body = (
        '<div class="panel scroll"><table><thead><tr><th scope="col">experiment</th><th scope="col">paper</th>'
        '<th scope="col">what it compares</th><th scope="col" class="number">claims that hold</th></tr></thead>\n'
        f"<tbody>\n{''.join(rows)}</tbody></table></div>\n"
    )
    return Section("numbers", "All claims", "All claims at a glance", body)


def _section(one: ShownExperiment) -> Section:
    result = one.result
    seeds = ", ".join(str(seed) for seed in result.seeds)
    warnings = "".join(f"<p><strong>{escape(warning)}</strong></p>\n" for warning in _warnings(result))
    pictures = "".join(_picture(panel) for panel in one.panels)
    body = (
        f'<p class="note">{_paper(result.paper)}. Seeds {seeds}; {result.seconds:.0f} s of work.</p>\n'
        f'{warnings}{_claims(one.claims)}<div class="two">\n{pictures}</div>\n{_arms(result)}'
        f"<pre>{escape(one.command)}</pre>\n"
    )
    name = escape(result.experiment)
    return Section(_anchor(result.experiment), name, name, body, escape(one.summary))


def _warnings(result: ExperimentResult) -> list[str]:
    found = []
    if result.quick:
        found.append("The sizes of a trial: these numbers support no claim.")
    if len(result.seeds) < SEEDS_OF_A_CLAIM:
        found.append(f"A claim needs {SEEDS_OF_A_CLAIM} seeds, these are {len(result.seeds)}.")
    for part, details in result.details.items():
        found += sorted({f"{part} was left out: {seed['skipped']}" for seed in details if "skipped" in seed})
    return found


def _claims(claims: Sequence[Claim]) -> str:
    if not claims:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(claim.text)}</th><td class="number">{_number(claim.value)}</td>'
        f'<td class="number">{claim.relation} {_number(claim.threshold)}</td>'
        f"<td>{_HOLDS if claim.holds else _FAILS}</td></tr>\n"
        for claim in claims
    )
    return (
        '<div class="panel scroll"><table><thead><tr><th scope="col">claim</th><th scope="col" class="number">ours</th>'
        '<th scope="col" class="number">asked for</th><th scope="col">holds</th></tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table></div>\n"
    )


_HOLDS = '<span class="verdict yes">yes</span>'
_FAILS = '<span class="verdict no">no</span>'


def _picture(panel: Panel) -> str:
    content = io.BytesIO()
    # no date and no version of matplotlib in it: the same numbers give the same bytes
    plot_experiment([panel]).savefig(content, format="png", dpi=_DPI, metadata={"Software": None})
    code = base64.b64encode(content.getvalue()).decode("ascii")
    return (
        f'<figure class="panel"><img class="chart" alt="{escape(panel.title)}" loading="lazy" '
        f'src="data:image/png;base64,{code}"></figure>\n'
    )


def _arms(result: ExperimentResult) -> str:
    heads = "".join(f'<th scope="col" class="number">seed {seed}</th>' for seed in result.seeds)
    rows = ""
    for arm, values in result.arms.items():
        numbers = (result.mean(arm), result.standard_error(arm), *values)
        cells = "".join(f'<td class="number">{_number(number)}</td>' for number in numbers)
        rows += f'<tr><th scope="row">{escape(arm)}</th>{cells}</tr>\n'
    return (
        f'<details class="panel"><summary>All {len(result.arms)} arms</summary><div class="scroll"><table><thead><tr>'
        '<th scope="col">arm</th><th scope="col" class="number">mean</th><th scope="col" class="number">standard error'
        f"</th>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div></details>\n"
    )


def _paper(paper: str) -> str:
    text = escape(paper)
    found = _ARXIV.search(text)
    if found is None:
        return text
    return text.replace(found[0], f'<a href="https://arxiv.org/abs/{found[1]}">{found[0]}</a>', 1)


def _anchor(name: str) -> str:
    return f"experiment-{re.sub(r'[^a-z0-9]+', '-', name.lower())}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def claims_as_markdown(claims: Sequence[Claim]) -> str:
    """A table `| claim | asked for | ours | holds |`, for a text."""
    rows = ["| claim | asked for | ours | holds |", "|---|---|---|---|"]
    for claim in claims:
        text = claim.text.replace("|", "\\|")
        bound = f"{claim.relation} {_number(claim.threshold)}"
        rows.append(f"| {text} | {bound} | {_number(claim.value)} | {'yes' if claim.holds else '**no**'} |")
    return "\n".join(rows) + "\n"
