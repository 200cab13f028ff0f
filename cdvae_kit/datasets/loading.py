"""Crystals by the name of a data set, of a folder of splits or of a file; and splits made here.

Files are read through `cache`; what the names stand for is in `registry`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets.cache import load_crystals
from cdvae_kit.datasets.registry import DATASETS, SPLITS, UnknownDatasetError, dataset_info, default_data_dir
from cdvae_kit.io.crystals.containers import detect_format
from cdvae_kit.io.crystals.formats import query_of
from cdvae_kit.io.crystals.reading import ReadError, ReadResult
from cdvae_kit.io.crystals.records import ReadFailure, UnreadableSourceError
from cdvae_kit.typing import OpenProgress

_BuiltInSplit = Literal["all", "train", "val", "test"]


def load_dataset(
    name_or_path: str | os.PathLike[str],
    *,
    split: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    reduce: Literal["niggli"] | None = "niggli",
    max_atoms: int | None = None,
    strict: bool = False,
    lenient: bool = False,
    num_workers: int | None = None,
    progress: OpenProgress | None = None,
    dtype: torch.dtype = torch.float32,
) -> ReadResult:
    """The crystals of a data set's split, and the records of it that failed.

    Args:
        name_or_path: one of `DATASETS`; the name of a folder in `folder`; a folder that holds `train`, `val`, `test`
            (files of any known format, or folders); a file or a folder of crystals. A known name comes before a path
            of the same spelling: write `./perov_5` for the path. `optimade://HOST?FILTER` is a question to a provider.
        split: "train", "val" or "test"; None where there are none. "all" for the built-in set too.
        folder: where the data sets lie, by default where `download_dataset` puts them.
        cache_dir: as the rest of the arguments, see `load_crystals`.

    >>> load_dataset("ionic_prototypes", split="test").crystals.num_atoms.max()
    tensor(14)
    """
    if name_or_path == "ionic_prototypes":
        return _built_in(split, max_atoms, dtype)
    path = name_or_path if query_of(name_or_path) else _find(name_or_path, split, folder)
    return load_crystals(
        path,
        cache_dir=cache_dir,
        reduce=reduce,
        max_atoms=max_atoms,
        strict=strict,
        lenient=lenient,
        num_workers=num_workers,
        progress=progress,
        dtype=dtype,
    )


def split_crystals(crystals: CrystalBatch, fractions: Sequence[float], *, seed: int) -> tuple[CrystalBatch, ...]:
    """Parts of a batch in proportion to `fractions`, crystals in the order they had.

    The part of a crystal depends on `seed`, the names of all crystals and nothing else: they are ranked by a hash of
    (seed, material id) and the ranking is cut, so another order of the same crystals gives the same parts. Crystals
    that share a name are told apart by their order; a batch without names is ranked by index.

    >>> batch = load_dataset("ionic_prototypes", split="val").crystals
    >>> chosen, rest = split_crystals(batch, (0.1, 0.9), seed=0)
    >>> len(chosen), len(rest)
    (19, 170)
    """
    if not fractions or min(fractions) <= 0.0 or abs(sum(fractions) - 1.0) > 1e-6:
        raise ValueError(f"fractions must be positive and sum to 1, got {tuple(fractions)}")
    names = crystals.material_ids or [str(i) for i in range(len(crystals))]
    occurrences: dict[str, int] = {}
    keys: list[bytes] = []
    for name in names:
        occurrences[name] = occurrences.get(name, 0) + 1
        keys.append(hashlib.sha256(f"{seed}\0{name}\0{occurrences[name]}".encode()).digest())
    ranking = sorted(range(len(keys)), key=keys.__getitem__)
    ends = [0, *(round(sum(fractions[: i + 1]) * len(keys)) for i in range(len(fractions)))]
    ends[-1] = len(keys)
    sizes = [end - start for start, end in itertools.pairwise(ends)]
    if min(sizes) < 1:
        raise ValueError(
            f"{len(keys)} crystals cannot be split by {tuple(fractions)}: the parts would have {sizes}; "
            "give more crystals or larger fractions"
        )
    return tuple(crystals.select(sorted(ranking[start:end])) for start, end in itertools.pairwise(ends))


def _built_in(split: str | None, max_atoms: int | None, dtype: torch.dtype) -> ReadResult:
    from cdvae_kit.datasets.ionic_prototypes import load_ionic_prototypes

    if split not in get_args(_BuiltInSplit):
        raise ValueError(f"ionic_prototypes has the splits {', '.join(get_args(_BuiltInSplit))}, got {split!r}")
    crystals = load_ionic_prototypes(split=split, dtype=dtype)  # type: ignore[arg-type]
    if max_atoms is None:
        return ReadResult(crystals, [])
    fits = crystals.num_atoms <= max_atoms
    failures = [
        ReadFailure("ionic_prototypes", (crystals.material_ids or [])[i], f"more than the {max_atoms} atoms asked for")
        for i in (~fits).nonzero().flatten().tolist()
    ]
    if not fits.any():
        raise ReadError(f"no crystal of ionic_prototypes has at most {max_atoms} atoms; the smallest have 2")
    return ReadResult(crystals.select(fits.nonzero().flatten()), failures)


def _find(name_or_path: str | os.PathLike[str], split: str | None, folder: str | os.PathLike[str] | None) -> Path:
    name = os.fspath(name_or_path)
    home = Path(folder) if folder is not None else default_data_dir()
    if name in DATASETS:
        return _find_registered(name, split, home)
    path = Path(name_or_path)
    if not path.exists() and folder is not None:
        path = home / name
    if path.is_dir():
        return _find_split(path, split)
    if path.is_file():
        if split is not None:
            raise ValueError(f"{path} is a single file and has no split {split!r}; leave the split out")
        return path
    looked_for = name if folder is None else f"{name} or {home / name}"
    raise FileNotFoundError(f"there is no file or folder {looked_for}, and {UnknownDatasetError(name)}")


def _find_registered(name: str, split: str | None, home: Path) -> Path:
    info = dataset_info(name)
    if split is None or split not in info.blob_ids:
        raise ValueError(f"{name} has the splits {', '.join(info.blob_ids)}, got {split!r}")
    if (home / name).is_dir() and (found := _candidates(home / name, split)):
        return _only_one(found, split, home / name)
    raise FileNotFoundError(
        f"{home / info.file_name(split)} (or .gz) does not exist; get it with `generate-crystals download {name}` or "
        f"download_dataset({name!r}), or name the folder that holds {name}/ with its files"
    )


def _find_split(folder: Path, split: str | None) -> Path:
    if split is None:
        present = [known for known in SPLITS if _candidates(folder, known)]
        if present:
            raise ValueError(f"{folder} holds the splits {', '.join(present)}; say which one")
        return folder
    found = _candidates(folder, split)
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no {split}: expected a file such as {split}.csv, {split}.csv.gz, {split}.parquet or "
            f"{split}.extxyz, or a folder {split}"
        )
    return _only_one(found, split, folder)


def _candidates(folder: Path, split: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.split(".")[0] == split and _has_known_format(path))


def _has_known_format(path: Path) -> bool:
    try:
        detect_format(path)
    except UnreadableSourceError:
        return False
    return True


def _only_one(found: list[Path], split: str, folder: Path) -> Path:
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder} holds several files for {split}: {names}; name the one you mean by its path")
    return found[0]
