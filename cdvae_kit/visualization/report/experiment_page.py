"""Experiments on representations as one HTML file that needs no network: claims, numbers, pictures.

Its HTML is in `experiments.html.jinja`, the frame around it in `html_page`; a single picture is drawn in
`visualization.experiments`.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from cdvae_kit import __version__
from cdvae_kit.io.atomic import atomic_file, refuse_existing
from cdvae_kit.representation.panels import Panel
from cdvae_kit.representation.protocol import ERRORS_OF_A_CLAIM, SEEDS_OF_A_CLAIM, Claim, ExperimentResult, Verdict
from cdvae_kit.visualization.experiments import plot_experiment
from cdvae_kit.visualization.report.html_page import Section, document, fragment

_DPI = 120
_html = partial(fragment, "experiments.html.jinja")
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
    seconds = math.fsum(one.result.seconds for one in shown)
    pieces = document(
        title,
        lead=f"{_counted(shown)} {len(shown)} experiments, {seconds / 60:.0f} minutes of work.",
        sections=[_overview(shown), *(_section(one) for one in shown)],
        foot=(
            f"cdvae_kit {__version__}. A claim holds or fails where its mean lies {ERRORS_OF_A_CLAIM:g} standard "
            "errors over seeds on one side of what is asked for; else it is undecided."
        ),
    )
    with atomic_file(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
    return Path(path)


def _counted(shown: Sequence[ShownExperiment]) -> str:
    """The verdicts, and how many seeds stand behind them."""
    claims = [claim for one in shown for claim in one.claims]
    if not claims:
        return "No claim is judged here;"
    numbers = sorted({len(one.result.seeds) for one in shown if one.claims})
    seeds = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    held, failed, open_ = (_count(claims, verdict) for verdict in get_args(Verdict))
    return (
        f"Of {len(claims)} claims {held} hold, {failed} fail and {open_} are undecided, "
        f"on {seeds} seed{'s' * (seeds != '1')};"
    )


def _count(claims: Sequence[Claim], verdict: Verdict) -> int:
    return sum(claim.verdict == verdict for claim in claims)


def _overview(shown: Sequence[ShownExperiment]) -> Section:
    rows = [
        {
            "name": one.result.experiment,
            "anchor": _anchor(one.result.experiment),
            "paper": _paper(one.result.paper),
            "summary": one.summary,
            **{verdict: _count(one.claims, verdict) for verdict in get_args(Verdict)},
        }
        for one in shown
    ]
    return Section("numbers", "All claims", "All claims at a glance", _html("overview", rows=rows))


def _section(one: ShownExperiment) -> Section:
    result = one.result
    body = _html(
        "experiment",
        source=_paper(result.paper),
        seeds=result.seeds,
        seconds=f"{result.seconds:.0f}",
        warnings=_warnings(result),
        claims=[
            {
                "text": claim.text,
                "value": _with_error(claim),
                "bound": f"{claim.relation} {_number(claim.threshold)}",
                "verdict": claim.verdict,
            }
            for claim in one.claims
        ],
        pictures=[(panel.title, _png(panel)) for panel in one.panels],
        arms=[
            (arm, [_number(number) for number in (result.mean(arm), result.standard_error(arm), *values)])
            for arm, values in result.arms.items()
        ],
        command=one.command,
    )
    return Section(_anchor(result.experiment), result.experiment, result.experiment, body, one.summary)


def _warnings(result: ExperimentResult) -> list[str]:
    found = []
    if result.quick:
        found.append("The sizes of a trial: these numbers support no claim.")
    if len(result.seeds) < SEEDS_OF_A_CLAIM:
        found.append(f"A claim needs {SEEDS_OF_A_CLAIM} seeds, these are {len(result.seeds)}.")
    for part, details in result.details.items():
        found += sorted({f"{part} was left out: {seed['skipped']}" for seed in details if "skipped" in seed})
    return found


def _png(panel: Panel) -> str:
    content = io.BytesIO()
    # no date and no version of matplotlib in it: the same numbers give the same bytes
    plot_experiment([panel]).savefig(content, format="png", dpi=_DPI, metadata={"Software": None})
    return base64.b64encode(content.getvalue()).decode("ascii")


def _paper(paper: str) -> dict[str, str]:
    """A source in three pieces, the second of which is a link to arXiv; in one without a number."""
    found = _ARXIV.search(paper)
    if found is None:
        return {"before": paper, "arxiv": ""}
    return {
        "before": paper[: found.start()],
        "arxiv": found[1],
        "name": found[0],
        "after": paper[found.end() :],
    }


def _anchor(name: str) -> str:
    return f"experiment-{re.sub(r'[^a-z0-9]+', '-', name.lower())}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"


def _with_error(claim: Claim) -> str:
    return f"{_number(claim.value)} ± {_number(claim.standard_error)}"


def claims_as_markdown(claims: Sequence[Claim]) -> str:
    """A table `| claim | asked for | ours | verdict |`, for a text."""
    rows = ["| claim | asked for | ours | verdict |", "|---|---|---|---|"]
    for claim in claims:
        text = claim.text.replace("|", "\\|")
        verdict = f"**{claim.verdict}**" if claim.verdict == "fails" else claim.verdict
        rows.append(f"| {text} | {claim.relation} {_number(claim.threshold)} | {_with_error(claim)} | {verdict} |")
    return "\n".join(rows) + "\n"
