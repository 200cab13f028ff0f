"""What `from cdvae_kit import ...` gives, used as a newcomer would."""

import logging
import pydoc
from pathlib import Path

import pytest
import torch

import cdvae_kit
from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.generation import front_door
from cdvae_kit.io.carried import WrongKindError
from cdvae_kit.models import CDVAE, PropertyPredictor
from tests.models.tiny import tiny_model

SALT = CrystalBatch(
    torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]), 4.1 * torch.eye(3)[None], torch.tensor([55, 17]), torch.tensor([2])
)


def test_every_name_is_there_and_says_what_it_is() -> None:
    for name in cdvae_kit.__all__:
        found = getattr(cdvae_kit, name)
        assert found is not None and (name == "__version__" or found.__doc__)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cdvae_kit.write(SALT, tmp_path / "salt.cif")
    (again,) = cdvae_kit.read(tmp_path / "salt.cif")
    assert again.formulas() == ["CsCl"] and again.structures()[0].composition.reduced_formula == "CsCl"


def test_records_that_give_no_crystal_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "set").mkdir()
    cdvae_kit.write(SALT, tmp_path / "set" / "salt.cif")
    (tmp_path / "set" / "odd.cif").write_text("data_odd\n")
    with caplog.at_level(logging.WARNING, logger="cdvae_kit"):
        assert len(cdvae_kit.read(tmp_path / "set")) == 1
    assert "1 of 2 records" in caplog.text and "odd.cif" in caplog.text


def test_sample_gives_what_the_model_gives() -> None:
    model = tiny_model()
    found = cdvae_kit.sample(3, model=model, seed=4, num_steps=2)
    expected = model.sample(3, seed=4, num_steps=2)
    assert torch.equal(found.frac_coords, expected.frac_coords) and len(found) == 3


def test_what_is_asked_for_holds() -> None:
    element = int(tiny_model().known_elements[0])
    from ase.data import chemical_symbols

    found = cdvae_kit.sample(2, model=tiny_model(), without=[chemical_symbols[element]], num_steps=2)
    assert element not in found.atomic_numbers.tolist()


def test_an_optimisation_of_a_model_in_hand_asks_for_its_predictors() -> None:
    with pytest.raises(ValueError, match="give `predictor` and `judge`"):
        cdvae_kit.optimize("gap", model=tiny_model(), starts=1)


def test_a_carried_judge_that_does_not_know_every_goal_is_left_out_and_named() -> None:
    told: list[str] = []
    assert front_door.carried_judge("perov_5", ("heat_ref",), "cpu", tell=told.append) is not None and not told
    assert front_door.carried_judge("perov_5", ("heat_ref", "dir_gap"), "cpu", tell=told.append) is None
    assert "knows no property 'dir_gap'" in told[0] and "ranked by the predictor" in told[0]


def test_a_name_is_loaded_and_a_model_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(CDVAE, "from_pretrained", classmethod(lambda cls, name, device: (name, device)))
    assert front_door.load(model) is model and front_door.load("mp_20", "cpu") == ("mp_20", "cpu")


def test_a_model_says_what_it_is_and_help_shows_its_own_methods() -> None:
    model = tiny_model(properties=("energy",))
    assert "properties energy" in repr(model) and "\n" not in repr(model)
    page = pydoc.plain(pydoc.render_doc(CDVAE))
    assert "from_pretrained" in page and "push_to_hub" in page and "register_forward_hook" not in page
    assert "eval" in dir(model) and "encoder" in dir(model)


def test_properties_of_a_model_without_them_are_refused() -> None:
    with pytest.raises(ValueError, match="trained without properties"):
        tiny_model().predict_properties(torch.zeros(1, 8))


def test_a_checkpoint_of_another_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    tiny_model().save_pretrained(tmp_path / "run" / "model")
    assert isinstance(CDVAE.from_pretrained(tmp_path / "run", device="cpu"), CDVAE)
    with pytest.raises(WrongKindError, match="is an autoencoder"):
        PropertyPredictor.from_pretrained(tmp_path / "run")
