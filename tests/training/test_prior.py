"""Stage two: the prior learns where codes lie, and is stopped before it learns them by heart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cdvae_kit.models.config import PriorConfig
from cdvae_kit.models.prior import LatentPrior
from cdvae_kit.seeding import make_generator
from cdvae_kit.training import TrainingDivergedError, fit_prior, seeded_weights
from cdvae_kit.training.data import find_graph
from cdvae_kit.training.prior import encode_moments, fit_prior_to_codes
from tests.training.toy import ToyPrior, make_crystals, make_toy, toy_config

SHARP = -6.0


def mixture(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """mu and log_var of codes in three narrow heaps of two dimensions."""
    generator = make_generator(seed)
    centres = torch.tensor([[4.0, 0.0], [-4.0, 1.0], [0.0, -5.0]])
    chosen = torch.randint(3, (count,), generator=generator)
    return centres[chosen] + 0.3 * torch.randn(count, 2, generator=generator), torch.full((count, 2), SHARP)


def energy_distance(first: Tensor, second: Tensor) -> float:
    """0 for two samples of one distribution, positive otherwise (Szekely and Rizzo, 2013)."""
    return float(
        2 * torch.cdist(first, second).mean() - torch.cdist(first, first).mean() - torch.cdist(second, second).mean()
    )


def small_prior(latent_dim: int = 2) -> LatentPrior:
    with seeded_weights(0):
        return LatentPrior(PriorConfig(width=48, num_layers=2), latent_dim)


def test_the_fitted_prior_is_far_nearer_to_a_mixture_than_a_normal_is() -> None:
    prior, codes = small_prior(), mixture(400, seed=1)
    config = toy_config(prior_steps=500, prior_learning_rate=5e-3, prior_ema_decay=0.98, prior_check_every=100)
    fit = fit_prior_to_codes(prior, codes, mixture(100, seed=2), config)
    noise = torch.randn(500, 2, generator=make_generator(3))
    truth = mixture(500, seed=4)[0]
    with torch.no_grad():
        drawn = prior.transport(noise, num_steps=20)
    # the normal of the codes' own mean and standard deviation: what the statistics alone would give
    scaled = noise * truth.std(0) + truth.mean(0)
    assert energy_distance(drawn, truth) < 0.25 * energy_distance(scaled, truth)
    assert energy_distance(drawn, truth) < 0.05 * energy_distance(noise, truth)
    assert fit.val_loss < fit.curve[0][2] or fit.best_step == 100


def test_the_same_seed_gives_the_same_prior() -> None:
    first, second = small_prior(), small_prior()
    for prior in (first, second):
        fit_prior_to_codes(prior, mixture(50, seed=1), mixture(20, seed=2), toy_config())
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_the_weights_with_the_lowest_held_out_loss_are_kept() -> None:
    # four codes are learned by heart, and the held-out ones lie elsewhere
    prior = small_prior()
    config = toy_config(prior_steps=300, prior_learning_rate=1e-2, prior_ema_decay=0.9, prior_check_every=20)
    held_out = mixture(200, seed=2)
    fit = fit_prior_to_codes(prior, mixture(4, seed=1), held_out, config)
    assert fit.val_loss == min(val for _, _, val in fit.curve)
    assert fit.val_loss < fit.final_val_loss
    assert fit.best_step < 300


def test_only_the_prior_changes() -> None:
    model = make_toy(with_prior=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_prior(model, make_crystals(12, seed=1), make_crystals(5, seed=2), toy_config())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"prior.mean", "prior.scale"}


def test_codes_do_not_depend_on_how_many_are_encoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, crystals = make_toy(), make_crystals(9, seed=1)
    graph = find_graph(model, crystals)
    whole = encode_moments(model, crystals, graph)
    monkeypatch.setattr("cdvae_kit.training.prior._CRYSTALS_AT_ONCE", 2)
    for once, twice in zip(whole, encode_moments(model, crystals, graph), strict=True):
        assert torch.allclose(once, twice, atol=1e-6)


def test_a_model_without_a_prior_is_refused() -> None:
    with pytest.raises(ValueError, match="no prior"):
        fit_prior(make_toy(), make_crystals(4, seed=1), make_crystals(4, seed=2), toy_config())


def test_codes_that_are_not_finite_end_in_an_error() -> None:
    mu, log_var = mixture(20, seed=1)
    with pytest.raises(TrainingDivergedError, match="25 steps"):
        fit_prior_to_codes(ToyPrior(2), (mu * math.nan, log_var), (mu, log_var), toy_config(prior_steps=40))
