"""FIRE over many crystals at once: positions and cell, each crystal with a step and a velocity of its own.

The rule is that of Bitzek et al. (Phys. Rev. Lett. 97, 170201 (2006)) as ASE's `FIRE` has it, in the coordinates of
ASE's `FrechetCellFilter`: positions in the frame of the first cell, and the logarithm of the deformation times the
number of atoms. So a crystal takes the same steps here as alone through ASE.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.crystal.arrays import CrystalArrays
from cdvae_kit.crystal.batch import CrystalBatch, ragged_index
from cdvae_kit.missing import finite_or_none
from cdvae_kit.relaxation.outcome import (
    CALCULATOR_ERRORS,
    NOT_FINITE,
    calculator_fault,
    failure,
    finished,
    volume_fault,
)
from cdvae_kit.relaxation.potentials import BatchedPotential, PotentialValues
from cdvae_kit.relaxation.result import Frame, Relaxation, RelaxationSettings
from cdvae_kit.relaxation.symmetry import Operations, operations_of, symmetrise

logger = logging.getLogger(__name__)

ATOMS_AT_ONCE = 2048
"""Atoms under way together; a larger crystal goes alone."""

# FIRE: ASE's constants, the paper's symbols
_DT, _DT_MAX, _MAX_STEP = 0.1, 1.0, 0.2
_N_MIN, _F_INC, _F_DEC = 5, 1.1, 0.5
_ALPHA_START, _F_ALPHA = 0.1, 0.99

_OF_ATOMS = ("atomic_numbers", "coords", "velocity")


@dataclass(frozen=True)
class _UnderWay:
    """The crystals that are being relaxed; one row a crystal, but for `_OF_ATOMS`, which have one an atom."""

    index: Tensor  # in the list of starts
    num_atoms: Tensor
    cell: Tensor  # (num_crystals, 3, 3), the first one
    strain: Tensor  # logarithm of the deformation, times num_atoms
    strain_velocity: Tensor
    atomic_numbers: Tensor
    coords: Tensor  # cartesian, in the frame of the first cell
    velocity: Tensor
    dt: Tensor
    alpha: Tensor
    num_downhill: Tensor
    steps: Tensor
    initial_energy: Tensor

    @property
    def batch(self) -> Tensor:
        return torch.repeat_interleave(self.num_atoms)

    @property
    def deformation(self) -> Tensor:
        """F, (num_crystals, 3, 3): the cell now is cell @ F^T."""
        return torch.linalg.matrix_exp(self.strain / self.num_atoms[:, None, None])

    @property
    def frac_coords(self) -> Tensor:
        return torch.linalg.solve(self.cell.transpose(1, 2)[self.batch], self.coords.unsqueeze(-1)).squeeze(-1)

    def crystals(self) -> CrystalBatch:
        lattice = self.cell @ self.deformation.transpose(1, 2)
        return CrystalBatch(self.frac_coords, lattice, self.atomic_numbers, self.num_atoms)

    def select(self, keep: Tensor) -> _UnderWay:
        index = torch.nonzero(keep).squeeze(1)
        first = self.num_atoms.cumsum(0) - self.num_atoms
        atoms = ragged_index(first[index], self.num_atoms[index])
        return _UnderWay(
            **{f.name: getattr(self, f.name)[atoms if f.name in _OF_ATOMS else index] for f in fields(self)}
        )

    def join(self, other: _UnderWay) -> _UnderWay:
        return _UnderWay(**{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)})


def iter_relax_batched(
    starts: Sequence[CrystalArrays],
    potential: BatchedPotential,
    settings: RelaxationSettings,
    *,
    atoms_at_once: int = ATOMS_AT_ONCE,
) -> Iterator[tuple[int, Relaxation]]:
    """(index, result) as crystals are done; those that are leave, and the next ones take their room."""
    waiting = []
    for i, start in enumerate(starts):
        if start.fault is None:
            waiting.append(i)
        else:
            yield i, failure(start, start.fault)
    waiting.reverse()
    under_way = _enter([], starts)
    frames: dict[int, list[Frame]] = {}
    operations: dict[int, Operations] = {}
    while waiting or len(under_way.index):
        room = atoms_at_once - len(under_way.coords)
        entering = _take(waiting, starts, room, alone=not len(under_way.index))
        if entering:
            under_way = under_way.join(_enter(entering, starts))
            if settings.keep_symmetry:
                operations.update((i, operations_of(starts[i])) for i in entering)
        crystals = under_way.crystals()
        values = _evaluate(crystals, under_way, potential, settings)
        if settings.keep_symmetry:
            _symmetrise(values, crystals, [operations[i] for i in under_way.index.tolist()])
        first = under_way.steps == 0
        under_way = replace(under_way, initial_energy=torch.where(first, values.energies, under_way.initial_energy))
        if settings.keep_trajectory:
            _keep_frames(frames, under_way, crystals, values)
        coords_force, strain_force = _generalised_forces(under_way, values, settings)
        largest = _largest_rows(under_way, coords_force, strain_force)
        failed = torch.tensor([reason is not None for reason in values.reasons])
        done = failed | (largest < settings.fmax) | (under_way.steps >= settings.max_steps)
        for b in torch.nonzero(done).squeeze(1).tolist():
            index = int(under_way.index[b])
            converged = bool(largest[b] < settings.fmax)
            yield index, _result(b, starts[index], under_way, crystals, values, converged, settings, frames)
        under_way = _step(under_way, coords_force, strain_force).select(~done)


def _symmetrise(values: PotentialValues, crystals: CrystalBatch, operations: Sequence[Operations]) -> None:
    """Puts the forces and the stress of each crystal in place that have its symmetry."""
    bounds = crystals.ptr.tolist()
    for b, (start, end) in enumerate(pairwise(bounds)):
        if values.reasons[b] is None:
            forces, stress = symmetrise(
                values.forces[start:end].numpy(), values.stresses[b].numpy(), crystals.lattice[b].numpy(), operations[b]
            )
            values.forces[start:end], values.stresses[b] = torch.from_numpy(forces), torch.from_numpy(stress)


def _take(waiting: list[int], starts: Sequence[CrystalArrays], room: int, *, alone: bool) -> list[int]:
    """Crystals off the end of `waiting` that fit; the first one in any case where nothing else is under way."""
    taken: list[int] = []
    while waiting and ((alone and not taken) or len(starts[waiting[-1]].atomic_numbers) <= room):
        taken.append(waiting.pop())
        room -= len(starts[taken[-1]].atomic_numbers)
    return taken


def _enter(indices: Sequence[int], starts: Sequence[CrystalArrays]) -> _UnderWay:
    chosen = [starts[i] for i in indices]
    cells = np.array([start.lattice for start in chosen], dtype=np.float64).reshape(-1, 3, 3)
    coords = [start.frac_coords @ start.lattice for start in chosen]
    numbers = [start.atomic_numbers for start in chosen]
    count = len(chosen)
    zero = torch.zeros(count, dtype=torch.float64)
    flat = torch.from_numpy(np.concatenate([np.zeros((0, 3)), *coords]))
    return _UnderWay(
        index=torch.tensor(indices, dtype=torch.long),
        num_atoms=torch.tensor([len(start.atomic_numbers) for start in chosen], dtype=torch.long),
        cell=torch.from_numpy(cells),
        strain=torch.zeros(count, 3, 3, dtype=torch.float64),
        strain_velocity=torch.zeros(count, 3, 3, dtype=torch.float64),
        atomic_numbers=torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int64), *numbers])),
        coords=flat,
        velocity=torch.zeros_like(flat),
        dt=zero + _DT,
        alpha=zero + _ALPHA_START,
        num_downhill=torch.zeros(count, dtype=torch.long),
        steps=torch.zeros(count, dtype=torch.long),
        initial_energy=zero + float("nan"),
    )


def _evaluate(
    crystals: CrystalBatch, under_way: _UnderWay, potential: BatchedPotential, settings: RelaxationSettings
) -> PotentialValues:
    """Values of all crystals, with a reason where a cell has gone astray, which the potential never sees."""
    ratios = torch.linalg.det(under_way.deformation).abs()
    ratios[_of_crystals(~under_way.coords.isfinite().all(1), under_way)] = float("nan")
    reasons = [volume_fault(ratio, settings) for ratio in ratios.tolist()]
    sane = [b for b, reason in enumerate(reasons) if reason is None]
    energies = torch.full((len(crystals),), float("nan"), dtype=torch.float64)
    forces = torch.full_like(under_way.coords, float("nan"))
    stresses = torch.full_like(under_way.cell, float("nan"))
    if sane:
        found = _attempt(crystals if len(sane) == len(crystals) else crystals.select(sane), potential)
        chosen = torch.zeros(len(crystals), dtype=torch.bool)
        chosen[sane] = True
        energies[chosen], stresses[chosen] = found.energies, found.stresses
        forces[chosen[under_way.batch]] = found.forces
        for b, reason in zip(sane, found.reasons, strict=True):
            reasons[b] = reason
    broken = ~energies.isfinite() | _of_crystals(~forces.isfinite().all(1), under_way)
    if settings.relax_cell:
        broken |= ~stresses.isfinite().flatten(1).all(1)
    for b in torch.nonzero(broken).squeeze(1).tolist():
        reasons[b] = reasons[b] or NOT_FINITE
    return PotentialValues(energies, forces, stresses, reasons)


def _attempt(crystals: CrystalBatch, potential: BatchedPotential) -> PotentialValues:
    """What the potential says; where it raises over the batch, over each crystal alone to find the one that it was."""
    try:
        return potential.evaluate(crystals)
    except CALCULATOR_ERRORS as error:
        if len(crystals) == 1:
            nan = float("nan")
            return PotentialValues(
                crystals.lattice.new_full((1,), nan),
                torch.full_like(crystals.frac_coords, nan),
                torch.full_like(crystals.lattice, nan),
                [calculator_fault(error)],
            )
        logger.warning("%s raised over a batch of %d, taken one by one: %s", potential.name, len(crystals), error)
    alone = [_attempt(crystals.select([b]), potential) for b in range(len(crystals))]
    return PotentialValues(
        torch.cat([values.energies for values in alone]),
        torch.cat([values.forces for values in alone]),
        torch.cat([values.stresses for values in alone]),
        [values.reasons[0] for values in alone],
    )


def _of_crystals(atoms: Tensor, under_way: _UnderWay) -> Tensor:
    """(num_crystals,) bool: any of its atoms."""
    found = torch.zeros(len(under_way.index), dtype=torch.bool)
    found[under_way.batch[atoms]] = True
    return found


def _generalised_forces(
    under_way: _UnderWay, values: PotentialValues, settings: RelaxationSettings
) -> tuple[Tensor, Tensor]:
    """Minus the gradient of the energy by `coords` and by `strain`."""
    deformation = under_way.deformation
    coords_force = torch.einsum("ni,nij->nj", values.forces, deformation[under_way.batch])
    if not settings.relax_cell:
        return coords_force, torch.zeros_like(under_way.strain)
    lattice = under_way.cell @ deformation.transpose(1, 2)
    virial = -torch.linalg.det(lattice).abs()[:, None, None] * values.stresses
    by_deformation = virial @ torch.linalg.inv(deformation).transpose(1, 2)
    counts = under_way.num_atoms[:, None, None]
    # the adjoint of the Frechet derivative of exp at A is that derivative at A^T; a block triangle holds it
    transposed = (under_way.strain / counts).transpose(1, 2)
    blocks = torch.cat(
        [torch.cat([transposed, by_deformation], 2), torch.cat([torch.zeros_like(transposed), transposed], 2)], 1
    )
    # NaN of a failed crystal must not reach the library, which may hang on it
    return coords_force, torch.linalg.matrix_exp(blocks.nan_to_num(0.0, 0.0, 0.0))[:, :3, 3:] / counts


def _largest_rows(under_way: _UnderWay, coords_force: Tensor, strain_force: Tensor) -> Tensor:
    """(num_crystals,) ASE's measure of convergence: the longest row of either gradient."""
    largest = strain_force.norm(dim=-1).amax(-1)
    return largest.scatter_reduce(0, under_way.batch, coords_force.norm(dim=-1), "amax")


def _dot(under_way: _UnderWay, atoms_a: Tensor, cell_a: Tensor, atoms_b: Tensor, cell_b: Tensor) -> Tensor:
    of_cells = (cell_a * cell_b).flatten(1).sum(1)
    return of_cells.index_add(0, under_way.batch, (atoms_a * atoms_b).sum(1))


def _step(under_way: _UnderWay, force: Tensor, strain_force: Tensor) -> _UnderWay:
    """One step of FIRE for every crystal."""
    velocity, strain_velocity = under_way.velocity, under_way.strain_velocity
    started = under_way.steps > 0
    power = _dot(under_way, force, strain_force, velocity, strain_velocity)
    downhill = started & (power > 0)
    uphill = started & ~downhill

    length = _dot(under_way, force, strain_force, force, strain_force).sqrt().clamp_min(1e-300)
    speed = _dot(under_way, velocity, strain_velocity, velocity, strain_velocity).sqrt()
    keep = torch.where(downhill, 1 - under_way.alpha, torch.where(uphill, 0.0, 1.0))
    steer = torch.where(downhill, under_way.alpha * speed / length, 0.0)

    faster = downhill & (under_way.num_downhill > _N_MIN)
    dt = torch.where(faster, (under_way.dt * _F_INC).clamp_max(_DT_MAX), under_way.dt)
    dt = torch.where(uphill, under_way.dt * _F_DEC, dt)
    alpha = torch.where(faster, under_way.alpha * _F_ALPHA, under_way.alpha)
    alpha = torch.where(uphill, torch.full_like(alpha, _ALPHA_START), alpha)

    batch = under_way.batch
    velocity = keep[batch, None] * velocity + (steer + dt)[batch, None] * force
    strain_velocity = keep[:, None, None] * strain_velocity + (steer + dt)[:, None, None] * strain_force
    reach = dt * _dot(under_way, velocity, strain_velocity, velocity, strain_velocity).sqrt()
    stride = dt * (_MAX_STEP / reach.clamp_min(1e-300)).clamp_max(1.0)
    return replace(
        under_way,
        coords=under_way.coords + stride[batch, None] * velocity,
        strain=under_way.strain + stride[:, None, None] * strain_velocity,
        velocity=velocity,
        strain_velocity=strain_velocity,
        dt=dt,
        alpha=alpha,
        num_downhill=torch.where(downhill, under_way.num_downhill + 1, torch.where(uphill, 0, under_way.num_downhill)),
        steps=under_way.steps + 1,
    )


def _keep_frames(
    frames: dict[int, list[Frame]], under_way: _UnderWay, crystals: CrystalBatch, values: PotentialValues
) -> None:
    parts = under_way.frac_coords.split(under_way.num_atoms.tolist())
    for b, (index, frac_coords) in enumerate(zip(under_way.index.tolist(), parts, strict=True)):
        if values.reasons[b] is None:
            frame = Frame(crystals.lattice[b].numpy(), frac_coords.numpy(), float(values.energies[b]))
            frames.setdefault(index, []).append(frame)


def _result(
    b: int,
    start: CrystalArrays,
    under_way: _UnderWay,
    crystals: CrystalBatch,
    values: PotentialValues,
    converged: bool,
    settings: RelaxationSettings,
    frames: dict[int, list[Frame]],
) -> Relaxation:
    kept = frames.pop(int(under_way.index[b]), [])
    steps, initial_energy = int(under_way.steps[b]), float(under_way.initial_energy[b])
    if (reason := values.reasons[b]) is not None:
        return failure(start, reason, initial_energy=finite_or_none(initial_energy), steps=steps, frames=kept)
    atoms = under_way.batch == b
    return finished(
        start,
        settings,
        lattice=crystals.lattice[b].numpy(),
        frac_coords=under_way.frac_coords[atoms].numpy(),
        energy=float(values.energies[b]),
        initial_energy=initial_energy,
        max_force=float(values.forces[atoms].norm(dim=-1).max()),
        max_stress=float(values.stresses[b].abs().max()) if settings.relax_cell else None,
        steps=steps,
        converged=converged,
        frames=kept,
    )
