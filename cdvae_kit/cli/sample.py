"""`generate-crystals sample`: new crystals into a file, or many into a folder of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cdvae_kit.cli.checks import check_checkpoint
from cdvae_kit.cli.console import print_result, print_written, progress_bar
from cdvae_kit.cli.evaluate import BackendName
from cdvae_kit.cli.files import read_batch, refuse_output, tell_outside
from cdvae_kit.cli.options import (
    DEFAULT_CHECKPOINT,
    AllowOutside,
    BatchSize,
    Checkpoint,
    Device,
    Format,
    Lenient,
    Output,
    Overwrite,
    Sampler,
    Seed,
    Steps,
    crystals_there,
    parse_batch_size,
)

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch

DEFAULT_OUTPUT = Path("crystals.extxyz")
_MANY = "Many crystals"


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
    sites: Annotated[
        str | None,
        typer.Option(
            metavar="SITES",
            help='All Wyckoff positions in the space group, as "Ba:a Ti:b O:c"; several of one element as O:e,f.',
        ),
    ] = None,
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
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=crystals_there,
            help="Crystals near those in the file, in turn, under the same conditions.",
        ),
    ] = None,
    distance: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Of the codes from those of --like, in standard deviations of the training codes along each axis: 0 "
            "is the crystal itself, 1.4 the distance of two training crystals.",
        ),
    ] = 0.2,
    allow_outside: AllowOutside = False,
    lenient: Lenient = False,
    steps: Steps = None,
    sampler: Sampler = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Below 1: more typical and less diverse crystals.")] = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    relax: Annotated[
        str | None,
        typer.Option(
            metavar="CALCULATOR",
            help="Relax the crystals as well, by chgnet, sevenn or another that the command relax knows, into "
            "NAME.relaxed and a table.",
        ),
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=_MANY,
            help="Write Parquet files of N crystals into the folder of --output; 4096 with --backend or --workers.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=_MANY, help="Processes that make parts; -1 takes every core.")
    ] = 1,
    backend: Annotated[
        BackendName, typer.Option(rich_help_panel=_MANY, help="Where these processes are.")
    ] = "processes",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", rich_help_panel=_MANY, help="Of the cluster's scheduler; all its cores work."
        ),
    ] = None,
    output: Output = DEFAULT_OUTPUT,
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
    into_parts = parts is not None or backend != "processes" or workers != 1
    if into_parts:
        output = _parts_folder(output, format)
        if relax is not None:
            raise typer.BadParameter("parts are relaxed one by one, by generate-crystals relax", param_hint="--relax")
    else:
        refuse_output(output, format, overwrite=overwrite, resume=resume)

    if relax is not None:
        refuse_relaxed(output, relax, device, overwrite=overwrite or resume)

    from cdvae_kit.cli.table import print_crystals
    from cdvae_kit.generation import conditions_from, sample_to_file, seeds_of
    from cdvae_kit.generation.conditions import parse_sites
    from cdvae_kit.generation.drawing import Draws, wishes_fulfilled
    from cdvae_kit.generation.sampling_parts import PART_SIZE, sample_to_parts
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
        sites=None if sites is None else parse_sites(sites.split()),
        properties=_values(properties),
        neutral=composition_rule if neutral else None,
    )
    model = CDVAE.from_pretrained(checkpoint, device=device)
    seeds = None
    if like is not None:
        given = read_batch(like, lenient=lenient, for_model=True)
        if allow_outside:
            tell_outside(model, given)
        seeds = seeds_of(model, given, distance=distance, allow_outside=allow_outside)
    with progress_bar("Sampling", "crystals") as progress:
        try:
            if into_parts:
                draws = Draws(seed, num_atoms, conditions, guidance, steps, sampler, temperature, seeds, cell)
                made = sample_to_parts(
                    model,
                    output,
                    draws,
                    num_crystals=num_crystals,
                    part_size=parts or PART_SIZE,
                    batch_size=crystals_at_a_time,
                    backend=backend,
                    address=address,
                    num_workers=workers,
                    device=device,
                    overwrite=overwrite,
                    resume=resume,
                    progress=progress,
                )
            else:
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
                    seeds=seeds,
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
    if into_parts:
        print_result(
            f"{made.num_crystals} crystals in {made.num_parts} parts, {made.num_made} of them made now",
            num_crystals=made.num_crystals,
            num_parts=made.num_parts,
            num_made=made.num_made,
        )
        print_written(output)
        return
    print_crystals(crystals)
    for column, fulfilled in wishes_fulfilled(crystals).items():
        print_result(f"asked for, {column}: {fulfilled} of {len(crystals)} crystals")
    print_written(output)
    if relax is not None:
        _relax(crystals, output, relax, device, format=format, overwrite=overwrite or resume)


def _parts_folder(output: Path, format: Format) -> Path:
    """The folder that parts go into."""
    if format not in ("auto", "parquet"):
        raise typer.BadParameter(f"parts are Parquet files, got {format}", param_hint="--format")
    if output == DEFAULT_OUTPUT:
        return Path(output.stem)
    if output.suffix:
        raise typer.BadParameter(f"parts go into a folder, got {output}", param_hint="--output")
    return output


def refuse_relaxed(output: Path, calculator: str, device: str, *, overwrite: bool) -> None:
    """Raises what relaxing afterwards would raise, before anything is sampled."""
    from cdvae_kit.cli.evaluation_inputs import find_calculator
    from cdvae_kit.generation.relaxing import relaxed_path, table_path
    from cdvae_kit.io.atomic import refuse_several

    if not output.suffix:
        raise typer.BadParameter(f"relaxed crystals stand beside a file, got {output}", param_hint="--relax")
    refuse_several([relaxed_path(output), table_path(output)], overwrite=overwrite)
    find_calculator(calculator, device)


def _relax(
    crystals: CrystalBatch, output: Path, calculator: str, device: str, *, format: Format, overwrite: bool
) -> None:
    """Relaxes what was sampled, into files beside it; what is done is kept, so that the same command goes on."""
    from cdvae_kit.cli.relax import print_relaxed
    from cdvae_kit.generation.relaxing import relax_to_file, relaxed_path
    from cdvae_kit.io.results.store import ResultStore

    with ResultStore() as store, progress_bar("Relaxing", "crystals") as progress:
        try:
            found, paths = relax_to_file(
                crystals.replace(properties={}),
                relaxed_path(output),
                calculator,
                device=device,
                store=store,
                format="cif" if format == "symmetrized_cif" else format,
                overwrite=overwrite,
                progress=progress,
            )
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(
                f"{output} is whole; {progress.num_done} of its crystals are relaxed, and this goes on from there: "
                f"generate-crystals relax {output} --calculator {calculator} --output {relaxed_path(output)}"
            )
            raise
    print_relaxed(found, paths)


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
