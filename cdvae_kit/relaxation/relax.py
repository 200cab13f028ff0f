"""Relaxation of many crystals, through any ASE calculator or batch by batch; a crystal that fails stops no other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, LBFGS
from ase.optimize.fire2 import FIRE2
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from cdvae_kit.crystal.arrays import CrystalArrays
from cdvae_kit.relaxation.batched import iter_relax_batched
from cdvae_kit.relaxation.calculators import describe_calculator, make_calculator, make_potential
from cdvae_kit.relaxation.outcome import (
    CALCULATOR_ERRORS,
    NOT_FINITE,
    calculator_fault,
    failure,
    finished,
    volume_fault,
)
from cdvae_kit.relaxation.potentials import BatchedPotential
from cdvae_kit.relaxation.result import (
    Crystals,
    Frame,
    Optimizer,
    Relaxation,
    RelaxationSettings,
)
from cdvae_kit.relaxation.starts import starts_of
from cdvae_kit.relaxation.symmetry import Operations, idealised, operations_of, symmetrise
from cdvae_kit.typing import Progress

AnyCalculator: TypeAlias = "str | BaseCalculator | BatchedPotential"
"""A name that `make_calculator` knows, an ASE calculator, or a potential that takes batches."""

_OPTIMIZERS: dict[str, Any] = {"FIRE": FIRE, "FIRE2": FIRE2, "LBFGS": LBFGS, "BFGS": BFGS}
_CRYSTALS_A_TASK = 4


def relax(
    crystals: Crystals,
    calculator: AnyCalculator,
    *,
    fmax: float = 0.05,
    max_steps: int = 500,
    relax_cell: bool = True,
    optimizer: Optimizer = "FIRE",
    min_distance: float = 0.5,
    max_volume_change: float = 5.0,
    keep_trajectory: bool = False,
    keep_symmetry: bool = False,
    symprec: float = 0.1,
    device: str = "auto",
    num_workers: int = 1,
    progress: Progress | None = None,
) -> list[Relaxation]:
    """One `Relaxation` a crystal, in order; what fails says why. `iter_relax` gives them as they are done.

    Args:
        crystals: a batch, or structures, ASE atoms, arrays and None in any mixture.
        calculator: by name, ready made, or a `BatchedPotential`.
        fmax: as `max_steps`, `relax_cell`, `optimizer`, `min_distance`, `max_volume_change`, `keep_trajectory`,
            `keep_symmetry` and `symprec`, see `RelaxationSettings`.
        device: for a calculator that is given by name.
        num_workers: processes; -1 takes every core. A potential that takes batches runs in this one.
        progress: told after every crystal.

    >>> from ase.build import bulk
    >>> copper, plutonium = relax([bulk("Cu", "fcc", a=3.4), bulk("Pu", "fcc", a=4.6)], "emt", fmax=0.01)
    >>> f"{copper.lattice[0].max() * 2:.2f}", plutonium.reason
    ('3.59', 'the calculator failed: NotImplementedError: No EMT-potential for Pu')
    """
    settings = RelaxationSettings(
        fmax,
        max_steps,
        relax_cell,
        optimizer,
        min_distance,
        max_volume_change,
        keep_trajectory,
        keep_symmetry,
        symprec,
    )
    starts = _starts(crystals, settings)
    if progress is not None:
        progress(0, len(starts))
    results: dict[int, Relaxation] = {}
    for i, result in _iter_starts(starts, calculator, settings, device, num_workers):
        results[i] = result
        if progress is not None:
            progress(len(results), len(starts))
    return [results[i] for i in range(len(starts))]


def iter_relax(
    crystals: Crystals,
    calculator: AnyCalculator,
    settings: RelaxationSettings | None = None,
    *,
    device: str = "auto",
    num_workers: int = 1,
) -> Iterator[tuple[int, Relaxation]]:
    """(place in the set, result) as crystals are done: in order, but for potentials that take batches.

    What was given stays with the caller when the rest is interrupted.
    """
    settings = settings or RelaxationSettings()
    starts = _starts(crystals, settings)
    yield from _iter_starts(starts, calculator, settings, device, num_workers)


def _starts(crystals: Crystals, settings: RelaxationSettings) -> list[CrystalArrays]:
    starts = starts_of(crystals, min_distance=settings.min_distance)
    return [idealised(start, settings.symprec) for start in starts] if settings.keep_symmetry else starts


def _iter_starts(
    starts: Sequence[CrystalArrays],
    calculator: AnyCalculator,
    settings: RelaxationSettings,
    device: str,
    num_workers: int,
) -> Iterator[tuple[int, Relaxation]]:
    if num_workers == 0 or num_workers < -1:
        raise ValueError(f"num_workers must be a number of processes, or -1 for every core, got {num_workers}")
    if isinstance(calculator, str) and settings.optimizer == "FIRE" and num_workers == 1:
        potential = make_potential(calculator, device=device)
        calculator = calculator if potential is None else potential
    if isinstance(calculator, BatchedPotential):
        if settings.optimizer != "FIRE":
            raise ValueError(
                f"crystals are relaxed in batches by FIRE alone, got {settings.optimizer}; give the calculator instead"
            )
        yield from iter_relax_batched(starts, calculator, settings)
        return
    # made here first: a name that is wrong, or a package that is not there, must not fail in each worker
    ready = _made(calculator, device) if isinstance(calculator, str) else calculator
    _check_stress(ready, settings)
    if num_workers == 1 or len(starts) < 2:
        for i, start in enumerate(starts):
            yield i, relax_one(start, ready, settings)
        return
    from joblib import Parallel, delayed

    parts = [range(i, min(i + _CRYSTALS_A_TASK, len(starts))) for i in range(0, len(starts), _CRYSTALS_A_TASK)]
    run = Parallel(n_jobs=num_workers, return_as="generator", batch_size=1)
    done = run(delayed(_relax_part)([starts[i] for i in part], calculator, device, settings) for part in parts)
    for part, results in zip(parts, done, strict=True):
        yield from zip(part, results, strict=True)


def relax_one(start: CrystalArrays, calculator: BaseCalculator, settings: RelaxationSettings) -> Relaxation:
    """One crystal through an ASE calculator; what the calculator raises over it becomes the reason."""
    if start.fault is not None:
        return failure(start, start.fault)
    atoms = Atoms(numbers=start.atomic_numbers, cell=start.lattice, scaled_positions=start.frac_coords, pbc=True)
    # what it remembers of the crystal before must not reach this one
    if hasattr(calculator, "reset"):
        calculator.reset()
    atoms.calc = calculator
    operations = operations_of(start) if settings.keep_symmetry else None
    seen = _Seen()
    with np.errstate(all="ignore"):
        try:
            fault = _run(atoms, seen, settings, operations)
        except CALCULATOR_ERRORS as error:
            fault = calculator_fault(error)
    if fault is not None:
        initial_energy = seen.energies[0] if seen.energies else None
        return failure(start, fault, initial_energy=initial_energy, steps=seen.steps, frames=seen.frames)
    return finished(
        start,
        settings,
        lattice=atoms.cell.array.copy(),
        frac_coords=_frac_coords(atoms),
        energy=seen.energies[-1],
        initial_energy=seen.energies[0],
        max_force=seen.max_force,
        max_stress=seen.max_stress,
        steps=seen.steps,
        converged=seen.converged,
        frames=seen.frames,
    )


@dataclass
class _Seen:
    """What is taken down of a crystal on its way."""

    energies: list[float] = field(default_factory=list)
    max_force: float = math.nan
    max_stress: float | None = None
    steps: int = 0
    converged: bool = False
    frames: list[Frame] = field(default_factory=list)


class _KeepSymmetry:
    """ASE's constraint: forces and stress with the symmetry of the crystal, whatever the calculator gives."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    def adjust_positions(self, atoms: Atoms, new: np.ndarray) -> None:
        """They move along symmetric forces."""

    def adjust_cell(self, atoms: Atoms, cell: np.ndarray) -> None:
        """Likewise."""

    def get_removed_dof(self, atoms: Atoms) -> int:
        return 0

    def adjust_forces(self, atoms: Atoms, forces: np.ndarray) -> None:
        forces[:] = symmetrise(forces, np.zeros((3, 3)), atoms.cell.array, self.operations)[0]

    def adjust_stress(self, atoms: Atoms, stress: np.ndarray) -> None:
        none = np.zeros((len(atoms), 3))
        full = symmetrise(none, voigt_6_to_full_3x3_stress(stress), atoms.cell.array, self.operations)[1]
        stress[:] = full_3x3_to_voigt_6_stress(full)


def _run(atoms: Atoms, seen: _Seen, settings: RelaxationSettings, operations: Operations | None) -> str | None:
    """Lets the optimizer go as long as the crystal is one; gives what went wrong."""
    if operations is not None:
        atoms.set_constraint(_KeepSymmetry(operations))
    target = FrechetCellFilter(atoms) if settings.relax_cell else atoms
    optimizer = _OPTIMIZERS[settings.optimizer](target, logfile=None)
    initial_volume = atoms.cell.volume
    for converged in optimizer.irun(fmax=settings.fmax, steps=settings.max_steps):
        seen.steps = optimizer.nsteps
        if (fault := volume_fault(atoms.cell.volume / initial_volume, settings)) is not None:
            return fault
        energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
        stress = atoms.get_stress() if settings.relax_cell else None
        if not all(np.isfinite(values).all() for values in (energy, forces, 0.0 if stress is None else stress)):
            return NOT_FINITE
        seen.energies.append(energy)
        seen.max_force = float(np.linalg.norm(forces, axis=1).max())
        seen.max_stress = None if stress is None else float(np.abs(stress).max())
        seen.converged = bool(converged)
        if settings.keep_trajectory:
            seen.frames.append(Frame(atoms.cell.array.copy(), _frac_coords(atoms), energy))
    return None


def _frac_coords(atoms: Atoms) -> np.ndarray:
    # not wrapped: a trajectory must not jump
    return np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T


def _relax_part(
    starts: Sequence[CrystalArrays], calculator: str | BaseCalculator, device: str, settings: RelaxationSettings
) -> list[Relaxation]:
    ready = _made(calculator, device) if isinstance(calculator, str) else calculator
    return [relax_one(start, ready, settings) for start in starts]


@cache
def _made(name: str, device: str) -> BaseCalculator:
    return make_calculator(name, device=device)


def _check_stress(calculator: BaseCalculator, settings: RelaxationSettings) -> None:
    properties = getattr(calculator, "implemented_properties", ())
    if settings.relax_cell and properties and "stress" not in properties:
        raise ValueError(
            f"the calculator {describe_calculator(calculator)} gives no stress, so the cell cannot be relaxed; "
            "use relax_cell=False or another calculator"
        )
