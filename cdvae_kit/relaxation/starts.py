"""Crystals of any kind as the arrays that a relaxation starts from, with the reason where one cannot be relaxed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.conversion import atoms_to_batch, structures_to_batch
from cdvae_kit.crystal.errors import CrystalError
from cdvae_kit.crystal.faults import crystal_faults
from cdvae_kit.relaxation.result import Crystals, Start

if TYPE_CHECKING:
    from pymatgen.core import Structure


def starts_of(crystals: Crystals, *, min_distance: float = 0.5) -> list[Start]:
    """One entry a crystal, in order.

    Args:
        crystals: a batch, or structures, ASE atoms, arrays and None in any mixture.
        min_distance: angstrom; atoms nearer than this, periodic images included, are a fault.
    """
    if isinstance(crystals, CrystalBatch):
        bounds = crystals.ptr.tolist()
        lattice = crystals.lattice.detach().cpu().double().numpy()
        frac_coords = crystals.frac_coords.detach().cpu().double().numpy()
        numbers = crystals.atomic_numbers.cpu().numpy()
        starts = [
            Start(lattice[i], frac_coords[first:end], numbers[first:end])
            for i, (first, end) in enumerate(pairwise(bounds))
        ]
    else:
        starts = [_start(crystal) for crystal in cast("Sequence[object]", crystals)]
    return [_checked(start, min_distance) for start in starts]


def batch_of(starts: Sequence[Start]) -> CrystalBatch:
    """The crystals as one double-precision batch."""
    return CrystalBatch(
        torch.from_numpy(np.concatenate([start.frac_coords for start in starts])),
        torch.from_numpy(np.stack([start.lattice for start in starts])),
        torch.from_numpy(np.concatenate([start.atomic_numbers for start in starts])),
        torch.tensor([len(start.atomic_numbers) for start in starts]),
    )


def overlap_fault(start: Start, min_distance: float) -> str | None:
    """What is wrong with a crystal of finite cell and coordinates, None where nothing is."""
    try:
        fault = crystal_faults(batch_of([start]), min_distance=min_distance)[0]
    except ValueError as error:  # elements beyond the table; a cell so thin that its images cannot be counted
        return str(error)
    return None if fault is None else str(fault)


def _start(crystal: object) -> Start:
    from ase import Atoms
    from pymatgen.core.structure import SiteCollection

    if crystal is None:
        return _unusable("there is no crystal: it could not be made")
    if isinstance(crystal, Atoms | SiteCollection):
        try:
            batch = (
                atoms_to_batch([crystal], dtype=torch.float64)
                if isinstance(crystal, Atoms)
                else structures_to_batch([cast("Structure", crystal)], dtype=torch.float64)
            )
        except CrystalError as error:
            return _unusable(str(error).removeprefix("crystal 0: "))
        return Start(batch.lattice[0].numpy(), batch.frac_coords.numpy(), batch.atomic_numbers.numpy())
    try:
        return Start(
            np.array(crystal.lattice, dtype=np.float64).reshape(3, 3),  # type: ignore[attr-defined]
            np.array(crystal.frac_coords, dtype=np.float64).reshape(-1, 3),  # type: ignore[attr-defined]
            np.array(crystal.atomic_numbers, dtype=np.int64).reshape(-1),  # type: ignore[attr-defined]
            getattr(crystal, "fault", None),
        )
    except AttributeError as error:
        raise TypeError(
            "crystals to relax are a CrystalBatch, pymatgen structures, ASE atoms, objects with lattice, frac_coords "
            f"and atomic_numbers, or None; got {type(crystal).__name__}"
        ) from error


def _checked(start: Start, min_distance: float) -> Start:
    fault = start.fault
    if fault is None and not len(start.atomic_numbers):
        fault = "there is no atom"
    if fault is None and len(start.atomic_numbers) != len(start.frac_coords):
        fault = f"{len(start.atomic_numbers)} atomic numbers for {len(start.frac_coords)} positions"
    if fault is None:
        fault = overlap_fault(start, min_distance)
    return Start(start.lattice, start.frac_coords, start.atomic_numbers, fault)


def _unusable(fault: str) -> Start:
    return Start(np.zeros((3, 3)), np.zeros((0, 3)), np.zeros(0, dtype=np.int64), fault)
