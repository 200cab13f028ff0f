"""The state that a run resumes from: whole, and never a pickle."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvae_kit.io.checkpoint import CheckpointError, save_checkpoint
from cdvae_kit.io.results.files import DamagedResultError
from cdvae_kit.training.state import StateIO, load_state, save_state


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "numbers": [1, 2.5, True, None, "text", -math.inf],
        "pair": (1, (2.0, torch.arange(3))),
        "by_number": {0: {"step": torch.tensor(3.0)}, 7: {}},
        "bf16": torch.ones(2, dtype=torch.bfloat16),
        "empty": torch.zeros(0, dtype=torch.long),
    }
    save_state(tmp_path / "deep" / "last", state)
    back = load_state(tmp_path / "deep" / "last")
    assert back["numbers"] == state["numbers"]
    assert back["pair"][0] == 1 and torch.equal(back["pair"][1][1], torch.arange(3))
    assert back["by_number"][0]["step"].item() == 3.0 and back["by_number"][7] == {}
    assert back["bf16"].dtype == torch.bfloat16 and back["empty"].shape == (0,)


def test_nan_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "last", {"weight": torch.ones(1), "loss": math.nan})
    assert math.isnan(load_state(tmp_path / "last")["loss"])


def test_a_state_replaces_the_one_before(tmp_path: Path) -> None:
    for value in (1, 2):
        save_state(tmp_path / "last", {"weight": torch.ones(1), "value": value})
    assert load_state(tmp_path / "last")["value"] == 2


@pytest.mark.parametrize("value", [object(), {("a", "b"): 1}, {1, 2}])
def test_what_json_and_tensors_cannot_hold_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=r"state\.odd"):
        save_state(tmp_path / "last", {"odd": value})


def test_a_pickled_checkpoint_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="never"):
        StateIO().load_checkpoint(path)


def test_a_model_is_no_state(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", {"weight": torch.ones(1)}, {"config": {}})
    with pytest.raises(CheckpointError, match="no state of training"):
        load_state(tmp_path / "model")


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    save_state(tmp_path / "last", {"weight": torch.ones(100)})
    weights = tmp_path / "last" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="truncated"):
        load_state(tmp_path / "last")


def test_a_changed_digit_in_a_state_is_told(tmp_path: Path) -> None:
    save_state(tmp_path / "last", {"weight": torch.ones(1), "steps": 1234})
    config = tmp_path / "last" / "config.json"
    config.write_text(config.read_text().replace("1234", "1235"))
    with pytest.raises(DamagedResultError, match=r"last is damaged .*digest"):
        load_state(tmp_path / "last")


@pytest.mark.parametrize("damaged", [r'"odd": "\1"', '"odd": 1'])
def test_a_state_without_its_digest_is_damaged(tmp_path: Path, damaged: str) -> None:
    save_state(tmp_path / "last", {"weight": torch.ones(1), "steps": 1234})
    config = tmp_path / "last" / "config.json"
    text, count = re.subn(r'"digest": "([0-9a-f]{64})"', damaged, config.read_text())
    assert count == 1
    config.write_text(text)
    with pytest.raises(DamagedResultError, match=r"last is damaged .*digest"):
        load_state(tmp_path / "last")
