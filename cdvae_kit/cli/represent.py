"""`generate-crystals represent`: an experiment on representations, its numbers and its claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdvae_kit.cli.console import print_note, print_result, print_table, print_written, progress_bar
from cdvae_kit.cli.options import Overwrite
from cdvae_kit.cli.outcome import tell_what_is_kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from rich.table import Table

    from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult

FIGURE = "figure.png"
PAGE = "index.html"
ALL = "all"
_COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}


def represent(
    experiment: Annotated[
        str | None,
        typer.Argument(metavar="[EXPERIMENT]", help="Which one, or 'all'; left out, those that there are are listed."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many; a claim needs 3.")] = 3,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part", metavar="PART", help="These parts alone, one an option; claims that need others are not judged."
        ),
    ] = None,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0, help="The seeds count up from it.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="The sizes of a trial: seconds, and no claim.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of results.json and figure; else ./EXPERIMENT."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of data sets, for experiments that read one; else the downloaded."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes; parts and seeds are computed side by side.")
    ] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Run an experiment of the representation half and judge its paper's claims.

    A run that was killed goes on from its last finished part when the same command is given again, and a run of some
    parts when it is given with more of them. 'all' runs every one, each into a folder of its name, takes over those
    that are finished there, and writes one page, index.html.
    """
    from cdvae_kit.representation.experiments.registry import experiment_names, load_experiment

    if experiment is None:
        known = [load_experiment(name) for name in experiment_names()]
        rows = [{"name": one.name, "summary": one.summary, "paper": one.paper} for one in known]
        print_table(_list_of(known), experiments=rows)
        return
    folder = Path(experiment) if output is None else output
    if seeds < 3 and not quick:
        print_note(f"{seeds} seed{'s' * (seeds > 1)} show an effect at best: a claim needs 3")
    if experiment == ALL:
        if parts:
            raise typer.BadParameter("'all' runs every part of every experiment", param_hint="--part")
        _run_all(range(first_seed, first_seed + seeds), quick, folder, data, workers, overwrite)
        return
    chosen = load_experiment(experiment)
    if data is not None:
        chosen = chosen.with_data(data)

    from cdvae_kit.representation.experiments.running import RESULTS, judged, run_experiment
    from cdvae_kit.visualization.experiments import plot_experiment

    with tell_what_is_kept(folder, go_on=""), progress_bar(f"Running {experiment}", "%") as progress:
        result = run_experiment(
            chosen,
            seeds=range(first_seed, first_seed + seeds),
            parts=parts or None,
            folder=folder,
            quick=quick,
            overwrite=overwrite,
            num_workers=workers,
            draw=lambda found, place: _write_figure(plot_experiment(chosen.panels(found)), place / FIGURE),
            progress=progress,
        )
    claims = judged(chosen, result)
    print_table(_arms_table(result), arms=_arm_rows(result))
    if claims:
        print_table(_claims_table(claims), claims=_claim_rows(claims))
    if quick:
        print_note("the sizes of a trial: these numbers support no claim")
    if result.left_out:
        print_note(f"no figure, and no claim about what was not run: {', '.join(result.left_out)}")
    for path in (folder / RESULTS, folder / FIGURE)[: 1 if result.left_out else 2]:
        print_written(path)
    print_result(f"{result.seconds:.0f} s of work", seconds=result.seconds)


def _run_all(seeds: range, quick: bool, folder: Path, data: Path | None, workers: int, overwrite: bool) -> None:
    from cdvae_kit.representation.experiments.registry import experiment_names, load_experiment
    from cdvae_kit.representation.experiments.running import run_experiments
    from cdvae_kit.visualization.experiments import plot_experiment
    from cdvae_kit.visualization.report.experiment_page import ShownExperiment, write_experiment_page

    experiments = [load_experiment(name) for name in experiment_names()]
    if data is not None:
        experiments = [chosen.with_data(data) if chosen.reads_data else chosen for chosen in experiments]
    with (
        tell_what_is_kept(folder, go_on=""),
        progress_bar(f"Running {len(experiments)} experiments", "%") as progress,
    ):
        found = run_experiments(
            experiments,
            seeds=seeds,
            folder=folder,
            quick=quick,
            overwrite=overwrite,
            num_workers=workers,
            draw=lambda chosen, result, place: _write_figure(plot_experiment(chosen.panels(result)), place / FIGURE),
            # all experiments count alike: 100 each
            progress=lambda done, whole: progress(100 * done // whole, 100),
        )
    options = f"--seeds {len(seeds)} --first-seed {seeds.start}{' --quick' * quick}"
    shown = [
        ShownExperiment(
            chosen.summary,
            result,
            claims,
            chosen.panels(result),
            f"generate-crystals represent {chosen.name} {options}" + " --data DIR" * chosen.reads_data,
        )
        for chosen, (result, claims) in zip(experiments, found, strict=True)
    ]
    for one in shown:
        if one.claims:
            table = _claims_table(one.claims, title=one.result.experiment)
            print_table(table, **{one.result.experiment: _claim_rows(one.claims)})
    # made of what lies beside it, hence replaced without asking
    write_experiment_page(shown, folder / PAGE, overwrite=True)
    if quick:
        print_note("the sizes of a trial: these numbers support no claim")
    print_written(folder / PAGE)


def _write_figure(figure: Figure, path: Path) -> None:
    from cdvae_kit.io.atomic import atomic_file

    with atomic_file(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=150)


def _list_of(experiments: Sequence[Experiment]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for name in ("experiment", "what it compares", "paper"):
        table.add_column(name, overflow="fold")
    for experiment in experiments:
        table.add_row(experiment.name, experiment.summary, experiment.paper)
    return table


def _arm_rows(result: ExperimentResult) -> list[dict[str, Any]]:
    return [
        {
            "arm": arm,
            "mean": result.mean(arm),
            "standard_error": result.standard_error(arm),
            "seeds": dict(zip(map(str, result.seeds), result.per_seed(arm), strict=True)),
        }
        for arm in result.arms
    ]


def _claim_rows(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    return [
        {
            "claim": claim.text,
            "value": claim.value,
            "standard_error": claim.standard_error,
            "relation": claim.relation,
            "threshold": claim.threshold,
            "verdict": claim.verdict,
        }
        for claim in claims
    ]


def _arms_table(result: ExperimentResult) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(header_style="bold", box=SIMPLE_HEAD)
    table.add_column("arm")
    for name in ("mean", "standard error", *(f"seed {seed}" for seed in result.seeds)):
        table.add_column(name, justify="right")
    for arm in result.arms:
        numbers = (result.mean(arm), result.standard_error(arm), *result.per_seed(arm))
        table.add_row(escape(arm), *(_shown(number) for number in numbers))
    return table


def _claims_table(claims: Sequence[Claim], *, title: str | None = None) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("claim", overflow="fold")
    for name in ("mean", "standard error", "asked for"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for claim in claims:
        bound = f"{claim.relation} {_shown(claim.threshold)}"
        verdict = f"[{_COLOURS[claim.verdict]}]{claim.verdict}[/]"
        table.add_row(escape(claim.text), _shown(claim.value), _shown(claim.standard_error), bound, verdict)
    return table


def _shown(number: float) -> str:
    """Four digits, a dash for what is no number.

    >>> _shown(0.12345), _shown(float("nan")), _shown(12345.6)
    ('0.1235', '-', '1.235e+04')
    """
    return "-" if number != number else f"{number:.4g}"
