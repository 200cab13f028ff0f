"""Crystals of any kind as the arrays that a relaxation starts from, with the reason where one cannot be relaxed."""

from __future__ import annotations

from dataclasses import replace

import torch

from cdvae_kit.crystal.arrays import CrystalArrays
from cdvae_kit.crystal.batch import batch_of_arrays
from cdvae_kit.crystal.conversion import arrays_of
from cdvae_kit.crystal.faults import crystal_faults
from cdvae_kit.relaxation.result import Crystals


def starts_of(crystals: Crystals, *, min_distance: float = 0.5) -> list[CrystalArrays]:
    """One entry a crystal, in order.

    Args:
        crystals: a batch, or structures, ASE atoms, arrays and None in any mixture.
        min_distance: angstrom; atoms nearer than this, periodic images included, are a fault.
    """
    return [_checked(start, min_distance) for start in arrays_of(crystals)]


def overlap_fault(start: CrystalArrays, min_distance: float) -> str | None:
    """What is wrong with a crystal of finite cell and coordinates, None where nothing is."""
    try:
        fault = crystal_faults(batch_of_arrays([start], dtype=torch.float64), min_distance=min_distance)[0]
    except ValueError as error:  # elements beyond the table; a cell so thin that its images cannot be counted
        return str(error)
    return None if fault is None else str(fault)


def _checked(start: CrystalArrays, min_distance: float) -> CrystalArrays:
    fault = start.fault
    if fault is None and not len(start.atomic_numbers):
        fault = "there is no atom"
    if fault is None and len(start.atomic_numbers) != len(start.frac_coords):
        fault = f"{len(start.atomic_numbers)} atomic numbers for {len(start.frac_coords)} positions"
    if fault is None:
        fault = overlap_fault(start, min_distance)
    return replace(start, fault=fault)
