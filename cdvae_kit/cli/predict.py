"""`generate-crystals predict`: properties of crystals, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cdvae_kit.cli.checks import check_checkpoint
from cdvae_kit.cli.console import print_result, print_table, print_written, progress_bar
from cdvae_kit.cli.files import print_remarks
from cdvae_kit.cli.options import (
    BatchSize,
    Device,
    Lenient,
    Overwrite,
    PredictorCheckpoint,
    crystals_there,
    parse_batch_size,
)

if TYPE_CHECKING:
    from cdvae_kit.generation.prediction import PredictionTable

MAX_ROWS = 50
"""More records than this are counted in the summary and written to the file, not shown."""

_BATCH_SIZE = 128


def predict(
    crystals: Annotated[
        Path,
        typer.Argument(
            metavar="CRYSTALS", callback=crystals_there, help="A file or folder of crystals; any known format."
        ),
    ],
    checkpoint: PredictorCheckpoint,
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="NAME", help="Of those that it knows; can be repeated; all unless given."),
    ] = None,
    batch_size: BatchSize = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="One unreadable record is an error.")] = False,
    lenient: Lenient = False,
    device: Device = "auto",
    output: Annotated[Path, typer.Option("--output", "-o", metavar="CSV", help="A row a record.")] = Path(
        "predictions.csv"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Predict properties of crystals, with intervals; a record that has none is listed with the reason.

    Where the file holds the property itself, the predictor's own error is printed.
    """
    at_a_time = parse_batch_size(batch_size)

    from cdvae_kit.io.atomic import refuse_existing

    check_checkpoint(checkpoint, "PropertyPredictor")
    refuse_existing(output, overwrite=overwrite)

    from cdvae_kit.generation.prediction import predict_records, write_predictions
    from cdvae_kit.io import read_crystals
    from cdvae_kit.models.calibration import check_names
    from cdvae_kit.models.property_predictor import PropertyPredictor

    predictor = PropertyPredictor.from_pretrained(checkpoint, device=device)
    check_names(properties or [], predictor.config.properties)
    with progress_bar("Reading", "crystals") as progress:
        source = read_crystals(crystals, strict=strict, lenient=lenient, progress=progress)
    print_remarks("note", source.notes)
    with progress_bar("Predicting", "crystals") as progress:
        table = predict_records(
            predictor,
            source,
            properties=properties or None,
            batch_size=_BATCH_SIZE if at_a_time == "auto" else at_a_time,
            progress=progress,
        )
    write_predictions(table, output, overwrite=overwrite)
    print_table(prediction_table(table), predictions=prediction_rows(table))
    for line in summary(table):
        print_result(line)
    print_written(output)


def prediction_rows(table: PredictionTable) -> list[dict[str, Any]]:
    """What is known of each record, by name."""
    return [
        {
            "name": table.names[i],
            "formula": table.formulas[i],
            "reason": table.faults[i],
            **{
                name: {"mean": float(found.mean[i]), "half_width": float(found.half_width[i]), "unit": found.unit}
                for name, found in table.predictions.items()
            },
        }
        for i in range(len(table))
    ]


def prediction_table(table: PredictionTable, *, max_rows: int = MAX_ROWS) -> Table:
    """One row a record, at most `max_rows`."""
    shown = Table(header_style="bold", box=SIMPLE_HEAD)
    shown.add_column("#", justify="right")
    shown.add_column("name", overflow="fold")
    shown.add_column("formula")
    for name, found in table.predictions.items():
        unit = f"\n{escape(found.unit)}" if found.unit else ""
        shown.add_column(f"{escape(name)}{unit}", justify="right")
    shown.add_column("reason, where there is none", overflow="fold")
    for i in range(min(len(table), max_rows)):
        values = [
            "-" if table.faults[i] is not None else f"{float(found.mean[i]):.4g} ± {float(found.half_width[i]):.2g}"
            for found in table.predictions.values()
        ]
        reason = f"[red]{escape(table.faults[i] or '')}[/]" if table.faults[i] else ""
        shown.add_row(str(i + 1), escape(table.names[i]), escape(table.formulas[i]), *values, reason)
    return shown


def summary(table: PredictionTable, *, max_rows: int = MAX_ROWS) -> list[str]:
    """How many there are, how many failed, and each property's own error where it is known."""
    failed = sum(fault is not None for fault in table.faults)
    first = f"{len(table)} records, {failed} without a prediction"
    lines = [first if len(table) <= max_rows else f"{first}; the first {max_rows} are shown"]
    for name, found in table.predictions.items():
        error = table.error(name)
        if error is not None:
            unit = f" {found.unit}" if found.unit else ""
            lines.append(
                f"{name}: mean absolute error {error.mean_absolute_error:.4g}{unit} on {error.num_crystals} crystals "
                f"whose value the file gives; {100 * error.share_inside:.1f} % of them within the interval "
                f"(calibrated for {100 * error.coverage:g} %)"
            )
    return lines
