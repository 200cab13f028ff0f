"""The same crystal in another cell: primitive, conventional or Niggli-reduced."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from cdvae_kit.crystal.batch import CrystalBatch, ragged_index
from cdvae_kit.crystal.lattice import lattice_from_parameters, lattice_parameters, wrap_frac_coords
from cdvae_kit.crystal.symmetric import SymmetricCrystals, describe
from cdvae_kit.crystal.wyckoff import wyckoff_table

CellChoice = Literal["primitive", "conventional", "niggli"]
EXACT = 1e-3
"""Angstrom, for finding the symmetry of crystals that were made with it."""


def in_cell(crystals: CrystalBatch, cell: CellChoice, *, tolerance: float = EXACT) -> CrystalBatch:
    """Each crystal in the cell that is asked for, with the same names and properties.

    Args:
        crystals: any batch; one without a symmetric description is described first.
        cell: `primitive` and `conventional` in the standard setting of the space group, or the Niggli cell of the
            primitive one.
        tolerance: angstrom, by which symmetry is looked for in crystals that are not described yet.

    >>> import torch
    >>> lattice = 1.8 * (1.0 - torch.eye(3))[None]
    >>> copper = CrystalBatch(torch.zeros(1, 3), lattice, torch.tensor([29]), torch.tensor([1]))
    >>> in_cell(copper, "conventional").num_atoms
    tensor([4])
    """
    if cell not in get_args(CellChoice):
        raise ValueError(f"cell must be one of {', '.join(get_args(CellChoice))}, got {cell!r}")
    described = crystals if isinstance(crystals, SymmetricCrystals) else describe(crystals, tolerance=tolerance)
    if cell == "conventional":
        return _conventional(described)
    primitive = described.plain()
    return primitive if cell == "primitive" else _niggli(primitive)


def _conventional(crystals: SymmetricCrystals) -> CrystalBatch:
    orbits = crystals.orbits
    order = orbits.table.order.index_select(0, orbits.space_group)
    lattice = orbits.primitive_to_conventional(crystals.lattice)
    # x_conventional = x_primitive @ centring, with rows of coordinates
    centring = orbits.table.centring.index_select(0, orbits.space_group).to(crystals.frac_coords.dtype)
    coords = torch.einsum("ni,nij->nj", crystals.frac_coords, centring.index_select(0, crystals.batch))
    shifts, first = _lattice_points(crystals.frac_coords)
    # every atom once for each lattice point of its crystal's centring
    times = order.index_select(0, crystals.batch)
    atom = torch.repeat_interleave(torch.arange(len(coords), device=coords.device), times)
    which = ragged_index(first.index_select(0, orbits.space_group).index_select(0, crystals.batch), times)
    full = lattice_from_parameters(*lattice_parameters(lattice))
    return CrystalBatch(
        wrap_frac_coords(coords.index_select(0, atom) + shifts.index_select(0, which)),
        full,
        crystals.atomic_numbers.index_select(0, atom),
        crystals.num_atoms * order,
        properties=crystals.properties,
        material_ids=crystals.material_ids,
    )


def _lattice_points(like: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the primitive lattice in the conventional cell, group by group, and where each group's begin."""
    table = wyckoff_table(like.device)
    grid = torch.cartesian_prod(*[torch.arange(-2, 3, dtype=torch.float64)] * 3)
    points, starts = [], []
    count = 0
    for centring in table.centring.double().cpu():
        inside = grid @ centring
        inside = inside[((inside > -1e-6) & (inside < 1.0 - 1e-6)).all(-1)]
        starts.append(count)
        points.append(inside)
        count += len(inside)
    return torch.cat(points).to(like), torch.tensor(starts, device=like.device)


def _niggli(crystals: CrystalBatch) -> CrystalBatch:
    from cdvae_kit.crystal.conversion import structures_to_batch
    from cdvae_kit.crystal.symmetry import niggli_reduce

    reduced = structures_to_batch([niggli_reduce(structure) for structure in crystals.structures()])
    return reduced.replace(properties=crystals.properties, material_ids=crystals.material_ids)
