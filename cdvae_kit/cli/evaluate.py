"""`generate-crystals evaluate`: how good a set of crystals is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cdvae_kit.cli.console import print_note, print_written, progress_bar
from cdvae_kit.cli.options import Device, Lenient, Overwrite, crystals_there

CompositionRuleName = Literal["smact-2014", "smact", "smact-mixed", "charge"]
"""`cdvae_kit.metrics.CompositionRule`; a test holds the two together."""

MatcherChoice = Literal["mattergen", "mattergen-disordered", "lemat", "cdvae"]
"""`cdvae_kit.metrics.MatcherName`, likewise."""

ProtocolChoice = Literal["cdvae", "diffcsp", "mattergen", "lemat", "omatg", "crystalite"]
"""`cdvae_kit.metrics.protocols.ProtocolName`, likewise."""

BackendName = Literal["processes", "dask", "ray"]
"""`cdvae_kit.metrics.computing.cluster.Backend`, likewise."""

_COMPARE = "What to compare with"
_JUDGE = "How to judge"
_STABLE = "Stability"
_WORK = "How to work"


def evaluate(
    context: typer.Context,
    generated: Annotated[
        Path, typer.Argument(metavar="GENERATED", callback=crystals_there, help="Crystals to judge: any format.")
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            "-r",
            metavar="REF",
            callback=crystals_there,
            rich_help_panel=_COMPARE,
            help="What they should resemble.",
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="TRAIN", callback=crystals_there, rich_help_panel=_COMPARE, help="Crystals that are not novel."
        ),
    ] = None,
    reconstruction: Annotated[
        bool,
        typer.Option(
            "--reconstruction", rich_help_panel=_COMPARE, help="Crystal i should be reference i: match rate, RMSE."
        ),
    ] = False,
    metre: Annotated[
        bool,
        typer.Option("--metre", rich_help_panel=_COMPARE, help="METRe and cRMSE: structures predicted, not paired."),
    ] = False,
    property: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", rich_help_panel=_COMPARE, help="A column to compare; all that both sets have if not given."
        ),
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", rich_help_panel=_COMPARE, help="Gives its properties, of both sets, as `predict` does."
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            metavar="chgnet",
            rich_help_panel=_COMPARE,
            help="Compare the features that a potential has of both sets (Fréchet distance).",
        ),
    ] = None,
    latent_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", rich_help_panel=_COMPARE, help="Weights whose latent space gives the Fréchet distance."
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for metrics.json and two tables."),
    ] = Path("evaluation"),
    report: Annotated[bool, typer.Option("--report", help="Write DIR/report.html too, with pictures.")] = False,
    coverage_cutoffs: Annotated[
        str | None,
        typer.Option(
            metavar="perov_5|carbon_24|mp_20|S,C",
            rich_help_panel=_JUDGE,
            help="When two crystals are near: mp_20's unless given. A data set's name puts its published numbers into "
            "the report.",
        ),
    ] = None,
    protocol: Annotated[
        ProtocolChoice | None,
        typer.Option(
            rich_help_panel=_JUDGE,
            help="As that paper judges: sets rule, matcher, thresholds, and says what it cannot set.",
        ),
    ] = None,
    composition_rule: Annotated[
        CompositionRuleName,
        typer.Option(rich_help_panel=_JUDGE, help="smact-2014 is what published numbers rest on."),
    ] = "smact-2014",
    matcher: Annotated[
        MatcherChoice, typer.Option(rich_help_panel=_JUDGE, help="Whose tolerances say that two crystals are the same.")
    ] = "mattergen",
    fingerprints: Annotated[
        bool, typer.Option(rich_help_panel=_JUDGE, help="Without them there is no coverage and no diversity.")
    ] = True,
    num_samples: Annotated[
        int, typer.Option(min=1, rich_help_panel=_JUDGE, help="Valid crystals that distances are taken of.")
    ] = 1000,
    extended: Annotated[
        bool,
        typer.Option(
            "--extended",
            rich_help_panel=_JUDGE,
            help="What costs more too: templates, and uniqueness, novelty and memorisation without a tolerance.",
        ),
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            rich_help_panel=_JUDGE,
            help="A metric of your own: from structures to one value each, or to one number. Repeatable.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=_JUDGE, help="Of draws and intervals.")] = 0,
    calculator: Annotated[
        str | None,
        typer.Option(
            metavar="emt|lj|chgnet|sevenn|mace|orb|mattersim|module:function",
            rich_help_panel=_STABLE,
            help="Relax by it; with --train the S.U.N. rates too.",
        ),
    ] = None,
    hull: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            exists=True,
            rich_help_panel=_STABLE,
            help="Phases by the same calculator, JSON or CSV, or formation energies, a table or folder of them as "
            "MP-20's; made of the reference and the elements if not given.",
        ),
    ] = None,
    mp_corrections: Annotated[
        bool | None,
        typer.Option(
            "--mp-corrections/--no-mp-corrections",
            rich_help_panel=_STABLE,
            help="Correct energies as the Materials Project does before they are compared with formation energies; "
            "by the calculator unless given.",
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0.0, rich_help_panel=_STABLE, help="eV/atom above the hull that is still metastable.")
    ] = 0.1,
    fmax: Annotated[float, typer.Option(rich_help_panel=_STABLE, help="eV/Å, at which a crystal is relaxed.")] = 0.05,
    max_steps: Annotated[
        int, typer.Option(min=0, rich_help_panel=_STABLE, help="Of a relaxation; 0 takes the energies as they are.")
    ] = 500,
    device: Device = "auto",
    workers: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=_WORK, help="Processes; -1 takes every core.")
    ] = 1,
    backend: Annotated[BackendName, typer.Option(rich_help_panel=_WORK, help="Where the processes are.")] = "processes",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", rich_help_panel=_WORK, help="Of the cluster's scheduler.")
    ] = None,
    cache: Annotated[
        bool, typer.Option(rich_help_panel=_WORK, help="Keep fingerprints and relaxed crystals for the next time.")
    ] = True,
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first crystal that cannot be read.")] = False,
    lenient: Lenient = False,
) -> None:
    """Judge crystals: validity, coverage, distributions, symmetry, uniqueness, novelty, stability.

    Ctrl-C keeps what is computed; the same command goes on from there.
    """
    from cdvae_kit.cli import evaluation_inputs as inputs

    cutoffs = inputs.parse_cutoffs(coverage_cutoffs or "mp_20")
    inputs.check_options(
        reference=reference,
        pairs=(reconstruction, metre),
        hull=hull,
        calculator=calculator,
        latent_model=latent_model,
        embeddings=embeddings,
    )

    from cdvae_kit.cli.evaluation_table import print_evaluation
    from cdvae_kit.io.atomic import several_files
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.metrics.computing.cluster import workers as cluster_workers
    from cdvae_kit.metrics.evaluation import EvaluationSettings
    from cdvae_kit.metrics.evaluation import evaluate as evaluate_crystals
    from cdvae_kit.metrics.evaluation_files import FILES, evaluation_folder, save_evaluation

    names = [*FILES, *([inputs.REPORT_FILE] if report else [])]
    # to the end of the command
    paths = context.with_resource(evaluation_folder(output, overwrite=overwrite, names=names))
    settings = EvaluationSettings(
        rule=composition_rule,
        cutoffs=cutoffs,
        matcher=matcher,
        fingerprints=fingerprints,
        num_samples=num_samples,
        seed=seed,
        extended=extended,
    )
    if protocol is not None:
        fixed = inputs.of_protocol(protocol, settings, context)
        settings, threshold = fixed.settings, fixed.stability.get("threshold", threshold)
        fmax, max_steps = fixed.stability.get("fmax", fmax), int(fixed.stability.get("max_steps", max_steps))
    own_metrics = inputs.own_metrics(metric or [])
    embed = None if embeddings is None else inputs.embedder_of(embeddings, device)
    stability = inputs.stability_request(
        calculator,
        hull,
        threshold=threshold,
        fmax=fmax,
        max_steps=max_steps,
        device=device,
        mp_corrections=mp_corrections,
    )
    ours, theirs, known = (
        None if path is None else inputs.read_set(path, strict=strict, lenient=lenient, workers=workers)
        for path in (generated, reference, train)
    )
    assert ours is not None
    with (
        ResultStore() if cache else inputs.no_store() as store,
        cluster_workers(backend, address=address, num_workers=workers),
    ):
        found = evaluate_crystals(
            ours,
            reference=theirs,
            train=known,
            paired=reconstruction,
            metre=metre,
            settings=settings,
            properties=property,
            predictors=None if predictor is None else inputs.predictors_of(predictor, device),
            units=inputs.known_units(),
            encode=None if latent_model is None else inputs.encoder_of(latent_model, device),
            embed=embed,
            stability=stability,
            num_workers=workers,
            store=store,
            progress=progress_bar,
            metrics=own_metrics,
        )
    found = inputs.with_files(found, generated=generated, reference=reference, train=train)
    print_evaluation(found)
    if protocol is not None:
        inputs.print_protocol(protocol, len(found.crystals))
    with several_files(paths, overwrite=overwrite):
        save_evaluation(found, output, overwrite=True)
        if report:
            from cdvae_kit.visualization import write_report

            # the default cutoffs say nothing of the data
            dataset = cutoffs if coverage_cutoffs is not None and isinstance(cutoffs, str) else None
            write_report(found, paths[-1], overwrite=True, dataset=dataset)
    for path in paths:
        print_written(path)
    print_note(f"composition rule {settings.rule}; {settings.structure_matcher.describe()}")
