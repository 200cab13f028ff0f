"""`generate-crystals predict-structure`: candidate structures of given formulas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cdvae_kit.cli.checks import check_checkpoint, refuse_output
from cdvae_kit.cli.console import print_result, print_table, print_written, progress_bar
from cdvae_kit.cli.options import DEFAULT_CHECKPOINT, Checkpoint, Device, Format, Output, Overwrite, Seed, Steps

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch

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
    new: Annotated[
        bool,
        typer.Option(
            "--new", help="Leave out group and positions of training crystals of exactly this composition: polymorphs."
        ),
    ] = False,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "auto",
    calculator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Relax the candidates by chgnet, sevenn or another that relax knows, and rank them by their energy.",
        ),
    ] = None,
    output: Output = Path("predicted.extxyz"),
    format: Format = "auto",
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run into the same output.")
    ] = False,
) -> None:
    """Predict structures of formulas: candidates without repeats, the one with most votes first.

    Ctrl-C keeps the formulas that are done; the same command with --resume makes the rest.
    """
    from cdvae_kit.cli.sample import parse_formula_units, refuse_relaxed

    units = parse_formula_units(formula_units)
    check_checkpoint(checkpoint)
    if overwrite and resume:
        raise typer.BadParameter("choose one: --overwrite starts anew, --resume goes on", param_hint="--resume")
    refuse_output(output, format, overwrite=overwrite, resume=resume)
    if calculator is not None:
        refuse_relaxed(output, calculator, device, overwrite=overwrite or resume)

    from cdvae_kit.generation.sampling import crystals_so_far
    from cdvae_kit.generation.structure_prediction import as_rows, predict_structures
    from cdvae_kit.io.crystals.writing import CrystalWriter, choose_format
    from cdvae_kit.models import CDVAE

    names = _all_formulas(formulas)
    model = CDVAE.from_pretrained(checkpoint, device=device)
    pending = CrystalWriter(output, format=format, overwrite=overwrite, resume=resume)
    # before the writer opens: once open, it writes what it has read
    first = _first_to_do(crystals_so_far(pending, choose_format(output, format)), names, output) if resume else 0
    with pending as writer, progress_bar("Predicting", "formulas") as progress:
        try:
            predict_structures(
                model,
                names,
                num_candidates=candidates,
                formula_units=units,
                space_group=space_group,
                seed=seed,
                steps=steps,
                new=new,
                first=first,
                each=lambda number, found: writer.append(as_rows(number, found)),
                progress=progress,
            )
        except KeyboardInterrupt as interrupt:
            if progress.num_done:
                interrupt.add_note(f"{output} holds {progress.num_done} of {len(names)} formulas; --resume goes on")
            raise
        rows = writer.crystals
    if calculator is not None:
        rows = _relaxed(rows, output, calculator, device, format=format, overwrite=overwrite or resume)
    _show(rows, names)
    print_result(f"{len(rows)} candidates", num_candidates=len(rows))
    print_written(output)


def _first_to_do(rows: CrystalBatch | None, names: list[str], output: Path) -> int:
    """The number of the first formula that the file of an interrupted run does not have."""
    if rows is None:
        return 0
    numbers = rows.properties.get("formula_number")
    made = [] if numbers is None else sorted({int(number) for number in numbers.tolist()})
    there = {name.rpartition("_")[0] for name in rows.material_ids or []}
    if not made or made != list(range(len(made))) or there != set(names[: len(made)]):
        raise ValueError(
            f"{output} cannot be resumed: it does not hold the first of the formulas that are asked for. Give the "
            "formulas of the first run, or another output"
        )
    return len(made)


def _relaxed(
    rows: CrystalBatch, output: Path, calculator: str, device: Device, *, format: Format, overwrite: bool
) -> CrystalBatch:
    """The rows ranked by relaxed energies, in the file too; the relaxed candidates stand in a file beside it."""
    import torch

    from cdvae_kit.cli.relax import print_relaxed
    from cdvae_kit.generation.relaxing import relax_to_file, relaxed_path
    from cdvae_kit.generation.structure_prediction import ranked_by_energy
    from cdvae_kit.io import write_crystals
    from cdvae_kit.io.results.store import ResultStore

    with ResultStore() as store, progress_bar("Relaxing", "candidates") as progress:
        found, paths = relax_to_file(
            rows,
            relaxed_path(output),
            calculator,
            device=device,
            store=store,
            format=format,
            overwrite=overwrite,
            progress=progress,
        )
    energies = [float("nan") if one.energy_per_atom is None else one.energy_per_atom for one in found.relaxations]
    order = ranked_by_energy(rows, found.relaxations)
    more = {"relaxed_energy_per_atom": torch.tensor(energies, dtype=rows.lattice.dtype)}
    ranked = rows.replace(properties=rows.properties | more).select(order)
    write_crystals(ranked, output, format=format, overwrite=True)
    print_relaxed(found, paths)
    return ranked


def _show(rows: CrystalBatch, names: list[str]) -> None:
    """The best candidates of each formula."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    with_energy = "relaxed_energy_per_atom" in rows.properties
    titles = ["formula", "rank", "space group", "atoms", "votes, %", "times made", "distance of its code", "log p"]
    for title in [*titles, *(["relaxed,\neV/atom"] if with_energy else [])]:
        table.add_column(title, justify="left" if title == "formula" else "right")
    found = _candidate_rows(rows, names)
    for row in found:
        if row["rank"] <= MAX_SHOWN:
            table.add_row(
                row["formula"] if row["rank"] == 1 else "",
                *(str(row[name]) for name in ("rank", "space_group", "num_atoms")),
                f"{100.0 * row['support']:.0f}",
                str(row["times"]),
                f"{row['distance']:.2f}",
                f"{row['log_p']:.1f}",
                *([f"{row['relaxed_energy_per_atom']:.3f}"] if with_energy else []),
            )
    print_table(table, candidates=found)


def _candidate_rows(rows: CrystalBatch, names: list[str]) -> list[dict[str, Any]]:
    """What is known of each candidate, by name, those of a formula by rank."""
    ranks: dict[int, int] = {}
    columns = {name: values.tolist() for name, values in rows.properties.items()}
    found = []
    for i in range(len(rows)):
        number = int(columns["formula_number"][i])
        ranks[number] = ranks.get(number, 0) + 1
        known = {name: values[i] for name, values in columns.items() if name not in ("formula_number", "rank")}
        whole = {name: int(known[name]) for name in ("space_group", "times")}
        row = {"formula": names[number], "rank": ranks[number], "num_atoms": int(rows.num_atoms[i])}
        found.append(row | known | whole)
    return found


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
