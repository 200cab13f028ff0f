"""A training set laid out so that the crystals of one composition are found at once.

Up to a million crystals fit in memory: 25 bytes an atom and some 110 a crystal, so 360 MB for a million of ten atoms,
and a few arrays of that length more while the index is built. What is compared with what is in `novelty`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from cdvae_kit.crystal.arrays import MIN_VOLUME
from cdvae_kit.metrics.crystals import CrystalArrays, Crystals, as_arrays

# crystals whose compositions are worked out at once: a few arrays of their atoms are in memory meanwhile
_CHUNK = 100_000

_HIGHEST_NUMBER = 118


@dataclass(frozen=True)
class TrainingIndex:
    """Crystals of a training set, by reduced composition; see `from_crystals`, `from_batches` and `from_arrays`.

    Attributes:
        lattice: (num_crystals, 3, 3), angstrom.
        frac_coords: (num_atoms, 3).
        atomic_numbers: (num_atoms,) bytes.
        bounds: (num_crystals + 1,) where the atoms of each crystal start.
        usable: (num_crystals,) False for a crystal that nothing is compared with.
        keys: (num_usable,) hashes of reduced compositions, rising.
        order: (num_usable,) the crystals that they belong to.
    """

    lattice: np.ndarray = field(repr=False)
    frac_coords: np.ndarray = field(repr=False)
    atomic_numbers: np.ndarray = field(repr=False)
    bounds: np.ndarray = field(repr=False)
    usable: np.ndarray = field(repr=False)
    keys: np.ndarray = field(repr=False)
    order: np.ndarray = field(repr=False)

    @classmethod
    def from_crystals(cls, crystals: Crystals) -> TrainingIndex:
        """The index of a set that is in memory.

        >>> from pymatgen.core import Lattice, Structure
        >>> salt = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        >>> TrainingIndex.from_crystals([salt, salt * (2, 1, 1), None]).candidates(((17, 1), (55, 1)))
        array([0, 1])
        """
        return cls.from_batches([crystals])

    @classmethod
    def from_batches(cls, batches: Iterable[Crystals]) -> TrainingIndex:
        """The index of a set that comes in pieces, of which only one is in memory at a time."""
        lattices: list[np.ndarray] = [np.zeros((0, 3, 3))]
        coords: list[np.ndarray] = [np.zeros((0, 3))]
        numbers: list[np.ndarray] = [np.zeros(0, dtype=np.uint8)]
        counts: list[np.ndarray] = [np.zeros(0, dtype=np.int64)]
        for batch in batches:
            arrays = as_arrays(batch)
            if not arrays:
                continue
            # a crystal that cannot be used keeps its place, without an atom
            parts = [crystal.fault is None for crystal in arrays]
            lattices.append(np.stack([crystal.lattice for crystal in arrays]))
            coords.append(
                np.concatenate([c.frac_coords[: len(c.frac_coords) * p] for c, p in zip(arrays, parts, strict=True)])
            )
            used = [c.atomic_numbers[: len(c.atomic_numbers) * p] for c, p in zip(arrays, parts, strict=True)]
            numbers.append(np.concatenate(used).astype(np.uint8))
            counts.append(np.array([len(atoms) for atoms in used], dtype=np.int64))
        return cls.from_arrays(*(np.concatenate(pieces) for pieces in (lattices, coords, numbers, counts)))

    @classmethod
    def from_arrays(
        cls, lattice: np.ndarray, frac_coords: np.ndarray, atomic_numbers: np.ndarray, num_atoms: np.ndarray
    ) -> TrainingIndex:
        """The index of crystals that are arrays already, as in a `CrystalBatch`.

        Args:
            lattice: (num_crystals, 3, 3), angstrom, rows a, b, c.
            frac_coords: (num_atoms, 3).
            atomic_numbers: (num_atoms,) integers.
            num_atoms: (num_crystals,) integers.
        """
        num_atoms = np.asarray(num_atoms, dtype=np.int64)
        total = int(num_atoms.sum())
        if lattice.shape != (len(num_atoms), 3, 3) or frac_coords.shape != (total, 3) or len(atomic_numbers) != total:
            raise ValueError(
                f"{len(num_atoms)} crystals of {total} atoms need a lattice of shape ({len(num_atoms)}, 3, 3) and "
                f"{total} coordinates and numbers, got {lattice.shape}, {frac_coords.shape} and {len(atomic_numbers)}"
            )
        if total and not 1 <= int(atomic_numbers.min()) <= int(atomic_numbers.max()) <= _HIGHEST_NUMBER:
            raise ValueError(f"atomic numbers lie between 1 and {_HIGHEST_NUMBER}, got some outside")
        bounds = np.concatenate([[0], np.cumsum(num_atoms)])
        numbers = np.asarray(atomic_numbers, dtype=np.uint8)
        coords = np.asarray(frac_coords, dtype=np.float64)
        cells = np.asarray(lattice, dtype=np.float64)
        usable = _usable(cells, coords, bounds)
        keys = np.concatenate([np.zeros(0, dtype=np.uint64), *_keys_in_chunks(numbers, bounds)])
        indices = np.flatnonzero(usable)
        # stable: crystals of one composition stay in order
        order = indices[np.argsort(keys[indices], kind="stable")]
        return cls(cells, coords, numbers, bounds, usable, keys[order], order)

    def __len__(self) -> int:
        return len(self.usable)

    @property
    def num_unusable(self) -> int:
        return int((~self.usable).sum())

    @property
    def num_bytes(self) -> int:
        """What the arrays take."""
        arrays = (self.lattice, self.frac_coords, self.atomic_numbers, self.bounds, self.usable, self.keys, self.order)
        return sum(array.nbytes for array in arrays)

    def candidates(self, composition: tuple[tuple[int, int], ...]) -> np.ndarray:
        """Which crystals have this reduced composition, rising."""
        numbers = np.repeat([number for number, _ in composition], [count for _, count in composition])
        key = composition_keys(numbers, np.array([0, len(numbers)]))[0]
        found = self.order[np.searchsorted(self.keys, key, "left") : np.searchsorted(self.keys, key, "right")]
        # two compositions could share a hash
        return found[[self.crystal(int(i)).reduced_composition == composition for i in found]]

    def crystal(self, index: int) -> CrystalArrays:
        """The crystal in that place."""
        atoms = slice(self.bounds[index], self.bounds[index + 1])
        return CrystalArrays(
            self.lattice[index],
            self.frac_coords[atoms],
            self.atomic_numbers[atoms].astype(np.int64),
            None if self.usable[index] else "it cannot be used",
        )


def composition_keys(atomic_numbers: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(num_crystals,) 64-bit hashes of the reduced compositions; 0 of a crystal without atoms.

    Args:
        atomic_numbers: (num_atoms,).
        bounds: (num_crystals + 1,) where the atoms of each crystal start, from 0.
    """
    keys = np.zeros(len(bounds) - 1, dtype=np.uint64)
    if len(atomic_numbers) == 0:
        return keys
    owner = np.repeat(np.arange(len(keys)), np.diff(bounds))
    kinds, counts = np.unique(owner * 256 + atomic_numbers, return_counts=True)
    crystals, starts, lengths = np.unique(kinds // 256, return_index=True, return_counts=True)
    counts //= np.repeat(np.gcd.reduceat(counts, starts), lengths)
    keys[crystals] = np.add.reduceat(
        _mix((kinds % 256).astype(np.uint64) << np.uint64(32) | counts.astype(np.uint64)), starts
    )
    return keys


def _keys_in_chunks(atomic_numbers: np.ndarray, bounds: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(bounds) - 1, _CHUNK):
        edges = bounds[start : start + _CHUNK + 1]
        yield composition_keys(atomic_numbers[edges[0] : edges[-1]], edges - edges[0])


def _usable(lattice: np.ndarray, frac_coords: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(num_crystals,) what `as_arrays` finds no fault with: atoms, finite numbers, a volume."""
    bad_atoms = np.concatenate([[0], np.cumsum(~np.isfinite(frac_coords).all(-1))])
    with np.errstate(over="ignore", invalid="ignore"):
        volume = np.abs(np.linalg.det(lattice))
    finite = np.isfinite(lattice).all((-2, -1)) & np.isfinite(volume)
    return finite & (volume >= MIN_VOLUME) & (np.diff(bounds) > 0) & (bad_atoms[bounds[1:]] == bad_atoms[bounds[:-1]])


def _mix(values: np.ndarray) -> np.ndarray:
    """Unsigned 64-bit integers scattered over their range."""
    import torch

    from cdvae_kit.seeding import splitmix64

    return splitmix64(torch.from_numpy(values.view(np.int64))).numpy().view(np.uint64)
