"""What goes into a relaxation and what comes out of it, as plain arrays. How it is done is in `relax` and `batched`.

Whether a relaxed crystal is stable is a metric, and not here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np

from cdvae_kit.missing import nan_as_none

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from cdvae_kit.crystal.batch import CrystalBatch

Optimizer = Literal["FIRE", "FIRE2", "LBFGS", "BFGS"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)


@runtime_checkable
class CrystalLike(Protocol):
    """Anything with a lattice (rows, angstrom), fractional coordinates and atomic numbers as arrays."""

    @property
    def lattice(self) -> np.ndarray: ...
    @property
    def frac_coords(self) -> np.ndarray: ...
    @property
    def atomic_numbers(self) -> np.ndarray: ...


Crystals: TypeAlias = "CrystalBatch | Sequence[Structure | Atoms | CrystalLike | None]"
"""What is relaxed; None stands for a crystal that could not be made, and keeps its place."""


@dataclass(frozen=True)
class RelaxationSettings:
    """How crystals are relaxed.

    Attributes:
        fmax: eV/angstrom; converged where every force, and every row of the gradient of the strain per atom, is
            smaller.
        max_steps: of the optimizer.
        relax_cell: the cell too, not only the atoms.
        optimizer: ASE's, by name; the batched path has FIRE alone.
        min_distance: angstrom; atoms nearer than this, before or after, are a failure.
        max_volume_change: a cell that grows or shrinks by more than this factor is a failure.
        keep_trajectory: keep every step.
        keep_symmetry: relax the idealised primitive cell of each crystal within its space group.
        symprec: angstrom, up to which an atom may be off its place in the group that is kept.
    """

    fmax: float = 0.05
    max_steps: int = 500
    relax_cell: bool = True
    optimizer: Optimizer = "FIRE"
    min_distance: float = 0.5
    max_volume_change: float = 5.0
    keep_trajectory: bool = False
    keep_symmetry: bool = False
    symprec: float = 0.1

    def __post_init__(self) -> None:
        if not self.fmax > 0:
            raise ValueError(f"fmax must be a positive force in eV/angstrom, got {self.fmax}")
        if self.max_steps < 0:
            raise ValueError(f"max_steps must be 0 (energies alone) or more, got {self.max_steps}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"there is no optimizer {self.optimizer!r}; known are {', '.join(OPTIMIZERS)}")
        if not self.min_distance >= 0:
            raise ValueError(f"min_distance must be a distance in angstrom, got {self.min_distance}")
        if not self.max_volume_change > 1:
            raise ValueError(f"max_volume_change must be a factor over 1, got {self.max_volume_change}")
        if not self.symprec > 0:
            raise ValueError(f"symprec must be a positive length in angstrom, got {self.symprec}")

    def __str__(self) -> str:
        what = "cell and positions" if self.relax_cell else "positions in a fixed cell"
        kept = f", symmetry within {self.symprec:g} A kept" if self.keep_symmetry else ""
        return f"{self.optimizer}, {what}, forces under {self.fmax:g} eV/A, at most {self.max_steps} steps{kept}"


@dataclass(frozen=True)
class Frame:
    """One step: lattice (3, 3) in angstrom, fractional coordinates (num_atoms, 3), energy in eV."""

    lattice: np.ndarray
    frac_coords: np.ndarray
    energy: float


@dataclass(frozen=True)
class Relaxation:
    """What became of one crystal.

    Three outcomes: converged; out of steps, which leaves an energy (no lower one was reached) and a reason; failed,
    which leaves no energy and a reason.

    Attributes:
        atomic_numbers: (num_atoms,) integers.
        initial_lattice: (3, 3), angstrom, rows a, b, c.
        initial_frac_coords: (num_atoms, 3).
        lattice: at the end; as it was given where it failed.
        frac_coords: likewise, not wrapped into the cell.
        energy: eV, at the end; None where it failed.
        initial_energy: eV; None where not even that could be computed.
        max_force: eV/angstrom, length of the largest force at the end.
        max_stress: eV/angstrom^3, largest component at the end; None without a stress.
        steps: of the optimizer.
        converged: the forces are below `fmax`.
        reason: None where converged; else why not.
        trajectory: every step with the first and the last, where asked for.
    """

    atomic_numbers: np.ndarray
    initial_lattice: np.ndarray = field(repr=False)
    initial_frac_coords: np.ndarray = field(repr=False)
    lattice: np.ndarray = field(repr=False)
    frac_coords: np.ndarray = field(repr=False)
    energy: float | None
    initial_energy: float | None
    max_force: float | None
    max_stress: float | None
    steps: int
    converged: bool
    reason: str | None
    trajectory: tuple[Frame, ...] = field(default=(), repr=False)

    @property
    def num_atoms(self) -> int:
        return len(self.atomic_numbers)

    @property
    def failed(self) -> bool:
        return self.energy is None

    @property
    def energy_per_atom(self) -> float | None:
        """eV/atom."""
        return None if self.energy is None else self.energy / self.num_atoms

    @property
    def composition(self) -> dict[int, int]:
        """Atoms of each atomic number in the cell."""
        return dict(sorted(Counter(self.atomic_numbers.tolist()).items()))

    def structure(self) -> Structure:
        """The crystal at the end as a pymatgen structure."""
        from pymatgen.core import Element, Lattice, Structure

        species = [Element.from_Z(number) for number in self.atomic_numbers.tolist()]
        return Structure(Lattice(self.lattice), species, self.frac_coords)


def encode(relaxation: Relaxation) -> tuple[dict[str, np.ndarray], str | None]:
    """A relaxation as arrays by name and its reason: what a file or a store of results can hold."""
    numbers = [relaxation.energy, relaxation.initial_energy, relaxation.max_force, relaxation.max_stress]
    arrays = {
        "atomic_numbers": relaxation.atomic_numbers,
        "initial_lattice": relaxation.initial_lattice,
        "initial_frac_coords": relaxation.initial_frac_coords,
        "lattice": relaxation.lattice,
        "frac_coords": relaxation.frac_coords,
        "numbers": np.array([math.nan if number is None else number for number in numbers]),
        "steps": np.array(relaxation.steps, dtype=np.int64),
        "converged": np.array(relaxation.converged),
    }
    if frames := relaxation.trajectory:
        arrays["trajectory_lattice"] = np.stack([frame.lattice for frame in frames])
        arrays["trajectory_frac_coords"] = np.stack([frame.frac_coords for frame in frames])
        arrays["trajectory_energy"] = np.array([frame.energy for frame in frames])
    return arrays, relaxation.reason


def decode(arrays: Mapping[str, np.ndarray], text: str | None) -> Relaxation:
    """The relaxation that `encode` was given, bit for bit."""
    energy, initial_energy, max_force, max_stress = map(nan_as_none, arrays["numbers"].tolist())
    frames: tuple[Frame, ...] = ()
    if "trajectory_energy" in arrays:
        parts = (arrays["trajectory_lattice"], arrays["trajectory_frac_coords"], arrays["trajectory_energy"].tolist())
        frames = tuple(Frame(*frame) for frame in zip(*parts, strict=True))
    return Relaxation(
        **{
            name: arrays[name]
            for name in ("atomic_numbers", "initial_lattice", "initial_frac_coords", "lattice", "frac_coords")
        },
        energy=energy,
        initial_energy=initial_energy,
        max_force=max_force,
        max_stress=max_stress,
        steps=int(arrays["steps"]),
        converged=bool(arrays["converged"]),
        reason=text,
        trajectory=frames,
    )
