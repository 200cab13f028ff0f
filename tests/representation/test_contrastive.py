"""SimCLR: it learns what the views share, and its draws come from the generator that it is given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cdvae_kit.representation.methods.contrastive import SimCLR
from cdvae_kit.representation.methods.encoder import MLPEncoder, embed
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.representation.methods.probing import knn_probe
from cdvae_kit.representation.methods.similarity import effective_rank
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms import Identity
from cdvae_kit.transforms.base import Generator, Params, Transform, normal


class LoudColumns(Transform[Tensor]):
    """Redraws the last columns, which are four times as loud as the first two."""

    def sample(self, batch: Tensor, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        return {"noise": 4.0 * normal(generator, len(batch), batch.shape[1] - 2, like=batch)}

    def apply(self, batch: Tensor, params: Params) -> Tensor:
        return torch.cat([batch[:, :2], params["noise"]], dim=1)


def data(num: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = make_generator(seed)
    labels = torch.arange(num) % 4
    angle = labels * (torch.pi / 2)
    quiet = torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(num, 2, generator=generator)
    return torch.cat([quiet, 4.0 * torch.randn(num, 6, generator=generator)], dim=1), labels


def objective(transform: Transform[Tensor]) -> SimCLR:
    with seeded_weights(0):
        return SimCLR(MLPEncoder([8, 32, 16]), transform, width=8)


def test_what_the_views_share_is_learnt_and_the_rest_forgotten() -> None:
    (x, y), (x_test, y_test) = data(512, 0), data(512, 1)

    def score(transform: Transform[Tensor]) -> float:
        model = objective(transform)
        fit(model, x, FitSettings(40, batch_size=64, learning_rate=0.01), seed=0)
        return knn_probe(embed(model.encoder, x), y, embed(model.encoder, x_test), y_test)

    assert knn_probe(x, y, x_test, y_test) < 0.6
    assert score(LoudColumns()) > 0.9
    # the control: views that share everything teach nothing of what matters
    assert score(Identity()) < 0.7


def test_training_does_not_collapse() -> None:
    x, _ = data(256, 0)
    model = objective(LoudColumns())
    fit(model, x, FitSettings(5, batch_size=64), seed=0)
    assert effective_rank(embed(model.encoder, x)) > 2.0


def test_the_views_come_from_the_generator() -> None:
    x, _ = data(32, 0)
    model = objective(LoudColumns())
    first, again, other = (model.loss(x, generator=make_generator(seed))["loss"].item() for seed in (0, 0, 1))
    assert first == again != other


def test_a_temperature_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        SimCLR(MLPEncoder([8, 4]), Identity(), temperature=0.0)
