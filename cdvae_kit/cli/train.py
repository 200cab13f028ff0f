"""`generate-crystals train`: a model of one's own, from a preset and a file of crystals."""

from pathlib import Path
from typing import Annotated

import typer

from cdvae_kit.cli.console import print_result
from cdvae_kit.cli.options import Device


def train(
    data: Annotated[
        Path,
        typer.Option(
            "--data", "-d", metavar="PATH", exists=True, help="A file of crystals, or a folder of train, val, test."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where checkpoints and logs go.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that differ from the preset's.")
    ] = None,
    preset: Annotated[str, typer.Option(metavar="NAME", help="The settings to start from.")] = "perov_5",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    device: Device = "auto",
    num_devices: Annotated[int, typer.Option(min=1, help="Devices on each machine.")] = 1,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    strategy: Annotated[str, typer.Option(metavar="NAME", help="How Lightning spreads the work.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(metavar="NAME", help="32-true, bf16-mixed and so on, as in Lightning.")
    ] = None,
) -> None:
    """Train a model and save its weights, its logs and a plot of its loss.

    Ctrl-C leaves the last checkpoint; the same command with --resume goes on from there.
    """
    settings = parse_overrides(overrides or [])

    from cdvae_kit.training import train as train_model

    folder = train_model(
        preset=preset,
        data=data,
        output=output,
        overrides=settings,
        resume=resume,
        device=device,
        num_devices=num_devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=precision,
    )
    print_result(f"trained model: {folder}")


def parse_overrides(words: list[str]) -> dict[str, str]:
    """`key=value` words as a table; the values stay text until the settings are checked.

    >>> parse_overrides(["model.latent_dim=64", "epochs=3"])
    {'model.latent_dim': '64', 'epochs': '3'}
    """
    settings: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"expected key=value, got {word!r}", param_hint="KEY=VALUE")
        if key.strip() in settings:
            raise typer.BadParameter(f"{key.strip()} is given twice", param_hint="KEY=VALUE")
        settings[key.strip()] = value.strip()
    return settings
