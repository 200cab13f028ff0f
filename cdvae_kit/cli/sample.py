"""`generate-crystals sample`: new crystals into a file."""

from pathlib import Path
from typing import Annotated

import typer

from cdvae_kit.cli.console import print_result, progress_bar
from cdvae_kit.cli.files import refuse_output
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


def sample(
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    num_crystals: Annotated[int, typer.Option("--num-crystals", "-n", min=1, help="How many to make.")] = 32,
    num_atoms: Annotated[int | None, typer.Option(min=1, help="Atoms a cell; drawn by the model unless given.")] = None,
    steps: Steps = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help="The way to denoise; the model's own unless given.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Below 1: more typical and less diverse crystals.")] = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    output: Output = Path("crystals.extxyz"),
    format: Format = "auto",
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run into the same output.")
    ] = False,
) -> None:
    """Make new crystals, write them to a file and print a table of them.

    Ctrl-C leaves a whole file with the crystals made so far; the same command with --resume makes the rest.
    """
    crystals_at_a_time = parse_batch_size(batch_size)
    if overwrite and resume:
        raise typer.BadParameter("choose one: --overwrite starts anew, --resume goes on", param_hint="--resume")

    refuse_output(output, format, overwrite=overwrite, resume=resume)

    from cdvae_kit.cli.table import print_crystals
    from cdvae_kit.generation import sample_to_file
    from cdvae_kit.models import CDVAE

    model = CDVAE.from_pretrained(checkpoint, device=device)
    with progress_bar("Sampling", "crystals") as progress:
        try:
            crystals = sample_to_file(
                model,
                output,
                num_crystals=num_crystals,
                num_atoms=num_atoms,
                steps=steps,
                sampler=sampler,
                temperature=temperature,
                seed=seed,
                batch_size=crystals_at_a_time,
                format=format,
                overwrite=overwrite,
                resume=resume,
                progress=progress,
            )
        except KeyboardInterrupt as interrupt:
            if progress.num_done:
                interrupt.add_note(f"{output} holds {progress.num_done} of {num_crystals} crystals; --resume goes on")
            raise
    print_crystals(crystals)
    print_result(f"written to {output}")
