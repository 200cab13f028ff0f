"""`generate-crystals sample`: new crystals into a file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cdvae_kit.cli.checks import check_checkpoint
from cdvae_kit.cli.console import print_result, print_written, progress_bar
from cdvae_kit.cli.files import refuse_output
from cdvae_kit.cli.options import (
    DEFAULT_CHECKPOINT,
    BatchSize,
    Checkpoint,
    Device,
    Format,
    Output,
    Overwrite,
    Sampler,
    Seed,
    Steps,
    parse_batch_size,
)


def sample(
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    num_crystals: Annotated[int, typer.Option("--num-crystals", "-n", min=1, help="How many to make.")] = 32,
    num_atoms: Annotated[
        int | None, typer.Option(min=1, help="Atoms in the primitive cell; drawn by the model unless given.")
    ] = None,
    formula: Annotated[str | None, typer.Option(metavar="FORMULA", help="Exactly this formula, as BaTiO3.")] = None,
    formula_units: Annotated[
        str, typer.Option(metavar="N|all", help="Formula units in the primitive cell; all leaves it to the model.")
    ] = "all",
    elements: Annotated[
        str | None, typer.Option(metavar="SYMBOLS", help="Exactly these elements and no others, as Li,Fe,P,O.")
    ] = None,
    contains: Annotated[str | None, typer.Option(metavar="SYMBOLS", help="Elements that must occur, as O.")] = None,
    without: Annotated[str | None, typer.Option(metavar="SYMBOLS", help="Elements that must not, as Pb,Cd.")] = None,
    space_group: Annotated[int | None, typer.Option(min=1, max=230, help="The space group's number.")] = None,
    crystal_system: Annotated[str | None, typer.Option(metavar="NAME", help="triclinic to cubic.")] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "--property", metavar="NAME=VALUE", help="A property that the model was trained on; can be repeated."
        ),
    ] = None,
    guidance: Annotated[
        float, typer.Option(min=0.0, help="Weight of what is asked for; above 1 keeps closer to a property.")
    ] = 1.0,
    neutral: Annotated[bool, typer.Option("--neutral", help="Only compositions that pass --composition-rule.")] = False,
    composition_rule: Annotated[
        Literal["smact-2014", "smact", "charge"], typer.Option(help="The rule of --neutral.")
    ] = "smact-2014",
    steps: Steps = None,
    sampler: Sampler = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Below 1: more typical and less diverse crystals.")] = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    output: Output = Path("crystals.extxyz"),
    format: Format = "auto",
    cell: Annotated[
        Literal["primitive", "conventional", "niggli"], typer.Option(help="The cell that is written.")
    ] = "primitive",
    symmetrized: Annotated[
        bool, typer.Option("--symmetrized", help="A CIF with symmetry operations, one site an orbit.")
    ] = False,
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

    check_checkpoint(checkpoint, sampler=sampler)
    if symmetrized:
        format = _symmetrized(output, format, cell)
    refuse_output(output, format, overwrite=overwrite, resume=resume)

    from cdvae_kit.cli.table import print_crystals
    from cdvae_kit.generation import check_crystals, conditions_from, sample_to_file
    from cdvae_kit.models import CDVAE

    conditions = conditions_from(
        formula=formula,
        formula_units=parse_formula_units(formula_units),
        elements=_symbols(elements),
        contains=_symbols(contains),
        without=_symbols(without),
        num_atoms=num_atoms,
        space_group=space_group,
        crystal_system=crystal_system,
        properties=_values(properties),
        neutral=composition_rule if neutral else None,
    )
    model = CDVAE.from_pretrained(checkpoint, device=device)
    with progress_bar("Sampling", "crystals") as progress:
        try:
            crystals = sample_to_file(
                model,
                output,
                num_crystals=num_crystals,
                num_atoms=num_atoms,
                conditions=conditions,
                guidance=guidance,
                steps=steps,
                sampler=sampler,
                temperature=temperature,
                seed=seed,
                batch_size=crystals_at_a_time,
                format=format,
                cell=cell,
                overwrite=overwrite,
                resume=resume,
                progress=progress,
            )
        except KeyboardInterrupt as interrupt:
            if progress.num_done:
                interrupt.add_note(f"{output} holds {progress.num_done} of {num_crystals} crystals; --resume goes on")
            raise
    print_crystals(crystals)
    if conditions is not None:
        checks = check_crystals(conditions, crystals)
        for wish in checks[0]:
            held = sum(check[wish] for check in checks)
            print_result(f"asked for, {wish}: {held} of {len(checks)} crystals")
    print_written(output)


def _symbols(text: str | None) -> list[str] | None:
    return None if text is None else [part for part in text.replace(" ", ",").split(",") if part]


def _symmetrized(output: Path, format: Format, cell: str) -> Format:
    if format not in ("auto", "cif", "symmetrized_cif") or output.suffix.lower() != ".cif":
        raise typer.BadParameter(f"symmetry operations go into a .cif file, got {output}", param_hint="--symmetrized")
    if cell == "niggli":
        raise typer.BadParameter(
            "a CIF with symmetry operations has the conventional cell", param_hint="--symmetrized with --cell niggli"
        )
    return "symmetrized_cif"


def parse_formula_units(text: str) -> int | Literal["all"]:
    """`all`, or a positive number; anything else is wrong use."""
    if text == "all":
        return "all"
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"expected all or an integer from 1, got {text!r}", param_hint="--formula-units")
    return int(text)


def _values(words: list[str] | None) -> dict[str, float] | None:
    if not words:
        return None
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            values[name.strip()] = float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(f"expected NAME=VALUE with a number, got {word!r}", param_hint="--property")
    return values
