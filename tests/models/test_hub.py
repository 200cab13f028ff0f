"""Models to and from the Hugging Face Hub, through `huggingface_hub`, against a server on the loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from cdvae_kit.io.carried import CheckpointError, WrongKindError
from cdvae_kit.models import CDVAE, CDVAEConfig, PropertyPredictor, PropertyPredictorConfig
from tests.io.hub_server import Hub, running_hub

constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed (extra hub)")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.setattr(constants, name, str(tmp_path / "cache"), raising=False)
        yield server


@pytest.fixture(scope="module")
def model() -> CDVAE:
    with torch.random.fork_rng():
        model = CDVAE(CDVAEConfig(max_atoms=4, latent_dim=8, hidden_dim=16))
    model.card = {"data": {"name": "salts", "num_train": 12}, "training": {"seconds": 3.0, "config": {"seed": 0}}}
    return model


def test_a_model_comes_back_from_the_hub_as_it_went(hub: Hub, model: CDVAE) -> None:
    address = model.push_to_hub("me/salts", token="of-a-test", private=True, license="mit")
    again = CDVAE.from_pretrained("hf:me/salts", device="cpu")
    assert address.startswith(f"{hub.url}/me/salts/commit/") and hub.private == {"me/salts": True}
    assert again.config == model.config and again.card == model.card
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)


def test_the_card_is_one_of_the_hubs(hub: Hub, model: CDVAE) -> None:
    model.push_to_hub("me/salts", token="of-a-test", license="mit", text="Rock salts.")
    card = hub.repos["me/salts"][-1][1]["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["license"], head["library_name"]) == ("mit", "cdvae-kit") and "crystal-generation" in head["tags"]
    assert "# salts" in card and "Rock salts." in card and "hf:me/salts" in card and "num_train 12" in card


def test_an_earlier_state_is_had_by_its_revision(hub: Hub, model: CDVAE) -> None:
    first = model.push_to_hub("me/salts", token="of-a-test").rpartition("/")[2]
    changed = CDVAE(model.config)
    changed.card = {"data": {"name": "others"}}
    changed.push_to_hub("me/salts", token="of-a-test")
    assert CDVAE.from_pretrained("hf:me/salts", device="cpu").card == changed.card
    assert CDVAE.from_pretrained(f"hf:me/salts@{first}", device="cpu").card == model.card


def test_a_predictor_goes_the_same_way_and_is_no_autoencoder(hub: Hub) -> None:
    predictor = PropertyPredictor(PropertyPredictorConfig(properties=("gap",), units=("eV",), channels=4, width=8))
    predictor.push_to_hub("me/judge", token="of-a-test")
    assert PropertyPredictor.from_pretrained("hf:me/judge", device="cpu").config == predictor.config
    with pytest.raises(WrongKindError, match="a predictor from crystals"):
        CDVAE.from_pretrained("hf:me/judge")


def test_what_is_not_there_is_told_in_a_line(hub: Hub, model: CDVAE) -> None:
    with pytest.raises(CheckpointError, match=r"cannot fetch hf:me/nothing"):
        CDVAE.from_pretrained("hf:me/nothing")
    hub.repos["me/text"] = [("0" * 40, {"README.md": b"words"})]
    with pytest.raises(CheckpointError, match=r"holds no checkpoint of cdvae_kit"):
        CDVAE.from_pretrained("hf:me/text")
    with pytest.raises(ValueError, match="expected hf:owner/name"):
        CDVAE.from_pretrained("hf:nonsense")


def test_nothing_but_a_checkpoint_is_fetched(hub: Hub, model: CDVAE) -> None:
    model.push_to_hub("me/salts", token="of-a-test")
    hub.repos["me/salts"][-1][1]["payload.bin"] = b"\x80\x04"
    CDVAE.from_pretrained("hf:me/salts", device="cpu")
    assert not any("payload.bin" in asked for asked in hub.asked)
