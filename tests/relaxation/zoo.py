"""Crystals that the tests of relaxation share."""

import numpy as np
from ase import Atoms
from ase.build import bulk


def squeezed_copper(a: float = 3.4) -> Atoms:
    return bulk("Cu", "fcc", a=a)


def random_crystals(count: int, *, seed: int, elements: tuple[int, ...] = (8, 22, 56, 29, 11)) -> list[Atoms]:
    """Skewed cells of 1 to 5 atoms, none on top of another."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < count:
        num_atoms = 1 + len(found) % 5
        atoms = Atoms(
            numbers=rng.choice(elements, num_atoms),
            cell=np.eye(3) * 2.6 * num_atoms ** (1 / 3) + rng.normal(size=(3, 3)) * 0.2,
            scaled_positions=rng.random((num_atoms, 3)),
            pbc=True,
        )
        distances = atoms.get_all_distances(mic=True)
        if num_atoms == 1 or distances[np.triu_indices(num_atoms, 1)].min() > 1.0:
            found.append(atoms)
    return found
