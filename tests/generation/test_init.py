"""Training that starts from trained weights."""

from pathlib import Path

import pytest
import torch

from cdvae_kit.generation.model_training import start_from
from cdvae_kit.models import CDVAE
from tests.models.tiny import tiny_config, tiny_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "model"
    tiny_model(seed=5).save_pretrained(folder)
    return folder


def test_all_weights_are_taken_where_all_fit(checkpoint: Path) -> None:
    model = CDVAE(tiny_config())
    fresh = start_from(model, checkpoint)
    # what the new data have is fitted to them afterwards
    assert fresh in ([], ["known_elements"])
    trained = CDVAE.from_pretrained(checkpoint, device="cpu").state_dict()
    own = model.state_dict()
    assert all(torch.equal(own[name], trained[name]) for name in own if name not in fresh)


def test_new_property_heads_start_anew_and_are_named(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = CDVAE(tiny_config(properties=("hardness", "gap")))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fresh = start_from(model, checkpoint)
    assert any(name.startswith("property_head") for name in fresh)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in fresh)
    assert "do not come from" in caplog.text
