"""Powder patterns: peaks where Bragg's law puts them, of the right width, and failures that are told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.diffraction import DiffractionGrid, powder_patterns

WAVELENGTH = 1.5


def cubic(edge: float, *, number: int = 55, partner: int | None = 17) -> CrystalBatch:
    """Caesium chloride, or without a partner a primitive cube."""
    coords = [[0.0] * 3] if partner is None else [[0.0] * 3, [0.5] * 3]
    numbers = [number] if partner is None else [number, partner]
    return CrystalBatch(
        torch.tensor(coords), edge * torch.eye(3)[None], torch.tensor(numbers), torch.tensor([len(numbers)])
    )


def fine(**changes: float) -> DiffractionGrid:
    options = {"low": 10.0, "high": 80.0, "num_points": 7001, "peak_width": 0.4, "wavelength": WAVELENGTH}
    return DiffractionGrid(**(options | changes))  # type: ignore[arg-type]


def peak_angles(pattern: np.ndarray, grid: DiffractionGrid) -> list[float]:
    inner = pattern[1:-1]
    return grid.angles[1:-1][(inner > pattern[:-2]) & (inner > pattern[2:]) & (inner > 1e-3)].tolist()


@pytest.mark.parametrize("edge", [3.7, 4.1])
def test_peaks_stand_where_braggs_law_puts_them(edge: float) -> None:
    grid = fine()
    found = peak_angles(powder_patterns(cubic(edge, partner=None), grid).intensities[0].numpy(), grid)
    squares = [
        n for n in range(1, 40) if any(n == h * h + k * k + m * m for h in range(7) for k in range(7) for m in range(7))
    ]
    sines = [0.5 * WAVELENGTH * math.sqrt(n) / edge for n in squares]
    expected = [angle for s in sines if s < 1.0 and 10.0 < (angle := 2.0 * math.degrees(math.asin(s))) < 80.0]
    assert found == pytest.approx(expected, abs=0.02)
    assert found != pytest.approx([1.01 * angle for angle in expected], abs=0.02)


def test_equal_atoms_at_the_centre_put_out_the_odd_peaks() -> None:
    grid = fine()
    counts = [
        len(peak_angles(powder_patterns(cubic(4.1, partner=partner), grid).intensities[0].numpy(), grid))
        for partner in (55, 17)
    ]
    assert counts[0] < counts[1]


def test_a_peak_has_its_width_at_half_its_height() -> None:
    grid = fine(peak_width=0.5, high=30.0)
    pattern = powder_patterns(cubic(4.1, partner=None), grid).intensities[0].numpy()
    high = grid.angles[:-1][np.diff((pattern > 0.5).astype(int)) != 0]
    assert pattern.max() == pytest.approx(1.0) and high[1] - high[0] == pytest.approx(0.5, abs=0.02)


def test_the_pattern_does_not_depend_on_cell_origin_or_order() -> None:
    grid = DiffractionGrid(num_points=128)
    plain = cubic(4.1)
    moved = plain.replace(frac_coords=(plain.frac_coords + torch.tensor([0.3, 0.1, 0.7])) % 1.0)
    doubled = CrystalBatch(
        torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0.25, 0.5, 0.5], [0.75, 0.5, 0.5]]),
        (4.1 * torch.eye(3) * torch.tensor([[2.0], [1.0], [1.0]]))[None],
        torch.tensor([55, 55, 17, 17]),
        torch.tensor([4]),
    )
    stretched = plain.replace(lattice=plain.lattice * 1.01)
    own, *same, other = powder_patterns(concatenate([plain, moved, doubled, stretched]), grid).intensities
    assert all(torch.allclose(pattern, own, atol=1e-4) for pattern in same)
    assert not torch.allclose(other, own, atol=1e-2)


def test_a_crystal_without_a_pattern_is_told_and_costs_only_itself() -> None:
    # no coefficients for element 118; a cube of 1.2 angstrom has no peak below 80 degrees
    crystals = concatenate([cubic(4.1), cubic(4.1, number=118), cubic(0.7, partner=None)])
    found = powder_patterns(crystals)
    assert found.reasons[0] is None and bool(torch.isfinite(found.intensities[0]).all())
    for i in (1, 2):
        assert "no diffraction" in str(found.reasons[i]) and bool(found.intensities[i].isnan().all())


def test_a_grid_that_cannot_be_is_refused() -> None:
    for options in ({"low": 0.0}, {"high": 200.0}, {"num_points": 1}, {"peak_width": 0.0}):
        with pytest.raises(ValueError, match="0 < low < high < 180"):
            DiffractionGrid(**options)  # type: ignore[arg-type]
