"""`generate-crystals optimize`: crystals with the property that is asked for."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cdvae_kit.cli.checks import check_checkpoint
from cdvae_kit.cli.console import print_note, print_result, print_table, print_written, progress_bar
from cdvae_kit.cli.files import read_batch
from cdvae_kit.cli.options import (
    DEFAULT_CHECKPOINT,
    Checkpoint,
    Device,
    Lenient,
    Overwrite,
    Seed,
    Steps,
    crystals_there,
)
from cdvae_kit.io.carried import carried_names, home_of

if TYPE_CHECKING:
    from cdvae_kit.generation.optimization.constraints import Constraints
    from cdvae_kit.generation.optimization.objectives import Goal
    from cdvae_kit.generation.optimization.run import OptimizationResult
    from cdvae_kit.io.carried import ModelKind

MAX_ROWS = 20
"""Candidates that are shown; all of them are written."""

Method = Literal["guided", "published", "bayesian"]


def optimize(
    properties: Annotated[
        list[str],
        typer.Option(
            "--property", "-p", metavar="NAME[=VALUE]", help="What to optimise; with a value: to reach it. Repeatable."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Candidates, history, summary.")],
    minimize: Annotated[bool, typer.Option("--minimize", help="Make the property small; the default.")] = False,
    maximize: Annotated[bool, typer.Option("--maximize", help="Make the property large.")] = False,
    target: Annotated[float | None, typer.Option(metavar="VALUE", help="Reach this value, in its unit.")] = None,
    num_starts: Annotated[int, typer.Option("--num-starts", "-n", min=1, help="Where to start from.")] = 100,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", callback=crystals_there, help="Start from its first crystals; else from the prior."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            callback=crystals_there,
            help="Training crystals: success by percentile, and how far winners lie off.",
        ),
    ] = None,
    allowed: Annotated[str | None, typer.Option("--elements", metavar="A,B", help="Elements that may occur.")] = None,
    required: Annotated[str | None, typer.Option("--require", metavar="A,B", help="Elements that must occur.")] = None,
    forbidden: Annotated[str | None, typer.Option("--forbid", metavar="A,B", help="Elements that must not.")] = None,
    num_atoms: Annotated[str | None, typer.Option(metavar="N|LOW-HIGH", help="Atoms in the cell.")] = None,
    density: Annotated[str | None, typer.Option(metavar="LOW-HIGH", help="Density, g/cm³.")] = None,
    neutral: Annotated[bool, typer.Option("--neutral", help="Compositions that can be charge neutral.")] = False,
    method: Annotated[Method, typer.Option(help="How to go through the latent space.")] = "guided",
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    predictor: Annotated[
        str | None,
        typer.Option(metavar="NAME|PATH", help="Of properties from codes; the one of the checkpoint's name else."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Independent predictor; likewise, if it knows all goals; 'none': no judge."
        ),
    ] = None,
    oracle: Annotated[
        str | None, typer.Option(metavar="MODULE:FUNCTION", help="A function from structures to values as the judge.")
    ] = None,
    calculator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Relax the best of each start: emt, chgnet, module:function."),
    ] = None,
    lenient: Lenient = False,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Take a target outside the training data's range.")
    ] = False,
    draws: Annotated[
        int, typer.Option(min=1, help="Decodings of each code; the truest is kept. More help where the decoder errs.")
    ] = 1,
    steps: Steps = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Starts at a time; what a kill can lose.")] = 25,
    seed: Seed = 0,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of these options.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Search the latent space for crystals with a property, judge them by an independent model, and rank them.

    Ctrl-C leaves the results of the starts that are done; the same command with --resume goes on.
    """
    if overwrite and resume:
        raise typer.BadParameter("choose one: --overwrite starts anew, --resume goes on", param_hint="--resume")
    if minimize + maximize + (target is not None) > 1:
        raise typer.BadParameter("choose one of --minimize, --maximize, --target", param_hint="--target")
    if judge is not None and oracle is not None:
        raise typer.BadParameter("choose one: --judge or --oracle", param_hint="--oracle")
    size_range = parse_range(num_atoms, "--num-atoms")
    density_range = parse_range(density, "--density")
    check_checkpoint(checkpoint)
    if method != "bayesian":
        _check_predictor(predictor, checkpoint, "LatentPredictor", "--predictor")
    if oracle is None and judge != "none":
        _check_predictor(judge, checkpoint, "PropertyPredictor", "--judge")

    from cdvae_kit.generation.front_door import load_code_model
    from cdvae_kit.generation.optimization.bayesian_search import BayesianSearch, require_botorch
    from cdvae_kit.generation.optimization.constraints import Constraints, elements
    from cdvae_kit.generation.optimization.latent_optimizers import GuidedSearch, PublishedDescent
    from cdvae_kit.generation.optimization.run import optimize as run
    from cdvae_kit.models import CDVAE

    goals = _goals(properties, maximize=maximize, target=target)
    constraints = Constraints(
        allowed=None if allowed is None else elements(allowed),
        required=() if required is None else elements(required),
        forbidden=() if forbidden is None else elements(forbidden),
        num_atoms=None if size_range is None else (int(size_range[0]), int(size_range[1])),
        density=density_range,
        neutral=neutral,
    )
    if method == "bayesian":
        require_botorch()
    model = CDVAE.from_pretrained(checkpoint, device=device)
    constraints.check_model(model)
    names = tuple(goal.name for goal in goals)
    read = functools.partial(read_batch, max_atoms=model.config.max_atoms, lenient=lenient, for_model=True)
    starts = num_starts if data is None else _first(read(data), num_starts)
    with progress_bar("Optimising", "starts") as progress:
        try:
            result = run(
                model,
                goals,
                predictor=None if method == "bayesian" else load_code_model(predictor or checkpoint, model, device),
                judge=_judge(judge, checkpoint, oracle, names, device),
                starts=starts,
                optimizer={"guided": GuidedSearch, "published": PublishedDescent, "bayesian": BayesianSearch}[method](),
                constraints=constraints,
                relax=None if calculator is None else _relaxer(calculator, device),
                reference=None if reference is None else read(reference),
                allow_outside=allow_outside,
                num_draws=draws,
                steps=steps,
                output=output,
                batch_size=batch_size,
                seed=seed,
                resume=resume,
                overwrite=overwrite,
                progress=progress,
            )
        except KeyboardInterrupt as interrupt:
            if progress.num_done:
                interrupt.add_note(f"{output} holds the results of {progress.num_done} starts; --resume goes on")
            raise
    _print(result, goals, constraints)
    print_written(output)


def _check_predictor(given: str | None, checkpoint: str, kind: ModelKind, option: str) -> None:
    """Raises where there is no predictor; without one of its own, an autoencoder's name is taken for its too."""
    if given is None and Path(checkpoint).exists():
        raise typer.BadParameter(f"the package carries none for {checkpoint}: train and give one", param_hint=option)
    try:
        check_checkpoint(given or checkpoint, kind)
    except FileNotFoundError as error:
        if given is not None:
            raise
        there = ", ".join(carried_names(home_of(kind)))
        raise typer.BadParameter(
            f"the package carries none for {checkpoint}, but for {there}: give one, or -c with one of these",
            param_hint=option,
        ) from error


def parse_range(text: str | None, option: str) -> tuple[float, float] | None:
    """`3-8` or `5`, as the two ends.

    >>> parse_range("3-8", "--num-atoms"), parse_range("5", "--num-atoms")
    ((3.0, 8.0), (5.0, 5.0))
    """
    if text is None:
        return None
    low, dash, high = text.partition("-")
    try:
        ends = float(low), float(high if dash else low)
    except ValueError:
        raise typer.BadParameter(f"expected a range such as 2-6, got {text!r}", param_hint=option) from None
    if option == "--num-atoms" and not all(end.is_integer() for end in ends):
        raise typer.BadParameter(f"expected integers, numbers of atoms, got {text!r}", param_hint=option)
    return ends


def _goals(properties: list[str], *, maximize: bool, target: float | None) -> list[Goal]:
    from cdvae_kit.generation.optimization.objectives import Goal

    if target is not None and len(properties) > 1:
        raise typer.BadParameter("with several properties give each its own: --property NAME=VALUE")
    goals = []
    for word in properties:
        name, sign, value = word.partition("=")
        if sign:
            try:
                goals.append(Goal(name, "target", float(value)))
            except ValueError as error:
                raise typer.BadParameter(f"expected NAME=VALUE, got {word!r}", param_hint="--property") from error
        elif target is not None:
            goals.append(Goal(name, "target", target))
        else:
            goals.append(Goal(name, "maximize" if maximize else "minimize"))
    return goals


def _first(crystals: Any, num: int) -> Any:
    if len(crystals) < num:
        print_note(f"the file holds {len(crystals)} crystals, fewer than the {num} starts asked for")
    return crystals.select(range(min(num, len(crystals))))


def _judge(name: str | None, checkpoint: str, oracle: str | None, names: tuple[str, ...], device: str) -> Any:
    from cdvae_kit.generation.front_door import carried_judge, load_judge
    from cdvae_kit.generation.optimization.oracles import FunctionJudge, load_oracle

    if oracle is not None:
        return FunctionJudge(load_oracle(oracle), names, oracle)
    if name == "none":
        return None
    if name is None:
        return carried_judge(checkpoint, names, device, tell=print_note)
    return load_judge(name, names, device)


def _relaxer(name: str, device: str) -> Any:
    from cdvae_kit.generation.optimization.relaxers import calculator_relaxer

    return calculator_relaxer(name, device=device)


def _print(result: OptimizationResult, goals: list[Goal], constraints: Constraints) -> None:
    summary = result.summary
    if result.candidates is not None:
        print_table(candidate_table(result, goals), candidates=candidate_rows(result))
    print_result(
        f"{summary['num_trials']} crystals decoded from {summary['num_starts']} starts, {summary['num_passed']} valid "
        f"and within the constraints ({constraints.describe()}), {summary['num_candidates']} different candidates",
        summary=dict(summary),
    )
    for rate in summary["success"]:
        shares = [
            f"{100 * rate[kind]:.0f} % by the {who}"
            for kind, who in (("by_judge", "judge"), ("by_predictor", "optimised predictor"))
            if rate[kind] is not None
        ]
        which = "" if rate["percentile"] is None else f" ({rate['percentile']:g} % of the reference)"
        print_result(f"starts that reach {rate['goal']} {rate['threshold']:.4g}{which}: {', '.join(shares)}")
    errors = ", ".join(f"{name} {value:.3g}" for name, value in summary["judge_error"].items())
    print_result(
        f"ranked by: {summary['ranked_by']}" + (f"; its error on held-out crystals: {errors}" if errors else "")
    )
    if "winners" in summary:
        far = summary["winners"]
        print_result(
            f"winners lie {far['median_latent_distance']:.2g} from the reference in the latent space (crystals of the "
            f"reference from each other: {far['usual_latent_distance']:.2g}); {100 * far['new_share']:.0f} % are new"
        )


def candidate_rows(result: OptimizationResult) -> list[dict[str, Any]]:
    """All candidates, the best first, with every number that is known of them."""
    candidates = result.candidates
    assert candidates is not None
    names = candidates.material_ids or [""] * len(candidates)
    columns = {name: values.tolist() for name, values in candidates.properties.items()}
    return [
        {
            "name": names[i],
            "formula": formula,
            "num_atoms": int(candidates.num_atoms[i]),
            **{name: values[i] for name, values in columns.items()},
        }
        for i, formula in enumerate(candidates.formulas())
    ]


def candidate_table(result: OptimizationResult, goals: list[Goal]) -> Table:
    """One row a candidate, the best first, at most `MAX_ROWS`."""
    from cdvae_kit.metrics.crystals import as_arrays, formula

    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for title in ("#", "name", "formula", "atoms"):
        table.add_column(title, justify="left" if title in ("name", "formula") else "right")
    for goal in goals:
        table.add_column(f"{escape(goal.name)}\njudge", justify="right")
        table.add_column(f"{escape(goal.name)}\npredictor", justify="right")
    assert result.candidates is not None
    shown = result.candidates.select(range(min(MAX_ROWS, len(result.candidates))))
    for i, crystal in enumerate(as_arrays(shown)):
        values = []
        for goal in goals:
            for kind in ("judged", "reread"):
                column = shown.properties.get(f"{kind}_{goal.name}")
                values.append("-" if column is None or not bool(column[i].isfinite()) else f"{float(column[i]):.4g}")
        name = (shown.material_ids or [""] * len(shown))[i]
        table.add_row(
            str(i + 1), escape(name), formula(crystal.reduced_composition), str(len(crystal.atomic_numbers)), *values
        )
    return table
