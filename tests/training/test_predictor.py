"""Ensembles from crystals and from codes: what they learn, what a killed run goes on to, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.models.latent_predictor import LatentPredictor
from cdvae_kit.models.property_predictor import PropertyPredictor
from cdvae_kit.training import TrainingDivergedError, seeded_weights
from cdvae_kit.training.errors import ResumeError
from cdvae_kit.training.latent_predictor import fit_latent_predictor
from cdvae_kit.training.module import TrainingModule
from cdvae_kit.training.predictor import fit_predictor
from tests.models.predictors import (
    fresh_predictor,
    known_crystals,
    latent_config,
    predictor_config,
    training_config,
)
from tests.models.tiny import tiny_model


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of a short run's time would go into the plot of its loss."""
    monkeypatch.setattr("cdvae_kit.training.run.plot_losses", lambda *_, **__: None)


def folds_of(count: int = 12) -> list[CrystalBatch]:
    return [known_crystals(count, seed=seed) for seed in (1, 2)]


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_a_small_set_is_learned_by_heart(tmp_path: Path) -> None:
    crystals = known_crystals(8, seed=1)
    predictor = fresh_predictor(
        predictor_config(
            num_members=1, coverage=0.5, training_noise=0.0, properties=("room", "oxygen"), units=("A^3", "")
        )
    )
    config = training_config(max_steps=150, check_every=75)
    # both folds are the same crystals: what is learned is what is asked
    fit = fit_predictor(predictor, [crystals, crystals], crystals, config, tmp_path / "run")
    std = {name: float(values.std()) for name, values in crystals.properties.items()}
    assert all(fit.calibration_error[name] < 0.2 * std[name] for name in std), fit.calibration_error
    assert fit.members[0].steps == 150


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = training_config(max_steps=12, check_every=5)
    folds, calibration = folds_of(), known_crystals(12, seed=3)
    whole = fresh_predictor(predictor_config(dropout=0.2))
    fit_predictor(whole, folds, calibration, config, tmp_path / "whole")

    step = TrainingModule.training_step

    def killed(module: TrainingModule, *arguments: object) -> None:
        # in the second member, between two saved states
        if module.config.seed == config.seed + 1 and module.steps_done == 8:
            raise MemoryError
        step(module, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingModule, "training_step", killed)
    with pytest.raises(MemoryError):
        fit_predictor(fresh_predictor(predictor_config(dropout=0.2)), folds, calibration, config, tmp_path / "cut")
    monkeypatch.setattr(TrainingModule, "training_step", step)
    again = fresh_predictor(predictor_config(dropout=0.2))
    fit_predictor(again, folds, calibration, config, tmp_path / "cut", resume=True)
    assert same(whole, again)
    assert same(whole, PropertyPredictor.from_pretrained(tmp_path / "cut" / "model", device="cpu"))
    assert json.loads((tmp_path / "cut" / "training.json").read_text())["num_calibration_crystals"] == 12


def test_each_member_leaves_its_own_fold_out_and_a_run_is_not_mixed_with_another(tmp_path: Path) -> None:
    folds, calibration, config = folds_of(), known_crystals(12, seed=3), training_config(max_steps=4)
    predictor = fresh_predictor()
    fit_predictor(predictor, folds, calibration, config, tmp_path / "run")
    first, second = predictor.members
    assert not same(first, second)
    for member, fold in zip((first, second), (folds[1], folds[0]), strict=True):
        assert torch.allclose(member.property_mean, fold.properties["room"].mean())

    with pytest.raises(FileExistsError, match="holds files already"):
        fit_predictor(fresh_predictor(), folds, calibration, config, tmp_path / "run")
    with pytest.raises(ResumeError, match="other crystals"):
        fit_predictor(fresh_predictor(), folds[::-1], calibration, config, tmp_path / "run", resume=True)
    doubled = [fold.replace(properties={"room": 2.0 * fold.properties["room"]}) for fold in folds]
    with pytest.raises(ResumeError, match="other crystals"):
        fit_predictor(fresh_predictor(), doubled, calibration, config, tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        fit_predictor(fresh_predictor(), folds[:1], calibration, config, tmp_path / "other")


# -- codes -----------------------------------------------------------------------------------------------------------


def fresh_latent() -> LatentPredictor:
    with seeded_weights(0):
        return LatentPredictor(latent_config(properties=("room",)))


def known_codes(autoencoder: torch.nn.Module, crystals: CrystalBatch) -> CrystalBatch:
    """With `room` replaced by a number that the code gives away."""
    z = autoencoder.encode(crystals, reduce=False, allow_outside=True)  # type: ignore[operator]
    return crystals.replace(properties={"room": 5.0 + z[:, 0]})


def test_a_property_that_lies_in_the_code_is_found_there_and_the_same_each_time() -> None:
    autoencoder = tiny_model()
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    with torch.no_grad():
        autoencoder.encoder.log_var.weight.zero_()
        autoencoder.encoder.log_var.bias.fill_(-12.0)
        before |= {name: value.clone() for name, value in autoencoder.state_dict().items() if "log_var" in name}
    folds = [known_codes(autoencoder, fold) for fold in folds_of(30)]
    calibration = known_codes(autoencoder, known_crystals(30, seed=3))
    config = training_config(max_steps=150, check_every=50)
    first, second = fresh_latent(), fresh_latent()
    fit = fit_latent_predictor(first, autoencoder, folds, calibration, config)
    fit_latent_predictor(second, autoencoder, folds, calibration, config)
    assert same(first, second)
    assert fit.calibration_error["room"] < 0.2 * float(calibration.properties["room"].std())
    assert all(torch.equal(value, before[name]) for name, value in autoencoder.state_dict().items())


def test_codes_without_labels_are_refused_and_wrong_ones_end_in_an_error() -> None:
    folds, calibration = folds_of(), known_crystals(12, seed=3)
    with pytest.raises(ValueError, match="'height'; they have oxygen, room"):
        fit_latent_predictor(LatentPredictor(latent_config()), tiny_model(), folds, calibration, training_config())
    with pytest.raises(ValueError, match="set max_steps"):
        fit_latent_predictor(
            fresh_latent(), tiny_model(), folds, calibration, training_config(max_steps=None, epochs=1)
        )
    broken = tiny_model()
    with torch.no_grad():
        broken.encoder.mu.bias.fill_(float("nan"))
    with pytest.raises(TrainingDivergedError, match="member 0: the loss is not finite"):
        fit_latent_predictor(fresh_latent(), broken, folds, calibration, training_config())
