"""Crystals of a file, read and reduced once and kept as flat tensors.

An entry of the cache is one safetensors file, whose header holds names, failures and a digest of all of it as JSON.
Its name is a hash of the content that was read, of the options and of the format's version, so that an entry is never
out of date; nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.faults import CellLimits, current_limits
from cdvae_kit.io.atomic import atomic_file
from cdvae_kit.io.crystals.formats import query_of
from cdvae_kit.io.crystals.limits import MAX_BYTES, ReaderLimits, current_max_bytes, current_reader_limits
from cdvae_kit.io.crystals.reading import ReadError, ReadResult, read_crystals
from cdvae_kit.io.crystals.records import ReadFailure, ReadNote
from cdvae_kit.io.results.files import DamagedResultError, whole_content
from cdvae_kit.io.user_cache import default_cache_dir
from cdvae_kit.typing import OpenProgress

logger = logging.getLogger(__name__)

_VERSION = 2
"""Raised whenever reading or reduction gives other crystals than before."""

_FIELDS = ("frac_coords", "lattice", "atomic_numbers", "num_atoms")
_PROPERTY = "property."


class _DamagedEntryError(Exception):
    """An entry that is not what was written."""


def load_crystals(
    path: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    reduce: Literal["niggli"] | None = "niggli",
    max_atoms: int | None = None,
    strict: bool = False,
    lenient: bool = False,
    num_workers: int | None = None,
    progress: OpenProgress | None = None,
    dtype: torch.dtype = torch.float32,
) -> ReadResult:
    """The crystals of a file or folder, its failures too, from the cache if this content was read before.

    Several processes may ask for the same content at once: one reads, the others wait for its entry.

    Args:
        path: anything that `read_crystals` takes; what a server answers is not kept.
        cache_dir: folder of the entries, by default in the user's cache.
        reduce: "niggli" gives the Niggli-reduced cell in its standard frame, as CDVAE prepares its data.
        max_atoms: crystals with more atoms fail.
        strict: raise `ReadError` where a record fails, in place of listing it.
        lenient: take files that contradict themselves, with a note.
        num_workers: processes that read; by default one for every 4 MB of text, up to the number of cores.
        progress: called with the number of records done and of all.
        dtype: of coordinates, lattices and properties; entries hold float64.
    """
    if query_of(path):
        return read_crystals(
            path, reduce=reduce, max_atoms=max_atoms, strict=strict, lenient=lenient, progress=progress, dtype=dtype
        )
    path = Path(path)
    if not path.exists():
        raise ReadError(f"cannot read {path}: there is no such file or folder; check the spelling")
    entry = _entry_place(cache_dir, f"{_key(path, reduce, max_atoms, lenient=lenient)}.safetensors")
    result = _load_entry(entry, path)
    if result is not None:
        if progress is not None:
            progress(result.num_records, result.num_records)
    else:
        with _locked(entry) as can_write:
            # another process may have written it while this one waited
            result = _load_entry(entry, path) if can_write else None
            if result is None:
                result = read_crystals(
                    path,
                    reduce=reduce,
                    max_atoms=max_atoms,
                    strict=strict,
                    lenient=lenient,
                    num_workers=_fitting_workers(path) if num_workers is None else num_workers,
                    progress=progress,
                    dtype=torch.float64,
                )
                if entry is not None and can_write:
                    _keep(entry, result, path)
    if strict and result.failures:
        raise ReadError(f"{result.failures[0]} (strict reading stops at the first bad record)")
    return ReadResult(_cast(result.crystals, dtype), result.failures, notes=result.notes)


def _entry_place(cache_dir: str | os.PathLike[str] | None, name: str) -> Path | None:
    try:
        return (Path(cache_dir) if cache_dir is not None else default_cache_dir() / "crystals") / name
    except RuntimeError as error:
        # the user has no home
        logger.warning("there is no folder for the crystals that were read: %s; they are not kept", error)
        return None


@contextmanager
def _locked(entry: Path | None) -> Iterator[bool]:
    """Keeps other processes from making the same entry; False where nothing can be kept, which costs time alone."""
    with ExitStack() as stack:
        can_write = entry is not None
        if entry is not None:
            lock = entry.with_suffix(".lock")
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(lock))
                _remove_remains(entry)
            except OSError as error:
                _tell_of_no_cache(entry, error)
                can_write = False
        yield can_write
        if entry is not None and can_write and os.name != "nt":
            # whoever still waits for it finds the entry
            lock.unlink(missing_ok=True)


def _keep(entry: Path, result: ReadResult, path: Path) -> None:
    try:
        _save_entry(entry, result, path)
    except OSError as error:
        _tell_of_no_cache(entry, error)


def _tell_of_no_cache(entry: Path, error: OSError) -> None:
    logger.warning(
        "the cache %s cannot be written (%s); going on without it, so the crystals are read again next time",
        *(entry.parent, error.strerror or error),
    )


def _key(path: Path, reduce: str | None, max_atoms: int | None, *, lenient: bool) -> str:
    """What the entry depends on: content, name (it gives the format and ids), options, version."""
    parts: dict[str, Any] = {
        "version": _VERSION,
        "name": path.name,
        "content": _content_digest(path),
        "reduce": reduce,
        "max_atoms": max_atoms,
        "lenient": lenient,
    }
    if current_limits() != CellLimits():
        parts["limits"] = list(current_limits())
    if (current_max_bytes(), current_reader_limits()) != (MAX_BYTES, ReaderLimits()):
        parts["reader_limits"] = [current_max_bytes(), *current_reader_limits()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _content_digest(path: Path) -> str:
    """SHA-256 of a file; for a folder of the names and contents of all files in it."""
    if path.is_dir():
        files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
        listing = [(name, _content_digest(file)) for name, file in files]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fitting_workers(path: Path) -> int:
    """As many processes as are worth their start: each costs some seconds, in which one reads some 4 MB."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    # text packs about eight times
    num_bytes = sum(file.stat().st_size * (8 if file.suffix in (".gz", ".zip", ".parquet") else 1) for file in files)
    return max(1, min(_num_cores(), num_bytes // 4_000_000))


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _remove_remains(entry: Path) -> None:
    """Removes what processes that were killed while they wrote this entry left; the lock says that none writes now."""
    for remains in entry.parent.glob(f".tmp-*-{entry.name}"):
        remains.unlink(missing_ok=True)


def _save_entry(entry: Path, result: ReadResult, path: Path) -> None:
    crystals = result.crystals
    tensors = {name: getattr(crystals, name).contiguous() for name in _FIELDS}
    tensors |= {f"{_PROPERTY}{name}": values.contiguous() for name, values in crystals.properties.items()}
    # the place of the file is no part of its content
    failures, notes = (
        [[remark.source.removeprefix(str(path)), remark.record, remark.reason] for remark in remarks]
        for remarks in (result.failures, result.notes)
    )
    about = {
        "version": _VERSION,
        "properties": list(crystals.properties),
        "material_ids": crystals.material_ids,
        "failures": failures,
        "notes": notes,
    }
    text = json.dumps(about)
    with atomic_file(entry, overwrite=True) as temporary:
        # save_file would make a file that no one else may read, whatever the umask says
        temporary.write_bytes(save(tensors, metadata={"about": text, "digest": _entry_digest(tensors, text)}))


def _load_entry(entry: Path | None, path: Path) -> ReadResult | None:
    """None where there is no entry, or none that can be used."""
    try:
        if entry is None or not entry.is_file():
            return None
        with whole_content(entry, f"it is made anew from {path}"):
            return _read_entry(entry, path)
    except OSError as error:
        logger.warning("the cache entry %s cannot be read (%s)", entry, error.strerror or error)
        return None
    except DamagedResultError as error:
        logger.warning("%s", error)
        return None
    except (SafetensorError, _DamagedEntryError) as error:
        logger.warning("the cache entry %s is damaged (%s); it is made anew from %s", entry, error, path)
        return None


def _read_entry(entry: Path, path: Path) -> ReadResult:
    with safe_open(entry, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    if "about" not in header or header.get("digest") != _entry_digest(tensors, header["about"]):
        raise _DamagedEntryError("its content does not fit its digest")
    about = cast(dict[str, Any], json.loads(header["about"]))
    crystals = CrystalBatch(
        *(tensors[name] for name in _FIELDS),
        properties={name: tensors[f"{_PROPERTY}{name}"] for name in about["properties"]},
        material_ids=about["material_ids"],
    )
    failures = [ReadFailure(f"{path}{rest}", record, reason) for rest, record, reason in about["failures"]]
    notes = tuple(ReadNote(f"{path}{rest}", record, reason) for rest, record, reason in about["notes"])
    return ReadResult(crystals, failures, notes=notes)


def _entry_digest(tensors: dict[str, Tensor], about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _cast(crystals: CrystalBatch, dtype: torch.dtype) -> CrystalBatch:
    return crystals.replace(
        frac_coords=crystals.frac_coords.to(dtype),
        lattice=crystals.lattice.to(dtype),
        properties={name: values.to(dtype) for name, values in crystals.properties.items()},
    )
