"""The symmetric description of crystals: space group, Wyckoff positions, free parameters, lattice.

`describe` finds it, in one canonical form whatever cell, rotation, origin and order of atoms the crystal is given in;
`SymmetricCrystals` is a batch that holds it, and is an ordinary batch of primitive cells at the same time. What a
position does to its atoms is in `wyckoff` and `orbits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.lattice import (
    lattice_from_log_parameters,
    log_parameters,
    wrap_displacement,
    wrap_frac_coords,
)
from cdvae_kit.crystal.lattice_families import project_parameters
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetry_search import Description, describe_one
from cdvae_kit.typing import Progress

_GROUPS_SHOWN = 6
"""Space groups that the `repr` of a batch names."""


class SymmetricCrystals(CrystalBatch):
    """Crystals as orbits; also the batch of their primitive cells in the standard setting.

    Attributes:
        space_group: (num_crystals,) long, 1 to 230.
        num_orbits: (num_crystals,) long.
        position: (num_orbits,) long, `WyckoffPosition.index`.
        free: (num_orbits, 3) float, the parameters x, y, z of each orbit in [0, 1), 0 where it has none.
        lattice: (num_crystals, 3, 3), the primitive cells; atoms follow orbit by orbit.
    """

    def __init__(
        self,
        orbits: Orbits | None = None,
        elements: Tensor | None = None,
        free: Tensor | None = None,
        lattice: Tensor | None = None,
        *,
        properties: Mapping[str, Tensor] | None = None,
        material_ids: Sequence[str] | None = None,
    ) -> None:
        if orbits is None or elements is None or free is None or lattice is None:
            # PyG builds empty instances when it copies
            super().__init__()
            return
        super().__init__(
            orbits.frac_coords(free),
            lattice,
            elements.index_select(0, orbits.of_atom),
            orbits.num_atoms,
            properties=properties,
            material_ids=material_ids,
        )
        self.space_group = orbits.space_group
        self.num_orbits = orbits.num_orbits
        self.position = orbits.position
        self.free = free

    @property
    def orbits(self) -> Orbits:
        return Orbits(self.space_group, self.num_orbits, self.position)

    @property
    def elements(self) -> Tensor:
        """(num_orbits,) long: the atomic number of each orbit."""
        return self.atomic_numbers.index_select(0, self.orbits.first_atom)

    def _contents(self) -> str:
        groups = sorted(set(self.space_group.tolist()))
        shown = f"{', '.join(map(str, groups[:_GROUPS_SHOWN]))}{', ...' * (len(groups) > _GROUPS_SHOWN)}"
        return f"{super()._contents()}, space group{'s' * (len(groups) != 1)} {shown}" if groups else "no crystals"

    def select(self, index: Tensor | Sequence[int]) -> SymmetricCrystals:
        """The crystals at `index`, in that order, repeats allowed."""
        index = torch.as_tensor(index, dtype=torch.long, device=self.num_atoms.device)
        if index.numel() and (int(index.min()) < -len(self) or int(index.max()) >= len(self)):
            raise IndexError(
                f"crystal index out of range: the batch holds {len(self)} crystals, got {index.tolist()[:10]}"
            )
        index = torch.where(index < 0, index + len(self), index)
        orbits = self.orbits
        rows = orbits.rows_of(index)
        ids = self.material_ids
        return SymmetricCrystals(
            Orbits(self.space_group[index], self.num_orbits[index], self.position[rows]),
            self.elements[rows],
            self.free[rows],
            self.lattice[index],
            properties={name: values[index] for name, values in self.properties.items()},
            material_ids=None if ids is None else [ids[i] for i in index.tolist()],
        )

    def replace(self, **changes: Any) -> SymmetricCrystals:
        """A new batch with some of `elements`, `free`, `lattice`, `properties`, `material_ids` changed."""
        names = ("elements", "free", "lattice", "properties", "material_ids")
        unknown = sorted(set(changes) - set(names))
        if unknown:
            raise TypeError(f"of symmetric crystals, {', '.join(names)} can be replaced, not {', '.join(unknown)}")
        fields = {name: getattr(self, name) for name in names} | changes
        return SymmetricCrystals(self.orbits, **fields)

    def moved_to(self, frac_coords: Tensor) -> SymmetricCrystals:
        """The same orbits with every atom as near to `frac_coords` (num_atoms, 3) as the group lets it.

        The way is the shortest one on the torus, averaged over the group.
        """
        change = self.orbits.pull(wrap_displacement(frac_coords - self.frac_coords))
        return self.replace(free=wrap_frac_coords(self.free + change))

    def in_family(self) -> SymmetricCrystals:
        """The same crystals with each lattice brought to the nearest one of its crystal family."""
        orbits = self.orbits
        parameters = log_parameters(orbits.primitive_to_conventional(self.lattice))
        lattice = lattice_from_log_parameters(project_parameters(parameters, orbits.family))
        return self.replace(lattice=orbits.conventional_to_primitive(lattice))

    def plain(self) -> CrystalBatch:
        """The primitive cells alone."""
        return CrystalBatch(
            self.frac_coords,
            self.lattice,
            self.atomic_numbers,
            self.num_atoms,
            properties=self.properties,
            material_ids=self.material_ids,
        )


def join(batches: Sequence[SymmetricCrystals]) -> SymmetricCrystals:
    """One batch of all crystals, in order; properties that not all have are left out."""
    if not batches:
        raise ValueError("join needs at least one batch, got none")
    names = set.intersection(*(set(batch.properties) for batch in batches))
    ids = [batch.material_ids for batch in batches]

    def together(name: str) -> Tensor:
        return torch.cat([getattr(batch, name) for batch in batches])

    return SymmetricCrystals(
        Orbits(together("space_group"), together("num_orbits"), together("position")),
        together("elements"),
        together("free"),
        together("lattice"),
        properties={name: torch.cat([batch.properties[name] for batch in batches]) for name in sorted(names)},
        material_ids=None if None in ids else [name for some in ids if some is not None for name in some],
    )


def without_symmetry(crystals: CrystalBatch) -> SymmetricCrystals:
    """The same cells as crystals of P1: every atom an orbit, its fractional coordinates free."""
    return SymmetricCrystals(
        Orbits.without_symmetry(crystals.num_atoms),
        crystals.atomic_numbers,
        crystals.frac_coords,
        crystals.lattice,
        properties=crystals.properties,
        material_ids=crystals.material_ids,
    )


def describe(
    crystals: CrystalBatch,
    *,
    tolerance: float = 0.05,
    progress: Progress | None = None,
) -> SymmetricCrystals:
    """The symmetric description of each crystal: idealised, primitive, and the same for every cell of one crystal.

    A cell that is not primitive becomes the primitive one, with fewer atoms. Where moyopy finds no group at `tolerance`
    it is halved; a crystal without symmetry, or for which no tolerance serves, is one of P1.

    Args:
        crystals: a batch, on any device.
        tolerance: angstrom, by which atoms may lie off their symmetric positions.
        progress: called with (crystals done, crystals in all).
    """
    if not tolerance > 0.0:
        raise ValueError(f"the tolerance must be a positive length in angstrom, got {tolerance}")
    pointers = crystals.ptr.tolist()
    lattice = crystals.lattice.detach().cpu().double().numpy()
    frac_coords = crystals.frac_coords.detach().cpu().double().numpy()
    numbers = crystals.atomic_numbers.cpu().numpy()
    work = [
        (lattice[i], frac_coords[pointers[i] : pointers[i + 1]], numbers[pointers[i] : pointers[i + 1]], tolerance)
        for i in range(len(crystals))
    ]
    found = []
    for i, item in enumerate(work):
        found.append(describe_one(*item))
        if progress is not None and (i + 1 == len(work) or i % 100 == 0):
            progress(i + 1, len(work))
    return _assemble(found, crystals)


def _assemble(found: Sequence[Description], crystals: CrystalBatch) -> SymmetricCrystals:
    device, dtype = crystals.lattice.device, crystals.lattice.dtype
    orbits = Orbits(
        torch.tensor([one.space_group for one in found]),
        torch.tensor([len(one.positions) for one in found]),
        torch.tensor([position for one in found for position in one.positions]),
    ).to(device)
    free = torch.tensor([u for one in found for u in one.free], dtype=dtype, device=device).view(-1, 3)
    return SymmetricCrystals(
        orbits,
        torch.tensor([element for one in found for element in one.elements], device=device),
        free,
        torch.stack([torch.as_tensor(one.lattice) for one in found]).to(device=device, dtype=dtype),
        properties=crystals.properties,
        material_ids=crystals.material_ids,
    )
