"""Codes for the evaluation: those of the model, and NaN for what it cannot take."""

import numpy as np
import pytest
import torch

from cdvae_kit import CDVAE
from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation import latent_codes
from cdvae_kit.metrics.crystals import as_arrays, unusable
from cdvae_kit.models.config import CDVAEConfig


@pytest.fixture(scope="module")
def model() -> CDVAE:
    with torch.random.fork_rng():
        return CDVAE(CDVAEConfig(max_atoms=4, latent_dim=8)).eval()


def test_codes_are_those_of_the_model(model: CDVAE, zoo: CrystalBatch) -> None:
    small = zoo.select([0, 2, 5])
    expected = model.encode(small.structures(), allow_outside=True).double().numpy()
    np.testing.assert_allclose(latent_codes(model, as_arrays(small)), expected, atol=1e-6)


def test_what_the_model_cannot_take_has_no_code_and_disturbs_no_other(model: CDVAE, zoo: CrystalBatch) -> None:
    crystals = as_arrays(zoo)
    heavy = as_arrays(zoo.select([0]).replace(atomic_numbers=torch.tensor([118])))[0]
    codes = latent_codes(model, [*crystals, unusable("there is no crystal"), heavy])
    # 24 atoms, no crystal, an element beyond the model's
    assert np.isnan(codes).all(1).tolist() == [False, False, False, False, True, False, True, True]
    np.testing.assert_allclose(codes[:4], latent_codes(model, crystals[:4]), atol=1e-5)


def test_no_crystals_have_no_codes(model: CDVAE) -> None:
    assert latent_codes(model, []).shape == (0, 8)


def test_properties_come_from_the_predictor_and_nan_from_what_it_cannot_tell(zoo: CrystalBatch) -> None:
    from cdvae_kit.generation.codes_and_properties import property_functions
    from cdvae_kit.models.property_predictor import PropertyPredictor

    predictor = PropertyPredictor.from_pretrained("perov_5")
    functions = property_functions(predictor)
    crystals = zoo.select([2, 5])  # SiO2 in a skewed cell, He beside Pu
    expected = predictor.predict(crystals.structures())["heat_ref"].mean.double().numpy()
    np.testing.assert_allclose(functions["heat_ref"](as_arrays(crystals)), expected)
    assert "heat_ref" in functions and np.isnan(expected[1])
