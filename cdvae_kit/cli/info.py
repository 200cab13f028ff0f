"""`generate-crystals info`: what is installed, what comes with it, what a data set is, and what a file is."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.json import JSON
from rich.markup import escape
from rich.table import Table

from cdvae_kit.cli.console import print_result, print_table
from cdvae_kit.cli.files import read_batch
from cdvae_kit.cli.options import Lenient
from cdvae_kit.io.crystals.formats import query_of

PACKAGES = ("torch", "torch-geometric", "torch-scatter", "e3nn", "lightning", "pymatgen", "ase", "moyopy", "smact")


def _completed(incomplete: str) -> list[str]:
    from cdvae_kit.datasets.registry import DATASETS
    from cdvae_kit.io.carried import carried_names, home_of

    return sorted(name for name in {*DATASETS, *carried_names(home_of("CDVAE"))} if name.startswith(incomplete))


def info(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|PATH]",
            help="A data set or weights, by name; the folder of a checkpoint or a run; a file of crystals.",
            autocompletion=_completed,
        ),
    ] = None,
    lenient: Lenient = False,
) -> None:
    """Tell what is installed, which weights and data sets there are, or what NAME or PATH is.

    A name can stand for a data set and for weights trained on it: both are told.
    """
    from cdvae_kit.datasets.registry import DATASETS
    from cdvae_kit.io.carried import carried_names, home_of, is_reference

    if what is None:
        _describe_installation()
        return
    path = Path(what)
    if is_reference(what) or _is_checkpoint(path):
        _describe_checkpoint(what)
    elif query_of(what) or path.exists():
        _describe_crystals(path, lenient=lenient)
    else:
        names = carried_names(home_of("CDVAE"))
        if what not in DATASETS and what not in names:
            known = ", ".join(dict.fromkeys([*DATASETS, *names]))
            raise typer.BadParameter(f"there is no file, data set or model {what!r}; the names are {known}")
        if what in DATASETS:
            _describe_dataset(what)
        if what in names:
            _describe_model(what)


def _describe_installation() -> None:
    from cdvae_kit import __version__
    from cdvae_kit.datasets.registry import DATASETS
    from cdvae_kit.models import pretrained_names
    from cdvae_kit.models.pretrained import load

    versions = {"cdvae-kit": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in PACKAGES}
    print_table(_table("Versions", ("package", "version"), list(versions.items())), versions=versions)
    print_result(f"devices: {', '.join(_devices())}", devices=_devices())

    weights: list[dict[str, Any]] = []
    for name in pretrained_names():
        config, _, card = load(name)
        weights.append({"name": name, "samplers": _samplers(config), "card": _facts(card)})
    shown: list[tuple[str, ...]]
    shown = [(row["name"], ", ".join(row["samplers"]), _one_line(row["card"])) for row in weights]
    print_table(_table("Weights", ("name", "samplers", "card"), shown), weights=weights)

    predictors = _predictors()
    shown = [(row["name"], row["from"], ", ".join(row["properties"])) for row in predictors]
    print_table(_table("Predictors", ("name", "from", "properties"), shown), predictors=predictors)

    sets: list[dict[str, Any]] = [
        {
            "name": name,
            "num_crystals": sum(entry.num_crystals.values()),
            "summary": entry.summary,
            "licence": entry.licence,
        }
        for name, entry in DATASETS.items()
    ]
    shown = [(row["name"], f"{row['num_crystals']:,}", row["summary"], row["licence"]) for row in sets]
    print_table(_table("Data sets", ("name", "crystals", "what", "licence"), shown), datasets=sets)


def _predictors() -> list[dict[str, Any]]:
    """What the package carries: each predictor's name, what it sees, and the properties that it knows."""
    from cdvae_kit.models import latent_predictor, property_predictor
    from cdvae_kit.models.predictor_config import LatentPredictorConfig, PredictorSettings, PropertyPredictorConfig
    from cdvae_kit.models.pretrained import load_settings, predictor_names

    kinds: tuple[tuple[str, str, type[PredictorSettings]], ...] = (
        ("crystal", property_predictor.WEIGHTS_FOLDER, PropertyPredictorConfig),
        ("z", latent_predictor.WEIGHTS_FOLDER, LatentPredictorConfig),
    )
    found = []
    for sees, folder, schema in kinds:
        for name in predictor_names(folder):
            config, _, _ = load_settings(name, schema, folder=folder, expected=())
            found.append({"name": name, "from": sees, "properties": list(config.properties)})
    return found


def _describe_dataset(name: str) -> None:
    from cdvae_kit.datasets.registry import dataset_info, describe_dataset

    entry = dataset_info(name)
    facts = {
        "name": name,
        "summary": entry.summary,
        "num_crystals": dict(entry.num_crystals),
        "max_atoms": entry.max_atoms,
        "properties": [{"name": one.name, "unit": one.unit, "meaning": one.meaning} for one in entry.properties],
        "licence": entry.licence,
        "citations": list(entry.citations),
        "note": entry.note,
    }
    print_result(f"data set {describe_dataset(name)}\natoms: up to {entry.max_atoms}", dataset=facts)


def _describe_model(name: str) -> None:
    """What the weights take, and how good they are."""
    from cdvae_kit.models import CDVAE
    from cdvae_kit.models.pretrained import locate

    model = CDVAE.from_pretrained(name, device="cpu")
    elements = _symbols(model.known_elements.tolist())
    facts = {
        "name": name,
        "max_atoms": model.config.max_atoms,
        "elements": elements,
        "space_groups": model.symmetry_head.known_groups.nonzero().flatten().tolist(),
        "num_parameters": model.num_parameters(),
        "samplers": _samplers(model.config),
        "card": _facts(model.card),
    }
    groups = facts["space_groups"]
    print_result(
        f"weights {name}: {model}\n"
        f"elements ({len(elements)}): {' '.join(elements)}\n"
        f"atoms in the primitive cell: 1 to {model.config.max_atoms}\n"
        f"space groups: {len(groups)}\n"
        f"samplers: {', '.join(facts['samplers'])}",
        model=facts,
    )
    card = locate(name) / "card.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        print_result(text.partition("\n")[2].strip(), quality=text)


def _is_checkpoint(path: Path) -> bool:
    from cdvae_kit.io.carried import RUN_MODEL

    return any(place.is_dir() and any(place.glob("*.safetensors")) for place in (path, path / RUN_MODEL))


def _describe_checkpoint(what: str) -> None:
    from cdvae_kit.io import load_checkpoint
    from cdvae_kit.models.pretrained import locate

    place = locate(what)
    checkpoint = load_checkpoint(place)
    numbers = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    print_result(f"checkpoint {place}: {numbers:,} numbers", checkpoint=str(place), num_numbers=numbers)
    about = {name: checkpoint.metadata.get(name, {}) for name in ("card", "config")}
    print_table(JSON(json.dumps(about)), **about)


def _describe_crystals(path: Path, *, lenient: bool) -> None:
    from cdvae_kit.cli.table import print_crystals

    crystals = read_batch(path, lenient=lenient)
    print_crystals(crystals)
    if crystals.properties:
        print_result(f"properties: {', '.join(sorted(crystals.properties))}", properties=sorted(crystals.properties))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns, title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _samplers(config: Any) -> list[str]:
    return [] if config is None else list(config.noise.samplers)


def _symbols(atomic_numbers: Sequence[int]) -> list[str]:
    from pymatgen.core import Element

    return [Element.from_Z(number).symbol for number in atomic_numbers]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    import torch

    threads = torch.get_num_threads()
    devices = [f"cpu ({threads} thread{'s' if threads > 1 else ''})"]
    devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices


def _facts(card: dict[str, Any]) -> dict[str, Any]:
    """What a card says in a word or a number."""
    return {key: value for key, value in card.items() if isinstance(value, str | int | float)}


def _one_line(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())
