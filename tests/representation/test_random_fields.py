"""The experiment of random fields: arms that are fair, claims that can fail, a picture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cdvae_kit.datasets import load_digits
from cdvae_kit.representation.experiments.random_fields import (
    ARMS,
    KINDS,
    LOCAL_SHARES,
    STRENGTHS,
    UNTRAINED,
    Kind,
    augmentation,
    measured,
    warp_of,
)
from cdvae_kit.representation.experiments.registry import load_experiment
from cdvae_kit.representation.experiments.running import run_experiment
from cdvae_kit.representation.panels import Lines, Pictures
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult
from cdvae_kit.seeding import make_generator
from cdvae_kit.visualization.experiments import plot_experiment


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment("random-fields")


@pytest.fixture(scope="module")
def trial(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> ExperimentResult:
    return run_experiment(experiment, seeds=[0], quick=True, folder=tmp_path_factory.mktemp("fields") / "out")


def made_up(**values: float) -> ExperimentResult:
    arms = dict.fromkeys([UNTRAINED, *ARMS], (0.5, 0.5, 0.5)) | {arm: (value,) * 3 for arm, value in values.items()}
    return ExperimentResult("random-fields", "", False, (0, 1, 2), arms, {}, 0.0)


def test_a_trial_has_every_arm_and_draws_its_figure(experiment: Experiment, trial: ExperimentResult) -> None:
    assert set(trial.arms) == {UNTRAINED, "none", "mild", "mid", "strong"} | {
        f"{level} {kind}" for level in ("mild", "mid", "strong") for kind in ("local", "ordinary")
    }
    assert all(0.0 <= value <= 1.0 for values in trial.arms.values() for value in values)
    assert trial.mean("mild") > 0.3
    panels = experiment.panels(trial)
    assert {type(panel) for panel in panels} >= {Lines, Pictures}
    assert len(plot_experiment(panels).axes) == len(panels)


def test_the_same_seed_gives_the_same_numbers(experiment: Experiment, trial: ExperimentResult) -> None:
    again = experiment.run("mild", 0, quick=True)
    assert again.values == {"mild": trial.arms["mild"][0]}
    assert again.details["loss"] == trial.details["mild"][0]["loss"]
    other = experiment.run("mild", 1, quick=True)
    assert other.details["loss"] != again.details["loss"]


@pytest.mark.parametrize("level", ["mild", "mid", "strong"])
@pytest.mark.parametrize("kind", KINDS)
def test_local_and_global_arms_move_and_shade_pixels_alike(kind: Kind, level: str) -> None:
    strength = STRENGTHS[level]
    found = measured(kind, strength, torch.zeros(3000, 1, 20, 20), seed=0)
    # to first order; of strong motions the second order adds an eighth, to all kinds alike
    assert found["displacement"] == pytest.approx(strength.displacement, rel=0.15 if level == "strong" else 0.08)
    assert found["log_brightness"] == pytest.approx(strength.brightness, rel=0.04)
    # one motion for the whole picture folds nothing, fields do once they are strong
    assert (found["folded"] > 1e-3) == (kind != "ordinary") or level == "mild"
    assert level != "mild" or found["folded"] < 0.03


def test_ordinary_arms_have_no_local_variance_and_fields_no_shared_part() -> None:
    images = torch.zeros(4, 1, 20, 20)
    for kind in KINDS:
        warp = warp_of(LOCAL_SHARES[kind], 0.06)
        params = warp.sample(images, generator=make_generator(0))
        varies = any(bool((field.std((2, 3)) > 1e-6).any()) for field in params.values())
        assert varies == (kind != "ordinary")
        for field in params.values():
            assert bool((field.mean((2, 3)).abs().max() < 1e-6) == (kind == "local"))


@pytest.mark.parametrize("local_share", [0.0, 0.3, 1.0])
def test_every_parameter_has_its_local_share_of_the_variance(local_share: float) -> None:
    images = torch.zeros(4000, 1, 8, 8)
    for name, field in warp_of(local_share, 0.05).sample(images, generator=make_generator(1)).items():
        local = float((field - field.mean((2, 3), keepdim=True)).square().mean())
        assert local / float(field.square().mean()) == pytest.approx(local_share, abs=0.02), name
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        warp_of(1.5, 0.05)


def test_no_strength_is_noise_alone() -> None:
    images = load_digits(side=20)[0][:20]
    view = augmentation(STRENGTHS["none"])(images, generator=make_generator(0))
    assert (view - images).std().item() == pytest.approx(0.05, rel=0.05)
    assert torch.allclose(
        augmentation(STRENGTHS["none"], local_share=0.0, noise=0.0)(images, generator=make_generator(0)),
        images,
        atol=1e-5,
    )


def test_claims_hold_and_fail_with_the_numbers(experiment: Experiment) -> None:
    good = experiment.claims(made_up(none=0.8, mild=0.9, mid=0.9, strong=0.8, **{"mild local": 0.7}))
    assert [claim.verdict == "holds" for claim in good] == [True] * 4
    bad = experiment.claims(made_up(mild=0.5))
    assert [claim.verdict for claim in bad][:2] == ["fails", "fails"]
    beaten = experiment.claims(made_up(**{"mild ordinary": 0.6, "mild local": 0.7}))
    assert [claim.verdict for claim in beaten][2:] == ["fails", "holds"]


def test_users_of_images_load_neither_pymatgen_nor_the_crystals() -> None:
    code = (
        "import sys; import cdvae_kit.representation.experiments.random_fields as r; r.EXPERIMENT.parts(quick=True); "
        "print([m for m in ('pymatgen', 'torch_geometric', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_mild_fields_help_and_strong_ones_destroy(experiment: Experiment, tmp_path: Path) -> None:
    class Hump(type(experiment)):  # type: ignore[misc]
        """The arms that the two claims need."""

        def parts(self, *, quick: bool) -> list[str]:
            return ["none", "mild", "strong"]

        def claims(self, result: ExperimentResult) -> list[Claim]:
            return []

    found = run_experiment(Hump(), seeds=[0, 1, 2])
    assert found.mean("mild") - found.mean("none") > 0.02
    assert found.mean("mild") - found.mean("strong") > 0.03
