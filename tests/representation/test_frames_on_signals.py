"""The experiment of frame projections on signals, and the comparison on a user's own series."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cdvae_kit.datasets.bundled import bundled_info
from cdvae_kit.datasets.signals import SignalSettings, periodic_signals
from cdvae_kit.io.series import LabelledSeries, read_series
from cdvae_kit.representation.experiments.frame_projections import on_motions
from cdvae_kit.representation.experiments.frame_projections.on_motions import MANIFOLDS, PREFIX, compare_manifolds
from cdvae_kit.representation.experiments.frame_projections.series_arms import (
    AUGMENTATIONS,
    SeriesArms,
    SeriesSettings,
    principal_components,
    standardised,
    untrained,
    without_network,
)
from cdvae_kit.representation.experiments.frame_projections.series_comparison import compare_on_series
from cdvae_kit.representation.experiments.registry import load_experiment
from cdvae_kit.representation.experiments.running import run_experiment
from cdvae_kit.representation.methods.probing import TooFewSamplesError, linear_probe
from cdvae_kit.representation.panels import Bars, Pictures
from cdvae_kit.representation.protocol import Experiment, ExperimentResult
from cdvae_kit.seeding import make_generator
from cdvae_kit.visualization.experiments import plot_experiment

TINY = SeriesSettings(num_steps=1, batch_size=16, num_scales=8, num_windows=2, mapper_epochs=1)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment("frame-projections")


@pytest.fixture(scope="module")
def trial(experiment: Experiment) -> ExperimentResult:
    return run_experiment(experiment, seeds=[0], quick=True)


def labelled(num: int, first: int = 0) -> LabelledSeries:
    signals = periodic_signals(num, seed=0, first=first, settings=SignalSettings(num_classes=2, length=32, drift=0.0))
    return LabelledSeries(signals.series, tuple("slow" if i == 0 else "fast" for i in signals.labels.tolist()), "made")


def test_a_trial_has_every_arm_and_draws_its_figure(experiment: Experiment, trial: ExperimentResult) -> None:
    assert {"raw series", "raw spectrum", "raw scalogram", "principal components", "untrained"} < set(trial.arms)
    assert {f"SimCLR, {name}" for name in AUGMENTATIONS} < set(trial.arms)
    assert {f"frames, {what}" for what in ("concatenated", "time encoder", "fourier encoder")} < set(trial.arms)
    assert {"Fourier alone, concatenated", "Fourier and Haar, haar encoder"} < set(trial.arms)
    accuracies = [values for arm, values in trial.arms.items() if "CKA" not in arm]
    assert all(0.0 <= value <= 1.0 for values in accuracies for value in values)
    panels = experiment.panels(trial)
    assert {type(panel) for panel in panels} >= {Bars, Pictures}
    shown = {arm for panel in panels if isinstance(panel, Bars) for arm in panel.values}
    assert shown == {arm.removeprefix(PREFIX) for arm in trial.arms}
    # the spectrum's row belongs into every table of signals
    of_signals = [panel for panel in panels if isinstance(panel, Bars) and not panel.title.startswith("BasicMotions")]
    assert all(panel.reference == ("raw spectrum", trial.mean("raw spectrum")) for panel in of_signals)
    # places of the grid that no panel takes have no title
    assert sum(bool(axes.get_title()) for axes in plot_experiment(panels).axes) == len(panels)


def test_a_part_and_a_seed_decide_the_numbers(experiment: Experiment, trial: ExperimentResult) -> None:
    again = experiment.run("frames", 0, quick=True)
    assert again.values == {arm: trial.arms[arm][0] for arm in again.values}
    assert experiment.run("frames", 1, quick=True).values != again.values


def test_claims_hold_and_fail_with_their_arms(experiment: Experiment, trial: ExperimentResult) -> None:
    def holding(**changes: float) -> list[bool]:
        named = {"frames": "frames, concatenated", "time": "frames, time encoder"} | {
            name.split()[-1]: f"SimCLR, {name}" for name in AUGMENTATIONS
        }
        good = {"frames": 0.8, "time": 0.8, "jitter": 0.6, "permutation": 0.4, "shift": 0.7, "resampling": 0.5}
        arms = {arm: values for arm, values in trial.arms.items() if not arm.startswith(PREFIX)} | {
            named[key]: (value,) * 3 for key, value in (good | changes).items()
        }
        made_up = ExperimentResult("frame-projections", "", False, (0, 1, 2), arms, {}, 0.0)
        return [claim.verdict == "holds" for claim in experiment.claims(made_up)]

    assert holding() == [True, True, True, True]
    assert holding(shift=0.73) == [False, True, True, True]
    assert holding(jitter=0.73) == [False, False, True, True]
    assert holding(time=0.82) == [True, True, False, True]
    assert holding(resampling=0.61) == [True, True, True, False]


def test_claims_about_motions_look_at_their_arms_and_are_left_out_without_the_data(
    experiment: Experiment, trial: ExperimentResult
) -> None:
    if PREFIX + "untrained" not in trial.arms:
        pytest.skip(trial.details[MANIFOLDS][0]["skipped"])

    def failing(**changes: float) -> list[int]:
        good = {
            "frames, concatenated": 0.9,
            "SimCLR, jitter": 0.8,
            "untrained": 0.7,
            "raw scalogram": 0.7,
            "frames, time encoder": 0.85,
            "CKA of two trainings of one view": 0.6,
            "CKA of two views": 0.4,
        }
        arms = dict.fromkeys(trial.arms, (0.1,) * 3)
        arms |= {PREFIX + arm: (value,) * 3 for arm, value in {**good, **changes}.items()}
        made_up = ExperimentResult("frame-projections", "", False, (0, 1, 2), arms, {}, 0.0)
        return [place for place, claim in enumerate(experiment.claims(made_up)[:5]) if claim.verdict != "holds"]

    assert failing() == []
    for place, worse in enumerate(("SimCLR, jitter", "untrained", "raw scalogram", "frames, time encoder")):
        assert failing(**{worse: 0.95}) == [place]
    assert failing(**{"CKA of two views": 0.7}) == [4]


def test_without_the_package_that_carries_it_a_set_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = dataclasses.replace(bundled_info("BasicMotions"), package="no_such_package")
    monkeypatch.setattr(on_motions, "bundled_info", lambda name: gone)
    found = on_motions.run(MANIFOLDS, on_motions.QUICK, 0, None)
    assert not found.values and "cdvae-kit[experiments]" in found.details["skipped"]


def test_one_network_twice_is_one_manifold_and_another_view_is_another() -> None:
    x, y = standardised(labelled(40).values, labelled(40, first=40).values)
    found = compare_manifolds(x, y, TINY, seed=0)
    assert set(found) == {on_motions.VIEWS_ALIKE, on_motions.TRAININGS_ALIKE}
    assert all(-0.2 < value <= 1.0 for value in found.values())
    assert found == compare_manifolds(x, y, TINY, seed=0) != compare_manifolds(x, y, TINY, seed=1)


def test_every_arm_that_trains_a_network_moves_it() -> None:
    x, y = standardised(labelled(40).values, labelled(10, first=40).values)
    arms = SeriesArms(TINY, AUGMENTATIONS, {"frames": ("fourier", "haar")})
    _, start = untrained(x, y, TINY, seed=0)
    for part in arms.parts[2:]:
        for arm, (train, test) in arms.features(part, x, y, seed=0).items():
            assert len(train) == 40 and len(test) == 10 and bool(torch.isfinite(test).all()), arm
            assert train.shape[1] != start.shape[1] or not torch.equal(test, start), arm
    with pytest.raises(ValueError, match="no part 'SimCLR, magic'"):
        arms.features("SimCLR, magic", x, y, seed=0)


def test_features_of_the_test_set_are_made_as_those_of_the_training_set() -> None:
    x, _ = standardised(labelled(40).values, labelled(40).values)
    arms = SeriesArms(TINY, {"jitter": AUGMENTATIONS["jitter"]}, {"frames": ("morlet",)})
    for part in arms.parts:
        for arm, (train, test) in arms.features(part, x, x[:7], seed=0).items():
            assert torch.allclose(test, train[:7], atol=1e-4), arm


def test_a_spectrum_tells_the_frequency_and_the_series_does_not() -> None:
    train, test = labelled(200), labelled(100, first=200)
    labels = [torch.tensor([label == "fast" for label in found.labels]).long() for found in (train, test)]
    plain = without_network(*standardised(train.values, test.values), TINY)
    scores = {arm: linear_probe(x, labels[0], y, labels[1]) for arm, (x, y) in plain.items()}
    assert scores["raw spectrum"] > 0.85 and scores["raw scalogram"] > 0.85
    assert scores["raw series"] < 0.7


def test_series_are_standardised_by_the_training_set_alone() -> None:
    train = torch.randn(20, 2, 30, generator=make_generator(0)) * torch.tensor([1.0, 50.0])[:, None] + 7.0
    x, y = standardised(train, train[:3] * 2.0)
    assert torch.allclose(x.mean((0, 2)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(x.std((0, 2)), torch.ones(2), atol=1e-5)
    assert float(y.mean()) > 0.1
    flat, _ = standardised(torch.full((4, 1, 8), 3.0), torch.zeros(4, 1, 8))
    assert torch.equal(flat, torch.zeros(4, 1, 8))


def test_principal_components_are_the_best_reconstruction() -> None:
    x = torch.randn(60, 10, generator=make_generator(0)) @ torch.randn(10, 10, generator=make_generator(1))
    train, test = principal_components(x, x[:5], num_components=3)
    values = torch.linalg.svdvals(x - x.mean(0))
    assert torch.allclose(train.square().sum(), values[:3].square().sum(), rtol=1e-4)
    assert torch.allclose(test, train[:5], atol=1e-4)


def test_a_comparison_goes_from_files_to_scores(tmp_path: Path) -> None:
    for name, found in (("train", labelled(24)), ("test", labelled(12, first=24))):
        lines = [
            ",".join([label, *(f"{v:.4f}" for v in row)])
            for label, row in zip(found.labels, found.values[:, 0].tolist(), strict=True)
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    train, test = (read_series(tmp_path / f"{name}.csv") for name in ("train", "test"))
    seen: list[float] = []
    scores = compare_on_series(train, test, settings=TINY, labels_per_class=4, num_draws=2, progress=seen.append)
    assert {"raw series", "raw spectrum", "SimCLR, jitter", "frames, concatenated"} < set(scores)
    assert all(len(score.per_draw) == 2 and 0.0 <= score.mean <= 1.0 for score in scores.values())
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_a_comparison_refuses_sets_that_do_not_fit() -> None:
    train = labelled(8)
    with pytest.raises(ValueError, match=r"\(1, 32\) .* \(1, 16\)"):
        compare_on_series(train, LabelledSeries(train.values[..., :16], train.labels, ""), settings=TINY)
    with pytest.raises(TooFewSamplesError, match="at least 4 series"):
        compare_on_series(LabelledSeries(train.values[:2], train.labels[:2], ""), train, settings=TINY)
    with pytest.raises(ValueError, match="no labels"):
        compare_on_series(LabelledSeries(train.values, (), "bare"), train, settings=TINY)
    with pytest.raises(ValueError, match="no frames"):
        compare_on_series(train, train, settings=TINY, augmentations={}, frames=("fourrier",))


def test_users_of_series_load_neither_pymatgen_nor_the_crystals() -> None:
    code = (
        "import sys; from cdvae_kit.representation.experiments.frame_projections import frame_projections; "
        "frame_projections.EXPERIMENT.parts(quick=True); "
        "import cdvae_kit.representation.experiments.frame_projections.series_comparison; "
        "print([m for m in ('pymatgen', 'torch_geometric', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
