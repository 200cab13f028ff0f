"""Distances of atoms by the size of their elements, against pymatgen's neighbours."""

import numpy as np
import pytest
import torch
from ase.data import covalent_radii
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal.contacts import closest_contacts
from cdvae_kit.crystal.conversion import structures_to_batch


def random_structure(seed: int) -> Structure:
    rng = np.random.default_rng(seed)
    num_atoms = int(rng.integers(1, 6))
    lattice = Lattice.from_parameters(*rng.uniform(2.0, 7.0, 3), *rng.uniform(60.0, 110.0, 3))
    return Structure(lattice, rng.integers(1, 95, num_atoms).tolist(), rng.random((num_atoms, 3)))


def by_neighbours(structure: Structure) -> float:
    """The same from pymatgen's list of neighbours within 6 angstrom."""
    ratios = [
        near.nn_distance / (covalent_radii[site.specie.Z] + covalent_radii[near.specie.Z])
        for site in structure
        for near in structure.get_neighbors(site, 6.0)
    ]
    return min(ratios, default=1.0)


def test_the_closest_contact_is_that_of_all_neighbours() -> None:
    structures = [random_structure(seed) for seed in range(60)]
    found = closest_contacts(structures_to_batch(structures))
    expected = [min(1.0, by_neighbours(structure)) for structure in structures]
    assert 0.2 < np.mean(np.array(expected) < 1.0) < 1.0
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_an_atom_touches_its_own_images() -> None:
    batch = structures_to_batch([Structure(Lattice.cubic(2.0), ["Cs"], [[0, 0, 0]])])
    assert closest_contacts(batch).tolist() == pytest.approx([2.0 / (2 * covalent_radii[55])])


def test_farther_contacts_count_as_the_limit() -> None:
    batch = structures_to_batch([Structure(Lattice.cubic(5.0), ["H"], [[0, 0, 0]])])
    assert closest_contacts(batch, 0.6).tolist() == pytest.approx([0.6])
    assert closest_contacts(batch.select(torch.tensor([], dtype=torch.long))).tolist() == []
