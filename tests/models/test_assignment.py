"""The most probable possible assignment against every assignment there is."""

import itertools

import numpy as np
import pytest

from cdvae_kit.models.assignment import most_probable_assignment


def brute_force(
    log_p: np.ndarray, multiplicity: np.ndarray, is_free: np.ndarray, counts: np.ndarray
) -> tuple[float, np.ndarray] | None:
    """The best of all counts whatever: written from the two conditions alone."""
    num_elements, num_positions, width = log_p.shape
    of_element = [
        [
            taken
            for taken in itertools.product(range(width), repeat=num_positions)
            if int(np.dot(taken, multiplicity)) == count
        ]
        for count in counts
    ]
    best: tuple[float, np.ndarray] | None = None
    for choice in itertools.product(*of_element):
        taken = np.array(choice)
        if bool((taken.sum(0)[~is_free] > 1).any()):
            continue
        value = float(sum(log_p[e, w, taken[e, w]] for e in range(num_elements) for w in range(num_positions)))
        if np.isfinite(value) and (best is None or value > best[0]):
            best = (value, taken)
    return best


def random_problem(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    num_elements, num_positions = int(generator.integers(1, 4)), int(generator.integers(1, 5))
    counts = generator.integers(1, 5 if num_elements < 3 else 4, num_elements)
    multiplicity = generator.choice([1, 1, 2, 2, 3, 4], num_positions)
    is_free = generator.random(num_positions) < 0.5
    scores = generator.normal(size=(num_elements, num_positions, counts.max() + 1))
    # what cannot be, as the head says it
    most = counts[:, None] // multiplicity[None]
    most = np.where(is_free, most, np.minimum(most, 1))
    scores[np.arange(scores.shape[2]) > most[:, :, None]] = -np.inf
    if seed % 3 == 0:
        scores[..., 1:][generator.random(scores[..., 1:].shape) < 0.2] = -np.inf
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True)), multiplicity, is_free, counts


@pytest.mark.parametrize("first", range(0, 240, 40))
def test_the_assignment_is_the_best_of_all_that_are_possible(first: int) -> None:
    outcomes = set()
    for seed in range(first, first + 40):
        log_p, multiplicity, is_free, counts = random_problem(seed)
        expected = brute_force(log_p, multiplicity, is_free, counts)
        found = most_probable_assignment(log_p, multiplicity, is_free, counts)
        outcomes.add(expected is None)
        if expected is None or found is None:
            assert found is None and expected is None, f"seed {seed}"
            continue
        assert found[0] == pytest.approx(expected[0], abs=1e-9), f"seed {seed}"
        assert np.array_equal(found[1], expected[1]), f"seed {seed}"
    assert outcomes == {True, False}


def test_the_best_counts_one_by_one_would_often_be_impossible() -> None:
    """The control: without the two conditions another assignment is the best."""
    different = 0
    for seed in range(60):
        log_p, multiplicity, is_free, counts = random_problem(seed)
        found = most_probable_assignment(log_p, multiplicity, is_free, counts)
        different += found is not None and not np.array_equal(found[1], log_p.argmax(-1))
    assert different > 20


def certain(*counts: list[list[float]]) -> np.ndarray:
    return np.log(np.array(counts))


def test_a_position_without_freedom_is_taken_once() -> None:
    log_p = certain([[0.01, 0.99], [0.99, 0.01]], [[0.02, 0.98], [0.98, 0.02]])
    fixed = most_probable_assignment(log_p, np.array([1, 1]), np.array([False, False]), np.array([1, 1]))
    free = most_probable_assignment(log_p, np.array([1, 1]), np.array([True, False]), np.array([1, 1]))
    assert fixed is not None and fixed[1].sum(0).tolist() == [1, 1]
    assert free is not None and free[1].tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("multiplicity", "is_free", "counts"),
    [
        ([2], [True], [3]),
        ([4, 2], [True, True], [1]),
        ([1], [False], [2]),
        ([1, 1], [False, False], [1, 1, 1]),
        ([1, 2], [False, True], [1, 1]),
    ],
)
def test_what_is_impossible_has_no_assignment(multiplicity: list[int], is_free: list[bool], counts: list[int]) -> None:
    log_p = np.log(np.full((len(counts), len(multiplicity), 4), 0.25))
    for e, w, c in itertools.product(range(len(counts)), range(len(multiplicity)), range(4)):
        if c * multiplicity[w] > counts[e] or (c > 1 and not is_free[w]):
            log_p[e, w, c] = -np.inf
    args = (log_p, np.array(multiplicity), np.array(is_free), np.array(counts))
    assert brute_force(*args) is None
    assert most_probable_assignment(*args) is None


def test_many_fixed_positions_are_gone_through_in_time() -> None:
    """Eight, as many as a group has, shared by eight elements: every one gets its own."""
    generator = np.random.default_rng(5)
    log_p = np.log(generator.dirichlet([1.0, 1.0], size=(8, 8)))
    found = most_probable_assignment(log_p, np.ones(8, dtype=int), np.zeros(8, dtype=bool), np.ones(8, dtype=int))
    assert found is not None
    assert found[1].sum(0).tolist() == found[1].sum(1).tolist() == [1] * 8
    # an assignment problem, which scipy solves
    from scipy.optimize import linear_sum_assignment

    gain = log_p[:, :, 1] - log_p[:, :, 0]
    rows, columns = linear_sum_assignment(-gain)
    assert found[0] == pytest.approx(log_p[:, :, 0].sum() + gain[rows, columns].sum(), abs=1e-9)
