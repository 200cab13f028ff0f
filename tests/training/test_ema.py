"""The average of weights against the recursion written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cdvae_kit.seeding import make_generator
from cdvae_kit.training.ema import WeightAverage, cosine_decay, follow


def test_the_average_follows_its_recursion() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    average = WeightAverage([("weight", weight)], decay=0.7)
    expected = weight.detach().clone()
    for step, value in enumerate(torch.randn(40, 2, generator=make_generator(0), dtype=torch.float64), start=1):
        weight.data.copy_(value)
        average.update()
        decay = min(0.7, step / (step + 10))
        expected = decay * expected + (1.0 - decay) * value
    assert torch.allclose(average.state_dict()["weight"], expected, rtol=1e-12, atol=0.0)


def test_a_decay_of_zero_follows_the_weights() -> None:
    weight = nn.Parameter(torch.zeros(3))
    average = WeightAverage([("weight", weight)], decay=0.0)
    weight.data.fill_(4.0)
    average.update()
    assert torch.equal(average.state_dict()["weight"], weight.detach())


def test_applied_averages_leave_when_the_block_does() -> None:
    weight = nn.Parameter(torch.zeros(1))
    average = WeightAverage([("weight", weight)], decay=0.9)
    weight.data.fill_(1.0)
    inside = []

    def fail() -> None:
        with average.applied():
            inside.append(weight.item())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [0.0]
    assert weight.item() == 1.0
    assert average.state_dict()["weight"].item() == 0.0


def test_averages_of_another_model_are_refused() -> None:
    average = WeightAverage([("weight", nn.Parameter(torch.zeros(1)))], decay=0.9)
    with pytest.raises(ValueError, match="another model"):
        average.load_state_dict({"bias": torch.zeros(1)}, num_updates=3)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        WeightAverage([], decay=decay)


def test_a_teacher_follows_parameters_and_keeps_its_own_statistics() -> None:
    student = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    teacher = copy.deepcopy(student)
    before = teacher[0].weight.detach().clone()
    with torch.no_grad():
        student[0].weight.add_(1.0)
        student[1].running_mean.add_(1.0)
    follow(teacher, student, decay=0.75)
    assert torch.allclose(teacher[0].weight, before + 0.25)
    assert torch.equal(teacher[1].running_mean, torch.zeros(2))
    follow(teacher, student, decay=1.0)
    assert torch.allclose(teacher[0].weight, before + 0.25)
    follow(teacher, student, decay=0.0)
    assert torch.equal(teacher[0].weight, student[0].weight)


def test_a_teacher_of_other_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="deepcopy"):
        follow(nn.Linear(3, 2), nn.Linear(2, 3), decay=0.9)
    with pytest.raises(ValueError, match="decay"):
        follow(nn.Linear(3, 2), nn.Linear(3, 2), decay=1.1)


def test_the_decay_rises_from_its_start_to_one() -> None:
    found = [cosine_decay(step, 8, start=0.9) for step in range(9)]
    assert found[0] == pytest.approx(0.9) and found[-1] == 1.0
    assert found == sorted(found) and found[4] == pytest.approx(0.95)
    assert {cosine_decay(step, 8, start=1.0) for step in range(9)} == {1.0}
