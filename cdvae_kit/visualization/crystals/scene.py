"""What a picture of a crystal holds, before anything is drawn: atoms, their images on the faces, edges of the cell.

Plain arrays in angstrom. How they are seen from one side is in `projection`; `canvas` draws them on paper,
`interactive` on a screen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.lattice import lattice_from_parameters, lattice_parameters, plane_spacings
from cdvae_kit.diffusion.state import MASKED, NoisyCrystals
from cdvae_kit.models.decoding import as_batch

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

FACE_TOLERANCE = 0.2
"""Angstrom; an atom this near to a face of the cell is drawn on the opposite face too."""

BOND_REACH = 1.15
"""Of the sum of two covalent radii."""

NEARLY_NEAREST = 1.1
"""Of the distance to the nearest neighbour."""

MOST_BONDED = 300
"""Atoms of a picture with bonds; in a fuller one they hide more than they show."""

UNKNOWN_COLOR = (0.75, 0.75, 0.75)
UNKNOWN_RADIUS = 1.0

CORNERS = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
EDGES = [(i, j) for i, j in itertools.combinations(range(8), 2) if np.abs(CORNERS[i] - CORNERS[j]).sum() == 1.0]
"""The 12 pairs of `CORNERS` that an edge joins."""


class Scene(NamedTuple):
    """One crystal, ready to be drawn.

    Attributes:
        lattice: (3, 3), angstrom, rows a, b, c.
        frac_coords: (num_drawn, 3), in the cell or on its border.
        atomic_numbers: (num_drawn,) integers; 0 is an atom whose element is not known yet.
        is_image: (num_drawn,) True for the repeat of an atom on another face.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    atomic_numbers: np.ndarray
    is_image: np.ndarray

    @property
    def positions(self) -> np.ndarray:
        """(num_drawn, 3), angstrom."""
        return self.frac_coords @ self.lattice

    def radii(self, scale: float) -> np.ndarray:
        """(num_drawn,), angstrom: `scale` times the covalent radii."""
        return np.array([scale * element_radius(number) for number in self.atomic_numbers.tolist()])

    @property
    def edges(self) -> np.ndarray:
        """(12, 2, 3): both ends of each edge of the cell, angstrom."""
        return (CORNERS @ self.lattice)[np.array(EDGES)]

    @property
    def bonds(self) -> np.ndarray:
        """(num_bonds, 2, 3): both ends of each bond between atoms that are drawn, angstrom.

        Two atoms are bonded where they are no farther apart than `BOND_REACH` times the sum of their covalent radii,
        and hardly farther than the nearest neighbour of one of them: caesium does not bond to caesium across a
        chloride. None is drawn in a picture of more than `MOST_BONDED` atoms.
        """
        positions = self.positions
        if not 1 < len(positions) <= MOST_BONDED:
            return np.zeros((0, 2, 3))
        radii = self.radii(1.0)
        distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
        # an atom itself, and one on top of another
        distances[distances < 0.1] = np.inf
        nearest = distances.min(axis=1)
        reach = np.minimum(
            BOND_REACH * (radii[:, None] + radii), NEARLY_NEAREST * np.maximum(nearest[:, None], nearest)
        )
        first, second = np.nonzero(np.triu(distances <= reach, 1))
        return np.stack([positions[first], positions[second]], axis=1)

    @property
    def elements(self) -> list[int]:
        """The atomic numbers that occur, rising."""
        return sorted(set(self.atomic_numbers.tolist()))

    @property
    def by_element(self) -> dict[int, np.ndarray]:
        """The indices of the atoms of each of the `elements`."""
        return {number: np.flatnonzero(self.atomic_numbers == number) for number in self.elements}


def element_color(atomic_number: int) -> tuple[float, float, float]:
    """Red, green and blue of Jmol's table, 0 to 1; elements past its end (109) have the colour of the last.

    >>> element_color(8)  # oxygen is red
    (1.0, 0.05, 0.05)
    """
    if atomic_number == MASKED:
        return UNKNOWN_COLOR
    red, green, blue = jmol_colors[min(atomic_number, len(jmol_colors) - 1)].round(2).tolist()
    return red, green, blue


def element_radius(atomic_number: int) -> float:
    """The covalent radius (Cordero et al., Dalton Trans. 2008, 2832), angstrom."""
    return UNKNOWN_RADIUS if atomic_number == MASKED else float(covalent_radii[atomic_number])


def element_symbol(atomic_number: int) -> str:
    """`?` for an atom whose element is not known yet."""
    return "?" if atomic_number == MASKED else chemical_symbols[atomic_number]


def one_crystal(crystal: CrystalBatch | Structure | Atoms) -> CrystalBatch:
    """A batch of one crystal, or an error that says how to get one."""
    batch = crystal if isinstance(crystal, CrystalBatch) else as_batch([crystal], reduce=False)
    if len(batch) != 1:
        raise ValueError(
            f"one crystal can be drawn, got a batch of {len(batch)}; take one with batch.select([i]), or draw several "
            "with plot_grid"
        )
    return batch


def several_crystals(crystals: CrystalBatch | Sequence[Structure | Atoms]) -> CrystalBatch:
    return as_batch(crystals, reduce=False)


def corner_atom(crystals: CrystalBatch | NoisyCrystals, index: int = 0) -> int:
    """The atom of crystal number `index` for the corner of the cell: of the rarest element, of the heaviest such."""
    numbers = crystals.atomic_numbers[crystals.batch == index].tolist()
    return min(range(len(numbers)), key=lambda atom: (numbers.count(numbers[atom]), -numbers[atom]))


def make_scene(
    crystals: CrystalBatch | NoisyCrystals, index: int = 0, *, images: bool = True, on_corner: int | None = None
) -> Scene:
    """The scene of crystal number `index`, in the frame that lengths and angles alone define.

    Args:
        crystals: finished ones, or some on the way from noise.
        index: which of them.
        images: repeat atoms on a face, edge or corner of the cell on all faces, edges or corners alike.
        on_corner: move the crystal within its cell so that this atom of it lies on the corner.
    """
    atoms = crystals.batch == index
    one = crystals.lattice[index : index + 1].detach().cpu().double()
    frac_coords = crystals.frac_coords[atoms].detach().cpu().double().numpy()
    numbers = crystals.atomic_numbers[atoms].cpu().numpy()
    lattice = lattice_from_parameters(*lattice_parameters(one))
    if not (np.isfinite(frac_coords).all() and bool(lattice.isfinite().all())):
        raise ValueError(f"crystal {index} has coordinates or a cell that are not finite numbers; it cannot be drawn")
    if on_corner is not None:
        frac_coords = frac_coords - frac_coords[on_corner]
        frac_coords = frac_coords - np.floor(frac_coords)
    is_image = np.zeros(len(numbers), dtype=bool)
    if images:
        source, shifts = _face_images(frac_coords, plane_spacings(lattice)[0].numpy())
        frac_coords = np.concatenate([frac_coords, frac_coords[source] + shifts])
        numbers = np.concatenate([numbers, numbers[source]])
        is_image = np.concatenate([is_image, np.ones(len(source), dtype=bool)])
    return Scene(lattice[0].numpy(), frac_coords, numbers, is_image)


def _face_images(frac_coords: np.ndarray, spacings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The atom of each image, and the integer number of cells that it is moved by."""
    low = frac_coords * spacings < FACE_TOLERANCE
    high = (1.0 - frac_coords) * spacings < FACE_TOLERANCE
    sources, shifts = [], []
    for atom in range(len(frac_coords)):
        along = [[0, *([1] if low[atom, k] else []), *([-1] if high[atom, k] else [])] for k in range(3)]
        moves = [move for move in itertools.product(*along) if any(move)]
        sources += [atom] * len(moves)
        shifts += moves
    return np.array(sources, dtype=int), np.array(shifts, dtype=float).reshape(-1, 3)
