"""`generate-crystals neighbors`: the known crystals that lie nearest in the latent space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cdvae_kit.cli.console import output as output_console
from cdvae_kit.cli.console import print_note
from cdvae_kit.cli.files import read_batch, tell_outside
from cdvae_kit.cli.options import DEFAULT_CHECKPOINT, AllowOutside, Checkpoint, Device, Lenient

MAX_ROWS = 50
"""Crystals whose neighbours are shown."""


def neighbors(
    crystals: Annotated[
        Path, typer.Argument(metavar="CRYSTALS", exists=True, help="A file whose crystals' neighbours are wanted.")
    ],
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", exists=True, help="The crystals among which they are sought.")
    ],
    num_neighbors: Annotated[int, typer.Option("--num-neighbors", "-n", min=1, help="Of each crystal.")] = 5,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    device: Device = "auto",
    allow_outside: AllowOutside = False,
    lenient: Lenient = False,
) -> None:
    """List the crystals of a reference that are nearest to each crystal, by the model's codes."""
    from cdvae_kit.generation.neighbors import latent_neighbors
    from cdvae_kit.metrics.crystals import as_arrays, formula
    from cdvae_kit.models import CDVAE

    model = CDVAE.from_pretrained(checkpoint, device=device)
    asked = read_batch(crystals, lenient=lenient, for_model=True)
    if len(asked) > MAX_ROWS:
        print_note(f"the first {MAX_ROWS} of {len(asked)} crystals are shown")
        asked = asked.select(range(MAX_ROWS))
    known = read_batch(reference, lenient=lenient, for_model=True)
    if allow_outside:
        tell_outside(model, asked)
    found = latent_neighbors(model, asked, known, num_neighbors=num_neighbors, allow_outside=allow_outside)
    formulas = [formula(crystal.reduced_composition) for crystal in as_arrays(known)]
    names = known.material_ids or [""] * len(known)
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for title in ("crystal", "neighbour", "formula"):
        table.add_column(title, overflow="fold")
    table.add_column("distance\nstandard deviations", justify="right")
    own = asked.material_ids or [str(i + 1) for i in range(len(asked))]
    for i, name in enumerate(own):
        nearest = zip(found.indices[i].tolist(), found.distances[i].tolist(), strict=True)
        for place, (j, distance) in enumerate(nearest):
            table.add_row("" if place else escape(name), escape(names[j]), formulas[j], f"{distance:.2f}")
    output_console().print(table)
