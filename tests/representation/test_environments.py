"""Features of atoms know a crystal and not its description; and an encoder that sees the cell alone does not pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.representation.methods.encoder import SetTransformer
from cdvae_kit.representation.methods.environments import (
    Composition,
    EnvironmentEncoder,
    RadialDistribution,
    mean_over_atoms,
)
from cdvae_kit.representation.methods.obow import Vocabulary
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Transform
from cdvae_kit.transforms.crystal_motions import AtomPermutation, CrystalRotation, OriginShift, Supercell

SYMMETRIES = [CrystalRotation(), OriginShift(), AtomPermutation(), Supercell(3)]


@pytest.fixture
def crystals(zoo: CrystalBatch) -> CrystalBatch:
    return zoo.replace(frac_coords=zoo.frac_coords.double(), lattice=zoo.lattice.double())


def encoder() -> EnvironmentEncoder:
    with seeded_weights(0):
        return EnvironmentEncoder(width=16).double()


def vocabulary(features: Tensor) -> Vocabulary:
    """Some of the features as words, so that bags have something to tell apart."""
    found = Vocabulary(12, features.shape[1]).double().eval()
    found.replace(features[torch.arange(12) % len(features)] + 0.1)
    return found


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda s: s.name)
@pytest.mark.parametrize("kind", [EnvironmentEncoder, Composition, RadialDistribution], ids=lambda kind: kind.__name__)
def test_features_of_a_crystal_do_not_depend_on_its_description(
    crystals: CrystalBatch, kind: type[nn.Module], symmetry: Transform[CrystalBatch]
) -> None:
    network = encoder() if kind is EnvironmentEncoder else kind()
    with torch.no_grad():
        before, after = network(crystals), network(symmetry(crystals, generator=make_generator(0)))
    assert torch.allclose(before, after, atol=1e-9)
    assert before.std(0).max() > 1e-3


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_supercell_has_the_bag_of_its_cell(crystals: CrystalBatch, pooling: str) -> None:
    larger = Supercell(4)(crystals, generator=make_generator(0))
    with torch.no_grad():
        (small, of_small), (large, of_large) = (encoder().local_features(batch) for batch in (crystals, larger))
    words = vocabulary(small)
    words.pooling = pooling  # type: ignore[assignment]
    bag = words.bag(small, of_small, len(crystals))
    assert torch.allclose(words.bag(large, of_large, len(crystals)), bag, atol=1e-9)
    assert bag.std(0).max() > 0.01
    # the control: weights that are summed over atoms count the cells
    summed = torch.zeros_like(bag).index_add(0, of_small, words.assign(small))
    summed_large = torch.zeros_like(bag).index_add(0, of_large, words.assign(large))
    assert torch.allclose(summed_large, 4.0 * summed, atol=1e-9)


def test_features_that_stop_at_the_faces_of_the_cell_give_a_supercell_another_bag(crystals: CrystalBatch) -> None:
    with seeded_weights(0):
        network = SetTransformer(width=16).double().eval()
    larger = Supercell(4)(crystals, generator=make_generator(0))
    with torch.no_grad():
        (small, of_small), (large, of_large) = (network.local_features(batch) for batch in (crystals, larger))
    words = vocabulary(small)
    bags = [words.bag(f, s, len(crystals)) for f, s in ((small, of_small), (large, of_large))]
    assert (bags[0] - bags[1]).abs().max() > 0.01


def test_no_atom_comes_into_sight_all_at_once() -> None:
    def features(length: float) -> Tensor:
        lattice = torch.diag(torch.tensor([length, 20.0, 20.0], dtype=torch.double))[None]
        pair = torch.tensor([[0.0] * 3, [0.5, 0.0, 0.0]], dtype=torch.double)
        batch = CrystalBatch(pair, lattice, torch.tensor([11, 17]), torch.tensor([2]))
        with torch.no_grad():
            return encoder()(batch)

    # the neighbour stands at half the length; the cutoff is 5 angstrom
    assert torch.allclose(features(10.0 + 1e-3), features(10.0 - 1e-3), atol=1e-8)
    assert not torch.allclose(features(8.0), features(10.0), atol=1e-3)


def test_a_composition_is_the_shares_of_elements_and_blind_to_places(crystals: CrystalBatch) -> None:
    shares = Composition()(crystals)
    assert torch.allclose(shares[:, :119].sum(1), torch.ones(len(crystals), dtype=torch.double))
    # other elements in the same ratios have the same shares in order
    other = Composition()(crystals.replace(atomic_numbers=118 - crystals.atomic_numbers))
    assert torch.equal(other[:, 119:], shares[:, 119:]) and not torch.equal(other, shares)
    moved = crystals.replace(frac_coords=crystals.frac_coords * 0.5)
    assert torch.equal(Composition()(moved), shares)
    first = crystals.atomic_numbers[crystals.batch == 0]
    assert shares[0, first[0]] == (first == first[0]).double().mean()


def test_a_radial_distribution_is_blind_to_elements_and_size_and_sees_the_structure(crystals: CrystalBatch) -> None:
    network = RadialDistribution()
    found = network(crystals)
    other = crystals.replace(atomic_numbers=crystals.atomic_numbers % 90 + 1, lattice=1.3 * crystals.lattice)
    assert torch.allclose(network(other), found, atol=1e-9)
    squeezed = crystals.replace(lattice=crystals.lattice * torch.tensor([1.2, 1.0, 0.8], dtype=torch.double))
    assert not torch.allclose(network(squeezed), found, atol=1e-2)


def test_a_mean_over_atoms_is_over_each_crystal(crystals: CrystalBatch) -> None:
    numbers = crystals.atomic_numbers.double()[:, None]
    expected = torch.stack([numbers[crystals.batch == i].mean(0) for i in range(len(crystals))])
    assert torch.allclose(mean_over_atoms(numbers, crystals.batch, crystals), expected)
