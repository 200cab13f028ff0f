"""Crystals of all space groups, and what it means to have the symmetry of one: what tests of orbits share."""

import numpy as np
import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import lattice_from_log_parameters
from cdvae_kit.crystal.lattice_families import project_parameters
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.wyckoff import primitive_operations, wyckoff_positions
from cdvae_kit.seeding import make_generator

ALL_GROUPS = range(1, 231)
SOME_GROUPS = (1, 2, 3, 5, 6, 9, 19, 43, 62, 70, 79, 88, 99, 122, 139, 146, 152, 160, 166, 186, 194, 198, 216, 225, 227)
"""Every family, centring, polar and chiral ones."""


def crystals_in(
    groups: list[list[int]], numbers: list[int], *, elements: tuple[int, ...], seed: int
) -> SymmetricCrystals:
    """Crystals of the groups `numbers` with orbits on the positions `groups`; lattice and parameters are generic."""
    generator = make_generator(seed)
    num_orbits = torch.tensor([len(positions) for positions in groups])
    orbits = Orbits(torch.tensor(numbers), num_orbits, torch.tensor([p for positions in groups for p in positions]))
    spread = 0.15 * torch.randn(len(numbers), 6, generator=generator, dtype=torch.float64)
    size = torch.log(4.0 * orbits.num_conventional_atoms.double() ** (1.0 / 3.0))
    spread[:, :3] += size.unsqueeze(-1)
    lattice = lattice_from_log_parameters(project_parameters(spread, orbits.family))
    free = torch.rand(len(orbits.position), 3, generator=generator, dtype=torch.float64) * orbits.is_free
    chosen = [elements[i] for positions in groups for i in range(len(positions))]
    return SymmetricCrystals(orbits, torch.tensor(chosen), free, orbits.conventional_to_primitive(lattice))


def general_and_special(numbers: tuple[int, ...] | range = ALL_GROUPS, *, seed: int = 0) -> SymmetricCrystals:
    """One crystal of each group: iron on its first position, oxygen on the general one."""
    positions = [[wyckoff_positions(number)[0].index, wyckoff_positions(number)[-1].index] for number in numbers]
    return crystals_in(positions, list(numbers), elements=(26, 8), seed=seed)


def one_position_each(*, seed: int = 0) -> SymmetricCrystals:
    """One crystal of each group, on one position, now a special and now the general one."""
    of_group = [wyckoff_positions(number) for number in ALL_GROUPS]
    positions = [[some[number % len(some)].index] for number, some in enumerate(of_group)]
    return crystals_in(positions, list(ALL_GROUPS), elements=(26,), seed=seed)


def images(frac_coords: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """For each operation of a group: which atom (operations, atoms) each atom comes nearest to, and how near."""
    rotations, translations = primitive_operations(number)
    moved = np.einsum("gij,nj->gni", rotations, frac_coords) + translations[:, None]
    apart = moved[:, :, None] - frac_coords[None, None]
    distance = np.abs(apart - np.round(apart)).max(-1)
    return distance.argmin(-1), distance.min(-1)


def asymmetry(frac_coords: Tensor, elements: Tensor, number: int) -> float:
    """How far, in fractions of the cell, an operation of the group takes an atom from one of its own element."""
    partner, distance = images(frac_coords.double().numpy(), number)
    if bool((elements.numpy()[partner] != elements.numpy()).any()):
        return float("inf")
    return float(distance.max())


def strain_of(lattice: Tensor, number: int) -> float:
    """By how much of it an operation of the group changes the metric tensor of the primitive cell."""
    rotations, _ = primitive_operations(number)
    metric = (lattice @ lattice.T).double().numpy()
    return float(np.abs(rotations.transpose(0, 2, 1) @ metric @ rotations - metric).max() / np.abs(metric).max())
