"""`generate-crystals train`: a model of one's own, from a preset and crystals."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cdvae_kit.cli.console import log_to_stderr, print_result, progress_bar
from cdvae_kit.cli.options import Device, Lenient, Overwrite
from cdvae_kit.cli.outcome import tell_what_is_kept


def train(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME|PATH",
            help="A data set's name, a folder with train and val, or one file of crystals, of which a tenth "
            "chooses the weights.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where checkpoints and logs go.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings that differ from the preset's, as in model.latent_dim=64."),
    ] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            metavar="NAME",
            help="A column of the data that z is to tell as well, as model.properties; can be repeated. With --init it "
            "comes beside the model's own.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The settings to start from, or a TOML file; unless given perov_5, or with --init those of "
            "that model, a small learning rate, and an end when validation no longer gains.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER", help="A trained model whose weights training starts from."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="One unreadable record is an error.")] = False,
    lenient: Lenient = False,
    device: Device = "auto",
    num_devices: Annotated[int | None, typer.Option(min=1, help="Devices on each machine.")] = None,
    num_nodes: Annotated[int | None, typer.Option(min=1, help="Machines.")] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="How devices share the work: auto or ddp.")
    ] = None,
    precision: Annotated[str | None, typer.Option(metavar="NAME", help="32-true or bf16-mixed.")] = None,
) -> None:
    """Train a model and save its weights, its logs and a plot of its loss.

    Ctrl-C leaves the last state; the same command with --resume goes on from there.
    """
    if overwrite and resume:
        raise typer.BadParameter("choose one: --overwrite starts anew, --resume goes on", param_hint="--resume")
    named = {"num_devices": num_devices, "num_nodes": num_nodes, "strategy": strategy, "precision": precision}
    words = [*(overrides or []), *(f"training.{key}={value}" for key, value in named.items() if value is not None)]
    if properties and init is None:
        # the words are TOML, in which JSON's lists of text are lists of text
        words.append(f"model.properties={json.dumps(properties)}")

    from cdvae_kit.generation import train_model

    log_to_stderr()
    with tell_what_is_kept(output):
        result = train_model(
            preset=preset,
            data=data,
            output=output,
            overrides=words,
            properties=(properties or []) if init is not None else [],
            init=init,
            resume=resume,
            overwrite=overwrite,
            device=device,
            strict=strict,
            lenient=lenient,
            reading=lambda: progress_bar("Reading", "crystals"),
        )
    if result.is_main:
        print_result(
            f"{result.steps} steps ({result.skipped_steps} skipped) in {result.seconds:.0f} s, validation loss "
            f"{result.best_loss:.4f} at step {result.best_step}"
        )
        print_result(f"trained model: {result.output_dir / 'model'}")
