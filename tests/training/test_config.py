"""Settings: presets that every model accepts, overrides, and messages that help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cdvae_kit.models import CDVAEConfig
from cdvae_kit.training import SettingsError, TrainingConfig, apply_overrides, load_preset, preset_names


def test_the_presets_are_the_ones_that_are_promised() -> None:
    assert preset_names() == ["carbon_24", "ionic_prototypes", "mp_20", "paper", "perov_5"]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid(name: str) -> None:
    settings = load_preset(name)
    CDVAEConfig.model_validate(settings["model"])
    TrainingConfig.model_validate(settings["training"])


def test_the_paper_preset_makes_the_published_choices() -> None:
    model = CDVAEConfig.model_validate(load_preset("paper")["model"])
    assert (model.latent_dim, model.encoder.kind, model.score_network.kind) == (256, "dimenet++", "gemnet")
    assert (model.noise.coordinates, model.noise.types, model.noise.lattice) == ("gaussian", "published", "fixed")
    assert (model.composition, model.lattice, model.prior) == ("fractions", "lengths_angles", None)
    assert model.symmetry == "none"
    assert (model.draws_per_crystal, model.score_network.knows_noise_level) == (1, False)
    weights = model.loss_weights
    assert (weights.num_atoms, weights.lattice_head, weights.composition) == (1.0, 10.0, 1.0)
    assert (weights.coordinates, weights.types, weights.property, weights.kl) == (10.0, 1.0, 1.0, 0.01)


def test_a_preset_that_says_held_is_read_as_fixed() -> None:
    words = ["model.noise.types=held", "model.noise.lattice=held"]
    settings = apply_overrides(load_preset("perov_5"), words, model_schema=CDVAEConfig)
    noise = CDVAEConfig.model_validate(settings["model"]).noise
    assert (noise.types, noise.lattice) == ("fixed", "fixed")


def test_symmetry_none_is_a_choice_of_its_own() -> None:
    """Elsewhere the word stands for None."""
    settings = apply_overrides(load_preset("perov_5"), ["model.symmetry=none"], model_schema=CDVAEConfig)
    assert CDVAEConfig.model_validate(settings["model"]).symmetry == "none"
    assert CDVAEConfig.model_validate(load_preset("perov_5")["model"]).symmetry == "orbits"


def test_a_preset_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean perov_5"):
        load_preset("perov5")


def test_a_preset_of_ones_own_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nprior = "none"\n[training]\nepochs = 2\n')
    assert load_preset(str(path)) == {"model": {"prior": None}, "training": {"epochs": 2}}


@pytest.mark.parametrize(
    ("text", "message"), [("[model\n", "not TOML"), ("[modle]\nlatent_dim = 3\n", r"modle.*\[model\] and \[training\]")]
)
def test_a_broken_preset_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_preset(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("model.latent_dim=64", ("model", "latent_dim"), 64),
        ("training.batch_size=32", ("training", "batch_size"), 32),
        ("batch_size=32", ("training", "batch_size"), 32),
        ("model.encoder.kind=dimenet++", ("model", "encoder", "kind"), "dimenet++"),
        ("model.prior=none", ("model", "prior"), None),
        ("model.symmetry=none", ("model", "symmetry"), None),
        ("model.noise.match_atoms=False", ("model", "noise", "match_atoms"), False),
        ("learning_rate=2e-3", ("training", "learning_rate"), 2e-3),
        ("adam_betas=[0.9, 0.99]", ("training", "adam_betas"), [0.9, 0.99]),
        ('model.properties=["heat_all"]', ("model", "properties"), ["heat_all"]),
        ("training.patience = 4", ("training", "patience"), 4),
    ],
)
def test_an_override_sets_one_setting(word: str, path: tuple[str, ...], value: Any) -> None:
    before = load_preset("perov_5")
    after: Any = apply_overrides(before, [word], model_schema=CDVAEConfig)
    for name in path:
        after = after[name]
    assert after == value


def test_overrides_leave_the_preset_as_it_was() -> None:
    before = load_preset("perov_5")
    apply_overrides(before, ["model.encoder.channels=7", "batch_size=2"])
    assert before == load_preset("perov_5")


def test_the_last_of_two_overrides_holds() -> None:
    assert apply_overrides(load_preset("perov_5"), ["seed=1", "seed=2"])["training"]["seed"] == 2


def test_a_setting_of_a_prior_that_was_none_makes_one() -> None:
    settings = apply_overrides(load_preset("paper"), ["model.prior.width=64"], model_schema=CDVAEConfig)
    assert CDVAEConfig.model_validate(settings["model"]).prior is not None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("training.batchsize=32", r"no setting training\.batchsize; did you mean training\.batch_size\?"),
        ("model.latent=64", r"did you mean model\.latent_dim\?"),
        ("model.encoder.chanels=4", r"did you mean model\.encoder\.channels\?"),
        ("model.kl=0.1", r"did you mean model\.loss_weights\.kl\?"),
        ("zzz=1", r"no setting training\.zzz; there are training\.epochs"),
        ("batch_size=big", r"training\.batch_size: .*integer.*got 'big'"),
        ("batch_size=0", r"training\.batch_size: .*greater than or equal to 1"),
        ("model.encoder.kind=transformer", r"model\.encoder\.kind: .*'dimenet\+\+'.*got 'transformer'"),
        ("model.noise.sigma_min=20", r"sigma_min must be below noise\.sigma_max"),
        ("max_steps=none", "needs an end"),
        ("precision=16", r"training\.precision: .*bf16-mixed"),
        ("batch_size", "expected key=value"),
        ("=3", "expected key=value"),
        ("model=3", "is a table"),
        ("learning_rate=nan", r"training\.learning_rate"),
    ],
)
def test_a_wrong_override_says_what_to_write(word: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        apply_overrides(load_preset("perov_5"), [word], model_schema=CDVAEConfig)


def test_text_with_a_line_break_sets_nothing_else() -> None:
    with pytest.raises(SettingsError):
        apply_overrides(load_preset("perov_5"), ["seed=1\nbatch_size = 3"], model_schema=CDVAEConfig)


def test_training_needs_an_end() -> None:
    with pytest.raises(ValidationError, match="epochs, max_steps or max_minutes"):
        TrainingConfig()


def test_a_batch_is_at_least_one_crystal_a_device() -> None:
    with pytest.raises(ValidationError, match="4 devices"):
        TrainingConfig(max_steps=1, batch_size=3, num_devices=2, num_nodes=2)


def test_every_setting_says_what_it_is() -> None:
    undocumented = [name for name, field in TrainingConfig.model_fields.items() if not field.description]
    assert undocumented == []


def test_settings_are_read_without_torch() -> None:
    code = "import sys; from cdvae_kit.training import load_preset; load_preset('paper'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
