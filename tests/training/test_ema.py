"""The average of weights against the recursion written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cdvae_kit.seeding import make_generator
from cdvae_kit.training.ema import WeightAverage


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
