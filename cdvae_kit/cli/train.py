"""`generate-crystals train`: a model of one's own, from a preset and crystals."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cdvae_kit.cli.checks import check_checkpoint, check_data, check_preset
from cdvae_kit.cli.console import log_to_stderr, print_result, print_table, printing_as, progress_bar
from cdvae_kit.cli.options import Device, Lenient, Overwrite
from cdvae_kit.cli.outcome import tell_what_is_kept
from cdvae_kit.training.preset_files import preset_names


def _completed(incomplete: str) -> list[str]:
    return [name for name in preset_names() if name.startswith(incomplete)]


def _list_presets(context: typer.Context, wanted: bool) -> None:
    """Prints the presets and ends, whatever else is asked for, or missing."""
    if not wanted:
        return
    from cdvae_kit.training import describe_presets

    rows = describe_presets()
    with printing_as(as_json=context.params["as_json"], quiet=context.params["quiet"]):
        print_table(preset_table(rows), presets=rows)
    raise typer.Exit


def preset_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One row a preset."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    table.add_column("preset")
    table.add_column("what for", overflow="fold")
    for title in ("atoms, at most", "code", "symmetry", "ends after"):
        table.add_column(title)
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "summary", "max_atoms", "latent_dim", "symmetry", "ends")))
    return table


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
            metavar="NAME|FILE",
            help=f"The settings to start from: {', '.join(preset_names())}, or a TOML file of one's own; unless given "
            "perov_5, or with --init those of that model, a small learning rate, and an end when validation no longer "
            "gains.",
            autocompletion=_completed,
        ),
    ] = None,
    list_presets: Annotated[
        bool, typer.Option("--list-presets", callback=_list_presets, help="List the presets and end.")
    ] = False,
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
    loggers: Annotated[
        list[str] | None,
        typer.Option(
            "--logger",
            metavar="csv|tensorboard|wandb",
            help="Where the losses go; can be repeated. metrics.csv is always written; unless given, TensorBoard's log "
            "too where it is installed.",
        ),
    ] = None,
) -> None:
    """Train a model and save its weights, its logs and a plot of its loss.

    Ctrl-C leaves the last state; the same command with --resume goes on from there.
    """
    if overwrite and resume:
        raise typer.BadParameter("choose one: --overwrite starts anew, --resume goes on", param_hint="--resume")
    named = {"num_devices": num_devices, "num_nodes": num_nodes, "strategy": strategy, "precision": precision}
    words = [*(overrides or []), *(f"training.{key}={value}" for key, value in named.items() if value is not None)]
    if loggers:
        words.append(f"training.loggers={json.dumps(loggers)}")
    if properties and init is None:
        # the words are TOML, in which JSON's lists of text are lists of text
        words.append(f"model.properties={json.dumps(properties)}")

    # with --init the settings are that model's, of which these words are changes all the same
    check_preset(preset or "perov_5", words)
    check_data(data)
    if init is not None:
        check_checkpoint(init)

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
            f"{result.best_loss:.4f} at step {result.best_step}",
            steps=result.steps,
            skipped_steps=result.skipped_steps,
            seconds=result.seconds,
            best_loss=result.best_loss,
            best_step=result.best_step,
        )
        folder = result.output_dir / "model"
        print_result(f"trained model: {folder}", model=str(folder))
        print_result(f"to make crystals of it: generate-crystals sample --checkpoint {result.output_dir}")
