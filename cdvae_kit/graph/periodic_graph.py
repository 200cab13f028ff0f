"""The graph of a batch of crystals: which atom is joined to which image of which. How edges are found is elsewhere.

A graph holds no coordinates: vectors are computed from the batch that they are asked for, so that gradients flow, and
so that edges found once serve while the atoms move a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cdvae_kit.crystal.batch import CrystalBatch, ragged_index


@dataclass(frozen=True)
class PeriodicGraph:
    """Directed edges between atoms and periodic images of atoms, sorted by target.

    Attributes:
        edge_index: (2, num_edges) long, row 0 the source j, row 1 the target i.
        cell_offsets: (num_edges, 3) long, the cell that the source's image lies in, seen from the target's:
            edge vector = cart[j] + offset @ lattice - cart[i], with the batch's own (wrapped) coordinates.
        num_edges: (num_crystals,) long.
    """

    edge_index: Tensor
    cell_offsets: Tensor
    num_edges: Tensor

    def __post_init__(self) -> None:
        total = self.edge_index.shape[-1]
        if self.edge_index.shape != (2, total) or self.cell_offsets.shape != (total, 3):
            raise ValueError(
                "expected edge_index (2, num_edges) and cell_offsets (num_edges, 3), got "
                f"{tuple(self.edge_index.shape)} and {tuple(self.cell_offsets.shape)}"
            )

    @property
    def num_crystals(self) -> int:
        return len(self.num_edges)

    @property
    def edge_crystal(self) -> Tensor:
        """(num_edges,) long: the crystal that an edge belongs to."""
        return torch.repeat_interleave(self.num_edges, output_size=self.edge_index.shape[1])

    def vectors(self, batch: CrystalBatch) -> Tensor:
        """(num_edges, 3), angstrom, from target to source; differentiable in coordinates and lattice."""
        cart_coords = batch.cart_coords
        source, target = self.edge_index
        lattice = batch.lattice.index_select(0, self.edge_crystal)
        shift = torch.einsum("ei,eij->ej", self.cell_offsets.to(lattice.dtype), lattice)
        return cart_coords.index_select(0, source) - cart_coords.index_select(0, target) + shift

    def distances(self, batch: CrystalBatch) -> Tensor:
        """(num_edges,), angstrom; differentiable in coordinates and lattice."""
        return torch.linalg.vector_norm(self.vectors(batch), dim=-1)

    def into(self, atoms: Tensor) -> PeriodicGraph:
        """The edges whose target is one of `atoms` (long, ascending), in the order that they have."""
        target = self.edge_index[1]
        # atoms without an edge at all are none of its targets
        size = max((int(some.max()) + 1 for some in (target, atoms) if len(some)), default=0)
        chosen = torch.zeros(size, dtype=torch.bool, device=target.device)
        chosen[atoms] = True
        keep = chosen.index_select(0, target)
        before = torch.nn.functional.pad(keep.cumsum(0), (1, 0))
        ends = self.num_edges.cumsum(0)
        num_edges = before[ends] - before[ends - self.num_edges]
        return PeriodicGraph(self.edge_index[:, keep], self.cell_offsets[keep], num_edges)

    def select(self, index: Tensor | Sequence[int], num_atoms: Tensor) -> PeriodicGraph:
        """The edges of the crystals at `index`, as `CrystalBatch.select` orders the atoms; no loop over crystals.

        Args:
            index: crystals, in the order wanted, repeats allowed.
            num_atoms: (num_crystals,) long, of the batch that this graph belongs to, before it is cut.
        """
        index = torch.as_tensor(index, dtype=torch.long, device=self.num_edges.device)
        if len(num_atoms) != self.num_crystals:
            raise ValueError(f"num_atoms must count the atoms of {self.num_crystals} crystals, got {len(num_atoms)}")
        if index.numel() and (int(index.min()) < -self.num_crystals or int(index.max()) >= self.num_crystals):
            raise IndexError(
                f"crystal index out of range: the graph holds {self.num_crystals} crystals, got {index.tolist()[:10]}"
            )
        index = torch.where(index < 0, index + self.num_crystals, index)
        num_edges, atoms = self.num_edges[index], num_atoms[index]
        edges = ragged_index((self.num_edges.cumsum(0) - self.num_edges)[index], num_edges)
        # where a crystal's atoms start in the new batch, less where they started in the old one
        moved = (atoms.cumsum(0) - atoms) - (num_atoms.cumsum(0) - num_atoms)[index]
        moved = torch.repeat_interleave(moved, num_edges, output_size=len(edges))
        return PeriodicGraph(
            self.edge_index.index_select(1, edges) + moved, self.cell_offsets.index_select(0, edges), num_edges
        )

    def after_moves(self, before: CrystalBatch, after: CrystalBatch) -> PeriodicGraph:
        """The same edges for atoms that moved by less than half a cell along each axis, some of them across a face.

        Coordinates are wrapped: an atom that leaves through one face comes back through the opposite one, and the
        offsets of its edges change by one.
        """
        crossed = torch.round(before.frac_coords.detach() - after.frac_coords.detach()).to(self.cell_offsets.dtype)
        source, target = self.edge_index
        return PeriodicGraph(
            self.edge_index,
            self.cell_offsets + crossed.index_select(0, source) - crossed.index_select(0, target),
            self.num_edges,
        )

    def to(self, device: torch.device | str) -> PeriodicGraph:
        """The same graph on another device."""
        return PeriodicGraph(self.edge_index.to(device), self.cell_offsets.to(device), self.num_edges.to(device))
