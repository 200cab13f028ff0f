"""`generate-crystals train-predictor`: a property predictor of one's own, from the crystal or from z.

A command of its own and not a kind of `train`: it has properties, parts and calibration, and no prior, preset or
sampler, so that hardly an option would mean the same.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cdvae_kit.cli.checks import check_checkpoint, check_data
from cdvae_kit.cli.console import log_to_stderr, print_result, progress_bar
from cdvae_kit.cli.options import DEFAULT_CHECKPOINT, Checkpoint, Device, Lenient, Overwrite
from cdvae_kit.cli.outcome import tell_what_is_kept


def train_predictor(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME|PATH",
            help="A data set, a folder (its train), or a file.",
        ),
    ],
    properties: Annotated[
        list[str], typer.Option("--property", metavar="NAME", help="A column of the data; can be repeated.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where checkpoints and logs go.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings of one's own, as in model.cutoff=5 or max_steps=2000."),
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option("--unit", metavar="UNIT", help="Of each property, in order; what is known of the data else."),
    ] = None,
    sees: Annotated[
        Literal["crystal", "z"], typer.Option("--from", help="The crystal, or the code that --checkpoint gives it.")
    ] = "crystal",
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    part: Annotated[
        str,
        typer.Option(
            metavar="LOW:HIGH",
            help="Which share of the crystals, ranked by a hash of their names: 0:0.3 and 0.3:1 have none in common.",
        ),
    ] = "0:1",
    num_folds: Annotated[
        int | None,
        typer.Option(min=2, help="Parts, of which each member leaves one out; as many as members unless given."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="One unreadable record is an error.")] = False,
    lenient: Lenient = False,
    half: Annotated[bool, typer.Option("--half", help="Write the weights in half precision.")] = False,
    device: Device = "auto",
) -> None:
    """Train an ensemble that predicts properties, and calibrate its intervals on crystals that it has not seen.

    Ctrl-C leaves the last state; the same command with --resume goes on from there.
    """
    if overwrite and resume:
        raise typer.BadParameter("choose one: --overwrite starts anew, --resume goes on", param_hint="--resume")
    bounds = _parse_part(part)
    check_data(data)
    if sees == "z":
        check_checkpoint(checkpoint)

    from cdvae_kit.generation.predictor_training import train_predictor as train

    log_to_stderr()
    with tell_what_is_kept(output):
        result = train(
            data=data,
            properties=properties,
            output=output,
            sees=sees,
            checkpoint=checkpoint,
            part=bounds,
            num_folds=num_folds,
            units=units or None,
            overrides=overrides or [],
            resume=resume,
            overwrite=overwrite,
            device=device,
            strict=strict,
            lenient=lenient,
            half=half,
            reading=lambda: progress_bar("Reading", "crystals"),
            fitting=lambda: progress_bar("Fitting", "steps"),
        )
    for name, error in result.calibration_error.items():
        unit = f" {result.units[name]}" if result.units[name] else ""
        print_result(
            f"{name}: mean absolute error {error:.4g}{unit} on {result.num_calibration} crystals that no member has "
            f"seen ({result.num_training} to learn from)",
            **{name: {"mean_absolute_error": float(error), "unit": result.units[name]}},
        )
    print_result(f"trained predictor: {result.model_dir}", model=str(result.model_dir))


def _parse_part(text: str) -> tuple[float, float]:
    """Two shares with a colon between them.

    >>> _parse_part("0.3:1")
    (0.3, 1.0)
    """
    low, colon, high = text.partition(":")
    try:
        bounds = float(low), float(high)
    except ValueError:
        colon = ""
        bounds = 0.0, 0.0
    if not colon or not 0.0 <= bounds[0] < bounds[1] <= 1.0:
        raise typer.BadParameter(
            f"expected two shares from 0 to 1, the smaller first, as in 0.3:1, got {text!r}", param_hint="--part"
        )
    return bounds
