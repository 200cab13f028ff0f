"""Coverage: a slow oracle, limits, and where the published rate and the joint one part."""

import numpy as np
import pytest

from cdvae_kit.metrics import Cutoffs, Fingerprint, coverage

CUTOFFS = Cutoffs(structure=0.5, composition=1.0)


def random_vectors(number: int, seed: int) -> list[Fingerprint]:
    """Vectors that vary along two directions, so that some are near and some are far; one in seven is missing."""
    generator = np.random.default_rng(seed)
    vectors = []
    for _ in range(number):
        structure, composition = np.zeros(61), np.zeros(132)
        structure[:2], composition[:2] = generator.normal(size=2), 2 * generator.normal(size=2)
        missing = generator.random() < 1 / 7
        vectors.append(Fingerprint(None, None, "no fingerprint") if missing else Fingerprint(structure, composition))
    return vectors


def slow_coverage(queries: list[Fingerprint], others: list[Fingerprint]) -> tuple[float, float]:
    """Published and joint share of queries that have another one near, by loops."""
    published = joint = 0
    for query in queries:
        if query.reason is not None:
            continue
        distances = [
            (np.linalg.norm(query.structure - o.structure), np.linalg.norm(query.composition - o.composition))
            for o in others
            if o.reason is None
        ]
        near = [(s <= CUTOFFS.structure, c <= CUTOFFS.composition) for s, c in distances]
        published += any(s for s, _ in near) and any(c for _, c in near)
        joint += any(s and c for s, c in near)
    return published / len(queries), joint / len(queries)


@pytest.mark.parametrize("seed", range(4))
def test_rates_are_those_of_comparing_one_by_one(seed):
    generated, reference = random_vectors(30, seed), random_vectors(40, seed + 100)
    result = coverage(generated, reference, cutoffs=CUTOFFS)
    assert (result.cov_recall, result.cov_recall_joint) == slow_coverage(reference, generated)
    assert (result.cov_precision, result.cov_precision_joint) == slow_coverage(generated, reference)


def test_the_random_vectors_are_neither_all_near_nor_all_far():
    result = coverage(random_vectors(30, 0), random_vectors(40, 100), cutoffs=CUTOFFS)
    assert 0 < result.cov_recall_joint < result.cov_recall < 0.85


def test_blocks_of_rows_change_nothing():
    generated, reference = random_vectors(1300, 5), random_vectors(30, 6)
    few = coverage(generated[:7], reference, cutoffs=CUTOFFS).generated
    many = coverage(generated, reference, cutoffs=CUTOFFS).generated
    np.testing.assert_array_equal(many.structure[:7], few.structure)
    np.testing.assert_array_equal(many.near_joint[:7], few.near_joint)


def test_a_set_covers_itself():
    crystals = [vector for vector in random_vectors(20, 1) if vector.complete]
    result = coverage(crystals, crystals[::-1], cutoffs=Cutoffs(0.0, 0.0))
    assert result.cov_recall == result.cov_precision == result.cov_recall_joint == 1.0
    assert result.amsd_recall == result.amcd_precision == 0.0


def test_a_far_set_covers_nothing():
    near = [Fingerprint(np.zeros(61), np.zeros(132))]
    far = [Fingerprint(np.ones(61), np.ones(132))]
    result = coverage(far, near, cutoffs=CUTOFFS)
    assert result.cov_recall == result.cov_precision == result.cov_precision_joint == 0.0
    assert result.amsd_recall == pytest.approx(np.sqrt(61))


def test_two_half_right_crystals_cover_only_as_published():
    reference = [Fingerprint(np.zeros(61), np.zeros(132))]
    half_right = [Fingerprint(np.zeros(61), np.ones(132)), Fingerprint(np.ones(61), np.zeros(132))]
    result = coverage(half_right, reference, cutoffs=CUTOFFS)
    assert (result.cov_recall, result.cov_recall_joint) == (1.0, 0.0)
    assert (result.cov_precision, result.cov_precision_joint) == (0.0, 0.0)


def test_failures_stay_in_the_denominators():
    failed = Fingerprint(None, None, "no fingerprint")
    good = Fingerprint(np.zeros(61), np.zeros(132))
    result = coverage([good, failed, failed, failed], [good, failed], cutoffs=CUTOFFS)
    assert (result.cov_precision, result.cov_recall) == (0.25, 0.5)
    assert (result.num_generated, result.num_references) == (4, 2)
    assert result.amsd_precision == 0.0
    assert np.isnan(result.generated.structure[1:]).all()


@pytest.mark.parametrize("generated", [[], [Fingerprint(None, None, "no fingerprint")] * 3])
def test_nothing_to_compare_is_zero_with_a_reason(generated):
    result = coverage(generated, random_vectors(5, 3), cutoffs=CUTOFFS)
    assert result.cov_recall == result.cov_precision == 0.0
    assert result.amsd_recall is None and result.amcd_precision is None
    assert result.reason == f"none of {len(generated)} generated crystals has a fingerprint"


@pytest.mark.parametrize("bad", [-0.1, float("nan")])
def test_cutoffs_that_are_no_distances_are_refused(bad):
    with pytest.raises(ValueError, match="at least 0"):
        Cutoffs(bad, 1.0)
