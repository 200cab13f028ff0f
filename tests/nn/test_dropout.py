"""Dropout from a generator."""

import torch

from cdvae_kit.nn.dropout import dropout
from cdvae_kit.seeding import make_generator


def test_the_mean_stays_and_the_share_is_dropped() -> None:
    x = torch.full((400, 500), 3.0)
    out = dropout(x, 0.3, make_generator(0))
    assert abs(float((out == 0).float().mean()) - 0.3) < 0.005
    assert abs(float(out.mean()) - 3.0) < 0.02


def test_without_a_generator_or_a_share_nothing_changes() -> None:
    x = torch.ones(5)
    assert dropout(x, 0.5, None) is x and dropout(x, 0.0, make_generator(0)) is x
