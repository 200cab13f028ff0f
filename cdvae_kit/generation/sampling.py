"""Sampling into a file: in chunks, resumable, with nothing lost or repeated."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.diffusion.samplers import Sampler, make_sampler
from cdvae_kit.io.writing import CrystalWriter, WriteFormat
from cdvae_kit.models import decoding

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE

_CHUNK = 256


def sample_to_file(
    model: CDVAE,
    path: str | os.PathLike[str],
    *,
    num_crystals: int,
    num_atoms: int | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
    format: WriteFormat = "auto",
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CrystalBatch:
    """The crystals that it wrote to `path`, those of a resumed run included.

    Crystal i of the file depends on the model, the seed and i alone, so a resumed run ends in the file that an
    uninterrupted one would have written. Each crystal's `material_id` says seed and number.

    Args:
        model: the model.
        path: where to; see `cdvae_kit.io.write_crystals` for the formats.
        num_crystals: how many the file is to hold.
        num_atoms: atoms a cell; drawn by the model if None.
        steps: steps of the sampler; its own default if None.
        sampler: one of `cdvae_kit.diffusion.samplers.SAMPLERS`; the model's own if None.
        temperature: deviation of the latent noise; below 1 for more typical and less diverse crystals.
        seed: the run's seed.
        batch_size: crystals at a time; None chooses.
        format: by the suffix of `path` if "auto".
        overwrite: replace what is at `path`.
        resume: go on with a run of the same seed that was stopped.
        progress: called with (crystals done, crystals in all).

    Raises:
        FileExistsError: there is something at `path`, and neither `overwrite` nor `resume` is given.
        ValueError: the file to be resumed is of another run.
    """
    chosen = _sampler(model, sampler, steps)
    chunk = batch_size if batch_size is not None else _CHUNK
    with CrystalWriter(path, format=format, overwrite=overwrite, resume=resume) as writer:
        if writer.num_crystals:
            _check_same_run(writer.crystals, seed, path)
        if progress is not None:
            progress(writer.num_crystals, num_crystals)
        while writer.num_crystals < num_crystals:
            first = writer.num_crystals
            count = min(chunk, num_crystals - first)
            crystals = decoding.sample(
                model,
                count,
                seed=seed,
                first_id=first,
                num_atoms=num_atoms,
                temperature=temperature,
                sampler=chosen,
                batch_size=batch_size,
            )
            writer.append(crystals.replace(material_ids=[_name(seed, first + i) for i in range(count)]))
            if progress is not None:
                progress(writer.num_crystals, num_crystals)
        return writer.crystals


def _sampler(model: CDVAE, name: str | None, steps: int | None) -> Sampler:
    if name is None:
        return decoding.default_sampler(model, steps)
    return make_sampler(name, num_steps=steps, sharpening=model.config.sharpening)


def _name(seed: int, number: int) -> str:
    return f"sample_{seed}_{number}"


def _check_same_run(crystals: CrystalBatch, seed: int, path: str | os.PathLike[str]) -> None:
    names = crystals.material_ids or []
    wanted = [_name(seed, i) for i in range(len(crystals))]
    if names != wanted:
        strange = next((name for name, want in zip(names, wanted, strict=False) if name != want), "no name")
        raise ValueError(
            f"{path} cannot be resumed with seed {seed}: it holds {strange!r} where {wanted[0]!r} and its followers "
            "should be. Give the seed of the first run, or another output"
        )
