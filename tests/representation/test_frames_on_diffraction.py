"""The experiment of frames on powder patterns: what is asked, of which crystals, and that answers can be wrong."""

from __future__ import annotations

import pytest
import torch

from cdvae_kit.crystal.symmetry import crystal_system
from cdvae_kit.datasets.ionic_prototypes import load_ionic_prototypes
from cdvae_kit.datasets.prototype_cells import PROTOTYPES
from cdvae_kit.representation.experiments.frame_projections.diffraction_frames import (
    QUICK,
    compare_on_crystals,
    counted,
    lattice_parameter,
    prototype_patterns,
    score_features,
)
from cdvae_kit.representation.experiments.registry import load_experiment
from cdvae_kit.representation.experiments.running import run_experiment
from cdvae_kit.representation.methods.probing import TooFewSamplesError
from cdvae_kit.representation.protocol import Experiment, ExperimentResult
from cdvae_kit.seeding import make_generator
from cdvae_kit.visualization.experiments import plot_experiment


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment("diffraction-frames")


@pytest.fixture(scope="module")
def trial(experiment: Experiment) -> ExperimentResult:
    return run_experiment(experiment, seeds=[0], quick=True)


def test_a_trial_puts_each_question_to_each_arm_and_draws_its_figure(
    experiment: Experiment, trial: ExperimentResult
) -> None:
    for question in ("system", "structure type", "lattice"):
        for arm in (
            "raw series",
            "principal components",
            "untrained",
            "SimCLR, jitter and shift",
            "frames, concatenated",
        ):
            assert f"{question}: {arm}" in trial.arms
    assert "system: nearest pattern" in trial.arms
    panels = experiment.panels(trial)
    assert len(plot_experiment(panels).axes) >= len(panels) == 4
    claims = experiment.claims(trial)
    assert len(claims) == 6 and all(claim.value == claim.value for claim in claims)


def test_a_claim_names_the_best_rival_and_can_fail(experiment: Experiment, trial: ExperimentResult) -> None:
    arms = dict.fromkeys(trial.arms, (0.5,) * 3) | {
        "system: frames, concatenated": (0.6,) * 3,
        "system: SimCLR, jitter": (0.7,) * 3,
        "lattice: nearest pattern": (0.9,) * 3,
    }
    found = ExperimentResult("diffraction-frames", "", False, (0, 1, 2), arms, {}, 0.0)
    against_simclr, against_plain, *_ = experiment.claims(found)
    assert against_simclr.verdict == "fails" and "SimCLR, jitter)" in against_simclr.text
    assert against_plain.verdict == "holds" and against_plain.value == pytest.approx(0.1)


def test_patterns_are_balanced_labelled_and_differ_by_seed_and_split() -> None:
    train, test = (prototype_patterns(split, QUICK, 0) for split in ("train", "test"))
    counts = train.types.bincount(minlength=len(PROTOTYPES))
    assert counts.tolist() == [QUICK.train_per_type] * len(PROTOTYPES)
    for place, system in zip(train.types.tolist(), train.systems.tolist(), strict=True):
        assert (
            crystal_system(PROTOTYPES[place].space_group)
            == [*("triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic")][system]
        )
    assert train.series.shape == (3 * len(PROTOTYPES), 1, QUICK.grid.num_points)
    assert 2.0 < float(train.lattices.min()) and float(train.lattices.max()) < 12.0
    assert not torch.equal(prototype_patterns("train", QUICK, 1).lattices, train.lattices)
    assert not bool(torch.isin(test.lattices, train.lattices).any())


def test_counting_noise_is_that_of_poisson_and_goes_with_the_counts() -> None:
    flat = torch.full((4, 5000), 0.5)
    few, many = (counted(flat, counts=n, background=0.0, generator=make_generator(0)) for n in (100.0, 10000.0))
    # the standard deviation of the root of a Poisson number is one half
    assert float(few.std()) == pytest.approx(0.5 / 10.0, rel=0.05)
    assert float(many.std()) == pytest.approx(0.5 / 100.0, rel=0.05)
    assert float(many.mean()) == pytest.approx(0.5**0.5, rel=1e-3)


def test_scores_find_what_is_there_and_nothing_where_there_is_nothing() -> None:
    values = torch.randn(300, 3, generator=make_generator(0))
    features = (values[:200], values[200:])
    noise = (torch.randn(200, 3, generator=make_generator(1)), torch.randn(100, 3, generator=make_generator(2)))
    classes, numbers = (values[:, 0] > 0).long(), values[:, 0] - 2.0 * values[:, 1]
    few = {"num_draws": 3, "seed": 0}
    halves = [(answers[:200], answers[200:]) for answers in (classes, numbers)]
    assert score_features(features, halves[0], "classes", num_labels=20, **few).mean > 0.85
    assert score_features(noise, halves[0], "classes", num_labels=20, **few).mean < 0.65
    assert score_features(features, halves[0], "classes", num_labels=20, neighbours=True, **few).mean > 0.7
    assert score_features(features, halves[1], "numbers", num_labels=50, **few).mean > 0.9
    assert score_features(noise, halves[1], "numbers", num_labels=50, **few).mean < 0.2


def test_crystals_of_ones_own_are_compared_and_what_is_left_out_is_told() -> None:
    crystals = load_ionic_prototypes(num_crystals=24, seed=0)
    labels = torch.tensor([float(len(name) % 2) for name in crystals.material_ids or []])
    labels[0], labels[1] = torch.nan, 7.0
    found = compare_on_crystals(
        crystals, labels, question="classes", num_labels=3, num_draws=2, settings=QUICK.settings, augmentations={}
    )
    assert {0, 1} <= set(found.left_out) and found.left_out[0] == "no label"
    assert sum(found.num_patterns) + len(found.left_out) == 24
    assert "frames, concatenated" in found.scores and all(0 <= s.mean <= 1 for s in found.scores.values())
    edges = compare_on_crystals(
        crystals,
        lattice_parameter(crystals),
        question="numbers",
        num_labels=10,
        settings=QUICK.settings,
        augmentations={},
    )
    assert edges.left_out == {} and len(edges.scores["raw series"].per_draw) == 5
    with pytest.raises(ValueError, match="each of 24 crystals"):
        compare_on_crystals(crystals, labels[:3], question="classes", num_labels=3)
    with pytest.raises(TooFewSamplesError, match="have a pattern and a label"):
        compare_on_crystals(crystals, torch.full((24,), torch.nan), question="numbers", num_labels=3)
