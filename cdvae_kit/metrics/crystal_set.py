"""A set of crystals that is to be judged: crystals, names, property values, and a place for those that are missing.

Rates need a denominator, so a record of a file that gives no crystal keeps its place here, with the reason. What one
crystal is to a metric is in `crystals`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from cdvae_kit.metrics.crystals import CrystalArrays, Crystals, as_arrays, unusable
from cdvae_kit.typing import OpenProgress

if TYPE_CHECKING:
    from cdvae_kit.crystal.batch import CrystalBatch
    from cdvae_kit.io.crystals.reading import ReadResult

CrystalSource: TypeAlias = "CrystalSet | ReadResult | Crystals"
"""What `crystal_set` takes."""

MATERIAL_ID = "material_id"
"""The key of a crystal's name in `Structure.properties`, as in `cdvae_kit.crystal.conversion`."""


@dataclass(frozen=True)
class CrystalSet:
    """Crystals in order.

    Attributes:
        arrays: one entry a crystal; those that cannot be used say why.
        names: one a crystal, "" where it has none.
        properties: name to (num_crystals,) values, NaN where a crystal has none.
        num_unread: records that gave no crystal; they are among `arrays`.
    """

    arrays: Sequence[CrystalArrays]
    names: Sequence[str]
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)
    num_unread: int = 0

    def __len__(self) -> int:
        return len(self.arrays)


def crystal_set(source: CrystalSource) -> CrystalSet:
    """A batch, a list of structures (None where one could not be made) or what was read of a file, as a set.

    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], properties={"gap": 6.3})
    >>> crystals = crystal_set([salt, None])
    >>> crystals.properties["gap"], crystals.arrays[1].fault
    (array([6.3, nan]), 'there is no crystal: it could not be built')
    """
    if isinstance(source, CrystalSet):
        return source
    if isinstance(source, Sequence):
        return CrystalSet(as_arrays(source), [_name(crystal) for crystal in source], _numbers(source))
    # told apart by what it has: naming the class would import torch
    if hasattr(source, "failures"):
        return _from_read(cast("ReadResult", source))
    return _from_batch(cast("CrystalBatch", source))


def read_crystal_set(
    path: str | os.PathLike[str],
    *,
    strict: bool = False,
    lenient: bool = False,
    num_workers: int = 1,
    progress: OpenProgress | None = None,
) -> CrystalSet:
    """The crystals of anything that `cdvae_kit.io.read_crystals` reads, in double precision and as the file has them.

    Overlapping atoms are left for the metrics to judge. A record that gives no crystal keeps its place, with the
    reason.

    Args:
        path: a file, a folder or an archive.
        strict: one such record is an error.
        lenient: take a file that contradicts itself as its atoms and operations stand.
        num_workers: processes that parse.
        progress: called with (records done, records in all).
    """
    import torch

    from cdvae_kit.io.crystals.reading import read_crystals

    return _from_read(
        read_crystals(
            path,
            strict=strict,
            min_distance=None,
            lenient=lenient,
            num_workers=num_workers,
            progress=progress,
            dtype=torch.float64,
        )
    )


def _from_batch(batch: CrystalBatch) -> CrystalSet:
    return CrystalSet(
        as_arrays(batch),
        batch.material_ids or [""] * len(batch),
        {name: values.detach().cpu().double().numpy() for name, values in batch.properties.items()},
    )


def _from_read(result: ReadResult) -> CrystalSet:
    read = _from_batch(result.crystals)
    if not result.failures:
        return read
    failed_at = result.failed_at or range(len(read), len(read) + len(result.failures))
    failed = dict(zip(failed_at, result.failures, strict=True))
    there = np.array([i for i in range(result.num_records) if i not in failed], dtype=np.int64)
    arrays: list[CrystalArrays] = [unusable("")] * result.num_records
    names = [""] * result.num_records
    for i, crystal, name in zip(there.tolist(), read.arrays, read.names, strict=True):
        arrays[i], names[i] = crystal, name
    for i, failure in failed.items():
        arrays[i], names[i] = unusable(f"it could not be read: {failure.reason}"), failure.record or failure.source
    properties = {}
    for name, values in read.properties.items():
        properties[name] = np.full(result.num_records, np.nan)
        properties[name][there] = values
    return CrystalSet(arrays, names, properties, len(failed))


def _name(crystal: object) -> str:
    return str(getattr(crystal, "properties", {}).get(MATERIAL_ID, ""))


def _numbers(crystals: Sequence[object]) -> dict[str, np.ndarray]:
    """What stands as a number in `Structure.properties` of any of the crystals."""
    tables = [getattr(crystal, "properties", {}) for crystal in crystals]
    values: dict[str, np.ndarray] = {}
    for i, table in enumerate(tables):
        for name, value in table.items():
            if isinstance(value, Real) and not isinstance(value, bool):
                values.setdefault(name, np.full(len(tables), np.nan))[i] = float(value)
    return values
