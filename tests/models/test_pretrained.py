"""Checkpoints of whole models: the same crystals after a journey, and clear errors."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvae_kit.cli.files import reading_limits
from cdvae_kit.io.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cdvae_kit.models import CDVAE, pretrained, pretrained_names
from tests.models.tiny import some_crystals, tiny_model


@pytest.fixture(scope="module")
def model() -> CDVAE:
    model = tiny_model(properties=("energy",))
    model.card = {"data": "random", "seed": 0}
    return model


@pytest.fixture
def folder(model: CDVAE, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_gives_the_same_crystals_bit_for_bit(model: CDVAE, folder: Path) -> None:
    again = CDVAE.from_pretrained(folder, device="cpu")
    first, second = model.sample(6, seed=1), again.sample(6, seed=1)
    for field in ("frac_coords", "lattice", "atomic_numbers", "num_atoms"):
        assert torch.equal(getattr(first, field), getattr(second, field)), field
    crystals = some_crystals(4)
    assert torch.equal(model.encode(crystals, allow_outside=True), again.encode(crystals, allow_outside=True))


def test_configuration_card_statistics_and_elements_travel_along(model: CDVAE, folder: Path) -> None:
    again = CDVAE.from_pretrained(str(folder), device="cpu")
    assert again.config == model.config
    assert again.card == {"data": "random", "seed": 0}
    assert torch.equal(again.known_elements, model.known_elements)
    assert torch.equal(again.lattice_coding.mean, model.lattice_coding.mean)
    assert torch.equal(again.property_mean, model.property_mean)
    assert set(again.state_dict()) == set(model.state_dict())
    assert not again.training


def test_a_checkpoint_in_half_precision_is_loaded_in_single(model: CDVAE, tmp_path: Path) -> None:
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    pretrained.save(tmp_path / "half", model.config, tensors, {})
    again = CDVAE.from_pretrained(tmp_path / "half", device="cpu")
    assert {v.dtype for v in again.state_dict().values()} == {torch.float32, torch.long, torch.bool}
    assert len(again.sample(3)) == 3


def test_an_existing_folder_is_not_overwritten_unasked(model: CDVAE, folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError):
        tiny_model(seed=7).save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    tiny_model(seed=7).save_pretrained(folder, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() != before


# -- names -----------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_told_with_the_names_that_there_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at 'perow'.*it carries"):
        CDVAE.from_pretrained("perow")


def test_the_models_that_the_package_carries_are_found_by_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrained, "_home", lambda: folder.parent)
    monkeypatch.chdir(tmp_path)
    assert pretrained_names() == ["model"]
    # the folder of that name in the working folder is the same one; from elsewhere it is the package's
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pretrained.locate("model") == folder
    assert len(CDVAE.from_pretrained("model", device="cpu").sample(2)) == 2


def test_a_folder_without_a_checkpoint_does_not_hide_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "perov_5").mkdir()
    (tmp_path / "perov_5" / "metrics.json").write_text("{}")
    assert pretrained.locate("perov_5").parent.name == "weights"


def test_a_path_that_exists_wins_over_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pretrained, "_home", lambda: folder.parent)
    (tmp_path / "elsewhere" / "model").mkdir(parents=True)
    (tmp_path / "elsewhere" / "model" / "model.safetensors").touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pretrained.locate("model") == Path("model")


# -- damage ----------------------------------------------------------------------------------------------------------


def test_a_truncated_file_is_told(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        CDVAE.from_pretrained(folder)


def test_a_single_wrong_bit_is_told(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        CDVAE.from_pretrained(folder)


def test_a_pickled_checkpoint_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match="never opened"):
        CDVAE.from_pretrained(path)


def test_a_newer_format_is_told(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["format_version"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="install a newer cdvae_kit"):
        CDVAE.from_pretrained(folder)


def test_a_configuration_of_another_kind_of_model_is_told(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["metadata"]["config"]["number_of_wings"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="number_of_wings"):
        CDVAE.from_pretrained(folder)


def test_a_checkpoint_without_a_configuration_is_told(model: CDVAE, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "bare", model.state_dict(), {"epoch": 3})
    with pytest.raises(CheckpointError, match="no CDVAE configuration"):
        CDVAE.from_pretrained(tmp_path / "bare")


@pytest.mark.parametrize("name", ["known_elements", "num_atoms_head.linear.weight"])
def test_a_checkpoint_that_lacks_a_tensor_is_told_by_its_name(model: CDVAE, tmp_path: Path, name: str) -> None:
    tensors = {key: value for key, value in model.state_dict().items() if key != name}
    pretrained.save(tmp_path / "less", model.config, tensors, {})
    # torch says RuntimeError for a tensor of the network
    with pytest.raises((CheckpointError, RuntimeError), match=name):
        CDVAE.from_pretrained(tmp_path / "less")


def test_tensors_are_checked_in_the_file_that_is_written(model: CDVAE, folder: Path) -> None:
    assert set(load_checkpoint(folder).tensors) == set(model.state_dict())


# -- devices ---------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:3", "mps"):
        with pytest.raises(ValueError, match=f"device '{name}' is not available"):
            pretrained.choose_device(name)
    assert pretrained.choose_device("auto") == torch.device("cpu")


def test_auto_takes_cuda_then_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pretrained.choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pretrained.choose_device("auto").type == "cuda"
    assert pretrained.choose_device("cpu").type == "cpu"


def test_half_precision_takes_half_the_space_and_hardly_changes_the_weights(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.65 * sizes[0]
    again = CDVAE.from_pretrained(tmp_path / "half", device="cpu")
    for (name, weight), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, weight, rtol=1e-3, atol=1e-6, msg=name)
    for (name, buffer), other in zip(model.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(other, buffer), name


def test_a_limit_of_configurations_is_named_and_can_be_raised(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["metadata"]["config"]["encoder"]["cutoff"] = 150.0
    (folder / "config.json").write_text(json.dumps(content))
    words = r"encoder.cutoff=150.0, at most 100 .*raise the limit max_cutoff \(--limit max_cutoff=N"
    with pytest.raises(CheckpointError, match=words):
        CDVAE.from_pretrained(folder, device="cpu")
    with pretrained.checkpoint_limits(pretrained.CheckpointLimits(max_cutoff=200.0)):
        assert CDVAE.from_pretrained(folder, device="cpu").config.encoder.cutoff == 150.0
    with reading_limits(["max_cutoff=inf"]):
        CDVAE.from_pretrained(folder, device="cpu")
    few = pretrained.CheckpointLimits(max_cutoff=200.0, max_constants=1)
    with (
        pretrained.checkpoint_limits(few._replace(max_width=7)),
        pytest.raises(CheckpointError, match=r"at most 7 is taken; .*raise the limit max_width"),
    ):
        CDVAE.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_dim": 10**9}, "hidden_dim=1000000000"),
        ({"hidden_dim": 60_000}, "has more than"),
        ({"encoder": {"num_convolutions": 10**6}}, "encoder.num_convolutions=1000000"),
        ({"encoder": {"width": 2**16}}, "has more than"),
        ({"score_network": {"num_layers": 250, "width": 4096}}, "250|has more than"),
        ({"encoder": {"cutoff": 1e9}}, "encoder.cutoff"),
    ],
)
def test_a_configuration_that_the_weights_cannot_fill_is_refused_before_it_takes_memory(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    content = json.loads((folder / "config.json").read_text())
    config = content["metadata"]["config"]
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(content))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=words):
        CDVAE.from_pretrained(folder, device="cpu")
    # kilobytes; the allowance is a gigabyte
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.5 * 2**20
