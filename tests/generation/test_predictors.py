"""The package's predictors in their roles: units, ranges, errors and crystals that cannot be judged."""

import numpy as np
import pytest
import torch

from cdvae_kit.generation.optimization.objectives import Goal, UnknownPropertyError, predicted_values
from cdvae_kit.generation.optimization.predictors import CodeModel, PredictorJudge
from cdvae_kit.models.latent_predictor import LatentPredictor, encoder_digest
from cdvae_kit.models.property_predictor import PropertyPredictor
from cdvae_kit.seeding import make_generator
from tests.models.predictors import fresh_predictor, known_crystals, latent_config
from tests.models.tiny import tiny_model


def fitted(**changes) -> LatentPredictor:
    predictor = LatentPredictor(latent_config(**changes))
    predictor.fit_statistics(torch.randn(20, 5, generator=make_generator(0)), 3.0 + 2.0 * torch.arange(20.0)[:, None])
    return predictor


def test_the_model_that_is_climbed_says_what_the_predictor_says() -> None:
    predictor = fitted()
    z = torch.randn(6, 5, generator=make_generator(1))
    mean, spread = predicted_values(CodeModel(predictor), z, [Goal("height")])
    found = predictor.predict(z)["height"]
    assert np.allclose(mean[:, 0], found.mean.numpy(), rtol=1e-5)
    assert np.allclose(spread[:, 0], found.spread.numpy(), rtol=1e-4)


def test_only_the_codes_have_a_gradient() -> None:
    predictor = fitted()
    z = torch.randn(3, 5, generator=make_generator(1)).requires_grad_(True)
    CodeModel(predictor)(z).sum().backward()
    assert z.grad is not None and bool((z.grad != 0).any())
    assert all(parameter.grad is None for parameter in predictor.parameters())


def test_the_range_is_three_deviations_around_the_mean_in_the_unit() -> None:
    predictor = fitted()
    span = CodeModel(predictor).ranges["height"]
    assert span.unit == "eV"
    middle, std = float(predictor.property_mean[0]), float(predictor.property_std[0])
    assert (span.low, span.high) == pytest.approx((middle - 3 * std, middle + 3 * std))


def test_a_predictor_of_other_codes_is_refused() -> None:
    model, other = tiny_model(0), tiny_model(1)
    predictor = fitted(autoencoder=encoder_digest(model))
    CodeModel(predictor, model)
    with pytest.raises(ValueError, match="another autoencoder"):
        CodeModel(predictor, other)


def test_the_judge_gives_values_and_says_which_crystals_it_cannot_judge() -> None:
    crystals = known_crystals(5, seed=1)
    predictor = fresh_predictor()
    for member in predictor.members:
        assert hasattr(member, "fit_statistics")
        member.fit_statistics(known_crystals(30, seed=2))
    numbers = crystals.atomic_numbers.clone()
    numbers[-1] = 92
    judge = PredictorJudge(predictor, ("room",))
    found = judge.judge(crystals.replace(atomic_numbers=numbers))
    assert np.isfinite(found.values["room"][:4]).all() and np.isnan(found.values["room"][4])
    assert found.reasons[:4] == (None,) * 4 and "U" in str(found.reasons[4])
    expected = predictor.predict(crystals)["room"].mean[:4].numpy()
    assert np.allclose(found.values["room"][:4], expected, rtol=1e-5)


def test_a_property_that_the_judge_does_not_know_is_refused() -> None:
    with pytest.raises(UnknownPropertyError, match="no property 'gap'; it knows room"):
        PredictorJudge(fresh_predictor(), ("gap",))


def test_the_held_out_error_is_the_one_on_the_card() -> None:
    judge = PredictorJudge(PropertyPredictor.from_pretrained("perov_5", device="cpu"), ("heat_ref",))
    assert 0.0 < judge.held_out_error["heat_ref"] < 0.2
    assert "4 networks, trained on 2386 crystals of perov_5/val.csv.gz" in judge.description
    assert PredictorJudge(fresh_predictor(), ("room",)).held_out_error == {}
