"""How near atoms are to each other, by the size of their elements."""

from functools import lru_cache

import torch
from torch import Tensor

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.periodic_images import pairs_within


@lru_cache(maxsize=1)
def covalent_radii() -> Tensor:
    """(119,) float64, angstrom by atomic number (Cordero et al., Dalton Trans. 2008, 2832), as ASE has them."""
    from ase.data import covalent_radii

    return torch.as_tensor(covalent_radii, dtype=torch.float64)


def closest_contacts(batch: CrystalBatch, within: float = 1.0) -> Tensor:
    """(num_crystals,) the least distance of two atoms over the sum of their covalent radii, periodic images included.

    Args:
        batch: crystals of finite coordinates and volume.
        within: contacts at this ratio or farther are not looked for, and count as this.

    Raises:
        ValueError: a cell so thin that its images would not fit into memory.
    """
    if len(batch) == 0:
        return batch.lattice.new_zeros(0)
    lattice = batch.lattice.detach()
    radius = covalent_radii().to(lattice)[batch.atomic_numbers]
    largest = lattice.new_zeros(len(batch)).scatter_reduce_(0, batch.batch, radius, "amax")
    pairs = pairs_within(batch, 2.0 * within * largest)
    source, target = pairs.edge_index
    assert pairs.squared_distances is not None
    ratio = pairs.squared_distances.clamp_min(0.0).sqrt() / (radius[source] + radius[target])
    closest = torch.full_like(largest, within)
    return closest.scatter_reduce_(0, batch.batch[target], ratio.to(closest), "amin")
