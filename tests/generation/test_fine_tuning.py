"""A trained model goes on with other crystals: what it keeps, what starts anew, what is told of it."""

import json
import logging
from pathlib import Path

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets import load_dataset
from cdvae_kit.generation import train_model
from cdvae_kit.generation.fine_tuning import FINE_TUNING, nearest_relative, properties_of, settings_of, start_from
from cdvae_kit.io import ReadError, write_crystals
from cdvae_kit.models import CDVAE
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.seeding import make_generator
from tests.models.tiny import seed_weights, tiny_config

OXYGEN, KRYPTON, XENON = 8, 36, 54


@pytest.fixture(scope="module")
def known() -> CrystalBatch:
    return load_dataset("ionic_prototypes", split="val").crystals


@pytest.fixture(scope="module")
def checkpoint(known: CrystalBatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two properties that was fitted to the built-in crystals."""
    model = CDVAE(tiny_config(max_atoms=14, properties=("ewald_energy", "gap")))
    seed_weights(model, 5)
    gap = torch.linspace(0.0, 1.0, len(known))
    prepared = model.prepare(known.replace(properties=known.properties | {"gap": gap}))
    model.fit_statistics(prepared)
    folder = tmp_path_factory.mktemp("init") / "model"
    model.save_pretrained(folder)
    return folder


def started(checkpoint: Path, **changes: object) -> CDVAE:
    model = CDVAE(tiny_config(**{"max_atoms": 14, **changes}))
    seed_weights(model, 6)
    start_from(model, checkpoint)
    return model


def test_properties_that_both_have_are_kept_by_name_and_new_ones_start_anew(checkpoint: Path) -> None:
    old = CDVAE.from_pretrained(checkpoint, device="cpu")
    model = started(checkpoint, properties=("hardness", "gap"))
    z = torch.randn(7, model.config.latent_dim, generator=make_generator(1))
    with torch.no_grad():
        before, now = old.property_head(z), model.property_head(z)
    # "gap" was the second of two, and is the second of two now
    torch.testing.assert_close(now[:, 1], before[:, 1])
    assert not torch.allclose(now[:, 0], before[:, 0])


def test_the_prior_understands_what_it_was_told_before(checkpoint: Path) -> None:
    old = CDVAE.from_pretrained(checkpoint, device="cpu")
    model = started(checkpoint, properties=("hardness", "gap"))
    noise = torch.randn(5, model.config.latent_dim, generator=make_generator(2))
    wish = Conditions(contains=(OXYGEN,), num_atoms=6, space_group=225)
    codes = []
    for one in (old, model):
        assert one.prior is not None
        with torch.no_grad():
            codes.append(one.prior.transport(noise, told=one.conditions.asked(wish).expand(5, -1)))
    torch.testing.assert_close(codes[0], codes[1])


def test_larger_crystals_can_be_learnt_too(checkpoint: Path) -> None:
    old = CDVAE.from_pretrained(checkpoint, device="cpu")
    model = started(checkpoint, max_atoms=20, properties=("ewald_energy", "gap"))
    z = torch.randn(7, model.config.latent_dim, generator=make_generator(1))
    with torch.no_grad():
        torch.testing.assert_close(model.num_atoms_head(z)[:, :14], old.num_atoms_head(z))


def test_the_scales_of_lattices_stay_with_the_weights(checkpoint: Path, known: CrystalBatch) -> None:
    old = CDVAE.from_pretrained(checkpoint, device="cpu")
    model = started(checkpoint)
    few = model.prepare(known.select(range(5)))
    model.fit_statistics(few)
    assert torch.equal(model.lattice_coding.mean, old.lattice_coding.mean)
    fresh = CDVAE(tiny_config(max_atoms=14))
    fresh.fit_statistics(few)
    assert not torch.equal(fresh.lattice_coding.mean, old.lattice_coding.mean)


def test_new_elements_are_named_and_start_as_their_relatives(
    checkpoint: Path, known: CrystalBatch, caplog: pytest.LogCaptureFixture
) -> None:
    few = known.select(range(12))
    numbers = few.atomic_numbers.clone()
    numbers[numbers == numbers[0]] = XENON
    few = few.replace(atomic_numbers=numbers)
    model = CDVAE(tiny_config(max_atoms=14))
    with caplog.at_level(logging.WARNING):
        start_from(model, checkpoint, train=few)
    num_with = int(few.batch[few.atomic_numbers == XENON].unique().numel())
    twin = nearest_relative(XENON, CDVAE.from_pretrained(checkpoint, device="cpu").known_elements.tolist())
    from ase.data import chemical_symbols

    assert twin is not None
    assert f"Xe is new to model: it starts as a copy of {chemical_symbols[twin]}" in caplog.text
    assert f"learnt from {num_with} training crystals alone" in caplog.text
    assert "do not occur in these data, and the new model will not make them" in caplog.text
    weights = model.encoder.element.weight
    assert torch.equal(weights[XENON], weights[twin])
    assert not torch.equal(weights[XENON], weights[KRYPTON]) or twin == KRYPTON


def test_the_nearest_relative_stands_in_the_same_column() -> None:
    assert nearest_relative(87, [11, 19, 88]) == 19
    assert nearest_relative(2, [1, 10]) == 10
    assert nearest_relative(35, [8, 34]) == 34
    assert nearest_relative(8, []) is None


def test_properties_without_values_are_dropped_and_told_and_wanted_ones_refused(
    known: CrystalBatch, caplog: pytest.LogCaptureFixture
) -> None:
    values = torch.linspace(0.0, 1.0, len(known))
    crystals = known.replace(properties={"hardness": values, "gap": torch.full_like(values, torch.nan)})
    assert properties_of(("ewald_energy", "gap"), ("hardness",), crystals, "mp_20") == ("hardness",)
    assert "mp_20 knows ewald_energy, gap, of which these data say nothing" in caplog.text
    with pytest.raises(ValueError, match="no two values of gap; they have hardness"):
        properties_of((), ("gap",), crystals, "mp_20")


def test_fine_tuning_takes_the_models_settings_a_small_rate_and_an_early_end(checkpoint: Path) -> None:
    tables = settings_of(checkpoint)
    assert tables["model"]["max_atoms"] == 14
    assert tables["training"] == FINE_TUNING
    assert FINE_TUNING["patience"] and FINE_TUNING["learning_rate"] < 1e-3


def test_a_model_goes_on_with_a_table_of_ones_own(checkpoint: Path, known: CrystalBatch, tmp_path: Path) -> None:
    few = known.select(range(30))
    hardness = torch.linspace(1.0, 10.0, len(few))
    write_crystals(few.replace(properties={"hardness": hardness}), tmp_path / "mine.csv")
    words = ["max_steps=4", "check_every=2", "warmup_steps=1", "prior_steps=2", "batch_size=8"]
    result = train_model(
        data=tmp_path / "mine.csv",
        output=tmp_path / "run",
        init=checkpoint,
        properties=["hardness"],
        overrides=words,
        device="cpu",
    )
    said = json.loads((tmp_path / "run" / "training.json").read_text())["config"]
    assert (said["learning_rate"], said["patience"]) == (FINE_TUNING["learning_rate"], FINE_TUNING["patience"])
    model = CDVAE.from_pretrained(result.output_dir / "model", device="cpu")
    assert model.config.properties == ("hardness",) and model.config.max_atoms == 14
    assert model.card["init"] == "model" and model.card["preset"] is None
    old = CDVAE.from_pretrained(checkpoint, device="cpu")
    # four small steps from where it started
    change = (model.encoder.mu.weight - old.encoder.mu.weight).norm() / old.encoder.mu.weight.norm()
    assert 0.0 < float(change) < 0.02
    crystals = model.sample(3, conditions=Conditions(properties={"hardness": 5.0}), num_steps=2, max_tries=1)
    assert set(crystals.atomic_numbers.tolist()) <= set(few.atomic_numbers.tolist())


def test_kept_codes_keep_all_that_was_known_but_the_score_network(
    checkpoint: Path, known: CrystalBatch, tmp_path: Path
) -> None:
    """Statistics of other crystals would make other codes of every crystal; a few without properties show it."""
    few = known.select(range(20))
    write_crystals(few.replace(properties={}), tmp_path / "few.csv")
    train_model(
        data=tmp_path / "few.csv",
        output=tmp_path / "run",
        init=checkpoint,
        overrides=["training.codes=kept", "max_steps=2", "check_every=2", "warmup_steps=1", "batch_size=8"],
        device="cpu",
    )
    old = CDVAE.from_pretrained(checkpoint, device="cpu").state_dict()
    new = CDVAE.from_pretrained(tmp_path / "run" / "model", device="cpu").state_dict()
    assert set(few.atomic_numbers.tolist()) < set(old["known_elements"].tolist())
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed and all(name.startswith("score_network.") for name in changed)


def test_kept_codes_refuse_what_their_encoder_does_not_know(
    checkpoint: Path, known: CrystalBatch, tmp_path: Path
) -> None:
    strange = known.select(range(20))
    strange = strange.replace(atomic_numbers=torch.full_like(strange.atomic_numbers, KRYPTON), properties={})
    write_crystals(strange, tmp_path / "strange.csv")
    words = {"output": tmp_path / "run", "overrides": ["training.codes=kept", "max_steps=2"], "device": "cpu"}
    with pytest.raises(ValueError, match="never seen Kr"):
        train_model(data=tmp_path / "strange.csv", init=checkpoint, **words)
    with pytest.raises(ValueError, match="name it with --init"):
        train_model(data=tmp_path / "strange.csv", **words)


def test_training_ends_early_when_validation_no_longer_gains(
    checkpoint: Path, known: CrystalBatch, tmp_path: Path
) -> None:
    few = known.select(range(20)).replace(properties={})
    write_crystals(few, tmp_path / "mine.csv")
    # a step too long to gain anything
    words = ["max_steps=40", "check_every=1", "patience=2", "learning_rate=0.1", "warmup_steps=0", "prior_steps=0"]
    result = train_model(
        data=tmp_path / "mine.csv", output=tmp_path / "run", init=checkpoint, overrides=words, device="cpu"
    )
    assert result.steps < 40


def test_a_folder_without_splits_and_crystals_is_told_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ReadError) as caught:
        train_model(data=tmp_path / "data", output=tmp_path / "run", device="cpu")
    assert any("train.csv and val.csv" in note for note in caught.value.__notes__)
    assert not (tmp_path / "run").exists()
