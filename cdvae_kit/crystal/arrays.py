"""One crystal as plain double-precision arrays, for what works crystal by crystal: files, faults, relaxation.

A record can stand for a crystal that cannot be used; it then says why. Batches of tensors are in `batch`, classes of
other libraries in `conversion`. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cdvae_kit.crystal.batch import CrystalBatch

MIN_VOLUME = 0.1
"""Cubic angstrom; the published protocol builds no crystal with a smaller cell, and files give none by default."""


@dataclass(frozen=True)
class CrystalArrays:
    """One crystal.

    Attributes:
        lattice: (3, 3) float64, angstrom, rows a, b, c.
        frac_coords: (num_atoms, 3) float64.
        atomic_numbers: (num_atoms,) int64.
        name: None where it has none.
        properties: those that it has a value of.
        fault: why the crystal cannot be used, in plain words; None where it can.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    name: str | None = None
    properties: Mapping[str, float] = field(default_factory=dict)
    fault: str | None = None

    @property
    def volume(self) -> float:
        """Cubic angstrom, never negative."""
        with np.errstate(over="ignore", invalid="ignore"):
            return abs(float(np.linalg.det(self.lattice)))


def unusable(fault: str) -> CrystalArrays:
    """A record of which there is nothing but the reason why."""
    return CrystalArrays(np.zeros((3, 3)), np.zeros((0, 3)), np.zeros(0, dtype=np.int64), fault=fault)


def split(batch: CrystalBatch) -> Iterator[CrystalArrays]:
    """The crystals of a batch, one after the other, with those properties that are not NaN."""
    lattice = batch.lattice.detach().cpu().double().numpy()
    frac_coords = batch.frac_coords.detach().cpu().double().numpy()
    atomic_numbers = batch.atomic_numbers.cpu().numpy()
    columns = {name: values.detach().cpu().double().tolist() for name, values in batch.properties.items()}
    names: Sequence[str | None] = batch.material_ids or [None] * len(batch)
    for i, (start, end) in enumerate(pairwise(batch.ptr.tolist())):
        yield CrystalArrays(
            lattice[i],
            frac_coords[start:end],
            atomic_numbers[start:end],
            names[i],
            {name: values[i] for name, values in columns.items() if values[i] == values[i]},
        )


def right_handed(lattice: np.ndarray, frac_coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same crystal in a right-handed cell of the same lengths and angles: all axes turned around where needed.

    Lengths and angles alone describe a right-handed cell, so that a left-handed one would become its mirror image.
    """
    if not np.linalg.det(lattice) < 0.0:
        return lattice, frac_coords
    turned = -frac_coords
    return -lattice, turned - np.floor(turned)


def lattice_matrix(lengths: Sequence[float], angles: Sequence[float]) -> np.ndarray:
    """(3, 3) of three lengths in angstrom and three angles in degrees, in pymatgen's frame: c along z, a in xz.

    The frame is that of `lattice.lattice_from_parameters`. NaN where no cell has these angles.
    """
    cosines, sines = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    # cos(90 degrees) is 6e-17 in floating point
    cosines = np.where(np.abs(cosines) < 1e-15, 0.0, cosines)
    a, b, c = lengths
    cos_star = (cosines[0] * cosines[1] - cosines[2]) / (sines[0] * sines[1])
    with np.errstate(invalid="ignore"):
        sin_star = np.sqrt(1.0 - cos_star**2)
    return np.array(
        [
            [a * sines[1], 0.0, a * cosines[1]],
            [-b * sines[0] * cos_star, b * sines[0] * sin_star, b * cosines[0]],
            [0.0, 0.0, c],
        ]
    )
