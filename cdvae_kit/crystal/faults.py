"""What can be wrong with crystals that are understood: one check for files, conversion and relaxation alike.

Bounds on the size and shape of a cell stand first: a lost decimal point makes a cell in which every search for
neighbours is without end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

from cdvae_kit.crystal.arrays import MIN_VOLUME
from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.errors import (
    CrystalError,
    MissingCellError,
    NonFiniteError,
    OddCellError,
    OverlappingAtomsError,
    TooManyAtomsError,
)
from cdvae_kit.crystal.lattice import plane_spacings, volume
from cdvae_kit.crystal.periodic_images import shortest_distances

NON_FINITE = "a coordinate or a cell vector is NaN or infinite; mend or leave out the crystal"

_DENSE_SEARCH_ATOMS = 1000
_PAIRS_AT_ONCE = 10**6


class CellLimits(NamedTuple):
    """The cells that are taken. Raise what is in the way of a crystal that is really so.

    Attributes:
        max_length: angstrom, of an edge.
        max_aspect: the longest edge over the least distance between two opposite faces.
        max_volume_per_atom: cubic angstrom.
        min_volume: cubic angstrom.
    """

    max_length: float = 2000.0
    max_aspect: float = 2000.0
    max_volume_per_atom: float = 1e5
    min_volume: float = MIN_VOLUME


ANY_CELL = CellLimits(float("inf"), float("inf"), float("inf"), 1e-6)
"""No bound but that there is a cell: in a smaller one positions have no fractions."""


_DEFAULT = CellLimits()
_limits: ContextVar[CellLimits] = ContextVar("cell_limits", default=_DEFAULT)


def current_limits() -> CellLimits:
    """The limits that hold where none are given."""
    return _limits.get()


@contextmanager
def cell_limits(limits: CellLimits) -> Iterator[None]:
    """Within the block these limits hold where none are given.

    >>> with cell_limits(CellLimits(max_length=5000.0)):
    ...     current_limits().max_length
    5000.0
    """
    token = _limits.set(limits)
    try:
        yield
    finally:
        _limits.reset(token)


def crystal_faults(
    batch: CrystalBatch,
    *,
    max_atoms: int | None = None,
    min_distance: float | None = 0.5,
    limits: CellLimits | None = None,
) -> list[CrystalError | None]:
    """What is wrong with each crystal of a batch, None where nothing is: all at once, none raised.

    Args:
        batch: the crystals.
        max_atoms: the most that are taken; None takes any number.
        min_distance: angstrom; atoms (periodic images included) that are closer overlap; None takes any distance.
        limits: of the cells; by default `current_limits`.
    """
    limits = current_limits() if limits is None else limits
    faults: list[CrystalError | None] = [None] * len(batch)
    finite = batch.lattice.isfinite().flatten(1).all(1) & _all_in_crystal(batch.frac_coords.isfinite().all(1), batch)
    lengths, spacings = batch.lattice.norm(dim=-1), plane_spacings(batch.lattice)
    volumes = volume(batch.lattice)
    longest, aspects = lengths.amax(1), lengths.amax(1) / spacings.amin(1).clamp_min(1e-12)
    columns = (finite, volumes, longest, aspects, batch.num_atoms)
    for i, (is_finite, size, length, aspect, num_atoms) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        if not is_finite:
            faults[i] = NonFiniteError(NON_FINITE)
        elif not size > limits.min_volume:
            faults[i] = MissingCellError(
                f"the cell has no volume ({size:.2g} cubic angstrom, more than {limits.min_volume:g} are expected); "
                "give three vectors that do not lie in a plane"
            )
        elif max_atoms is not None and num_atoms > max_atoms:
            faults[i] = TooManyAtomsError(
                f"{num_atoms} atoms in the cell, at most {max_atoms} are taken; "
                "give the primitive cell, or use a larger limit or model"
            )
        else:
            faults[i] = _fault_of_cell(length, aspect, size / num_atoms, limits)
    if min_distance is not None:
        _add_overlaps(faults, batch, min_distance)
    return faults


def _fault_of_cell(length: float, aspect: float, volume_per_atom: float, limits: CellLimits) -> CrystalError | None:
    for what, value, most, name in (
        ("an edge of {} angstrom", length, limits.max_length, "max_length"),
        ("a longest edge {} times the distance of its nearest faces", aspect, limits.max_aspect, "max_aspect"),
        ("{} cubic angstrom an atom", volume_per_atom, limits.max_volume_per_atom, "max_volume_per_atom"),
    ):
        if value > most:
            return OddCellError(
                f"the cell has {what.format(f'{value:.4g}')}, at most {most:g} are taken; look for a lost decimal "
                f"point or other units, or raise the limit {name}"
            )
    return None


def _add_overlaps(faults: list[CrystalError | None], batch: CrystalBatch, min_distance: float) -> None:
    counts = batch.num_atoms.tolist()
    sound = [i for i, fault in enumerate(faults) if fault is None]
    chunk: list[int] = []
    pairs = 0
    for i in sound:
        if counts[i] > _DENSE_SEARCH_ATOMS:
            faults[i] = _large_overlap(batch.select([i]), min_distance)
            continue
        if chunk and pairs + counts[i] ** 2 > _PAIRS_AT_ONCE:
            _overlaps_of(chunk, faults, batch, min_distance)
            chunk, pairs = [], 0
        chunk.append(i)
        pairs += counts[i] ** 2
    _overlaps_of(chunk, faults, batch, min_distance)


def _overlaps_of(
    chosen: list[int], faults: list[CrystalError | None], batch: CrystalBatch, min_distance: float
) -> None:
    """Overlaps of some crystals; one with too many images to search is a fault of its own, not of its neighbours."""
    if not chosen:
        return
    part = batch if len(chosen) == len(batch) else batch.select(chosen)
    try:
        shortest = shortest_distances(part, own_images=True).tolist()
    except ValueError as error:
        if len(chosen) == 1:
            faults[chosen[0]] = OddCellError(str(error))
            return
        for i in chosen:
            _overlaps_of([i], faults, batch, min_distance)
        return
    for i, distance in zip(chosen, shortest, strict=True):
        if distance < min_distance:
            faults[i] = _overlap(distance, min_distance)


def _large_overlap(crystal: CrystalBatch, min_distance: float) -> CrystalError | None:
    """By cells of space, not by all pairs of atoms."""
    from ase.neighborlist import neighbor_list

    distances = neighbor_list("d", crystal.atoms()[0], min_distance)
    return _overlap(float(distances.min()), min_distance) if len(distances) else None


def _overlap(distance: float, min_distance: float) -> OverlappingAtomsError:
    return OverlappingAtomsError(
        f"the shortest distance between atoms is {distance:.3f} angstrom, at least {min_distance} is expected; "
        "look for sites given twice or a cell in other units"
    )


def _all_in_crystal(flag: Tensor, batch: CrystalBatch) -> Tensor:
    bad = torch.zeros(len(batch), dtype=torch.long, device=flag.device).index_add_(0, batch.batch, (~flag).long())
    return bad == 0
