"""A checkpoint is whole or refused with a reason, and a kill never leaves a broken one."""

import hashlib
import json
import os
import pickle  # noqa: TID251  to show that it is refused
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from cdvae_kit.io import CheckpointError, load_checkpoint, save_checkpoint

TENSORS = {
    "encoder.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "steps": torch.tensor(7),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
}
METADATA = {"config": {"hidden_dim": 8, "name": "Å"}, "epochs": 3, "best": None}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_checkpoint(folder, TENSORS, METADATA)
    return folder


def test_what_is_saved_is_loaded_the_same(saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert loaded.metadata == METADATA
    assert set(loaded.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)
    assert sorted(child.name for child in saved.iterdir()) == ["config.json", "model.safetensors"]
    assert [child.name for child in saved.parent.iterdir()] == ["model"]


def test_views_and_shared_tensors_are_saved(tmp_path: Path) -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    save_checkpoint(tmp_path / "m", {"a": weight.T, "b": weight, "c": weight[1:], "d": weight.requires_grad_()}, {})
    loaded = load_checkpoint(tmp_path / "m").tensors
    assert torch.equal(loaded["a"], weight.T) and torch.equal(loaded["c"], weight[1:])


def test_safetensors_opens_the_weights_alone(saved: Path) -> None:
    assert set(safetensors.torch.load_file(saved / "model.safetensors")) == set(TENSORS)
    stated = json.loads((saved / "config.json").read_text())
    assert stated["kind"] == "cdvae_kit.model" and stated["format_version"] == 1
    assert stated["weights"]["sha256"] == hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()


def test_an_existing_checkpoint_is_replaced_only_when_asked(saved: Path) -> None:
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_checkpoint(saved, {"new": torch.ones(1)}, {})
    assert set(load_checkpoint(saved).tensors) == set(TENSORS)
    save_checkpoint(saved, {"new": torch.ones(1)}, {"epochs": 4}, overwrite=True)
    assert set(load_checkpoint(saved).tensors) == {"new"}
    assert sorted(child.name for child in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_overwriting_never_takes_over_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds files but no checkpoint"):
        save_checkpoint(tmp_path, TENSORS, {}, overwrite=True)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="belongs to something else"):
        save_checkpoint(tmp_path, TENSORS, {}, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("metadata", [{"loss": float("nan")}, {"path": Path("x")}, {1: {2: {3}}}])
def test_metadata_that_json_cannot_hold_is_refused_before_writing(tmp_path: Path, metadata: dict) -> None:
    with pytest.raises(CheckpointError, match="metadata must be plain JSON"):
        save_checkpoint(tmp_path / "m", TENSORS, metadata)
    assert list(tmp_path.iterdir()) == []


def _damage_one_byte(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def _truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-10])


def _change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def _replace_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    _change_config(folder, weights={"sha256": hashlib.sha256(content).hexdigest(), "num_bytes": len(content)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_damage_one_byte, "does not have the SHA-256"),
        (_truncate, r"is truncated: \d+ bytes of \d+"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "is truncated: 0 bytes"),
        (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda f: (f / "config.json").unlink(), r"holds no config\.json \(found: model\.safetensors\)"),
        (lambda f: (f / "config.json").write_text('{"kind": "cdvae_k'), "is not JSON"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "is not JSON"),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
            "expected kind 'cdvae_kit.model', got None",
        ),
        (lambda f: (f / "config.json").write_text("[1, 2]"), "belongs to something else"),
        (lambda f: _change_config(f, format_version=99), "format version 99, .* install a newer cdvae_kit"),
        (lambda f: _change_config(f, format_version="1"), "lacks entries"),
        (lambda f: _change_config(f, weights=[]), r"lacks entries .*weights"),
        (lambda f: _change_config(f, tensors=["ghost", *TENSORS]), r"lacks 1 tensors that the model needs \(ghost\)"),
        (lambda f: _replace_weights(f, pickle.dumps({"w": 1})), "is not a safetensors file"),
        (lambda f: shutil.rmtree(f), "the path does not exist"),
    ],
)
def test_each_damage_has_its_own_message(saved: Path, spoil, message: str) -> None:
    spoil(saved)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


class _Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.pkl"])
def test_a_pickle_is_named_and_never_opened(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    (tmp_path / name).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(CheckpointError, match=r"pickled checkpoint .* never opened"):
        load_checkpoint(tmp_path / name)
    assert not (tmp_path / "exploded").exists()
    pickle.loads((tmp_path / name).read_bytes())  # noqa: S301  the control: opening it would have run its code
    assert (tmp_path / "exploded").exists()


def test_a_file_in_place_of_a_folder_is_told(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        load_checkpoint(saved / "model.safetensors")
    with pytest.raises(CheckpointError, match="a file has that name"):
        save_checkpoint(saved / "config.json", TENSORS, {})


def test_tensors_that_the_model_expects_must_be_there(saved: Path) -> None:
    assert load_checkpoint(saved, expected_tensors=["steps"]).tensors["steps"] == 7
    with pytest.raises(CheckpointError, match=r"lacks 2 tensors .*\(decoder\.bias, decoder\.weight\)"):
        load_checkpoint(saved, expected_tensors=["decoder.weight", "decoder.bias", "steps"])


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_save_that_stops_at_any_rename_leaves_a_whole_checkpoint(
    saved: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames = 0
    rename = os.replace

    def stop(source: str, target: str) -> None:
        nonlocal renames
        if renames == step:
            raise KeyboardInterrupt
        renames += 1
        rename(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(saved, {"new": torch.ones(1)}, {"epochs": 4}, overwrite=True)
    monkeypatch.undo()
    loaded = load_checkpoint(saved)
    # the configuration is the second of the three renames, and the one that decides
    assert (set(loaded.tensors), loaded.metadata) == (
        ({"new"}, {"epochs": 4}) if step == 2 else (set(TENSORS), METADATA)
    )
    save_checkpoint(saved, {"newer": torch.ones(1)}, {}, overwrite=True)
    assert set(load_checkpoint(saved).tensors) == {"newer"}
    assert sorted(child.name for child in saved.iterdir()) == ["config.json", "model.safetensors"]


SAVER = """
import os, sys, itertools, torch
from cdvae_kit.io.checkpoint import save_checkpoint
os.fsync = lambda descriptor: None
print("ready", flush=True)
for i in itertools.count():
    save_checkpoint(sys.argv[1], {"weight": torch.full((50_000,), float(i))}, {"number": i}, overwrite=True)
"""


def test_killed_savers_and_readers_meanwhile_see_whole_checkpoints(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    folder = tmp_path / "model"
    numbers = []
    for attempt in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(folder)],
            stdout=subprocess.PIPE,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout is not None
        process.stdout.readline()
        while not folder.exists():
            time.sleep(0.001)
        for _ in range(25):
            numbers.append(_number_in(folder))
            time.sleep(0.0013 * (attempt + 1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        _number_in(folder)
    assert len(set(numbers)) > 10, "the savers saved too little to test anything"


def _number_in(folder: Path) -> int:
    loaded = load_checkpoint(folder)
    assert bool((loaded.tensors["weight"] == loaded.metadata["number"]).all())
    return loaded.metadata["number"]
