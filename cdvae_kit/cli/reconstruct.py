"""`generate-crystals reconstruct`: crystals through the encoder and back."""

from pathlib import Path
from typing import Annotated

import typer

from cdvae_kit.cli.console import print_result, progress_bar
from cdvae_kit.cli.files import read_batch, refuse_output
from cdvae_kit.cli.options import (
    DEFAULT_CHECKPOINT,
    BatchSize,
    Checkpoint,
    Device,
    Format,
    Output,
    Overwrite,
    Seed,
    Steps,
    parse_batch_size,
)


def reconstruct(
    crystals: Annotated[Path, typer.Argument(metavar="CRYSTALS", exists=True, help="A file or folder of crystals.")],
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    steps: Steps = None,
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    output: Output = Path("reconstructed.extxyz"),
    format: Format = "auto",
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first crystal that cannot be read.")] = False,
) -> None:
    """Encode crystals, decode them again and write what comes back, in the order of the input."""
    crystals_at_a_time = parse_batch_size(batch_size)

    refuse_output(output, format, overwrite=overwrite)

    from cdvae_kit.cli.table import print_crystals
    from cdvae_kit.generation import reconstruct as reconstruct_crystals
    from cdvae_kit.io import write_crystals
    from cdvae_kit.models import CDVAE

    model = CDVAE.from_pretrained(checkpoint, device=device)
    originals = read_batch(crystals, strict=strict, max_atoms=model.config.max_atoms)
    with progress_bar("Reconstructing", "crystals") as progress:
        again = reconstruct_crystals(
            model, originals, seed=seed, steps=steps, batch_size=crystals_at_a_time, progress=progress
        )
    write_crystals(again, output, format=format, overwrite=overwrite)
    print_crystals(again)
    print_result(f"written to {output}")
