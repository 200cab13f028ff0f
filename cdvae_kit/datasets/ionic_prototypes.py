"""The built-in set: ionic crystals that the package makes itself, in seconds, without a file or a network.

Every structure type of `prototype_cells` is filled with every choice of ions whose charges balance, whose radii suit
and which go together; the property is the electrostatic energy of the formal charges. The set is a toy with right
geometry: it is no claim that a compound exists or is stable.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import lattice_from_parameters
from cdvae_kit.datasets.ionic_radii import ANION_RADII, CATION_RADII, Ion, anion_radius, cation_radius, go_together
from cdvae_kit.datasets.prototype_cells import PROTOTYPES, Cell, Prototype

logger = logging.getLogger(__name__)

EWALD_ENERGY = "ewald_energy"
"""The set's property, eV/atom: Ewald sum of the formal point charges."""

# structure types in which one element may stand on two sites with two charges (Fe3O4)
_MIXED_VALENCE = frozenset({"spinel"})


class IonicCrystal(NamedTuple):
    """One crystal of the set: its structure type, its ions (cations first), its cell and its energy in eV/atom."""

    prototype: Prototype
    ions: tuple[Ion, ...]
    cell: Cell
    ewald_energy: float

    @property
    def material_id(self) -> str:
        """For instance `spinel.Mg2+.Al3+.O2-`; no two crystals of the set share one."""
        return ".".join([self.prototype.name, *(ion.label for ion in self.ions)])

    @property
    def formula(self) -> str:
        """Reduced, elements in alphabetical order: `Al2MgO4`."""
        amounts: dict[str, int] = {}
        for ion, count in zip(self.ions, self.prototype.counts, strict=True):
            amounts[ion.symbol] = amounts.get(ion.symbol, 0) + count
        divisor = int(np.gcd.reduce(list(amounts.values())))
        return "".join(
            f"{symbol}{amount // divisor if amount > divisor else ''}" for symbol, amount in sorted(amounts.items())
        )

    @property
    def split(self) -> Literal["train", "val", "test"]:
        """By a hash of the formula, so that no formula stands in two splits: 80, 10 and 10 % in the mean."""
        share = int.from_bytes(hashlib.sha256(self.formula.encode()).digest()[:4]) / 2**32
        return "train" if share < 0.8 else "val" if share < 0.9 else "test"


@cache
def ionic_crystals() -> tuple[IonicCrystal, ...]:
    """The whole set in its fixed order, made once a process."""
    return tuple(
        IonicCrystal(prototype, ions, cell, _ewald_energy(prototype, ions, cell))
        for prototype in PROTOTYPES
        for ions, cell in _fillings(prototype)
    )


def load_ionic_prototypes(
    *,
    num_crystals: int | None = None,
    seed: int = 0,
    split: Literal["all", "train", "val", "test"] = "all",
    dtype: torch.dtype = torch.float32,
) -> CrystalBatch:
    """Ionic prototypes with their Ewald energy (eV/atom), primitive Niggli cells, at most 14 atoms.

    Args:
        num_crystals: so many of the split, chosen by `seed`; a smaller choice is a part of a larger one.
        seed: of the choice; without `num_crystals` it has no effect.
        split: a part of the set; no reduced formula stands in two of them.
        dtype: of coordinates, lattices and energies.

    >>> batch = load_ionic_prototypes(num_crystals=3, seed=1)
    >>> len(batch), list(batch.properties)
    (3, ['ewald_energy'])
    """
    if split not in ("all", "train", "val", "test"):
        raise ValueError(f"split must be 'all', 'train', 'val' or 'test', got {split!r}")
    crystals = [crystal for crystal in ionic_crystals() if split in ("all", crystal.split)]
    if num_crystals is not None:
        if not 1 <= num_crystals <= len(crystals):
            raise ValueError(
                f"num_crystals must be 1 to {len(crystals)} for the split {split!r} of the ionic prototypes, "
                f"got {num_crystals}"
            )
        ranks = sorted(range(len(crystals)), key=lambda i: _draw(seed, crystals[i].material_id))
        crystals = [crystals[i] for i in sorted(ranks[:num_crystals])]
    return _to_batch(crystals, dtype)


def _draw(seed: int, material_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{material_id}".encode()).digest()


def _to_batch(crystals: Sequence[IonicCrystal], dtype: torch.dtype) -> CrystalBatch:
    lengths = torch.tensor([crystal.cell.lengths for crystal in crystals], dtype=torch.float64)
    angles = torch.tensor([crystal.cell.angles for crystal in crystals], dtype=torch.float64)
    numbers = [
        ion.atomic_number
        for crystal in crystals
        for ion, count in zip(crystal.ions, crystal.prototype.counts, strict=True)
        for _ in range(count)
    ]
    return CrystalBatch(
        torch.from_numpy(np.concatenate([crystal.cell.frac_coords for crystal in crystals])).to(dtype),
        lattice_from_parameters(lengths, angles).to(dtype),
        torch.tensor(numbers),
        torch.tensor([crystal.prototype.num_atoms for crystal in crystals]),
        properties={EWALD_ENERGY: torch.tensor([c.ewald_energy for c in crystals], dtype=torch.float64).to(dtype)},
        material_ids=[crystal.material_id for crystal in crystals],
    )


def _fillings(prototype: Prototype) -> Iterator[tuple[tuple[Ion, ...], Cell]]:
    """The choices of ions that the prototype takes, with their cells, in the order of the tables."""
    *cation_counts, anion_count = prototype.counts
    *cation_coordination, anion_coordination = prototype.coordination
    for anion in ANION_RADII:
        if anion.symbol not in prototype.anions.split():
            continue
        candidates = [
            [
                (ion, radius)
                for ion in CATION_RADII
                if go_together(ion, anion) and (radius := cation_radius(ion, coordination)) is not None
            ]
            for coordination in cation_coordination
        ]
        for choice in itertools.product(*candidates):
            cations = [ion for ion, _ in choice]
            charge = sum(count * ion.charge for count, ion in zip(cation_counts, cations, strict=True))
            if charge + anion_count * anion.charge != 0 or not _are_distinct(prototype, cations):
                continue
            cell = prototype.cell([*(radius for _, radius in choice), anion_radius(anion, anion_coordination)])
            if cell is not None:
                yield (*cations, anion), cell


def _are_distinct(prototype: Prototype, cations: Sequence[Ion]) -> bool:
    if prototype.name == "elpasolite":
        # B and B' can be exchanged, and order only where their charges differ
        _, first, second = cations
        if first.charge >= second.charge:
            return False
    symbols = {ion.symbol for ion in cations}
    if prototype.name in _MIXED_VALENCE:
        return len(set(cations)) == len(cations)
    return len(symbols) == len(cations)


def _ewald_energy(prototype: Prototype, ions: Sequence[Ion], cell: Cell) -> float:
    """eV/atom. Energies scale as 1/length, so that crystals of one shape share a sum."""
    edge = cell.lengths[0]
    lattice = (*(round(length / edge, 10) for length in cell.lengths), *(round(angle, 10) for angle in cell.angles))
    coords = tuple(np.round(cell.frac_coords, 10).ravel().tolist())
    charges = tuple(ion.charge for ion, count in zip(ions, prototype.counts, strict=True) for _ in range(count))
    return _unit_ewald_energy(lattice, coords, charges) / edge


@cache
def _unit_ewald_energy(lattice: tuple[float, ...], coords: tuple[float, ...], charges: tuple[int, ...]) -> float:
    """eV/atom for a first edge of 1 angstrom."""
    from pymatgen.analysis.ewald import EwaldSummation
    from pymatgen.core import Lattice, Species, Structure

    # the sum asks for charges alone; the element is a stand-in
    structure = Structure(
        Lattice.from_parameters(*lattice),
        [Species("H", charge) for charge in charges],
        np.reshape(coords, (-1, 3)),
    )
    return float(EwaldSummation(structure).total_energy) / len(charges)
