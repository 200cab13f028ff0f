"""Codes to properties: derivatives, codes that are no codes, files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cdvae_kit.models.latent_predictor import LatentPredictor, encoder_digest
from cdvae_kit.seeding import make_generator
from cdvae_kit.training import seeded_weights
from tests.models.predictors import latent_config
from tests.models.tiny import tiny_model


@pytest.fixture
def predictor() -> LatentPredictor:
    with seeded_weights(1):
        predictor = LatentPredictor(latent_config(properties=("height", "width"), units=("eV", "")))
    codes = torch.randn(40, 5, generator=make_generator(2))
    predictor.fit_statistics(codes, torch.stack([10.0 + codes[:, 0], codes[:, 1]], dim=-1))
    return predictor


def test_the_slope_of_every_member_is_the_one_of_finite_differences(predictor: LatentPredictor) -> None:
    predictor.double()
    z = torch.randn(3, 5, generator=make_generator(3), dtype=torch.float64, requires_grad=True)
    assert predictor(z).shape == (2, 3, 2)
    assert torch.autograd.gradcheck(predictor, (z,))


def test_the_prediction_is_the_members_mean_in_the_data_s_unit(predictor: LatentPredictor) -> None:
    z = torch.randn(4, 5, generator=make_generator(3))
    found = predictor.predict(z)
    members = predictor.in_units(predictor(z))
    assert torch.equal(found["height"].mean, members.mean(0)[:, 0])
    assert (found["height"].unit, found["width"].unit) == ("eV", "")
    torch.testing.assert_close(predictor.standardised(members), predictor(z))


def test_dropout_takes_part_only_when_it_is_given_chance(predictor: LatentPredictor) -> None:
    z = torch.randn(4, 5, generator=make_generator(3))
    predictor.train()
    assert torch.equal(predictor(z), predictor(z))
    first, second = (predictor.member(0, z, generator=make_generator(1)) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, predictor.member(0, z))


def test_a_code_that_is_not_finite_says_so(predictor: LatentPredictor) -> None:
    z = torch.zeros(2, 5)
    z[1, 3] = float("inf")
    found = predictor.predict(z)["height"]
    assert found.faults == (None, "the code is not finite") and found.mean.isnan().tolist() == [False, True]


def test_codes_of_another_width_are_refused(predictor: LatentPredictor) -> None:
    with pytest.raises(ValueError, match=r"\(num_crystals, 5\), got \(2, 4\)"):
        predictor.predict(torch.zeros(2, 4))


def test_a_saved_predictor_says_the_same(predictor: LatentPredictor, tmp_path: Path) -> None:
    z = torch.randn(30, 5, generator=make_generator(3))
    predictor.calibrate(z, torch.zeros(30, 2), out_of_fold=torch.ones(5, 2))
    predictor.save_pretrained(tmp_path / "model")
    again = LatentPredictor.from_pretrained(tmp_path / "model", device="cpu")
    for name, found in predictor.predict(z).items():
        other = again.predict(z)[name]
        assert torch.equal(found.mean, other.mean) and torch.equal(found.half_width, other.half_width)


def test_the_codes_of_another_autoencoder_are_refused(tmp_path: Path) -> None:
    own, other = tiny_model(seed=0), tiny_model(seed=1)
    predictor = LatentPredictor(latent_config(autoencoder=encoder_digest(own)))
    predictor.check_autoencoder(own)
    own.save_pretrained(tmp_path / "half", half=True)
    predictor.check_autoencoder(type(own).from_pretrained(tmp_path / "half", device="cpu"))
    with pytest.raises(ValueError, match="another autoencoder"):
        predictor.check_autoencoder(other)
