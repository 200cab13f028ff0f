"""Noise on the lattice, in the parameters that the crystal family leaves free."""

from typing import Protocol

import torch
from torch import Tensor

from cdvae_kit.crystal.orbits import Orbits


class LatticeSpace(Protocol):
    """Standardised lattice parameters of conventional cells, and the plane of each crystal family in them."""

    def project(self, parameters: Tensor, orbits: Orbits) -> Tensor:
        """The nearest parameters (num_crystals, 6) that the family of each crystal has."""
        ...

    def project_change(self, change: Tensor, orbits: Orbits) -> Tensor:
        """Changes (num_crystals, 6) less what would leave the family."""
        ...

    def primitive(self, parameters: Tensor, orbits: Orbits) -> Tensor:
        """(num_crystals, 3, 3) the primitive cells, angstrom."""
        ...


class LatticeProcess(Protocol):
    """A forward process on lattice parameters. Time t runs from 0, data, to 1, noise."""

    space: LatticeSpace
    is_learned: bool
    """Whether the network's prediction is used, and so needs a loss."""

    def perturb(
        self, parameters: Tensor, t: Tensor, orbits: Orbits, *, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Noisy parameters and the target of the network, each (num_crystals, 6)."""
        ...

    def start(self, guess: Tensor, normal: Tensor, orbits: Orbits) -> Tensor:
        """Parameters at t = 1, from the head's guess and standard normal numbers, each (num_crystals, 6)."""
        ...

    def step(self, parameters: Tensor, predicted: Tensor, t: Tensor, t_next: Tensor, orbits: Orbits) -> Tensor:
        """Parameters at t_next < t, both (num_crystals,)."""
        ...


class LatticePath:
    """Straight paths to standard normal parameters (flow matching: Lipman et al., arXiv 2210.02747).

    Path and noise lie in the plane of the crystal's family, so that every cell on the way is of the family.
    """

    is_learned = True

    def __init__(self, space: LatticeSpace) -> None:
        self.space = space

    def perturb(
        self, parameters: Tensor, t: Tensor, orbits: Orbits, *, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        normal = torch.randn(parameters.shape, generator=generator, device=parameters.device, dtype=parameters.dtype)
        target = self.start(parameters, normal, orbits) - parameters
        return parameters + t.unsqueeze(-1) * target, target

    def start(self, guess: Tensor, normal: Tensor, orbits: Orbits) -> Tensor:
        return self.space.project(normal, orbits)

    def step(self, parameters: Tensor, predicted: Tensor, t: Tensor, t_next: Tensor, orbits: Orbits) -> Tensor:
        return parameters + (t_next - t).unsqueeze(-1) * self.space.project_change(predicted, orbits)


class FixedLattice:
    """The lattice that the head reads from the code, brought into its family, and no noise: the published choice."""

    is_learned = False

    def __init__(self, space: LatticeSpace) -> None:
        self.space = space

    def perturb(
        self, parameters: Tensor, t: Tensor, orbits: Orbits, *, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        return parameters, torch.zeros_like(parameters)

    def start(self, guess: Tensor, normal: Tensor, orbits: Orbits) -> Tensor:
        return self.space.project(guess, orbits)

    def step(self, parameters: Tensor, predicted: Tensor, t: Tensor, t_next: Tensor, orbits: Orbits) -> Tensor:
        return parameters
