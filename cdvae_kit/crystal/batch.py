"""The batch of crystals that every other part of the package passes around.

Flat tensors, one row an atom, checked when the batch is made. Conversion to other libraries is in `export`, from
them in `conversion`; files are read by `cdvae_kit.io`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from cdvae_kit.crystal.lattice import lattice_parameters, wrap_frac_coords
from cdvae_kit.typing import OwnHelp

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from cdvae_kit.crystal.arrays import CrystalArrays

MAX_ATOMIC_NUMBER = 118

_SHOWN = 4
"""Formulas that the `repr` of a batch names."""


class CrystalBatch(Data, metaclass=OwnHelp):
    """Crystals as flat tensors.

    `len`, indices, slices, masks and loops go by crystal: `crystals[0]` and each crystal of a loop are batches of one.

    Attributes:
        frac_coords: (num_atoms, 3) float, fractions of the rows of `lattice`, in [0, 1).
        lattice: (num_crystals, 3, 3) float, angstrom, rows a, b, c.
        atomic_numbers: (num_atoms,) long, hydrogen is 1.
        num_atoms: (num_crystals,) long.
        batch: (num_atoms,) long, the crystal that an atom belongs to.
        properties: name to (num_crystals,) float; NaN where a crystal has no value.
        material_ids: one name a crystal, or None.

    >>> salt = CrystalBatch(torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]), 4.1 * torch.eye(3)[None],
    ...     torch.tensor([55, 17]), torch.tensor([2]))
    >>> salt
    CrystalBatch(1 crystal: CsCl, 2 atoms, a = b = c = 4.1 Å, α = β = γ = 90°)
    >>> concatenate([salt, salt])[1:]
    CrystalBatch(1 crystal: CsCl, 2 atoms, a = b = c = 4.1 Å, α = β = γ = 90°)
    """

    def __init__(
        self,
        frac_coords: Tensor | None = None,
        lattice: Tensor | None = None,
        atomic_numbers: Tensor | None = None,
        num_atoms: Tensor | None = None,
        *,
        properties: Mapping[str, Tensor] | None = None,
        material_ids: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if frac_coords is None or lattice is None or atomic_numbers is None or num_atoms is None:
            # PyG builds empty instances when it copies
            return
        _check(frac_coords, lattice, atomic_numbers, num_atoms, properties or {}, material_ids)
        self.frac_coords = wrap_frac_coords(frac_coords)
        self.lattice = lattice
        self.atomic_numbers = atomic_numbers
        self.num_atoms = num_atoms
        self.batch = torch.repeat_interleave(
            torch.arange(len(num_atoms), device=num_atoms.device), num_atoms, output_size=len(frac_coords)
        )
        self.num_nodes = len(frac_coords)
        self.properties = dict(properties or {})
        # PyG drops an attribute that is None
        if material_ids is not None:
            self.names = list(material_ids)

    @property
    def material_ids(self) -> list[str] | None:
        return self.names if "names" in self else None

    @property
    def num_crystals(self) -> int:
        return len(self.num_atoms)

    @property
    def ptr(self) -> Tensor:
        """(num_crystals + 1,) long: the first atom of each crystal, then the number of all atoms."""
        return torch.nn.functional.pad(self.num_atoms.cumsum(0), (1, 0))

    @property
    def cart_coords(self) -> Tensor:
        """(num_atoms, 3), angstrom."""
        return torch.einsum("ni,nij->nj", self.frac_coords, self.lattice[self.batch])

    def __len__(self) -> int:
        return self.num_crystals

    def __getitem__(self, index: Any) -> Any:
        """The crystals at an index, a slice, a list, or a mask, as a batch; by a name, the field of that name."""
        if isinstance(index, str):
            return super().__getitem__(index)
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        chosen = torch.as_tensor(index, device=self.num_atoms.device)
        if chosen.dtype == torch.bool:
            if chosen.shape != (len(self),):
                raise IndexError(
                    f"a mask of {len(self)} crystals must have this length, got {tuple(chosen.shape)} values"
                )
            chosen = chosen.nonzero().flatten()
        if chosen.numel() and (chosen.is_floating_point() or chosen.ndim > 1):
            raise TypeError(f"crystals are chosen by integers, a slice, a mask or a field's name, got {index!r}")
        return self.select(chosen.long().reshape(-1))

    def __iter__(self) -> Iterator[Any]:
        """Each crystal as a batch of one, in order."""
        return (self.select([i]) for i in range(len(self)))

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self.keys()})

    def __repr__(self) -> str:
        name = type(self).__name__
        if "num_atoms" not in self:
            # PyG builds empty instances when it copies
            return f"{name}()"
        parts = [f"properties {', '.join(sorted(self.properties))}"] if self.properties else []
        if self.lattice.device.type != "cpu":
            parts.append(f"on {self.lattice.device}")
        return f"{name}({', '.join([self._contents(), *parts])})"

    def _contents(self) -> str:
        """What the crystals are, in a few words."""
        if not len(self):
            return "no crystals"
        named = self.select(range(min(len(self), _SHOWN))).formulas()
        low, high = int(self.num_atoms.min()), int(self.num_atoms.max())
        atoms = f"{low} atom{'s' * (low > 1)}" if low == high else f"{low} to {high} atoms"
        if len(self) > 1:
            return f"{len(self)} crystals of {atoms}: {', '.join(named)}{', ...' * (len(self) > len(named))}"
        lengths, angles = (values[0].detach().cpu() for values in lattice_parameters(self.lattice))
        cell = f"{_together('a b c', lengths, ' Å', 3)}, {_together('α β γ', angles, '°', 2)}"
        return f"1 crystal: {named[0]}, {atoms}, {cell}"

    def formulas(self) -> list[str]:
        """The reduced formula of each crystal, as pymatgen writes it."""
        from cdvae_kit.crystal.export import formulas

        return formulas(self)

    def select(self, index: Tensor | Sequence[int]) -> CrystalBatch:
        """The crystals at `index`, in that order, repeats allowed; no loop over crystals."""
        index = torch.as_tensor(index, dtype=torch.long, device=self.num_atoms.device)
        if index.numel() and (int(index.min()) < -len(self) or int(index.max()) >= len(self)):
            raise IndexError(
                f"crystal index out of range: the batch holds {len(self)} crystals, got {index.tolist()[:10]}"
            )
        index = torch.where(index < 0, index + len(self), index)
        atoms = ragged_index(self.ptr[index], self.num_atoms[index])
        ids = self.material_ids
        return CrystalBatch(
            self.frac_coords[atoms],
            self.lattice[index],
            self.atomic_numbers[atoms],
            self.num_atoms[index],
            properties={name: values[index] for name, values in self.properties.items()},
            material_ids=None if ids is None else [ids[i] for i in index.tolist()],
        )

    def replace(self, **changes: Any) -> CrystalBatch:
        """A new batch with some fields changed; the batch itself stays as it is."""
        fields: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("frac_coords", "lattice", "atomic_numbers", "num_atoms", "properties", "material_ids")
        }
        unknown = set(changes) - set(fields)
        if unknown:
            raise TypeError(f"CrystalBatch has no field {sorted(unknown)}; its fields are {sorted(fields)}")
        return CrystalBatch(**{**fields, **changes})

    def structures(self) -> list[Structure]:
        """pymatgen structures, one a crystal; properties go to `Structure.properties`."""
        from cdvae_kit.crystal.export import batch_to_structures

        return batch_to_structures(self)

    def atoms(self) -> list[Atoms]:
        """ASE atoms, one a crystal; properties go to `Atoms.info`."""
        from cdvae_kit.crystal.export import batch_to_atoms

        return batch_to_atoms(self)


def _together(names: str, values: Tensor, unit: str, digits: int) -> str:
    """`a = b = 4 Å, c = 5 Å`: neighbours that are equal to the digits shown stand together."""
    groups: list[tuple[list[str], str]] = []
    for name, value in zip(names.split(), values.tolist(), strict=True):
        shown = f"{value:.{digits}f}".rstrip("0").rstrip(".")
        if groups and groups[-1][1] == shown:
            groups[-1][0].append(name)
        else:
            groups.append(([name], shown))
    return ", ".join(f"{' = '.join(members)} = {shown}{unit}" for members, shown in groups)


def ragged_index(starts: Tensor, counts: Tensor) -> Tensor:
    """starts[0], starts[0] + 1, ... counts[0] of them, then starts[1], ...: (sum of counts,) long.

    >>> ragged_index(torch.tensor([10, 3]), torch.tensor([2, 3]))
    tensor([10, 11,  3,  4,  5])
    """
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    shift = torch.repeat_interleave(starts - (ends - counts), counts, output_size=total)
    return shift + torch.arange(total, device=starts.device)


def concatenate(batches: Sequence[CrystalBatch]) -> CrystalBatch:
    """One batch of all crystals, in order. A property that only some batches have is NaN in the others."""
    if not batches:
        raise ValueError("concatenate needs at least one batch, got none")
    names = sorted({name for batch in batches for name in batch.properties})
    properties = {
        name: torch.cat(
            [b.properties.get(name, torch.full((len(b),), float("nan"), device=b.lattice.device)) for b in batches]
        )
        for name in names
    }
    ids = [batch.material_ids for batch in batches]
    return CrystalBatch(
        *(
            torch.cat([getattr(batch, field) for batch in batches])
            for field in ("frac_coords", "lattice", "atomic_numbers", "num_atoms")
        ),
        properties=properties,
        material_ids=None if None in ids else [name for names in ids if names is not None for name in names],
    )


def batch_of_arrays(crystals: Sequence[CrystalArrays], *, dtype: torch.dtype) -> CrystalBatch:
    """One batch of usable crystals; it has names where all of them have one, NaN where one lacks a property.

    >>> from cdvae_kit.crystal.arrays import CrystalArrays, split
    >>> po = CrystalArrays(3.4 * np.eye(3), np.zeros((1, 3)), np.array([84]), properties={"gap": 0.0})
    >>> batch = batch_of_arrays([po, po], dtype=torch.float64)
    >>> list(split(batch))[1].properties
    {'gap': 0.0}
    """
    names = [crystal.name for crystal in crystals]
    columns = dict.fromkeys(name for crystal in crystals for name in crystal.properties)
    properties = {
        name: torch.tensor([crystal.properties.get(name, float("nan")) for crystal in crystals], dtype=torch.float64)
        for name in columns
    }
    # wrapped before it is rounded: float32 would lose digits of a far image
    frac_coords = np.concatenate([crystal.frac_coords for crystal in crystals] or [np.zeros((0, 3))])
    frac_coords = frac_coords - np.floor(frac_coords)
    return CrystalBatch(
        torch.from_numpy(frac_coords).to(dtype),
        torch.from_numpy(np.array([crystal.lattice for crystal in crystals]).reshape(-1, 3, 3)).to(dtype),
        torch.from_numpy(np.concatenate([c.atomic_numbers for c in crystals] or [np.zeros(0)]).astype(np.int64)),
        torch.tensor([len(crystal.atomic_numbers) for crystal in crystals], dtype=torch.long),
        properties={name: values.to(dtype) for name, values in properties.items()},
        material_ids=None if None in names else [name for name in names if name is not None],
    )


def _check(
    frac_coords: Tensor,
    lattice: Tensor,
    atomic_numbers: Tensor,
    num_atoms: Tensor,
    properties: Mapping[str, Tensor],
    material_ids: Sequence[str] | None,
) -> None:
    num_crystals = len(num_atoms)
    if num_atoms.ndim != 1 or num_atoms.dtype != torch.long:
        raise ValueError(
            f"num_atoms must be a long tensor (num_crystals,), got {num_atoms.dtype} {tuple(num_atoms.shape)}"
        )
    if lattice.shape != (num_crystals, 3, 3):
        raise ValueError(
            f"lattice must be ({num_crystals}, 3, 3) for {num_crystals} crystals, got {tuple(lattice.shape)}"
        )
    if frac_coords.ndim != 2 or frac_coords.shape[1] != 3:
        raise ValueError(f"frac_coords must be (num_atoms, 3), got {tuple(frac_coords.shape)}")
    if not (frac_coords.is_floating_point() and lattice.is_floating_point()):
        raise ValueError(f"frac_coords and lattice must be floating point, got {frac_coords.dtype} and {lattice.dtype}")
    if atomic_numbers.shape != (len(frac_coords),) or atomic_numbers.dtype != torch.long:
        raise ValueError(
            f"atomic_numbers must be a long tensor ({len(frac_coords)},), one an atom, "
            f"got {atomic_numbers.dtype} {tuple(atomic_numbers.shape)}"
        )
    for name, values in properties.items():
        if values.shape != (num_crystals,):
            raise ValueError(
                f"property {name!r} must be ({num_crystals},), one value a crystal, got {tuple(values.shape)}"
            )
    if material_ids is not None and len(material_ids) != num_crystals:
        raise ValueError(f"material_ids must name {num_crystals} crystals, got {len(material_ids)} names")
    if num_crystals and int(num_atoms.min()) < 1:
        raise ValueError(f"every crystal needs at least one atom, got num_atoms of {int(num_atoms.min())}")
    if int(num_atoms.sum()) != len(frac_coords):
        raise ValueError(f"num_atoms sums to {int(num_atoms.sum())} but frac_coords has {len(frac_coords)} rows")
    if len(atomic_numbers) and not (1 <= int(atomic_numbers.min()) and int(atomic_numbers.max()) <= MAX_ATOMIC_NUMBER):
        raise ValueError(
            f"atomic numbers must lie in 1..{MAX_ATOMIC_NUMBER} (hydrogen is 1), "
            f"got {int(atomic_numbers.min())}..{int(atomic_numbers.max())}"
        )
