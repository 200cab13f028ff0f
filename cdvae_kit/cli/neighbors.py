"""`generate-crystals neighbors`: the known crystals that lie nearest in the latent space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cdvae_kit.cli.checks import check_checkpoint
from cdvae_kit.cli.console import print_note, print_table, print_written
from cdvae_kit.cli.files import read_batch, tell_outside
from cdvae_kit.cli.options import (
    DEFAULT_CHECKPOINT,
    AllowOutside,
    Checkpoint,
    Device,
    Lenient,
    Overwrite,
    crystals_there,
)

MAX_ROWS = 50
"""Crystals whose neighbours are shown."""


def neighbors(
    crystals: Annotated[
        Path,
        typer.Argument(
            metavar="CRYSTALS", callback=crystals_there, help="A file whose crystals' neighbours are wanted."
        ),
    ],
    reference: Annotated[
        Path,
        typer.Argument(metavar="REFERENCE", callback=crystals_there, help="The crystals among which they are sought."),
    ],
    num_neighbors: Annotated[int, typer.Option("--num-neighbors", "-n", min=1, help="Of each crystal.")] = 5,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    device: Device = "auto",
    allow_outside: AllowOutside = False,
    lenient: Lenient = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="CSV", help="A row a neighbour, of all crystals.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """List the crystals of a reference that are nearest to each crystal, by the model's codes."""
    from cdvae_kit.io.atomic import refuse_existing

    check_checkpoint(checkpoint)
    if output is not None:
        refuse_existing(output, overwrite=overwrite)

    from cdvae_kit.generation.neighbors import latent_neighbors
    from cdvae_kit.models import CDVAE

    model = CDVAE.from_pretrained(checkpoint, device=device)
    asked = read_batch(crystals, lenient=lenient, for_model=True)
    known = read_batch(reference, lenient=lenient, for_model=True)
    if allow_outside:
        tell_outside(model, asked)
    found = latent_neighbors(model, asked, known, num_neighbors=num_neighbors, allow_outside=allow_outside)
    formulas = known.formulas()
    names = known.material_ids or [""] * len(known)
    own = asked.material_ids or [str(i + 1) for i in range(len(asked))]
    rows = [
        {"crystal": name, "rank": rank, "neighbor": names[j], "index": j, "formula": formulas[j], "distance": distance}
        for i, name in enumerate(own)
        for rank, (j, distance) in enumerate(
            zip(found.indices[i].tolist(), found.distances[i].tolist(), strict=True), start=1
        )
    ]
    print_table(neighbor_table(rows), neighbors=rows)
    if len(asked) > MAX_ROWS:
        print_note(f"the first {MAX_ROWS} of {len(asked)} crystals are shown")
    if output is not None:
        from cdvae_kit.io.results.files import write_csv

        write_csv(rows, list(rows[0]), output, overwrite=overwrite)
        print_written(output)


def neighbor_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a neighbour, of the first `MAX_ROWS` crystals."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for title in ("crystal", "neighbour", "formula"):
        table.add_column(title, overflow="fold")
    table.add_column("distance\nstandard deviations", justify="right")
    shown = 0
    for row in rows:
        shown += row["rank"] == 1
        if shown > MAX_ROWS:
            break
        name = escape(row["crystal"]) if row["rank"] == 1 else ""
        table.add_row(name, escape(row["neighbor"]), row["formula"], f"{row['distance']:.2f}")
    return table
