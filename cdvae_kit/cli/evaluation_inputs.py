"""What the options of `evaluate` mean: files to sets, names to models and calculators, contradictions to errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from cdvae_kit.cli.console import print_note, progress_bar

if TYPE_CHECKING:
    from cdvae_kit.metrics.coverage import Cutoffs
    from cdvae_kit.metrics.crystal_set import CrystalSet
    from cdvae_kit.metrics.evaluation_result import Evaluation
    from cdvae_kit.metrics.evaluation_settings import EvaluationSettings
    from cdvae_kit.metrics.evidence import Encode, PropertyFunction
    from cdvae_kit.metrics.metric import Metric
    from cdvae_kit.metrics.relaxing import StabilityRequest
    from cdvae_kit.relaxation import ReferenceHull

REPORT_FILE = "report.html"


def parse_cutoffs(value: str) -> str | Cutoffs:
    """A name of published cutoffs, or two distances with a comma between them.

    >>> parse_cutoffs("perov_5"), parse_cutoffs("0.3,6")
    ('perov_5', Cutoffs(structure=0.3, composition=6.0))
    """
    from cdvae_kit.metrics.coverage import COVERAGE_CUTOFFS, Cutoffs

    if value in COVERAGE_CUTOFFS:
        return value
    parts = value.split(",")
    try:
        structure, composition = (float(part) for part in parts)
        return Cutoffs(structure, composition)
    except ValueError:
        raise typer.BadParameter(
            f"expected {', '.join(COVERAGE_CUTOFFS)} or two distances as in 0.4,10, got {value!r}",
            param_hint="--coverage-cutoffs",
        ) from None


def check_options(
    *,
    reference: Path | None,
    pairs: tuple[bool, bool],
    hull: Path | None,
    calculator: str | None,
    latent_model: str | None,
    embeddings: str | None = None,
) -> None:
    """Raises for options that need another one, before anything is read; `pairs`: --reconstruction and --metre."""
    needs_reference = {
        "--reconstruction": pairs[0],
        "--metre": pairs[1],
        "--latent-model": latent_model is not None,
        "--embeddings": embeddings is not None,
    }
    for name, given in needs_reference.items():
        if given and reference is None:
            raise typer.BadParameter("needs --reference, the crystals to compare with", param_hint=name)
    if hull is not None and calculator is None:
        raise typer.BadParameter("needs --calculator, whose energies the hull's are", param_hint="--hull")
    if calculator is not None and hull is None and reference is None:
        raise typer.BadParameter("needs --hull, or --reference to make one of", param_hint="--calculator")


def stability_request(
    calculator: str | None,
    hull: Path | None,
    *,
    threshold: float,
    fmax: float,
    max_steps: int,
    device: str,
    mp_corrections: bool | None = None,
) -> StabilityRequest | None:
    """How to judge stability; a calculator that cannot be had is an error here, not after an hour."""
    if calculator is None:
        return None
    from cdvae_kit.metrics.relaxing import StabilityRequest

    find_calculator(calculator, device)
    return StabilityRequest(
        calculator,
        None if hull is None else read_hull(hull),
        fmax=fmax,
        max_steps=max_steps,
        threshold=threshold,
        device=device,
        mp_corrections=mp_corrections,
    )


def read_hull(path: Path) -> ReferenceHull:
    """The hull of a file of phases, or of formation energies: a table that has them, or a folder of such tables."""
    from cdvae_kit.io.crystals.phases import has_formation_energies, read_formation_energies, read_phases
    from cdvae_kit.relaxation import ReferenceHull, formation_hull, phases_of

    tables = sorted(path.glob("*.csv*")) if path.is_dir() else [path]
    if path.is_dir() and not tables:
        raise typer.BadParameter(f"there is no .csv or .csv.gz in {path}", param_hint="--hull")
    if path.is_dir() or has_formation_energies(path):
        return formation_hull(read_formation_energies(tables), name=path.name)
    return ReferenceHull(phases_of(read_phases(path)), name=path.name)


def find_calculator(name: str, device: str) -> None:
    """Raises where there is no such calculator, before anything is read."""
    from cdvae_kit.relaxation import make_calculator

    if ":" in name and "" not in sys.path:
        # a module beside the user's files
        sys.path.insert(0, "")
    make_calculator(name, device=device)


def encoder_of(name_or_path: str, device: str) -> Encode:
    """Crystals to codes, by the encoder of a model."""
    from cdvae_kit.generation import latent_codes
    from cdvae_kit.models import CDVAE

    model = CDVAE.from_pretrained(name_or_path, device=device)
    return lambda crystals: latent_codes(model, crystals)


def embedder_of(name: str, device: str) -> Encode:
    """Crystals to the features of a potential."""
    from cdvae_kit.relaxation.embeddings import make_embedder

    return make_embedder(name, device=device)


def predictors_of(name_or_path: str, device: str) -> dict[str, PropertyFunction]:
    """Properties to functions of crystals, by the networks of a predictor."""
    from cdvae_kit.generation.codes_and_properties import property_functions
    from cdvae_kit.models.property_predictor import PropertyPredictor

    return property_functions(PropertyPredictor.from_pretrained(name_or_path, device=device))


class ProtocolSettings(NamedTuple):
    """What a protocol sets, of the evaluation and of stability."""

    settings: EvaluationSettings
    stability: Mapping[str, float]


def of_protocol(name: str, settings: EvaluationSettings, context: typer.Context) -> ProtocolSettings:
    """The settings of a protocol; an option that says otherwise is an error."""
    from cdvae_kit.metrics.protocols import clashes, protocol_of, protocol_settings

    options = {"rule": "composition_rule"}
    names = ("matcher", "fingerprints", "num_samples", "threshold", "fmax", "max_steps")
    given = {
        key: context.params[options.get(key, key)]
        for key in ("rule", *names)
        # typer has no name of its own for it
        if getattr(context.get_parameter_source(options.get(key, key)), "name", "") == "COMMANDLINE"
    }
    if wrong := clashes(name, given):
        listed = ", ".join(f"--{options.get(key, key).replace('_', '-')}" for key in wrong)
        raise typer.BadParameter(
            f"{name} sets {listed}: leave it out, or leave the protocol out", param_hint="--protocol"
        )
    return ProtocolSettings(protocol_settings(name, settings), protocol_of(name).stability)


def print_protocol(name: str, num_generated: int) -> None:
    """What the protocol set, and what is not as there."""
    from cdvae_kit.metrics.protocols import protocol_of

    protocol = protocol_of(name)
    print_note(f"protocol {name} ({protocol.source}) sets {protocol.describe()}")
    for difference in protocol.differences(num_generated):
        print_note(f"not as there: {difference}")


def own_metrics(names: Sequence[str]) -> list[Metric]:
    """The user's own metrics; one that cannot be had is an error here, not after an hour."""
    from cdvae_kit.metrics.user_metrics import load_metric

    found = []
    for name in names:
        try:
            found.append(load_metric(name))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--metric") from error
    return found


def known_units() -> dict[str, str]:
    """Units of the public data sets' columns."""
    from cdvae_kit.datasets import DATASETS

    return {info.name: info.unit for entry in DATASETS.values() for info in entry.properties}


def read_set(path: Path, *, strict: bool, lenient: bool, workers: int) -> CrystalSet:
    """The crystals of a file or folder, each record at its own index; a note says how many cannot be read."""
    from cdvae_kit.metrics.crystal_set import read_crystal_set

    with progress_bar(f"Reading {path.name}", "crystals") as progress:
        crystals = read_crystal_set(path, strict=strict, lenient=lenient, num_workers=workers, progress=progress)
    if crystals.num_unread:
        print_note(f"{path}: {crystals.num_unread} of {len(crystals)} records hold no crystal; they count as failures")
    return crystals


@contextmanager
def no_store() -> Iterator[None]:
    """Where nothing is to be kept."""
    yield None


def with_files(evaluation: Evaluation, *, generated: Path, reference: Path | None, train: Path | None) -> Evaluation:
    """The same with the names of the files and the command among its settings."""
    files = {"generated": generated, "reference": reference, "train": train}
    names = {kind: path.name for kind, path in files.items() if path is not None}
    command = " ".join(["generate-crystals", *sys.argv[1:]]) if sys.argv[1:2] == ["evaluate"] else None
    return replace(evaluation, settings={**evaluation.settings, "files": names, "command": command})
