"""What is wrong with options is told before torch is loaded, and before anything is computed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import Result

from cdvae_kit.cli.checks import check_checkpoint
from cdvae_kit.diffusion.sampler_names import SAMPLERS, SamplerName
from cdvae_kit.diffusion.samplers import make_sampler
from cdvae_kit.io.carried import carried_names, home_of
from cdvae_kit.models.config import NoiseConfig
from tests.cli.conftest import Engine

Run = Callable[..., Result]

WRONG = {
    "a suffix": ("sample", "--output", "crystals.pdf"),
    "a model": ("sample", "--checkpoint", "mp_21"),
    "a sampler": ("sample", "--sampler", "langevin"),
    "an autoencoder as a predictor": ("predict", "in.cif", "--checkpoint", "mp_20"),
    "a preset": ("train", "--preset", "mp_21", "--data", "in.cif", "--output", "run"),
    "a setting": ("train", "--data", "in.cif", "--output", "run", "training.batchsize=3"),
    "a data set": ("train", "--data", "perov", "--output", "run"),
    "a logger": ("train", "--data", "in.cif", "--output", "run", "--logger", "paper"),
    "a property without a predictor": ("optimize", "--property", "gap", "--output", "run"),
    "something that is not there": ("info", "nothing"),
}


@pytest.mark.parametrize("words", [WRONG[name] for name in ("a suffix", "a sampler", "a preset")], ids=" ".join)
def test_wrong_options_cost_no_torch(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "in.cif").write_text("")
    code = (
        "import os, sys\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "from cdvae_kit.cli.main import app\n"
        "try:\n"
        f"    app({list(words)!r})\n"
        "except SystemExit as end:\n"
        "    print(end.code, [name for name in ('torch', 'pymatgen', 'ase') if name in sys.modules])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["2 []"], done.stdout + done.stderr


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_wrong_use_and_ask_nothing_of_the_engine(run: Run, engine: Engine, name: str) -> None:
    Path("in.cif").write_text("")
    result = run(*WRONG[name])
    assert result.exit_code == 2, result.output
    assert result.stderr.strip() and engine.calls == {}


def test_a_predictor_s_place_says_what_an_autoencoder_is_for(run: Run) -> None:
    Path("in.cif").write_text("")
    told = " ".join(run("predict", "in.cif", "--checkpoint", "mp_20").stderr.split())
    assert "mp_20 is an autoencoder" in told and "`reconstruct`" in told and "perov_5" in told


def test_the_folder_of_a_run_stands_for_its_model(run: Run, engine: Engine) -> None:
    model = Path("runs/mine/model")
    model.mkdir(parents=True)
    for file in (home_of("CDVAE") / "perov_5").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    check_checkpoint("runs/mine")
    result = run("sample", "--checkpoint", "runs/mine")
    assert result.exit_code == 0, result.output


def test_a_sampler_that_the_noise_of_a_model_allows_is_taken(tmp_path: Path) -> None:
    config = json.loads((home_of("CDVAE") / "perov_5" / "config.json").read_text())
    config["metadata"]["config"]["noise"]["coordinates"] = "gaussian"
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_checkpoint(str(tmp_path), sampler="langevin")


def test_the_names_of_samplers_and_of_noise_are_those_that_there_are() -> None:
    assert get_args(SamplerName) == SAMPLERS and [make_sampler(name) for name in SAMPLERS]
    kinds = get_args(NoiseConfig.model_fields["coordinates"].annotation)
    assert set(kinds) == {"straight_path", "wrapped_normal", "gaussian"}


def test_help_names_models_presets_and_samplers(run: Run) -> None:
    text = " ".join(run("sample", "--help").stdout.replace("│", " ").split())
    assert all(name in text for name in carried_names(home_of("CDVAE"))) and "predictor-corrector" in text
    assert "ionic_prototypes" in run("train", "--help").stdout


def test_the_presets_are_listed_with_what_they_are_for(run: Run) -> None:
    result = run("train", "--list-presets")
    assert result.exit_code == 0 and "Carbon at 10 GPa" in result.stdout and "paper" in result.stdout
    rows = json.loads(run("train", "--list-presets", "--json").stdout)["presets"]
    assert {"perov_5", "mp_20", "paper"} <= {row["name"] for row in rows}


def test_a_data_set_is_told_with_its_sizes_elements_and_quality(run: Run) -> None:
    result = run("info", "perov_5")
    assert result.exit_code == 0, result.output
    for words in ("11,356 train", "heat_ref, eV/atom", "elements (56):", "1 to 5", "flow, heun", "Reconstruction"):
        assert words in result.stdout, words


def test_a_shell_can_complete_the_command(run: Run) -> None:
    assert "--install-completion" in run("--help").stdout
