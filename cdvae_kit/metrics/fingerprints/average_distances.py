"""Average minimum distances (AMD): a description of a structure that moves as little as its atoms do.

AMD_k is the mean over the atoms of the distance to the k-th nearest atom, of whatever element (Widdowson et al., MATCH
Commun. Math. Comput. Chem. 87, 529 (2022), arXiv 2009.02488). The largest difference of two such vectors is a distance
between structures that knows no cell, no tolerance and no element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cdvae_kit.io.results.named_arrays import decode_arrays, encode_arrays
from cdvae_kit.metrics.computing.parallel import Memory, crystal_key, map_crystals
from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore

NUM_NEIGHBORS = 100
"""As published numbers have it."""

_KIND = f"average minimum distances {NUM_NEIGHBORS} 1"
_ROOM = 1.05


def average_minimum_distances(crystal: CrystalArrays, num_neighbors: int = NUM_NEIGHBORS) -> np.ndarray:
    """(num_neighbors,) AMD of one crystal without a fault, in angstrom, rising.

    >>> simple_cubic = CrystalArrays(3.0 * np.eye(3), np.zeros((1, 3)), np.array([84]))
    >>> average_minimum_distances(simple_cubic, 7).round(2)
    array([3.  , 3.  , 3.  , 3.  , 3.  , 3.  , 4.24])
    """
    num_atoms = len(crystal.atomic_numbers)
    # of a sphere that holds as many atoms on average
    radius = (3 * (num_neighbors + 1) * crystal.volume / num_atoms / (4 * math.pi)) ** (1 / 3) * _ROOM
    while True:
        distances = _distances_within(crystal, radius)
        if distances.shape[1] > num_neighbors:
            nearest = np.partition(distances, num_neighbors, axis=1)[:, : num_neighbors + 1]
            nearest.sort(axis=1)
            if nearest[:, -1].max() <= radius:
                # the first is the atom itself
                return nearest[:, 1:].mean(axis=0)
        radius *= 1.25


def _distances_within(crystal: CrystalArrays, radius: float) -> np.ndarray:
    """(num_atoms, num_images) distances from each atom to all images of all atoms that may be within the radius."""
    coords = crystal.frac_coords - np.floor(crystal.frac_coords)
    cart = coords @ crystal.lattice
    spacings = 1 / np.linalg.norm(np.linalg.inv(crystal.lattice), axis=0)
    reach = np.ceil(radius / spacings).astype(int) + 1
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    offsets = steps @ crystal.lattice
    widest = np.linalg.norm(cart[:, None] - cart, axis=-1).max()
    offsets = offsets[np.linalg.norm(offsets, axis=1) <= radius + widest]
    images = (offsets[:, None] + cart).reshape(-1, 3)
    separation = cart[:, None] - images
    return np.sqrt(np.einsum("ijk,ijk->ij", separation, separation))


def average_distances_of(
    crystals: Sequence[CrystalArrays],
    *,
    num_workers: int = 1,
    progress: Progress | None = None,
    store: ResultStore | None = None,
) -> np.ndarray:
    """(num_crystals, 100) AMD of each crystal, NaN rows for those that cannot be used.

    Args:
        crystals: in order.
        num_workers: processes; -1 takes every core.
        progress: told how many are done.
        store: keeps what is known.
    """
    memory = Memory(store, _KIND, crystal_key, _encode, _decode)
    rows = map_crystals(_row, crystals, num_workers=num_workers, progress=progress, memory=memory)
    return np.array(rows, dtype=np.float64).reshape(-1, NUM_NEIGHBORS)


def _row(crystal: CrystalArrays) -> np.ndarray:
    return np.full(NUM_NEIGHBORS, np.nan) if crystal.fault is not None else average_minimum_distances(crystal)


def _encode(row: np.ndarray) -> bytes:
    return encode_arrays({"distances": row})


def _decode(content: bytes) -> np.ndarray:
    row: np.ndarray = decode_arrays(content)[0]["distances"]
    if row.shape != (NUM_NEIGHBORS,):
        raise ValueError(f"expected {NUM_NEIGHBORS} distances, got {row.shape}")
    return row
