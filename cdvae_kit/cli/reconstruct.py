"""`generate-crystals reconstruct`: crystals through the encoder and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cdvae_kit.cli.checks import check_checkpoint, refuse_output
from cdvae_kit.cli.console import print_result, print_written, progress_bar
from cdvae_kit.cli.files import read_batch, tell_outside
from cdvae_kit.cli.options import (
    DEFAULT_CHECKPOINT,
    AllowOutside,
    BatchSize,
    Checkpoint,
    Device,
    Format,
    Lenient,
    Output,
    Overwrite,
    Seed,
    Steps,
    crystals_there,
    parse_batch_size,
)

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch


def reconstruct(
    crystals: Annotated[
        Path, typer.Argument(metavar="CRYSTALS", callback=crystals_there, help="A file or folder of crystals.")
    ],
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    steps: Steps = None,
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    allow_outside: AllowOutside = False,
    output: Output = Path("reconstructed.extxyz"),
    format: Format = "auto",
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first crystal that cannot be read.")] = False,
    lenient: Lenient = False,
    match: Annotated[bool, typer.Option(help="Compare each crystal with its original, by StructureMatcher.")] = True,
) -> None:
    """Encode crystals, decode them again and write what comes back, in the order of the input."""
    crystals_at_a_time = parse_batch_size(batch_size)

    check_checkpoint(checkpoint)
    refuse_output(output, format, overwrite=overwrite)

    from cdvae_kit.cli.table import print_crystals
    from cdvae_kit.generation import reconstruct as reconstruct_crystals
    from cdvae_kit.io import write_crystals
    from cdvae_kit.models import CDVAE

    model = CDVAE.from_pretrained(checkpoint, device=device)
    originals = read_batch(crystals, strict=strict, lenient=lenient, for_model=True)
    if allow_outside:
        tell_outside(model, originals)
    with progress_bar("Reconstructing", "crystals") as progress:
        again = reconstruct_crystals(
            model,
            originals,
            seed=seed,
            steps=steps,
            batch_size=crystals_at_a_time,
            allow_outside=allow_outside,
            progress=progress,
        )
    write_crystals(again, output, format=format, overwrite=overwrite)
    print_crystals(again)
    if match:
        _print_match(again, originals)
    print_written(output)


def _print_match(again: CrystalBatch, originals: CrystalBatch) -> None:
    """Match rate and RMSE by the published tolerances, with and without its filter of valid crystals."""
    from cdvae_kit.metrics import reconstruction

    with progress_bar("Matching", "crystals") as progress:
        result = reconstruction(again, originals, progress=progress)
    for label, rate, count, rmse in (
        ("all", result.match_rate_unfiltered, result.num_matches_unfiltered, result.rmse_unfiltered),
        ("valid alone", result.match_rate, result.num_matches, result.rmse),
    ):
        error = "-" if rmse is None else f"{rmse:.4f}"
        print_result(
            f"match rate ({label}): {100 * rate:.2f} % ({count} of {result.num_pairs}), RMSE {error}",
            **{
                f"match_{label.replace(' ', '_')}": {
                    "rate": rate,
                    "matches": count,
                    "pairs": result.num_pairs,
                    "rmse": rmse,
                }
            },
        )
    print_result(f"a crystal counts as valid by: {result.filter}")
