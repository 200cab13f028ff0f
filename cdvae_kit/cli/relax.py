"""`generate-crystals relax`: crystals at rest by a potential."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cdvae_kit.cli.checks import refuse_output
from cdvae_kit.cli.console import print_note, print_result, print_written, progress_bar
from cdvae_kit.cli.files import read_batch
from cdvae_kit.cli.options import Device, Format, Lenient, Output, Overwrite, crystals_there

if TYPE_CHECKING:
    from cdvae_kit.generation.relaxing import RelaxedCrystals

OptimizerName = Literal["FIRE", "FIRE2", "LBFGS", "BFGS"]
"""`Optimizer` of `cdvae_kit.relaxation.result`; a test holds the two together."""


def relax(
    crystals: Annotated[
        Path, typer.Argument(metavar="FILE", callback=crystals_there, help="Crystals to relax: any format.")
    ],
    calculator: Annotated[
        str,
        typer.Option(
            metavar="emt|lj|chgnet|sevenn|mace|orb|mattersim|module:function", help="The potential to relax by."
        ),
    ],
    output: Output = Path("relaxed.extxyz"),
    fmax: Annotated[float, typer.Option(help="eV/Å, at which a crystal is relaxed.")] = 0.05,
    max_steps: Annotated[int, typer.Option(min=0, help="Of a crystal; 0 gives the energies as they are.")] = 500,
    cell: Annotated[bool, typer.Option("--cell/--no-cell", help="Relax the cell too, not only the atoms.")] = True,
    keep_symmetry: Annotated[
        bool, typer.Option("--keep-symmetry", help="Relax the idealised primitive cell within its space group.")
    ] = False,
    symprec: Annotated[float, typer.Option(help="Å, within which --keep-symmetry looks for the group.")] = 0.1,
    optimizer: Annotated[OptimizerName, typer.Option(help="FIRE takes many crystals at once.")] = "FIRE",
    device: Device = "auto",
    workers: Annotated[
        int, typer.Option(metavar="N", help="Processes, for calculators that take one at a time; -1: every core.")
    ] = 1,
    cache: Annotated[bool, typer.Option(help="Keep each crystal as it is done: the same command goes on.")] = True,
    format: Format = "auto",
    overwrite: Overwrite = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first crystal that cannot be read.")] = False,
    lenient: Lenient = False,
) -> None:
    """Relax crystals, write them with their energies, and say what did not converge and why.

    A table beside the output, NAME.relaxation.csv, has one line a crystal. Ctrl-C keeps what is done; the same command
    goes on from there.
    """
    from cdvae_kit.io.atomic import is_unfinished, refuse_several

    refuse_output(output, format, overwrite=overwrite or is_unfinished(output))

    from cdvae_kit.cli.evaluation_inputs import find_calculator, no_store
    from cdvae_kit.generation.relaxing import relax_to_file, table_path
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.relaxation import RelaxationSettings

    refuse_several([output, table_path(output)], overwrite=overwrite)
    settings = RelaxationSettings(
        fmax,
        max_steps,
        relax_cell=cell,
        optimizer=optimizer,
        keep_symmetry=keep_symmetry,
        symprec=symprec,
    )
    find_calculator(calculator, device)
    given = read_batch(crystals, strict=strict, double=True, lenient=lenient)
    with ResultStore() if cache else no_store() as store, progress_bar("Relaxing", "crystals") as progress:
        try:
            found, paths = relax_to_file(
                given,
                output,
                calculator,
                settings=settings,
                device=device,
                num_workers=workers,
                store=store,
                format=format,
                overwrite=overwrite,
                progress=progress,
            )
        except KeyboardInterrupt as interrupt:
            if progress.num_done and cache:
                interrupt.add_note(f"{progress.num_done} crystals are done; the same command goes on from there")
            raise
    print_relaxed(found, paths)


def print_relaxed(found: RelaxedCrystals, paths: Sequence[Path]) -> None:
    """What became of the crystals, why some did not converge, and where they are."""
    total = len(found.relaxations)
    for reason, count in found.reasons.items():
        print_note(f"{count} of {total} not relaxed: {reason}")
    print_result(
        f"{found.num_converged} of {total} crystals relaxed, {total - found.num_converged - found.num_failed} out of "
        f"steps, {found.num_failed} failed, by {found.calculator}",
        relaxed={
            "num_crystals": total,
            "num_converged": found.num_converged,
            "num_failed": found.num_failed,
            "calculator": str(found.calculator),
            "reasons": dict(found.reasons),
        },
    )
    for path in paths:
        print_written(path)
