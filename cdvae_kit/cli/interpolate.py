"""`generate-crystals interpolate`: the crystals between two crystals."""

from pathlib import Path
from typing import Annotated

import typer

from cdvae_kit.cli.checks import check_checkpoint, refuse_output
from cdvae_kit.cli.console import print_written, progress_bar
from cdvae_kit.cli.files import read_batch, tell_outside
from cdvae_kit.cli.options import (
    DEFAULT_CHECKPOINT,
    AllowOutside,
    Checkpoint,
    Device,
    Format,
    Lenient,
    Output,
    Overwrite,
    Seed,
    Steps,
    crystals_there,
)


def interpolate(
    first: Annotated[
        Path, typer.Argument(metavar="FIRST", callback=crystals_there, help="A file whose first crystal is one end.")
    ],
    second: Annotated[Path, typer.Argument(metavar="SECOND", callback=crystals_there, help="Likewise, the other end.")],
    num_points: Annotated[int, typer.Option("--num-points", "-n", min=2, help="Crystals, both ends included.")] = 10,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    allow_outside: AllowOutside = False,
    lenient: Lenient = False,
    output: Output = Path("interpolated.extxyz"),
    format: Format = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Walk from one crystal to another through the latent space and write what lies on the way."""
    check_checkpoint(checkpoint)
    refuse_output(output, format, overwrite=overwrite)

    from cdvae_kit.cli.table import print_crystals
    from cdvae_kit.generation import interpolate as interpolate_crystals
    from cdvae_kit.io import write_crystals
    from cdvae_kit.models import CDVAE

    model = CDVAE.from_pretrained(checkpoint, device=device)
    ends = [read_batch(path, lenient=lenient, for_model=True).select([0]) for path in (first, second)]
    if allow_outside:
        for end in ends:
            tell_outside(model, end)
    with progress_bar("Interpolating", "crystals") as progress:
        between = interpolate_crystals(
            model,
            ends[0],
            ends[1],
            num_points=num_points,
            seed=seed,
            steps=steps,
            allow_outside=allow_outside,
            progress=progress,
        )
    write_crystals(between, output, format=format, overwrite=overwrite)
    print_crystals(between)
    print_written(output)
