"""`generate-crystals evaluate`: how good a set of crystals is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cdvae_kit.cli.console import print_note, print_result, progress_bar
from cdvae_kit.cli.options import Device, Overwrite

if TYPE_CHECKING:
    from cdvae_kit.metrics.coverage import Cutoffs
    from cdvae_kit.metrics.crystal_set import CrystalSet
    from cdvae_kit.metrics.evaluation import Encode

CompositionRuleName = Literal["smact-2014", "smact", "charge"]
"""`cdvae_kit.metrics.CompositionRule`; a test holds the two together."""


def evaluate(
    generated: Annotated[Path, typer.Argument(metavar="GENERATED", exists=True, help="Crystals to judge: any format.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", "-r", metavar="REF", exists=True, help="What they should resemble.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for metrics.json and crystals.csv.")
    ] = Path("evaluation"),
    coverage_cutoffs: Annotated[
        str, typer.Option(metavar="perov_5|carbon_24|mp_20|S,C", help="When crystals are near; S,C are two distances.")
    ] = "mp_20",
    composition_rule: Annotated[
        CompositionRuleName, typer.Option(help="smact-2014 is what published numbers rest on.")
    ] = "smact-2014",
    latent_model: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Weights whose latent space gives the Fréchet distance.")
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of draws and intervals.")] = 0,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes; -1 takes every core.")] = 1,
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first crystal that cannot be read.")] = False,
) -> None:
    """Judge crystals: validity, coverage, distributions, symmetry, and more with more to compare them with."""
    cutoffs = parse_cutoffs(coverage_cutoffs)

    from cdvae_kit.cli.evaluation_table import print_evaluation
    from cdvae_kit.metrics.evaluation import EvaluationSettings
    from cdvae_kit.metrics.evaluation import evaluate as evaluate_crystals
    from cdvae_kit.metrics.evaluation_files import refuse_evaluation, save_evaluation

    refuse_evaluation(output, overwrite=overwrite)
    settings = EvaluationSettings(rule=composition_rule, cutoffs=cutoffs, seed=seed)
    ours = read_set(generated, strict=strict, workers=workers)
    theirs = None if reference is None else read_set(reference, strict=strict, workers=workers)
    found = evaluate_crystals(
        ours,
        reference=theirs,
        settings=settings,
        encode=None if latent_model is None else encoder_of(latent_model, device),
        num_workers=workers,
        progress=progress_bar,
    )
    print_evaluation(found)
    for path in save_evaluation(found, output, overwrite=overwrite):
        print_result(f"written to {path}")


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


def encoder_of(name_or_path: str, device: str) -> Encode:
    """Crystals to codes, by the encoder of a model."""
    from cdvae_kit.generation import latent_codes
    from cdvae_kit.models import CDVAE

    model = CDVAE.from_pretrained(name_or_path, device=device)
    return lambda crystals: latent_codes(model, crystals)


def read_set(path: Path, *, strict: bool, workers: int) -> CrystalSet:
    """The crystals of a file or folder, each record in its place; those that cannot be read are counted aloud."""
    from cdvae_kit.metrics.crystal_set import read_crystal_set

    with progress_bar(f"Reading {path.name}", "crystals") as progress:
        crystals = read_crystal_set(path, strict=strict, num_workers=workers, progress=progress)
    if crystals.num_unread:
        print_note(f"{path}: {crystals.num_unread} of {len(crystals)} records hold no crystal; they count as failures")
    return crystals
