"""Relaxation as a step of an optimisation: a calculator by name becomes a `Relaxer`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation.optimization.trials import Relaxed, Relaxer
from cdvae_kit.relaxation import Relaxation, make_calculator, make_potential, relax


def calculator_relaxer(name: str, *, device: str = "auto", fmax: float = 0.05, max_steps: int = 500) -> Relaxer:
    """Relaxes cell and positions by the calculator or potential of that name; see `cdvae_kit.relaxation`.

    A crystal whose forces are still too large after the last step is taken as it is then. An unknown name raises at
    once, before any crystal is made.

    >>> from ase.build import bulk
    >>> from cdvae_kit.crystal.conversion import atoms_to_batch
    >>> copper = atoms_to_batch([bulk("Cu", "fcc", a=3.4)])
    >>> [relaxed] = calculator_relaxer("emt")(copper)
    >>> relaxed.reason is None and relaxed.energy_per_atom < 0.01
    True
    """
    calculator = make_potential(name, device=device) or make_calculator(name, device=device)

    def relaxer(crystals: CrystalBatch) -> Sequence[Relaxed]:
        return [_relaxed(result) for result in relax(crystals, calculator, fmax=fmax, max_steps=max_steps)]

    return relaxer


def _relaxed(result: Relaxation) -> Relaxed:
    energy = result.energy_per_atom
    if energy is None:
        return Relaxed(None, reason=result.reason or "no energy")
    crystal = CrystalBatch(
        torch.from_numpy(np.asarray(result.frac_coords)).float(),
        torch.from_numpy(np.asarray(result.lattice)).float().unsqueeze(0),
        torch.from_numpy(np.asarray(result.atomic_numbers)).long(),
        torch.tensor([result.num_atoms]),
    )
    return Relaxed(crystal, energy)
