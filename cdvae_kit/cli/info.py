"""`generate-crystals info`: what is installed, what comes with it, and what a file is."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cdvae_kit.cli.console import output as output_console
from cdvae_kit.cli.console import print_result
from cdvae_kit.cli.files import read_batch
from cdvae_kit.cli.options import Lenient

PACKAGES = ("torch", "torch-geometric", "torch-scatter", "e3nn", "lightning", "pymatgen", "ase", "moyopy", "smact")


def info(
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", exists=True, help="A checkpoint's folder or a file of crystals.")
    ] = None,
    lenient: Lenient = False,
) -> None:
    """Tell what is installed, which weights and data sets there are, or what PATH is."""
    console = output_console()
    if path is None:
        _describe_installation(console)
    elif _is_checkpoint(path):
        _describe_checkpoint(console, path)
    else:
        _describe_crystals(path, lenient=lenient)


def _describe_installation(console: Console) -> None:
    from cdvae_kit import __version__
    from cdvae_kit.datasets import DATASETS
    from cdvae_kit.models import latent_predictor, pretrained_names, property_predictor
    from cdvae_kit.models.predictor_config import LatentPredictorConfig, PredictorSettings, PropertyPredictorConfig
    from cdvae_kit.models.pretrained import load, load_settings, predictor_names

    versions = Table("package", "version", title="Versions", title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    versions.add_row("cdvae-kit", __version__)
    versions.add_row("python", platform.python_version())
    for name in PACKAGES:
        versions.add_row(name, _version(name))
    console.print(versions)
    print_result(f"devices: {', '.join(_devices())}")

    weights = Table("name", "card", title="Weights", title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for name in pretrained_names():
        _, _, card = load(name)
        weights.add_row(name, escape(_one_line(card)))
    console.print(weights)

    predictors = Table(
        "name", "from", "properties", title="Predictors", title_justify="left", header_style="bold", box=SIMPLE_HEAD
    )
    kinds: tuple[tuple[str, str, type[PredictorSettings]], ...] = (
        ("crystal", property_predictor.WEIGHTS_FOLDER, PropertyPredictorConfig),
        ("z", latent_predictor.WEIGHTS_FOLDER, LatentPredictorConfig),
    )
    for sees, folder, schema in kinds:
        for name in predictor_names(folder):
            config, _, _ = load_settings(name, schema, folder=folder, expected=())
            predictors.add_row(name, sees, escape(", ".join(config.properties)))
    console.print(predictors)

    datasets = Table(
        "name",
        "crystals",
        "what",
        "licence",
        title="Data sets",
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
    )
    for name, entry in DATASETS.items():
        datasets.add_row(name, f"{sum(entry.num_crystals.values()):,}", escape(entry.summary), escape(entry.licence))
    console.print(datasets)


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.safetensors"))


def _describe_checkpoint(console: Console, path: Path) -> None:
    from cdvae_kit.io import load_checkpoint

    checkpoint = load_checkpoint(path)
    print_result(f"checkpoint {path}: {sum(tensor.numel() for tensor in checkpoint.tensors.values()):,} numbers")
    console.print_json(json.dumps({name: checkpoint.metadata.get(name, {}) for name in ("card", "config")}))


def _describe_crystals(path: Path, *, lenient: bool) -> None:
    from cdvae_kit.cli.table import print_crystals

    crystals = read_batch(path, lenient=lenient)
    print_crystals(crystals)
    if crystals.properties:
        print_result(f"properties: {', '.join(sorted(crystals.properties))}")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    import torch

    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def _one_line(card: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in card.items() if isinstance(value, str | int | float))
