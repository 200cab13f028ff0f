"""The other commands: what they ask of the engine and what they print."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

import cdvae_kit
from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.models import CDVAE
from cdvae_kit.models.config import CDVAEConfig
from cdvae_kit.models.pretrained import save
from tests.cli.conftest import Engine

Run = Callable[..., Result]


def test_every_command_is_there(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("sample", "train", "reconstruct", "interpolate", "download", "info", "represent"):
        assert f" {name} " in result.stdout


def test_the_version_is_the_package_s_own(run: Run) -> None:
    assert run("--version").stdout.strip() == f"cdvae_kit {cdvae_kit.__version__}"


def test_an_unknown_command_is_wrong_use(run: Run) -> None:
    assert run("smaple").exit_code == 2


def test_reconstruct_sends_what_it_read_through_the_model_and_writes_it(
    run: Run, engine: Engine, crystals: CrystalBatch
) -> None:
    Path("in.csv").write_text("")
    result = run("reconstruct", "in.csv", "--output", "out.cif", "--seed", 3, "--strict")
    assert result.exit_code == 0, result.output
    asked = engine.calls["read_crystals"]
    assert (asked["path"], asked["strict"]) == (Path("in.csv"), True)
    assert engine.calls["reconstruct"]["crystals"] is crystals
    assert engine.calls["reconstruct"]["seed"] == 3
    assert engine.calls["write_crystals"]["path"] == Path("out.cif")
    assert result.stdout.splitlines()[-1] == "written to out.cif"


def test_crystals_that_cannot_be_read_are_told_and_counted(run: Run, engine: Engine) -> None:
    Path("in.csv").write_text("")
    told = [line for line in run("reconstruct", "in.csv").stderr.splitlines() if line.startswith("left out: ")]
    assert told == [*(f"left out: row {i}: no cell" for i in range(5)), "left out: 2 more"]


def test_interpolate_takes_the_first_crystal_of_each_file(run: Run, engine: Engine) -> None:
    for name in ("a.cif", "b.cif"):
        Path(name).write_text("")
    result = run("interpolate", "a.cif", "b.cif", "--num-points", 4)
    assert result.exit_code == 0, result.output
    asked = engine.calls["interpolate"]
    assert (len(asked["first"]), len(asked["second"]), asked["num_points"]) == (1, 1, 4)


@pytest.mark.parametrize("command", [("reconstruct", "in.cif"), ("interpolate", "in.cif", "in.cif")])
def test_commands_refuse_to_overwrite_before_they_read(run: Run, engine: Engine, command: tuple[str, ...]) -> None:
    Path("in.cif").write_text("")
    Path("out.cif").write_text("mine")
    assert run(*command, "--output", "out.cif").exit_code == 2
    assert engine.calls == {}


def test_reconstruct_of_a_file_that_is_not_there_is_wrong_use(run: Run, engine: Engine) -> None:
    assert run("reconstruct", "nothing.cif").exit_code == 2


def test_download_prints_where_the_files_lie(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download_dataset(name: str, folder: Path, **options: Any) -> dict[str, Path]:
        asked.update(options, name=name, folder=folder)
        for done in range(0, 1001, 10):
            options["progress"](f"{name}/val.csv", done, 1000)
        return {"val": folder / "val.csv"}

    monkeypatch.setattr("cdvae_kit.datasets.download_dataset", download_dataset, raising=False)
    result = run("download", "perov_5", "--output", "here", "--from", "mirror")
    assert result.exit_code == 0, result.output
    assert (asked["name"], asked["folder"], asked["source"]) == ("perov_5", Path("here"), "mirror")
    assert result.stdout.splitlines() == ["here/val.csv"]
    assert [line.split(",")[0] for line in result.stderr.splitlines()] == [
        f"perov_5/val.csv: {done} of 1000 bytes" for done in (250, 500, 750, 1000)
    ]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("perov5",), 2, "did you mean 'perov_5'"),
        (("ionic_prototypes",), 2, "nothing to download"),
        (("perov_5", "--from", "nowhere", "--output", "here"), 1, "nowhere"),
    ],
)
def test_download_tells_what_it_cannot_fetch(run: Run, words: tuple[str, ...], code: int, told: str) -> None:
    result = run("download", *words)
    assert result.exit_code == code, result.output
    assert told in result.stderr
    assert not Path("here/perov_5/train.csv").exists()


def test_info_tells_versions_devices_weights_and_data_sets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"data": "Perov-5 [val]", "match_rate": 97.5, "history": [1, 2]}
    monkeypatch.setattr("cdvae_kit.models.pretrained_names", lambda: ["perov_5"])
    monkeypatch.setattr("cdvae_kit.models.pretrained.load", lambda name: (None, {}, card))
    result = run("info")
    assert result.exit_code == 0, result.output
    words = result.stdout.split()
    assert words[words.index("cdvae-kit") + 1] == cdvae_kit.__version__
    assert words[words.index("torch") + 1] == version("torch")
    assert "cpu" in words
    assert "data Perov-5 [val], match_rate 97.5" in result.stdout
    assert "mpts_52" in words


def test_info_of_a_file_tells_its_crystals(run: Run, engine: Engine) -> None:
    Path("in.csv").write_text("")
    result = run("info", "in.csv")
    assert result.exit_code == 0, result.output
    assert "4 crystals, 1 valid" in result.stdout


def test_info_of_a_checkpoint_tells_its_card_and_settings(run: Run) -> None:
    tensors = {"weight": torch.zeros(2, 3), "known_elements": torch.zeros(0)}
    save("mine", CDVAEConfig(latent_dim=16), tensors, {"data": "Perov-5"})
    result = run("info", "mine")
    assert result.exit_code == 0, result.output
    assert "checkpoint mine: 6 numbers" in result.stdout
    assert '"data": "Perov-5"' in result.stdout
    assert '"latent_dim": 16' in result.stdout


def test_info_of_a_damaged_checkpoint_is_a_failure(run: Run) -> None:
    save("mine", CDVAEConfig(), {"weight": torch.zeros(2, 3), "known_elements": torch.zeros(0)}, {})
    weights = Path("mine/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    result = run("info", "mine")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "--traceback" not in result.stderr


@pytest.mark.parametrize("words", [("latent_dim",), ("=3",), ("model.latent=3",), ("batch_size=many",)])
def test_train_refuses_what_is_no_setting(run: Run, words: tuple[str, ...]) -> None:
    Path("in.csv").write_text("")
    result = run("train", "--data", "in.csv", "--output", "run", *words)
    assert result.exit_code == 2
    assert words[0].split("=")[0] in result.stderr
    assert not Path("run").exists()


def test_train_makes_a_model_that_samples_and_knows_the_property(run: Run) -> None:
    words = ("max_steps=3", "check_every=3", "prior_steps=3", "model.latent_dim=8", "model.score_network.width=16")
    small = ("model.encoder.width=16", "model.encoder.channels=4", "batch_size=32")
    result = run(
        *("train", "--data", "ionic_prototypes", "--preset", "ionic_prototypes", "--property", "ewald_energy"),
        *("--output", "run", *words, *small),
    )
    assert result.exit_code == 0, result.stderr
    assert "3 steps (0 skipped)" in result.stdout
    result = run("sample", "--checkpoint", "run/model", "--num-crystals", "3", "--steps", "2", "--output", "a.cif")
    assert result.exit_code == 0, result.stderr
    assert Path("a.cif").read_text().count("data_") == 3
    model = CDVAE.from_pretrained("run/model", device="cpu")
    energies = model.predict_properties(torch.zeros(2, 8))["ewald_energy"]
    # a model that was never told of the data's scale would say 0
    assert energies.shape == (2,) and (energies < -5.0).all()
