"""Orbits of atoms under a space group: what is free in a crystal whose group and Wyckoff positions are known.

An atom of an orbit stands at G u + offset in the primitive cell, for the orbit's free parameters u = (x, y, z); it
moves by G du. Every function of u therefore has the symmetry of the group, and only u is ever noised, matched or
predicted.
A crystal without symmetry is the group P1, with every atom an orbit of its own and u its fractional coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from cdvae_kit.crystal.batch import ragged_index
from cdvae_kit.crystal.elements import chemical_order
from cdvae_kit.crystal.lattice import volume, wrap_displacement, wrap_frac_coords
from cdvae_kit.crystal.wyckoff import WyckoffTable, wyckoff_table

_MORE_THAN_ELEMENTS = 128
P1_POSITION = 0
"""The index of the only Wyckoff position of P1."""


@dataclass(frozen=True)
class Orbits:
    """The orbits of a batch of crystals, without elements and free parameters.

    Attributes:
        space_group: (num_crystals,) long, 1 to 230.
        num_orbits: (num_crystals,) long.
        position: (num_orbits,) long, `WyckoffPosition.index` of each orbit.
    """

    space_group: Tensor
    num_orbits: Tensor
    position: Tensor

    @classmethod
    def without_symmetry(cls, num_atoms: Tensor) -> Orbits:
        """P1: every atom an orbit. `num_atoms` is (num_crystals,) long."""
        return cls(torch.ones_like(num_atoms), num_atoms, num_atoms.new_full((int(num_atoms.sum()),), P1_POSITION))

    @cached_property
    def table(self) -> WyckoffTable:
        return wyckoff_table(self.position.device)

    def _table(self, dtype: torch.dtype) -> WyckoffTable:
        """In the precision of what it is used on: thirds of float32 would be all that float64 crystals get."""
        return wyckoff_table(self.position.device, dtype)

    @cached_property
    def batch(self) -> Tensor:
        """(num_orbits,) long: the crystal of each orbit."""
        crystals = torch.arange(len(self.num_orbits), device=self.position.device)
        return torch.repeat_interleave(crystals, self.num_orbits, output_size=len(self.position))

    @cached_property
    def multiplicity(self) -> Tensor:
        """(num_orbits,) long: atoms of each orbit in the primitive cell."""
        return self.table.multiplicity.index_select(0, self.position)

    @cached_property
    def num_atoms(self) -> Tensor:
        """(num_crystals,) long."""
        return scatter(self.multiplicity, self.batch, dim=0, dim_size=len(self.num_orbits), reduce="sum")

    @cached_property
    def of_atom(self) -> Tensor:
        """(num_atoms,) long: the orbit of each atom; atoms follow orbit by orbit."""
        orbits = torch.arange(len(self.position), device=self.position.device)
        return torch.repeat_interleave(orbits, self.multiplicity)

    @cached_property
    def first_atom(self) -> Tensor:
        """(num_orbits,) long: the atom that stands on the first point of its position."""
        return self.multiplicity.cumsum(0) - self.multiplicity

    @cached_property
    def _entries(self) -> Tensor:
        return ragged_index(self.table.first_entry.index_select(0, self.position), self.multiplicity)

    @cached_property
    def maps(self) -> Tensor:
        """(num_atoms, 3, 3) G of each atom."""
        return self.table.maps.index_select(0, self._entries)

    @cached_property
    def offsets(self) -> Tensor:
        """(num_atoms, 3)."""
        return self.table.offsets.index_select(0, self._entries)

    @cached_property
    def is_free(self) -> Tensor:
        """(num_orbits, 3) bool: which of x, y, z the orbit has."""
        return self.table.is_free.index_select(0, self.position)

    @cached_property
    def is_polar(self) -> Tensor:
        """(num_orbits, 3) bool: along which of x, y, z the group leaves the origin free."""
        return self.table.is_polar.index_select(0, self.space_group).index_select(0, self.batch)

    @cached_property
    def alike(self) -> Tensor:
        """(num_orbits,) long: the same for orbits of one crystal and multiplicity, which could exchange elements."""
        return self.batch * (int(self.table.multiplicity.max()) + 1) + self.multiplicity

    def numbers(self, elements: Tensor) -> Tensor:
        """(num_orbits,) long: 0, 1, ... in a crystal, by element (in Pettifor's order), position, then as they come.

        Of the canonical description this is the order of its orbits, equal ones by their parameters: an orbit keeps its
        number however the crystal is given.
        """
        order = self._kinds(elements).argsort(stable=True)
        first = self.num_orbits.cumsum(0) - self.num_orbits
        numbers = torch.empty_like(order)
        # crystals come before elements in the key, so that each keeps its rows
        numbers[order] = torch.arange(len(order), device=order.device) - first.index_select(0, self.batch)
        return numbers

    def anchors(self, elements: Tensor) -> Tensor:
        """(num_orbits,) long: the row of the orbit from which those of its crystal are seen along polar axes.

        The first one of the element and position that has the fewest orbits.
        """
        _, kind, count = torch.unique(self._kinds(elements), return_inverse=True, return_counts=True)
        # kinds are in the order of crystals, so that one key tells them apart within each
        key = count.index_select(0, kind) * (len(count) + 1) + kind
        order = key.argsort(stable=True)
        order = order[self.batch.index_select(0, order).argsort(stable=True)]
        first = self.num_orbits.cumsum(0) - self.num_orbits
        return order.index_select(0, first.index_select(0, self.batch))

    def _kinds(self, elements: Tensor) -> Tensor:
        """(num_orbits,) long, the same for orbits of one element and position of one crystal; in this order."""
        of_crystal = self.batch * _MORE_THAN_ELEMENTS + chemical_order(elements.device)[elements]
        return of_crystal * len(self.table.multiplicity) + self.position

    def seen_from(self, anchors: Tensor, free: Tensor) -> Tensor:
        """(num_orbits, 3) parameters in [-0.5, 0.5): along polar axes those of the orbit less its anchor's."""
        return wrap_displacement(free - torch.where(self.is_polar, free.index_select(0, anchors), 0.0))

    def frac_coords(self, free: Tensor) -> Tensor:
        """(num_atoms, 3) fractional coordinates in [0, 1) in the primitive cell, from u (num_orbits, 3)."""
        of_atom = free.index_select(0, self.of_atom).unsqueeze(-1)
        maps = self.maps.to(free.dtype)
        offsets = self.offsets
        if free.dtype != offsets.dtype:
            offsets = self._table(free.dtype).offsets.index_select(0, self._entries)
        return wrap_frac_coords(torch.matmul(maps, of_atom).squeeze(-1) + offsets)

    def push(self, change: Tensor) -> Tensor:
        """(num_atoms, 3) displacements G du of the atoms, from du (num_orbits, 3)."""
        of_atom = change.index_select(0, self.of_atom).unsqueeze(-1)
        return torch.matmul(self.maps.to(change.dtype), of_atom).squeeze(-1)

    def pull(self, vectors: Tensor) -> Tensor:
        """(num_orbits, 3) du of fractional vectors on all atoms (num_atoms, 3): pulled back, averaged over each orbit.

        `push(pull(v))` is the average of v over the group.
        """
        pulls = self._table(vectors.dtype).pulls.index_select(0, self._entries)
        back = torch.matmul(pulls, vectors.unsqueeze(-1)).squeeze(-1)
        return scatter(back, self.of_atom, dim=0, dim_size=len(self.position), reduce="mean")

    def pull_first(self, vectors: Tensor) -> Tensor:
        """(num_orbits, 3) du of fractional vectors on the first atom of each orbit, (num_orbits, 3).

        Of a vector that is no push, the du whose push is nearest in fractions of the cell.
        """
        pulls = self._table(vectors.dtype).first_pulls.index_select(0, self.position)
        return torch.matmul(pulls, vectors.unsqueeze(-1)).squeeze(-1)

    def without_drift(self, change: Tensor) -> Tensor:
        """du less the shift of the whole crystal, where the group leaves the origin free: (num_orbits, 3)."""
        weight = self.multiplicity.to(change.dtype).unsqueeze(-1)
        summed = scatter(weight * change, self.batch, dim=0, dim_size=len(self.num_orbits), reduce="sum")
        drift = summed / self.num_atoms.to(change.dtype).unsqueeze(-1)
        return change - torch.where(self.is_polar, drift.index_select(0, self.batch), 0.0)

    def metric(self, lattice: Tensor) -> Tensor:
        """(num_orbits, 3, 3) G^T M G, with M the metric tensor of the primitive cell over V^(2/3); 1 where not free.

        All atoms of an orbit have the same.
        """
        entries = self.table.first_entry.index_select(0, self.position)
        maps = self.table.maps.index_select(0, entries).to(lattice.dtype)
        scaled = lattice / volume(lattice).pow(1.0 / 3.0).view(-1, 1, 1)
        on_axes = torch.einsum("oji,ojk->oik", maps, scaled.index_select(0, self.batch))
        return on_axes @ on_axes.transpose(-1, -2) + torch.diag_embed((~self.is_free).to(lattice.dtype))

    def conventional_to_primitive(self, lattice: Tensor) -> Tensor:
        """(num_crystals, 3, 3) rows of the primitive cells, from rows of the conventional ones."""
        return self._table(lattice.dtype).centring.index_select(0, self.space_group) @ lattice

    def primitive_to_conventional(self, lattice: Tensor) -> Tensor:
        """The inverse of `conventional_to_primitive`."""
        return torch.linalg.solve(self._table(lattice.dtype).centring.index_select(0, self.space_group), lattice)

    @cached_property
    def num_conventional_atoms(self) -> Tensor:
        """(num_crystals,) long: atoms of the conventional cell."""
        return self.num_atoms * self.table.order.index_select(0, self.space_group)

    @cached_property
    def family(self) -> Tensor:
        """(num_crystals,) long, the index in `wyckoff.FAMILIES`."""
        return self.table.family.index_select(0, self.space_group)

    def pairs(self) -> Tensor:
        """(2, num_pairs) long: each atom of a crystal (row 0) as seen from the first atom of each orbit (row 1).

        Sorted by orbit; the first atom does not see itself.
        """
        per_orbit = self.num_atoms.index_select(0, self.batch)
        first = (self.num_atoms.cumsum(0) - self.num_atoms).index_select(0, self.batch)
        atoms = ragged_index(first, per_orbit)
        orbits = torch.repeat_interleave(torch.arange(len(per_orbit), device=atoms.device), per_orbit)
        keep = atoms != self.first_atom.index_select(0, orbits)
        return torch.stack([atoms[keep], orbits[keep]])

    def select(self, index: Tensor) -> Orbits:
        """The orbits of the crystals at `index`, in that order, repeats allowed."""
        return Orbits(self.space_group[index], self.num_orbits[index], self.position[self.rows_of(index)])

    def rows_of(self, index: Tensor) -> Tensor:
        """Rows of the orbits of the crystals at `index`, crystal after crystal."""
        return ragged_index((self.num_orbits.cumsum(0) - self.num_orbits)[index], self.num_orbits[index])

    def to(self, device: torch.device | str) -> Orbits:
        """The same orbits on another device."""
        return Orbits(self.space_group.to(device), self.num_orbits.to(device), self.position.to(device))
