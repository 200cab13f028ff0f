"""`generate-crystals predict-structure`: candidate structures of given formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cdvae_kit.cli.checks import check_checkpoint, refuse_output
from cdvae_kit.cli.console import print_result, print_table, print_written, progress_bar
from cdvae_kit.cli.options import DEFAULT_CHECKPOINT, Checkpoint, Device, Format, Output, Overwrite, Seed, Steps

MAX_SHOWN = 5
"""Candidates of a formula that are shown; all are written."""


def predict_structure(
    formulas: Annotated[
        list[str], typer.Argument(metavar="FORMULA...", help="Formulas such as BaTiO3, or a file with one a line.")
    ],
    candidates: Annotated[int, typer.Option("--candidates", "-n", min=1, help="Draws a formula.")] = 16,
    formula_units: Annotated[
        str, typer.Option(metavar="N|all", help="Formula units in the primitive cell; all leaves it to the model.")
    ] = "all",
    space_group: Annotated[int | None, typer.Option(min=1, max=230, help="The group, if it is known.")] = None,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    output: Output = Path("predicted.extxyz"),
    format: Format = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Predict structures of formulas: candidates without repeats, ranked by how near their own codes lie."""
    from cdvae_kit.cli.sample import parse_formula_units

    units = parse_formula_units(formula_units)
    check_checkpoint(checkpoint)
    refuse_output(output, format, overwrite=overwrite)

    from cdvae_kit.generation.structure_prediction import all_candidates, predict_structures
    from cdvae_kit.io import write_crystals
    from cdvae_kit.models import CDVAE

    names = _all_formulas(formulas)
    model = CDVAE.from_pretrained(checkpoint, device=device)
    with progress_bar("Predicting", "formulas") as progress:
        found = predict_structures(
            model,
            names,
            num_candidates=candidates,
            formula_units=units,
            space_group=space_group,
            seed=seed,
            steps=steps,
            progress=progress,
        )
    write_crystals(all_candidates(found).plain(), output, format=format, overwrite=overwrite)
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for title in ("formula", "rank", "space group", "atoms", "times drawn", "distance of its code", "log p"):
        table.add_column(title, justify="left" if title == "formula" else "right")
    rows: list[dict[str, Any]] = [
        {
            "formula": one.formula,
            "rank": rank + 1,
            "space_group": int(one.crystals.space_group[rank]),
            "num_atoms": int(one.crystals.num_atoms[rank]),
            "times_drawn": int(one.times[rank]),
            "distance": float(one.distance[rank]),
            "log_p": float(one.log_p[rank]),
        }
        for one in found
        for rank in range(len(one.crystals))
    ]
    for row in rows:
        rank = row["rank"]
        if rank <= MAX_SHOWN:
            table.add_row(
                "" if rank > 1 else str(row["formula"]),
                *(str(row[name]) for name in ("rank", "space_group", "num_atoms", "times_drawn")),
                f"{row['distance']:.2f}",
                f"{row['log_p']:.1f}",
            )
    print_table(table, candidates=rows)
    print_result(f"{len(rows)} candidates")
    print_written(output)


def _all_formulas(words: list[str]) -> list[str]:
    """The formulas themselves; a word that names a file stands for its lines."""
    found: list[str] = []
    for word in words:
        path = Path(word)
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        else:
            found.append(word)
    return found
