"""Sampling into a file: in chunks, resumable, with nothing lost or repeated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.cells import CellChoice
from cdvae_kit.generation.drawing import CHUNK, Draws, name_of
from cdvae_kit.generation.nearby import Seeds
from cdvae_kit.io.crystals.formats import ReadFormat, WriteFormat
from cdvae_kit.io.crystals.reading import read_crystals
from cdvae_kit.io.crystals.writing import CrystalWriter, choose_format, read_journal
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE


def sample_to_file(
    model: CDVAE,
    path: str | os.PathLike[str],
    *,
    num_crystals: int,
    num_atoms: int | None = None,
    conditions: Conditions | None = None,
    guidance: float = 1.0,
    steps: int | None = None,
    sampler: str | None = None,
    temperature: float = 1.0,
    seeds: Seeds | None = None,
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    format: WriteFormat = "auto",
    cell: CellChoice = "primitive",
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> CrystalBatch:
    """The crystals that it wrote to `path`, those of a resumed run included.

    Crystal i of the file depends on the model, the options, the seed and i alone, so a run that is resumed with the
    options of the first ends in the file that an uninterrupted one would have written. Each crystal's `material_id`
    says seed and number.

    Args:
        model: the model.
        path: where to; see `cdvae_kit.io.write_crystals` for the formats.
        num_crystals: how many the file is to hold.
        num_atoms: atoms a cell; drawn by the model if None.
        conditions: what the crystals are asked for; see `cdvae_kit.generation.conditions_from`.
        guidance: weight of the conditions; above 1, crystals keep closer to a property that is asked for.
        steps: steps of the sampler; its own default if None.
        sampler: one of `cdvae_kit.diffusion.samplers.SAMPLERS`; the model's own if None.
        temperature: standard deviation of the latent noise; below 1 for more typical and less diverse crystals.
        seeds: crystals near which new ones are wanted; see `cdvae_kit.generation.seeds_of`.
        seed: the run's seed.
        batch_size: crystals at a time; "auto" goes by their size.
        format: by the suffix of `path` if "auto".
        cell: which cell is written; see `cdvae_kit.crystal.cells.in_cell`.
        overwrite: replace what is at `path`.
        resume: go on with a run of the same options and seed that was stopped.
        progress: called with (crystals done, crystals in all).

    Raises:
        FileExistsError: there is something at `path`, and neither `overwrite` nor `resume` is given.
        ValueError: an option is out of range, or the file to be resumed is of another run; it is left as it is.
    """
    if num_crystals < 1:
        raise ValueError(f"num_crystals must be at least 1, got {num_crystals}")
    if batch_size != "auto" and batch_size < 1:
        raise ValueError(f"batch_size must be 'auto' or at least 1, got {batch_size}")
    draws = Draws(seed, num_atoms, conditions, guidance, steps, sampler, temperature, seeds, cell)
    draws.make_sampler(model)
    at_once = None if batch_size == "auto" else batch_size
    chunk = CHUNK if at_once is None else at_once
    writer = CrystalWriter(path, format=format, overwrite=overwrite, resume=resume)
    if resume:
        # before the writer opens: once open, it writes what it has read
        size = num_atoms if cell == "primitive" else None
        _check_same_run(writer, choose_format(Path(path), format), num_crystals, size, seed)
    draws.check(model)
    with writer:
        if progress is not None:
            progress(writer.num_crystals, num_crystals)
        while writer.num_crystals < num_crystals:
            first = writer.num_crystals
            count = min(chunk, num_crystals - first)
            writer.append(draws.draw(model, first, count, batch_size=at_once))
            if progress is not None:
                progress(writer.num_crystals, num_crystals)
        return writer.crystals


def _check_same_run(
    writer: CrystalWriter, format: WriteFormat, num_crystals: int, num_atoms: int | None, seed: int
) -> None:
    crystals = crystals_so_far(writer, format)
    if crystals is None:
        return
    names = crystals.material_ids or ["no name"] * len(crystals)
    for i, name in enumerate(names):
        if name != name_of(seed, i):
            raise ValueError(
                f"{writer.path} cannot be resumed with seed {seed}: its crystal {i} is {name!r}, where "
                f"{name_of(seed, i)!r} should be. Give the seed of the first run, or another output"
            )
    if len(crystals) > num_crystals:
        raise ValueError(
            f"{writer.path} holds {len(crystals)} crystals already, more than the {num_crystals} asked for"
        )
    if num_atoms is not None and bool((crystals.num_atoms != num_atoms).any()):
        raise ValueError(
            f"{writer.path} cannot be resumed with num_atoms {num_atoms}: it holds crystals of "
            f"{sorted(set(crystals.num_atoms.tolist()))} atoms. Give the options of the first run, or another output"
        )


def crystals_so_far(writer: CrystalWriter, format: WriteFormat) -> CrystalBatch | None:
    """What an interrupted run has left for a writer that is not open yet; None where there is nothing."""
    if writer.journal.exists():
        return read_journal(writer.journal)
    if not writer.path.exists() or (writer.path.is_dir() and not any(writer.path.iterdir())):
        return None
    # a folder is known by being one, and every other format has the same name on both sides
    kind = cast(ReadFormat, "auto" if writer.path.is_dir() else "cif" if format == "symmetrized_cif" else format)
    return read_crystals(writer.path, format=kind, min_distance=None, strict=True).crystals
