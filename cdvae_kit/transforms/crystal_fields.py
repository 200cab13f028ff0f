"""Displacement fields on crystals: waves that are periodic with the cell, evaluated at the atoms.

A wave of wave vector G on the reciprocal lattice has the period of the cell, so that the field has no seam and needs no
grid. How strong a wave is depends on |G| in physical units alone, so that an elongated cell, or another choice of the
same cell, meets the same field. Changes that keep fractional coordinates stand in `crystals`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch, ragged_index
from cdvae_kit.crystal.lattice import volume
from cdvae_kit.crystal.periodic_images import shortest_distances
from cdvae_kit.transforms.base import Generator, Params, Transform, normal, per_sample, uniform

MAX_WAVES = 2 * 10**6
"""Candidates of a crystal; more, and the cell is far too large for waves so short, or has another unit."""

_PHASES_AT_ONCE = 2**22
_MOST_HALVINGS = 8


class Waves(NamedTuple):
    """The waves of each crystal, one of each pair ±G, in the order of their numbers; rows are filled up with zeros.

    Attributes:
        numbers: (num_crystals, num_waves, 3) long, G = 2π numbers @ inverse(lattice).T.
        lengths: (num_crystals, num_waves) |G| in 1/angstrom, 0 where there is no wave.
    """

    numbers: Tensor
    lengths: Tensor


@torch.no_grad()
def reciprocal_waves(lattice: Tensor, *, shortest_wave: float) -> Waves:
    """All waves of at least `shortest_wave` angstrom that have the period of the cell, and always the longest of them.

    The set is the same for every choice of the cell, and that of a supercell holds that of its cell.

    Args:
        lattice: (num_crystals, 3, 3), angstrom.
        shortest_wave: angstrom; the number of waves grows with the volume over its cube.

    >>> reciprocal_waves(4.0 * torch.eye(3)[None], shortest_wave=3.0).numbers.tolist()
    [[[0, 0, 1], [0, 1, 0], [1, 0, 0]]]
    """
    # some devices have no float64
    cells = lattice.detach().cpu().double()
    volumes = volume(cells)
    if len(lattice) and not bool(((volumes > 0.0) & (volumes < math.inf)).all()):
        worst = int(torch.where(torch.isfinite(volumes), volumes, 0.0).argmin())
        raise ValueError(
            f"waves need cells of finite, non-zero volume, crystal {worst} has {float(volumes[worst]):g} cubic "
            "angstrom; leave such crystals out"
        )
    inverse = torch.linalg.inv(cells)
    # the shortest of the three vectors of each reciprocal cell is no shorter than the shortest of all
    longest = torch.linalg.vector_norm(inverse, dim=-2).amin(-1)
    radius = longest.clamp_min(1.0 / shortest_wave) * (1.0 + 1e-9)
    # n = lattice @ G / 2π is no longer than |a| |G| / 2π
    most = torch.floor(torch.linalg.vector_norm(cells, dim=-1) * radius[:, None] + 1e-6)
    sizes = 2 * most + 1
    _check_size(sizes, shortest_wave)
    crystal, numbers = _count_off(sizes.long())
    vectors = torch.einsum("wi,wji->wj", numbers.double(), inverse[crystal])
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    # the longest waves: what lies on the shell of the shortest vector
    shell = torch.full_like(radius, math.inf).scatter_reduce(0, crystal, lengths, "amin") * (1.0 + 1e-6)
    inside = lengths <= shell.clamp_min((1.0 + 1e-9) / shortest_wave)[crystal]
    crystal, numbers, lengths = crystal[inside], numbers[inside], lengths[inside]
    counts = torch.bincount(crystal, minlength=len(lattice))
    index = torch.arange(len(crystal), device=crystal.device) - (counts.cumsum(0) - counts)[crystal]
    width = int(counts.max()) if len(counts) else 0
    padded = numbers.new_zeros(len(lattice), width, 3).index_put((crystal, index), numbers)
    padded_lengths = lengths.new_zeros(len(lattice), width).index_put((crystal, index), 2.0 * math.pi * lengths)
    return Waves(padded.to(lattice.device), padded_lengths.to(lattice.device, lattice.dtype))


def _count_off(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The crystal and the three numbers of each vector of the boxes `sizes`, of ±n the one after 0 in their order."""
    total = sizes.prod(-1)
    # the middle of an odd box is 0
    first, counts = total // 2 + 1, total // 2
    crystal = torch.repeat_interleave(counts)
    index = ragged_index(first, counts)
    size = sizes[crystal]
    last = index % size[:, 2]
    middle = (index // size[:, 2]) % size[:, 1]
    front = index // (size[:, 2] * size[:, 1])
    return crystal, torch.stack([front, middle, last], dim=-1) - size // 2


def _check_size(sizes: Tensor, shortest_wave: float) -> None:
    candidates = sizes.prod(-1)
    if len(candidates) and not bool((candidates <= MAX_WAVES).all()):
        worst = int(candidates.argmax())
        raise ValueError(
            f"crystal {worst} has some {float(candidates[worst]):.1e} waves of at least {shortest_wave:g} angstrom "
            f"to look through, expected at most {MAX_WAVES:.0e}: raise shortest_wave, or leave out cells so large"
        )


@dataclass(frozen=True, kw_only=True)
class RandomFieldDisplacement(Transform[CrystalBatch]):
    """Moves atoms along a Gaussian random field that is periodic with the cell, and strains the cell.

    u(r) = Σ_G A_G cos(G·r + φ_G) for each Cartesian axis, A_G² ∝ |G|^−`exponent`, Rayleigh amplitudes and uniform
    phases: independent Gaussian coefficients. Exponent 2 is that of acoustic phonons, ⟨|u_G|²⟩ ∝ T/|G|²; 0 with short
    waves is independent jitter of every atom. The spectrum is ours; the idea of fields as parameters is that of
    Mansfield et al. (arXiv 2311.03629), where they are on images.

    In a cell of few atoms no wave is longer than the cell: a field is then correlated jitter, and real use asks for
    supercells. A crystal of one atom moves as a whole, and stays what it is. Energies are not invariant, and properties
    are kept all the same, as a strain keeps them: this is for views and denoisers, not for exact labels.

    Parameters: `waves` (b, w, 3) long, `amplitude` (b, w, 3) in angstrom, `phase` (b, w, 3) in turns, `deformation`
    (b, 3, 3), `kept` (b,), the share of a displacement that `least_distance` left.

    Attributes:
        rms: root mean square length of the displacement of an atom, angstrom, over draws.
        exponent: of the spectrum.
        shortest_wave: angstrom; about the distance of neighbours. The longest wave of a cell is always there.
        strain: standard deviation of the entries of the symmetric strain S, cell times exp(S); fractional coordinates
            stay.
        least_distance: angstrom. A draw that brings two atoms of a crystal closer is halved until it does not, at most
            eight times, then given up; crystals that come in closer are not minded. None never looks. Draws that are
            halved make the displacements smaller than `rms`, and `kept` tells.

    >>> from cdvae_kit.seeding import make_generator
    >>> salt = CrystalBatch(torch.tensor([[0.0] * 3, [0.5] * 3]), 4.1 * torch.eye(3)[None], torch.tensor([55, 17]),
    ...                     torch.tensor([2]))
    >>> shake = RandomFieldDisplacement(rms=0.05)
    >>> params = shake.sample(salt, generator=make_generator(0))
    >>> shake.displacement(salt, params).shape, params["kept"].tolist()
    (torch.Size([2, 3]), [1.0])
    """

    rms: float
    exponent: float = 2.0
    shortest_wave: float = 2.0
    strain: float = 0.0
    least_distance: float | None = 0.7
    differentiable = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.rms < math.inf or not 0.0 <= self.strain < 1.0:
            raise ValueError(
                f"the rms of a displacement must not be negative and a strain lies in [0, 1), got {self.rms}, "
                f"{self.strain}"
            )
        if not math.isfinite(self.exponent) or not 0.0 < self.shortest_wave < math.inf:
            raise ValueError(
                f"expected a finite exponent and a positive shortest wave, got {self.exponent}, {self.shortest_wave}"
            )

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        strength = per_sample(magnitude, len(batch), like=batch.lattice)
        waves = reciprocal_waves(batch.lattice, shortest_wave=self.shortest_wave)
        # uniform numbers, and waves before axes: with `IndexedDraws` they do not depend on the longest row
        drawn = uniform(generator, len(batch), waves.lengths.shape[1], 2, 3, like=batch.lattice)
        # 1 − u of a generator is never 0
        rayleigh = torch.sqrt(-2.0 * torch.log((1.0 - drawn[:, :, 0]).clamp_min(torch.finfo(drawn.dtype).tiny)))
        amplitude = self._standard_deviations(waves)[..., None] * rayleigh * strength[:, None, None]
        entries = normal(generator, len(batch), 3, 3, like=batch.lattice)
        symmetric = 0.5 * (entries + entries.transpose(-1, -2))
        params = {
            "waves": waves.numbers,
            "amplitude": amplitude,
            "phase": drawn[:, :, 1],
            "deformation": torch.linalg.matrix_exp(self.strain * strength[:, None, None] * symmetric),
        }
        kept = torch.ones_like(strength) if self.least_distance is None else self._kept(batch, params)
        return params | {"amplitude": amplitude * kept[:, None, None], "kept": kept}

    def _standard_deviations(self, waves: Waves) -> Tensor:
        """(b, w) the standard deviation of each wave's coefficients, angstrom: squares sum to rms²/3."""
        present = waves.lengths > 0.0
        power = torch.where(present, waves.lengths.clamp_min(1e-9) ** -self.exponent, 0.0)
        return self.rms * torch.sqrt(power / (3.0 * power.sum(1, keepdim=True)))

    @torch.no_grad()
    def _kept(self, batch: CrystalBatch, params: Params) -> Tensor:
        assert self.least_distance is not None
        kept = torch.ones(len(batch), dtype=batch.lattice.dtype, device=batch.lattice.device)
        if self.rms == 0.0:
            return kept
        minded = shortest_distances(batch) >= self.least_distance
        for halvings in range(_MOST_HALVINGS + 1):
            tried = {**params, "amplitude": params["amplitude"] * kept[:, None, None]}
            too_close = minded & (shortest_distances(self.apply(batch, tried)) < self.least_distance)
            if not bool(too_close.any()):
                break
            kept = torch.where(too_close, 0.0 if halvings == _MOST_HALVINGS else 0.5 * kept, kept)
        return kept

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        """Atoms moved along the waves in the cell as it is, then the strain."""
        if params["amplitude"].shape[:1] != batch.num_atoms.shape:
            raise ValueError(f"expected waves for each of {len(batch)} crystals, got {len(params['amplitude'])}")
        steps = torch.linalg.solve(
            batch.lattice.index_select(0, batch.batch).transpose(-1, -2), self.displacement(batch, params)[..., None]
        )
        return batch.replace(
            frac_coords=batch.frac_coords + steps[..., 0], lattice=batch.lattice @ params["deformation"]
        )

    def displacement(self, batch: CrystalBatch, params: Params) -> Tensor:
        """(num_atoms, 3) where each atom goes, angstrom, before the strain."""
        amplitude, turns = params["amplitude"], 2.0 * math.pi * params["phase"]
        parts = torch.stack([amplitude * turns.cos(), -amplitude * turns.sin()], dim=-2)
        moved = torch.zeros_like(batch.frac_coords)
        at_once = max(1, _PHASES_AT_ONCE // max(1, len(batch.batch)))
        for start in range(0, amplitude.shape[1], at_once):
            numbers = params["waves"][:, start : start + at_once].to(moved.dtype)
            phase = 2.0 * math.pi * torch.einsum("ai,awi->aw", batch.frac_coords, numbers[batch.batch])
            both = torch.stack([phase.cos(), phase.sin()], dim=-1)
            moved = moved + torch.einsum("awp,awpj->aj", both, parts[:, start : start + at_once][batch.batch])
        return moved
