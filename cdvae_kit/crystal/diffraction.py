"""Powder diffraction: a crystal to its X-ray pattern on a fixed grid, by pymatgen's kinematic calculator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.export import batch_to_structures

if TYPE_CHECKING:
    from pymatgen.analysis.diffraction.xrd import XRDCalculator
    from pymatgen.core import Structure

_WIDTH_PER_STD = 2.0 * float(np.sqrt(2.0 * np.log(2.0)))


@dataclass(frozen=True)
class DiffractionGrid:
    """Where a pattern is sampled, and how broad its peaks are.

    Attributes:
        low: first angle 2θ, degrees.
        high: last angle.
        num_points: from the first to the last.
        peak_width: full width of a peak at half its height, degrees, the same at all angles.
        wavelength: angstrom, or a radiation that pymatgen knows.
    """

    low: float = 10.0
    high: float = 80.0
    num_points: int = 256
    peak_width: float = 0.6
    wavelength: float | str = "CuKa"

    def __post_init__(self) -> None:
        if not 0.0 < self.low < self.high < 180.0 or self.num_points < 2 or not self.peak_width > 0.0:
            raise ValueError(
                "expected 0 < low < high < 180 degrees, at least 2 points and a positive width of peaks, got "
                f"{self.low}, {self.high}, {self.num_points}, {self.peak_width}"
            )

    @property
    def angles(self) -> np.ndarray:
        """(num_points,) 2θ in degrees."""
        return np.linspace(self.low, self.high, self.num_points)


@dataclass(frozen=True)
class PowderPatterns:
    """Patterns of crystals.

    Attributes:
        intensities: (num_crystals, num_points) float32, the highest point of each is 1; NaN where there is no pattern.
        reasons: one a crystal, why there is no pattern; None where there is one.
    """

    intensities: Tensor
    reasons: tuple[str | None, ...]


def powder_patterns(crystals: CrystalBatch, grid: DiffractionGrid | None = None) -> PowderPatterns:
    """The powder pattern of each crystal, peaks as Gaussians.

    Where one cannot be computed it is NaN and `reasons` says why; nothing is raised. A cell of ten atoms takes
    some 10 ms.

    Args:
        crystals: fully occupied, as batches are.
        grid: angles, widths and wavelength.

    >>> salt = CrystalBatch(torch.tensor([[0.0] * 3, [0.5] * 3]), 4.123 * torch.eye(3)[None], torch.tensor([55, 17]),
    ...                     torch.tensor([2]))
    >>> grid = DiffractionGrid(num_points=701)
    >>> round(float(grid.angles[powder_patterns(salt, grid).intensities[0].argmax()]), 1)
    30.7
    """
    from pymatgen.analysis.diffraction.xrd import XRDCalculator

    grid = grid or DiffractionGrid()
    calculator = XRDCalculator(wavelength=grid.wavelength, symprec=0)
    rows, reasons = [], []
    for structure in batch_to_structures(crystals):
        row, reason = _pattern(structure, calculator, grid)
        rows.append(row)
        reasons.append(reason)
    stacked = np.stack(rows) if rows else np.zeros((0, grid.num_points))
    return PowderPatterns(torch.from_numpy(stacked).float(), tuple(reasons))


def _pattern(structure: Structure, calculator: XRDCalculator, grid: DiffractionGrid) -> tuple[np.ndarray, str | None]:
    nothing = np.full(grid.num_points, np.nan)
    # a peak beside the grid has a flank on it
    margin = 2.0 * grid.peak_width
    two_theta_range = (max(grid.low - margin, 0.1), min(grid.high + margin, 179.9))
    try:
        peaks = calculator.get_pattern(structure, scaled=False, two_theta_range=two_theta_range)
    except ValueError as error:
        return nothing, f"no diffraction pattern: {error}"
    std = grid.peak_width / _WIDTH_PER_STD
    offsets = (grid.angles[:, None] - np.asarray(peaks.x)) / std
    pattern = np.exp(-0.5 * offsets**2) @ np.asarray(peaks.y)
    highest = pattern.max(initial=0.0)
    if not highest > 0.0:
        return nothing, f"no diffraction peak between {grid.low:g} and {grid.high:g} degrees"
    return pattern / highest, None
