"""The predictors that the package carries: they load by name, fit their autoencoders, and say what their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets import load_dataset, split_crystals
from cdvae_kit.generation.optimization.objectives import Goal, check_goals
from cdvae_kit.generation.optimization.predictors import CodeModel
from cdvae_kit.models import CDVAE, LatentPredictor, PropertyPredictor, pretrained

PROPERTIES = {"perov_5": "heat_ref", "carbon_24": "energy_per_atom"}
FILES = {"perov_5": "val.csv.gz", "carbon_24": "val.csv.gz"}
NAMES = sorted(PROPERTIES)
INSIDE = {"perov_5": (0.83, 0.98), "carbon_24": (0.68, 0.85)}
"""Share of values in the interval of the predictors from codes, where 90 % are asked: of Carbon-24 too few, as its card
says (77 % of the test split). 250 crystals: two standard deviations are 0.05."""
LARGEST_ERROR = {"perov_5": (0.10, 0.30), "carbon_24": (0.03, 0.08)}
"""Of the judge and of the predictor from codes, in the property's unit: what the cards say, with room for a subset."""


def judge_s_strangers(shared_dir: Path, name: str) -> CrystalBatch:
    """Crystals that the judge has not seen: those that the predictor from codes was fitted to."""
    crystals = load_dataset(shared_dir / "data" / name / FILES[name]).crystals
    return split_crystals(crystals, (0.3, 0.7), seed=0)[0].select(range(250))


def optimised_s_strangers(shared_dir: Path, name: str) -> CrystalBatch:
    crystals = load_dataset(shared_dir / "data" / name / FILES[name]).crystals
    return split_crystals(crystals, (0.3, 0.7), seed=0)[1].select(range(250))


@pytest.mark.parametrize("name", NAMES)
def test_both_predictors_load_by_name_with_units_and_cards(name: str) -> None:
    judge = PropertyPredictor.from_pretrained(name, device="cpu")
    latent = LatentPredictor.from_pretrained(name, device="cpu")
    assert PROPERTIES[name] in judge.config.properties and PROPERTIES[name] in latent.config.properties
    assert all(judge.units.values()) and judge.units[PROPERTIES[name]] == latent.units[PROPERTIES[name]]
    assert judge.card["data"]["part"].startswith("0.3 to 1 ")
    assert latent.card["data"]["part"].startswith("0 to 0.3 ")
    for folder in ("property_predictors", "latent_predictors"):
        assert (pretrained.locate(name, folder=folder) / "card.md").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_the_predictor_from_codes_knows_the_codes_of_the_carried_autoencoder(name: str) -> None:
    latent = LatentPredictor.from_pretrained(name, device="cpu")
    autoencoder = CDVAE.from_pretrained(name, device="cpu")
    latent.check_autoencoder(autoencoder)
    z = torch.zeros(2, autoencoder.config.latent_dim, requires_grad=True)
    (slope,) = torch.autograd.grad(latent(z).mean(), z)
    assert slope.isfinite().all() and (slope != 0).any()


def test_a_front_of_several_properties_can_be_searched_with_what_is_carried() -> None:
    latent = LatentPredictor.from_pretrained("perov_5", device="cpu")
    assert latent.units == {"heat_ref": "eV/atom", "heat_all": "eV/atom", "dir_gap": "eV", "ind_gap": "eV"}
    autoencoder = CDVAE.from_pretrained("perov_5", device="cpu")
    model = CodeModel(latent, autoencoder)
    check_goals((Goal("heat_ref"), Goal("dir_gap", "target", 1.2)), model.ranges)
    z = torch.zeros(1, autoencoder.config.latent_dim, requires_grad=True)
    slopes = [torch.autograd.grad(latent(z)[..., i].mean(), z)[0] for i in range(4)]
    # the control: they are not one property four times
    assert torch.cosine_similarity(slopes[0], slopes[2]).abs() < 0.9


def test_an_element_that_the_judge_has_not_seen_is_flagged() -> None:
    salt = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    found = PropertyPredictor.from_pretrained("carbon_24", device="cpu").predict([salt])["energy_per_atom"]
    assert found.mean.isnan().all() and "holds Cl, Cs" in (found.faults[0] or "")


@pytest.mark.parametrize("name", NAMES)
def test_the_judge_s_error_and_intervals_are_what_the_card_says(shared_dir: Path, name: str) -> None:
    crystals = judge_s_strangers(shared_dir, name)
    found = PropertyPredictor.from_pretrained(name, device="cpu").predict(crystals)[PROPERTIES[name]]
    error = (found.mean - crystals.properties[PROPERTIES[name]]).abs()
    there = error.isfinite()
    assert there.float().mean() > 0.97
    assert error[there].mean() < LARGEST_ERROR[name][0]
    # 250 crystals and some hundred in calibration: two deviations are 0.05
    assert 0.83 <= (error <= found.half_width)[there].float().mean() <= 0.97
    # the negative control: the same numbers for other crystals
    assert (found.mean.roll(1) - crystals.properties[PROPERTIES[name]]).abs().nanmean() > 2 * error[there].mean()


@pytest.mark.parametrize("name", NAMES)
def test_the_error_from_codes_is_what_the_card_says(shared_dir: Path, name: str) -> None:
    crystals = optimised_s_strangers(shared_dir, name)
    codes = CDVAE.from_pretrained(name, device="cpu").encode(crystals, seed=0, allow_outside=True)
    found = LatentPredictor.from_pretrained(name, device="cpu").predict(codes)[PROPERTIES[name]]
    error = (found.mean - crystals.properties[PROPERTIES[name]]).abs()
    assert error.mean() < LARGEST_ERROR[name][1]
    assert INSIDE[name][0] <= (error <= found.half_width).float().mean() <= INSIDE[name][1]
