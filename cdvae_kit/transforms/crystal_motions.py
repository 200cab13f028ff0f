"""Changes of crystals with a known truth: what leaves a crystal what it is, and the small motion of its atoms.

A rotation, another origin, another order of the atoms and a supercell describe the same crystal again: whatever a
network says of it must not change, and if it does, the network looks at the description. The displacement is no
symmetry. Other changes are in `crystals`; the protocol is that of `base`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.batch import ragged_index
from cdvae_kit.transforms.base import Generator, Params, Transform, normal, per_sample, uniform


@dataclass(frozen=True)
class CrystalRotation(Transform[CrystalBatch]):
    """The whole crystal turned, uniform over all rotations; parameter `rotation` (b, 3, 3), for rows.

    The magnitude scales the angle about an axis that it leaves alone.

    Attributes:
        target_rank: of the labels that `act_on_target` turns along: 0, scalars of any shape, which stay; 1, vectors
            (b, 3); 2, tensors (b, 3, 3). All in the frame of the laboratory.
    """

    target_rank: Literal[0, 1, 2] = 0
    differentiable = True

    def __post_init__(self) -> None:
        if self.target_rank not in (0, 1, 2):
            raise ValueError(f"labels of rank 0, 1 or 2 can be turned, got {self.target_rank}")

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        # a direction on the sphere in four dimensions is a rotation (Shoemake 1992)
        quaternion = normal(generator, len(batch), 4, like=batch.lattice)
        quaternion = quaternion / quaternion.norm(dim=1, keepdim=True)
        quaternion = torch.where(quaternion[:, :1] < 0.0, -quaternion, quaternion)
        angle = 2.0 * quaternion[:, 0].clamp(max=1.0).acos() * per_sample(magnitude, len(batch), like=batch.lattice)
        axis = torch.nn.functional.normalize(quaternion[:, 1:], dim=1)
        return {"rotation": torch.linalg.matrix_exp(_cross_matrices(axis) * angle[:, None, None])}

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        return batch.replace(lattice=batch.lattice @ params["rotation"])

    def act_on_target(self, target: Tensor, params: Params) -> Tensor:
        if self.target_rank == 0:
            return target
        rotation = params["rotation"].to(target.dtype)
        if target.shape != (len(rotation), *[3] * self.target_rank):
            raise ValueError(
                f"expected labels of rank {self.target_rank} for {len(rotation)} crystals, got {tuple(target.shape)}"
            )
        if self.target_rank == 1:
            return torch.einsum("bi,bij->bj", target, rotation)
        return rotation.transpose(-1, -2) @ target @ rotation


def _cross_matrices(axis: Tensor) -> Tensor:
    """(b, 3, 3) antisymmetric, whose product with a vector is the cross product."""
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)


@dataclass(frozen=True)
class OriginShift(Transform[CrystalBatch]):
    """All atoms moved together, uniform over the cell; parameter `shift` (b, 3), fractions."""

    differentiable = True

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        drawn = uniform(generator, len(batch), 3, low=-0.5, high=0.5, like=batch.lattice)
        return {"shift": drawn * per_sample(magnitude, len(batch), like=batch.lattice)[:, None]}

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        return batch.replace(frac_coords=batch.frac_coords + params["shift"][batch.batch])


@dataclass(frozen=True)
class AtomPermutation(Transform[CrystalBatch]):
    """The atoms in another order, uniform; `key` (b, most atoms of a crystal), by which they are sorted.

    The magnitude is the share of crystals that are reordered.
    """

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        most = _most_atoms(batch)
        place = torch.arange(most, device=batch.lattice.device, dtype=batch.lattice.dtype) / max(most, 1)
        drawn = uniform(generator, len(batch), most, like=batch.lattice)
        chosen = uniform(generator, len(batch), 1, like=batch.lattice)
        share = per_sample(magnitude, len(batch), like=batch.lattice)[:, None]
        return {"key": torch.where(chosen < share, drawn, place)}

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        key = params["key"][batch.batch, _place_in_crystal(batch)]
        order = torch.argsort(key, stable=True)
        order = order[torch.argsort(batch.batch[order], stable=True)]
        return batch.replace(frac_coords=batch.frac_coords[order], atomic_numbers=batch.atomic_numbers[order])


@dataclass(frozen=True)
class AtomDisplacement(Transform[CrystalBatch]):
    """Each atom moved by itself, normal; parameter `displacement` (b, most atoms of a crystal, 3).

    Attributes:
        standard_deviation: of each Cartesian component, angstrom; thermal motion at 300 K is some 0.05 to 0.1.
    """

    standard_deviation: float
    differentiable = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.standard_deviation < math.inf:
            raise ValueError(
                "the standard deviation of a displacement must be finite and not negative, "
                f"got {self.standard_deviation}"
            )

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        # Box and Muller by hand: an atom's draw must not depend on how many atoms the batch's largest crystal has
        length, turn = (uniform(generator, len(batch), _most_atoms(batch), 3, like=batch.lattice) for _ in range(2))
        drawn = (-2.0 * torch.log1p(-length)).sqrt() * (2.0 * math.pi * turn).cos()
        strength = self.standard_deviation * per_sample(magnitude, len(batch), like=batch.lattice)
        return {"displacement": drawn * strength[:, None, None]}

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        moved = params["displacement"][batch.batch, _place_in_crystal(batch)]
        inverse = torch.linalg.inv(batch.lattice)[batch.batch]
        return batch.replace(frac_coords=batch.frac_coords + torch.einsum("ni,nij->nj", moved, inverse))


@dataclass(frozen=True)
class AtomScatter(Transform[CrystalBatch]):
    """Each atom anywhere in a cell of another shape and the same volume: nothing is left of the structure.

    The magnitude is the share of crystals that are scattered. Parameters are `shift` (b, most atoms of a crystal, 3),
    fractions, and `deformation` (b, 3, 3), symmetric.

    Attributes:
        standard_deviation: of the deformation's logarithm, without a unit. At 0 the lattice stays, by which a small
            cell is still known.
    """

    standard_deviation: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.standard_deviation < math.inf:
            raise ValueError(
                "the standard deviation of a deformation must be finite and not negative, "
                f"got {self.standard_deviation}"
            )

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        chosen = uniform(generator, len(batch), 1, 1, like=batch.lattice)
        share = per_sample(magnitude, len(batch), like=batch.lattice)[:, None, None]
        entries = normal(generator, len(batch), 3, 3, like=batch.lattice)
        symmetric = 0.5 * (entries + entries.transpose(-1, -2))
        identity = torch.eye(3, device=batch.lattice.device, dtype=batch.lattice.dtype)
        # without a trace: the volume stays
        symmetric = symmetric - identity * symmetric.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        deformation = torch.linalg.matrix_exp(self.standard_deviation * symmetric)
        drawn = uniform(generator, len(batch), _most_atoms(batch), 3, like=batch.lattice)
        return {
            "shift": torch.where(chosen < share, drawn, 0.0),
            "deformation": torch.where(chosen < share, deformation, identity),
        }

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        # a uniform shift on a circle leaves nothing of where the atom was
        return batch.replace(
            frac_coords=batch.frac_coords + params["shift"][batch.batch, _place_in_crystal(batch)],
            lattice=batch.lattice @ params["deformation"],
        )


@dataclass(frozen=True)
class Supercell(Transform[CrystalBatch]):
    """A cell of `num_cells` cells, uniform among all sublattices of that index; parameter `cell` (b, 3, 3) long.

    The new lattice is `cell @ lattice`, with `cell` in Hermite normal form: each sublattice occurs once (2: 7, 3: 13,
    4: 35). The magnitude is the share of crystals that grow. Properties stay: they are taken to be of an atom or of the
    material.

    Attributes:
        num_cells: at least 1.

    >>> from cdvae_kit.seeding import make_generator
    >>> one = CrystalBatch(torch.zeros(1, 3), 3.0 * torch.eye(3)[None], torch.tensor([84]), torch.tensor([1]))
    >>> Supercell(3)(one, generator=make_generator(0)).num_atoms
    tensor([3])
    """

    num_cells: int = 2
    changes_shape = True

    def __post_init__(self) -> None:
        if self.num_cells < 1:
            raise ValueError(f"a supercell has at least 1 cell, got {self.num_cells}")

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        choices = hermite_normal_forms(self.num_cells).to(batch.lattice.device)
        drawn = (uniform(generator, len(batch), like=batch.lattice) * len(choices)).long().clamp_max(len(choices) - 1)
        chosen = uniform(generator, len(batch), like=batch.lattice)
        grown = chosen < per_sample(magnitude, len(batch), like=batch.lattice)
        return {"cell": torch.where(grown[:, None, None], choices[drawn], torch.eye(3, dtype=torch.long).to(choices))}

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        cell = params["cell"]
        diagonal = cell.diagonal(dim1=1, dim2=2)
        num_copies = diagonal.prod(1)
        num_atoms = batch.num_atoms * num_copies
        # copy by copy, each with all atoms of the cell: row -> (atom, copy)
        new = ragged_index(torch.zeros_like(num_atoms), num_atoms)
        crystal = torch.repeat_interleave(torch.arange(len(batch), device=cell.device), num_atoms)
        atom = batch.ptr[crystal] + new % batch.num_atoms[crystal]
        copy = new // batch.num_atoms[crystal]
        # an upper triangular form: the box of its diagonal holds one point of each coset
        _, b, c = diagonal[crystal].unbind(1)
        offset = torch.stack([copy // (b * c), copy // c % b, copy % c], dim=1).to(batch.lattice.dtype)
        inverse = torch.linalg.inv(cell.to(batch.lattice.dtype))[crystal]
        frac_coords = torch.einsum("ni,nij->nj", batch.frac_coords[atom] + offset, inverse)
        return CrystalBatch(
            frac_coords,
            cell.to(batch.lattice.dtype) @ batch.lattice,
            batch.atomic_numbers[atom],
            num_atoms,
            properties=batch.properties,
            material_ids=batch.material_ids,
        )


@cache
def hermite_normal_forms(determinant: int) -> Tensor:
    """(n, 3, 3) long, upper triangular: one basis of every sublattice of this index (Hart and Forcade 2008).

    >>> [len(hermite_normal_forms(n)) for n in (1, 2, 3, 4)]
    [1, 7, 13, 35]
    """
    found = [
        [[a, x, y], [0, b, z], [0, 0, c]]
        for a in range(1, determinant + 1)
        for b in range(1, determinant + 1)
        for c in range(1, determinant + 1)
        if a * b * c == determinant
        for x in range(b)
        for y in range(c)
        for z in range(c)
    ]
    return torch.tensor(found)


def _most_atoms(batch: CrystalBatch) -> int:
    return int(batch.num_atoms.max()) if len(batch) else 0


def _place_in_crystal(batch: CrystalBatch) -> Tensor:
    """(num_atoms,) long: 0 for the first atom of each crystal, then up."""
    return torch.arange(len(batch.batch), device=batch.batch.device) - batch.ptr[batch.batch]
