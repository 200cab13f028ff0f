"""The verdict on a crystal on its way and at its end, the same for every way of relaxing it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cdvae_kit.crystal.arrays import CrystalArrays
from cdvae_kit.relaxation.result import Frame, Relaxation, RelaxationSettings
from cdvae_kit.relaxation.starts import overlap_fault

CALCULATOR_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What calculators raise over a crystal that they cannot take; they are other people's, so the list is long."""

NOT_FINITE = "the energy, a force or the stress is NaN or infinite"


def volume(lattice: np.ndarray) -> float:
    """Cubic angstrom, never negative."""
    with np.errstate(over="ignore", invalid="ignore"):
        return abs(float(np.linalg.det(lattice)))


def volume_fault(ratio: float, settings: RelaxationSettings) -> str | None:
    """What is wrong with a cell that has `ratio` times the volume it began with, None where nothing is."""
    if not math.isfinite(ratio):
        return "the cell became NaN or infinite"
    if ratio > settings.max_volume_change:
        return f"the cell exploded: its volume grew by more than {settings.max_volume_change:g} times"
    if ratio < 1 / settings.max_volume_change:
        return f"the cell collapsed: its volume shrank by more than {settings.max_volume_change:g} times"
    return None


def calculator_fault(error: Exception) -> str:
    """The reason of a crystal that a calculator would not take."""
    return f"the calculator failed: {type(error).__name__}: {error}"


def failure(
    start: CrystalArrays,
    reason: str,
    *,
    initial_energy: float | None = None,
    steps: int = 0,
    frames: Sequence[Frame] = (),
) -> Relaxation:
    """A crystal that has no energy in the end."""
    return Relaxation(
        atomic_numbers=start.atomic_numbers,
        initial_lattice=start.lattice,
        initial_frac_coords=start.frac_coords,
        lattice=start.lattice,
        frac_coords=start.frac_coords,
        energy=None,
        initial_energy=initial_energy,
        max_force=None,
        max_stress=None,
        steps=steps,
        converged=False,
        reason=reason,
        trajectory=tuple(frames),
    )


def finished(
    start: CrystalArrays,
    settings: RelaxationSettings,
    *,
    lattice: np.ndarray,
    frac_coords: np.ndarray,
    energy: float,
    initial_energy: float,
    max_force: float,
    max_stress: float | None,
    steps: int,
    converged: bool,
    frames: Sequence[Frame] = (),
) -> Relaxation:
    """A crystal whose optimizer has come to an end: converged, out of steps, or with atoms inside each other."""
    fault = overlap_fault(CrystalArrays(lattice, frac_coords, start.atomic_numbers), settings.min_distance)
    if fault is not None:
        reason = f"the relaxed crystal cannot be: {fault}"
        return failure(start, reason, initial_energy=initial_energy, steps=steps, frames=frames)
    left = f"force {max_force:.3f} eV/A" + ("" if max_stress is None else f", stress {max_stress:.4f} eV/A^3")
    return Relaxation(
        atomic_numbers=start.atomic_numbers,
        initial_lattice=start.lattice,
        initial_frac_coords=start.frac_coords,
        lattice=lattice,
        frac_coords=frac_coords,
        energy=energy,
        initial_energy=initial_energy,
        max_force=max_force,
        max_stress=max_stress,
        steps=steps,
        converged=converged,
        reason=None if converged else f"not converged after {steps} steps: {left}",
        trajectory=tuple(frames),
    )
