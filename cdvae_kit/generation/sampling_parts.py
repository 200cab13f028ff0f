"""Many crystals: numbered Parquet parts in a folder, made by processes of this machine or of a cluster.

Only the calling process writes. It holds one part at a time, and a worker one part and the model, so that memory does
not grow with the number of crystals. A part appears whole or not at all; what a worker had under way when it was lost
is made again, and a run that was stopped goes on with the parts that are missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.batch import concatenate
from cdvae_kit.generation.drawing import CHUNK, Draws
from cdvae_kit.io.atomic import atomic_file
from cdvae_kit.io.crystals.reading import read_crystals
from cdvae_kit.io.crystals.writing import write_crystals
from cdvae_kit.io.result_folder import LOCK_FILE, locked
from cdvae_kit.io.results.files import write_json
from cdvae_kit.metrics.computing.cluster import Backend, workers
from cdvae_kit.metrics.computing.parallel import _computed
from cdvae_kit.models.portable import PortableModel, keep
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.models import CDVAE

logger = logging.getLogger(__name__)

PART_SIZE = 4096
"""Crystals of a part, where nothing else is said."""
MANIFEST = "run.json"
_KIND, _VERSION = "cdvae_kit.sampled_parts", 1


@dataclass(frozen=True)
class SampledParts:
    """What a folder of parts holds.

    Attributes:
        folder: the folder.
        num_crystals: of all parts.
        num_parts: `part-000000.parquet` and so on.
        num_made: parts of these that this call made.
    """

    folder: Path
    num_crystals: int
    num_parts: int
    num_made: int


def sample_to_parts(
    model: CDVAE,
    folder: str | os.PathLike[str],
    draws: Draws,
    *,
    num_crystals: int,
    part_size: int = PART_SIZE,
    batch_size: int | Literal["auto"] = "auto",
    backend: Backend = "processes",
    address: str | None = None,
    num_workers: int = 1,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> SampledParts:
    """Crystals 0 to `num_crystals - 1` of a run, as numbered Parquet files in `folder`.

    They are those of `sample_to_file` with the same options, whatever the number of workers and the size of the parts:
    crystal i depends on the model, the options, the seed and i alone. On machines of one kind they are the same to the
    last bit where parts hold whole batches (`part_size` is rounded up to do so).

    Args:
        model: the model; workers get its weights, and need nothing but the installed package.
        folder: where to; new or empty.
        draws: what is asked for.
        num_crystals: how many.
        part_size: crystals a file, at least.
        batch_size: crystals at a time, as in `sample_to_file`.
        backend: processes of this machine, or a cluster; see `cdvae_kit.metrics.computing.cluster.workers`.
        address: of the cluster's scheduler.
        num_workers: processes; -1 takes every core. With an address all cores of the cluster are used.
        device: of the workers; `auto` is each machine's fastest.
        overwrite: remove the parts that are in the folder first.
        resume: make the parts that are missing; the options must be those of the first call, the number may be larger.
        progress: called with (crystals done, crystals in all).

    Raises:
        InUseError: another process works in the folder.
        FileExistsError: there are files in the folder, and neither `overwrite` nor `resume` is given.
        ValueError: an option is out of range, or the folder is of another run; it is left as it is.
        WorkerLostError: workers died again and again; the parts that were done stay.
    """
    if num_crystals < 1 or part_size < 1:
        raise ValueError(f"num_crystals and part_size must be at least 1, got {num_crystals} and {part_size}")
    if batch_size != "auto" and batch_size < 1:
        raise ValueError(f"batch_size must be 'auto' or at least 1, got {batch_size}")
    if overwrite and resume:
        raise ValueError("a run is either resumed or overwritten, not both")
    at_once = None if batch_size == "auto" else batch_size
    chunk = CHUNK if at_once is None else at_once
    size = -(-part_size // chunk) * chunk
    draws.check(model)
    portable = PortableModel.of(model)
    keep(portable, model, device=device)
    place = Path(folder)
    manifest = _manifest(portable, draws, size, at_once)
    if place.exists() and not place.is_dir():
        raise NotADirectoryError(f"parts go into a folder, and {place} is a file; choose another path")
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / LOCK_FILE, os.fspath(place)):
        _prepare(place, manifest, overwrite=overwrite, resume=resume)
        bounds = [(first, min(first + size, num_crystals)) for first in range(0, num_crystals, size)]
        there = _parts_there(place, bounds, num_crystals)
        missing = [number for number in range(len(bounds)) if number not in there]
        done = sum(bounds[number][1] - bounds[number][0] for number in there)
        if progress is not None:
            progress(done, num_crystals)
        maker = _PartMaker(portable, draws, at_once, chunk, device)
        with (
            workers(backend, address=address, num_workers=num_workers),
            # 1 means those of the context
            closing(_computed(maker, bounds, missing, 1)) as made,
        ):
            for number, content in chain.from_iterable(made):
                with atomic_file(place / part_name(number), overwrite=True) as temporary:
                    temporary.write_bytes(content)
                done += bounds[number][1] - bounds[number][0]
                if progress is not None:
                    progress(done, num_crystals)
        return SampledParts(place, num_crystals, len(bounds), len(missing))


def part_name(number: int) -> str:
    """The name of a part's file.

    >>> part_name(12)
    'part-000012.parquet'
    """
    return f"part-{number:06d}.parquet"


def read_parts(folder: str | os.PathLike[str]) -> Iterator[CrystalBatch]:
    """The crystals of a folder of parts, one part at a time, in order."""
    paths = sorted(Path(folder).glob("part-*.parquet"))
    if not paths:
        raise FileNotFoundError(f"there are no parts (part-000000.parquet and so on) in {folder}")
    for path in paths:
        yield read_crystals(path, min_distance=None, strict=True).crystals


@dataclass(frozen=True)
class _PartMaker:
    """Makes one part, in whatever process it is called."""

    portable: PortableModel
    draws: Draws
    at_once: int | None
    chunk: int
    device: str

    def __call__(self, bounds: tuple[int, int]) -> bytes:
        model = self.portable.model(device=self.device)
        first, end = bounds
        parts = [
            self.draws.draw(model, start, min(self.chunk, end - start), batch_size=self.at_once).to("cpu")
            for start in range(first, end, self.chunk)
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.parquet"
            write_crystals(concatenate(parts), path)
            return path.read_bytes()


def _manifest(portable: PortableModel, draws: Draws, size: int, at_once: int | None) -> dict[str, Any]:
    seeds = draws.seeds
    near = None
    if seeds is not None:
        digest = hashlib.sha256(seeds.codes.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        near = {"codes": digest, "distance": seeds.distance}
    return {
        "kind": _KIND,
        "version": _VERSION,
        "model": portable.digest,
        "part_size": size,
        "batch_size": at_once,
        "seed": draws.seed,
        "num_atoms": draws.num_atoms,
        "conditions": None if draws.conditions is None else repr(draws.conditions),
        "guidance": draws.guidance,
        "steps": draws.steps,
        "sampler": draws.sampler,
        "temperature": draws.temperature,
        "like": near,
        "cell": draws.cell,
    }


def _prepare(folder: Path, manifest: dict[str, Any], *, overwrite: bool, resume: bool) -> None:
    path = folder / MANIFEST
    names = sorted(child.name for child in folder.iterdir() if child.name != LOCK_FILE)
    ours = [name for name in names if name == MANIFEST or (name.startswith("part-") and name.endswith(".parquet"))]
    # what a killed process left half-written
    foreign = [name for name in names if name not in ours and not name.startswith(".tmp-")]
    if foreign:
        raise FileExistsError(f"{folder} holds other files ({', '.join(foreign[:3])}); choose another folder")
    if ours and not (overwrite or resume):
        raise FileExistsError(
            f"{folder} holds {len(ours)} files of a run; go on with it (resume=True), choose another path, or allow "
            "overwriting (overwrite=True)"
        )
    if ours and resume:
        _check_same_run(path, manifest)
        return
    for name in ours:
        (folder / name).unlink()
    write_json(manifest, path)


def _check_same_run(path: Path, manifest: dict[str, Any]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path.parent} cannot be resumed: {MANIFEST}, which says what its parts are, cannot be read ({error}); "
            "begin anew in another folder"
        ) from error
    # as the file has it
    now = json.loads(json.dumps(manifest))
    if changed := [name for name in now if before.get(name) != now[name]]:
        told = ", ".join(f"{name} was {before.get(name)!r} and is {now[name]!r}" for name in changed)
        raise ValueError(f"{path.parent} cannot be resumed: {told}. Give the options of the first run, or another path")


def _parts_there(folder: Path, bounds: list[tuple[int, int]], num_crystals: int) -> set[int]:
    """Numbers of the parts that are there and whole; the last one of a shorter run is not."""
    import pyarrow
    import pyarrow.parquet

    there = set()
    for path in sorted(folder.glob("part-*.parquet")):
        number = int(path.stem.removeprefix("part-"))
        try:
            rows = pyarrow.parquet.read_metadata(path).num_rows
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                # of the system, not of the file: Arrow calls a damaged footer an OSError too
                raise
            logger.warning("%s is damaged (%s) and is made anew", path, error)
            continue
        wanted = bounds[number][1] - bounds[number][0] if number < len(bounds) else 0
        if rows > wanted:
            raise ValueError(
                f"{folder} holds more crystals already than the {num_crystals} that are asked for; {path.name} alone "
                f"has {rows}, {wanted} of which would be left"
            )
        if rows == wanted:
            there.add(number)
    return there
