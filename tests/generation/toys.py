"""Predictors, judges and objectives with closed forms, for tests of property optimisation."""

from __future__ import annotations

import torch
from pymatgen.core import Structure
from torch import Tensor

from cdvae_kit.generation.optimization.objectives import PropertyRange
from cdvae_kit.seeding import make_generator

RANGES = {
    "energy": PropertyRange("energy", "eV/atom", -10.0, 10.0),
    "gap": PropertyRange("gap", "eV", -10.0, 10.0),
}


class Stop:
    """Progress that interrupts when so many pieces of work are done."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, done: int, total: int) -> None:
        if done >= self.at:
            raise KeyboardInterrupt


class LinearEnsemble:
    """Two properties, linear in z; the members differ by `spread`."""

    names = ("energy", "gap")
    ranges = RANGES

    def __init__(self, latent_dim: int, *, members: int = 3, spread: float = 0.0) -> None:
        generator = make_generator(3)
        base = torch.randn(latent_dim, 2, generator=generator)
        self.weight = base + spread * torch.randn(members, latent_dim, 2, generator=generator)
        self.mean = torch.tensor([1.0, 2.0])
        self.standard_deviation = torch.tensor([2.0, 0.5])

    def __call__(self, z: Tensor) -> Tensor:
        return torch.einsum("nd,mdp->mnp", z, self.weight.to(z))


def volume_per_atom(structures: list[Structure]) -> dict[str, list[float]]:
    """An oracle with a value for every crystal, under the names of `LinearEnsemble`."""
    return {
        "energy": [structure.volume / len(structure) for structure in structures],
        "gap": [float(structure.density) for structure in structures],
    }
