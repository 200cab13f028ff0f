"""Goals and Pareto fronts, against brute force and closed forms."""

import numpy as np
import pytest
import torch

from cdvae_kit.generation.optimization.objectives import (
    Goal,
    PropertyObjective,
    PropertyRange,
    TargetOutsideDataError,
    UnknownPropertyError,
    check_goals,
    hypervolume,
    pareto_ranks,
    predicted_values,
)
from tests.generation.toys import LinearEnsemble

KNOWN = {"energy": PropertyRange("energy", "eV/atom", -1.0, 2.0), "gap": PropertyRange("gap", "eV", 0.0, 5.0)}


def dominated(points: np.ndarray, i: int) -> bool:
    return any((q <= points[i]).all() and (q < points[i]).any() for j, q in enumerate(points) if j != i)


@pytest.mark.parametrize("num_goals", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_first_front_is_what_nothing_dominates(num_goals: int, seed: int) -> None:
    # integers, so that some points are equal
    points = np.random.default_rng(seed).integers(0, 6, (25, num_goals)).astype(float)
    ranks = pareto_ranks(points)
    for i in range(len(points)):
        assert (ranks[i] == 0) == (not dominated(points, i)), (seed, i)
    for rank in range(1, ranks.max() + 1):
        left = points[ranks >= rank]
        assert all(not dominated(left, i) for i in np.flatnonzero(ranks[ranks >= rank] == rank)), (seed, rank)


def test_points_without_a_value_come_last() -> None:
    assert pareto_ranks(np.array([[np.nan, 0.0], [5.0, 5.0]])).tolist() == [2, 0]


@pytest.mark.parametrize("num_goals", [1, 2, 3])
def test_the_hypervolume_is_the_share_of_random_points_that_are_dominated(num_goals: int) -> None:
    generator = np.random.default_rng(num_goals)
    points, draws = generator.random((8, num_goals)), generator.random((200_000, num_goals))
    share = (points[:, None] <= draws[None]).all(-1).any(0).mean()
    assert hypervolume(points, np.ones(num_goals)) == pytest.approx(share, abs=0.005)


def test_a_dominated_point_adds_no_volume_and_a_point_beyond_the_reference_none() -> None:
    front, reference = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([2.0, 2.0])
    more = np.concatenate([front, [[1.0, 1.5], [3.0, -5.0]]])
    assert hypervolume(front, reference) == hypervolume(more, reference) == 3.0
    assert hypervolume(np.empty((0, 2)), reference) == 0.0


@pytest.mark.parametrize(
    ("goals", "error", "message"),
    [
        ([], ValueError, "nothing to optimise"),
        ([Goal("band")], UnknownPropertyError, r"no property 'band'; it knows energy \(eV/atom\), gap \(eV\)"),
        ([Goal("gap", "target", 9.0)], TargetOutsideDataError, "lies outside the training data, 0 to 5"),
        ([Goal("gap"), Goal("gap", "maximize")], ValueError, "one goal"),
    ],
)
def test_goals_that_cannot_be_pursued_are_refused(goals: list[Goal], error: type[ValueError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_goals(goals, KNOWN)


def test_a_target_outside_the_data_is_taken_when_told_so() -> None:
    check_goals([Goal("gap", "target", 9.0)], KNOWN, allow_outside=True)
    check_goals([Goal("gap", "target", 5.0)], KNOWN)


@pytest.mark.parametrize(
    "options", [{"direction": "target"}, {"target": 1.0}, {"direction": "target", "target": float("nan")}]
)
def test_a_target_and_its_direction_go_together(options: dict) -> None:
    with pytest.raises(ValueError, match="target"):
        Goal("gap", **options)


def test_the_loss_is_the_distance_in_standard_deviations() -> None:
    values, std = torch.tensor([-1.0, 0.0, 3.0]), torch.tensor(2.0)
    for goal in (Goal("gap"), Goal("gap", "maximize"), Goal("gap", "target", 1.0)):
        expected = torch.from_numpy(goal.distance(values.numpy())) / 2.0
        torch.testing.assert_close(goal.loss(values, std), expected, atol=0.011, rtol=0)


def test_disagreement_is_charged_and_agreement_is_not() -> None:
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    ensemble = LinearEnsemble(3, members=4, spread=0.5)
    weights = torch.ones(6, 1)
    plain = PropertyObjective(ensemble, (Goal("energy"),), weights, uncertainty=0.0)(z, torch.arange(6))
    careful = PropertyObjective(ensemble, (Goal("energy"),), weights, uncertainty=2.0)(z, torch.arange(6))
    spread = ensemble(z)[..., 0].std(0, unbiased=False)
    torch.testing.assert_close(careful - plain, 2.0 * spread, atol=1e-3, rtol=1e-3)
    unanimous = LinearEnsemble(3, members=4)
    losses = [
        PropertyObjective(unanimous, (Goal("energy"),), weights, uncertainty=u)(z, torch.arange(6)) for u in (0.0, 2.0)
    ]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-3, rtol=0)


def test_predicted_values_are_in_the_unit_of_the_property() -> None:
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    ensemble = LinearEnsemble(3, members=2)
    mean, std = predicted_values(ensemble, z, [Goal("gap"), Goal("energy")])
    expected = ensemble(z).mean(0) * ensemble.standard_deviation + ensemble.mean
    assert np.allclose(mean, expected[:, [1, 0]].numpy(), atol=1e-6)
    assert np.allclose(std, 0.0, atol=1e-6)
