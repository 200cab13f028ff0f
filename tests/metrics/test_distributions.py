"""Distances between sets and diversity within one: pymatgen and scipy as oracles, and the limits."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from scipy.spatial.distance import pdist

from cdvae_kit.metrics import (
    Fingerprint,
    composition_diversity,
    densities,
    numbers_of_elements,
    sample_valid,
    structure_diversity,
    wasserstein,
)
from cdvae_kit.metrics.crystals import as_arrays


def test_densities_are_pymatgens(zoo):
    structures = [crystal.structure() for crystal in as_arrays(zoo)]
    # the dalton of another year: 1.4e-9
    np.testing.assert_allclose(densities(zoo), [structure.density for structure in structures], rtol=1e-8)
    np.testing.assert_array_equal(numbers_of_elements(zoo), [len(s.composition) for s in structures])


def test_crystals_that_cannot_be_used_have_no_values():
    flat = Structure(Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), ["Na"], [[0, 0, 0]])
    assert np.isnan(densities([None, flat])).all() and np.isnan(numbers_of_elements([None])).all()


def test_a_shifted_distribution_lies_at_the_shift():
    values = np.random.default_rng(0).normal(size=500)
    assert wasserstein(values + 0.7, values).value == pytest.approx(0.7)
    assert wasserstein(values, values[::-1]).value == 0.0


def test_distance_is_the_area_between_the_distribution_functions():
    generator = np.random.default_rng(1)
    ours, theirs = generator.exponential(size=40), generator.normal(size=70)
    edges = np.sort(np.concatenate([ours, theirs]))
    steps = [abs((ours <= x).mean() - (theirs <= x).mean()) for x in edges[:-1]]
    assert wasserstein(ours, theirs).value == pytest.approx(float(np.dot(steps, np.diff(edges))))


def test_missing_values_are_left_out_and_counted():
    result = wasserstein([1.0, float("nan")], [1.0, 1.0, float("nan")])
    assert (result.value, result.num_generated, result.num_reference) == (0.0, 1, 2)


def test_an_empty_side_gives_no_distance_and_says_which():
    assert wasserstein([], [1.0]).reason == "no generated crystal has a value"
    assert wasserstein([1.0], [float("nan")]).reason == "no reference crystal has a value"
    assert wasserstein([], [1.0]).value is None


def test_infinite_and_misshapen_values_are_refused():
    with pytest.raises(ValueError, match="1 generated values are infinite"):
        wasserstein([float("inf")], [1.0])
    with pytest.raises(ValueError, match="one reference value a crystal"):
        wasserstein([1.0], np.ones((2, 2)))


@pytest.mark.parametrize("number", [2, 30, 1100])
def test_diversity_is_the_mean_over_pairs(number):
    generator = np.random.default_rng(2)
    vectors = [Fingerprint(generator.normal(size=61), generator.normal(size=132)) for _ in range(number)]
    structures = np.array([vector.structure for vector in vectors])
    compositions = np.array([vector.composition for vector in vectors])
    assert structure_diversity(vectors) == pytest.approx(pdist(structures).mean(), rel=1e-12)
    assert composition_diversity(vectors) == pytest.approx(pdist(compositions).mean(), rel=1e-12)


def test_copies_of_one_crystal_and_single_crystals_have_no_diversity():
    one = Fingerprint(np.arange(61.0), np.arange(132.0))
    assert structure_diversity([one] * 5) == pytest.approx(0.0, abs=1e-9)
    assert structure_diversity([one]) == structure_diversity([]) == 0.0


def test_sample_valid_draws_only_valid_crystals_and_each_once():
    valid = np.arange(3000) % 3 == 0
    drawn = sample_valid(valid, num_samples=500, seed=4)
    assert len(set(drawn.tolist())) == 500 and valid[drawn].all()
    assert np.array_equal(drawn, sample_valid(valid, num_samples=500, seed=4))
    assert not np.array_equal(drawn, sample_valid(valid, num_samples=500, seed=5))


def test_sample_valid_takes_all_where_there_are_too_few():
    assert sample_valid([True, False, True]).tolist() == [0, 2]
    assert sample_valid([False]).tolist() == []
