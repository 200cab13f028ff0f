"""Experiment `relative`: a trial runs and is drawn, and its claims look at the arms that they name."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cdvae_kit.representation.experiments.relative.arms import carried_back, cross_scores, own_and_stitched
from cdvae_kit.representation.experiments.relative.on_digits import (
    QUALITY,
    QUICK,
    DigitSizes,
    measure_quality,
    split_digits,
    stitch_autoencoders,
)
from cdvae_kit.representation.experiments.relative.relative import EXPERIMENT
from cdvae_kit.representation.experiments.running import run_experiment
from cdvae_kit.representation.protocol import Claim, ExperimentResult
from cdvae_kit.seeding import make_generator
from cdvae_kit.visualization.experiments import plot_experiment


@pytest.fixture(scope="module")
def trial() -> ExperimentResult:
    return run_experiment(EXPERIMENT, seeds=[0], quick=True)


def test_a_trial_has_every_arm_and_is_drawn(trial: ExperimentResult) -> None:
    for arm in (
        *("absolute, stitched", "40 anchors, trained together, own", "10 anchors, frozen, worst stitched"),
        *("kmeans anchors, frozen, stitched", "price in own accuracy, frozen", "relative spaces: CKA"),
        *("autoencoders, relative, stitched", "crystals: whitened cosine, stitched", "crystals: least effective rank"),
    ):
        assert trial.mean(arm) == trial.mean(arm), arm
    panels = EXPERIMENT.panels(trial)
    assert len(plot_experiment(panels).axes) >= len(panels) == 13
    assert len(trial.details["crystals"][0]["anchors"]) == 12


def test_claims_hold_and_fail_with_their_arms(trial: ExperimentResult) -> None:
    good = {
        "40 anchors, trained together, own": 0.97,
        "40 anchors, trained together, stitched": 0.95,
        "40 anchors, frozen, own": 0.97,
        "40 anchors, frozen, stitched": 0.96,
        "absolute, stitched": 0.1,
        "autoencoders, mean image": 0.07,
        "autoencoders, relative, stitched": 0.03,
        "autoencoders, absolute, stitched": 0.2,
        QUALITY: 0.9,
        "crystals, structure type: cosine, own": 0.8,
        "crystals, structure type: cosine, stitched": 0.7,
        "crystals, structure type: absolute, stitched": 0.1,
        "crystals: least effective rank": 20.0,
        "crystals: absolute, stitched, median": -1.0,
        "crystals: cosine, stitched, median": 0.6,
        "crystals: centred cosine, stitched, median": 0.6,
        "crystals: whitened cosine, stitched, median": 0.6,
    }

    def claims(**changes: float) -> list[Claim]:
        arms = {
            **{arm: found * 3 for arm, found in trial.arms.items()},
            **{arm: (value,) * 3 for arm, value in {**good, **changes}.items()},
        }
        return list(EXPERIMENT.claims(dataclasses.replace(trial, seeds=(0, 1, 2), arms=arms)))

    assert all(claim.verdict == "holds" for claim in claims())
    bad = {arm: value for arm, value in good.items() if arm.endswith(("stitched", "median"))}
    for arm in bad:
        high_is_bad = ("absolute", "autoencoders, relative", "crystals: absolute", "crystals, structure type: absolute")
        worse = 1.0 if arm.startswith(high_is_bad) else 0.0
        # cosines of types are compared with absolute codes and with their own head
        num_claims = 2 if arm == "crystals, structure type: cosine, stitched" else 1
        assert sum(claim.verdict != "holds" for claim in claims(**{arm: worse})) == num_claims, arm
    assert sum(claim.verdict != "holds" for claim in claims(**{"crystals: least effective rank": 2.0})) == 1
    assert sum(claim.verdict != "holds" for claim in claims(**{QUALITY: -0.2})) == 1


def test_a_part_and_a_seed_decide_the_result() -> None:
    first, again = (stitch_autoencoders(QUICK, 4, None) for _ in range(2))
    assert first.values == again.values
    assert first.values != stitch_autoencoders(QUICK, 5, None).values


def test_digits_are_split_by_the_seed_without_a_sample_on_both_sides() -> None:
    digits = split_digits(300, seed=0)
    assert len(digits.train) == 200 and len(digits.test) == 100
    assert float(torch.cat([digits.train, digits.test]).max()) == 1.0
    assert not torch.equal(digits.test, split_digits(300, seed=1).test)
    # two digits of the set may be equal, a hundred are not
    assert len(torch.cat([digits.train, digits.test]).unique(dim=0)) > 295


def test_arms_of_a_matrix_are_its_diagonal_and_the_rest() -> None:
    matrix = torch.tensor([[0.9, 0.2], [0.4, 0.7]])
    assert own_and_stitched("x", matrix) == pytest.approx({"x, own": 0.8, "x, stitched": 0.3, "x, worst stitched": 0.2})
    assert own_and_stitched("x", matrix, low_is_good=True)["x, worst stitched"] == pytest.approx(0.4)


def test_samples_carried_back_are_read_by_the_head_of_that_space() -> None:
    points = torch.randn(40, 4, generator=make_generator(0))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=make_generator(1))).Q
    spaces = [(points, points), (points @ turn, points @ turn)]
    heads = [torch.nn.Linear(4, 1, bias=False) for _ in range(2)]
    with torch.no_grad():
        heads[0].weight.copy_(torch.eye(4)[:1])
        heads[1].weight.copy_(torch.eye(4)[:1] @ turn)

    def agreement(output: torch.Tensor) -> float:
        return float(((output[:, 0] > 0.0) == (points[:, 0] > 0.0)).double().mean())

    assert float(carried_back(spaces, heads, torch.arange(20), agreement).min()) == 1.0
    # the control: without the anchors the turned space is not read
    assert float(cross_scores([test for _, test in spaces], heads, agreement)[0, 1]) < 0.9


def test_encoders_of_unequal_length_of_training_differ_and_similarity_is_measured_for_each() -> None:
    sizes = DigitSizes(num_samples=600, num_anchors=40, epochs=20)
    found = measure_quality(sizes, 0, None)
    epochs, similarity, accuracies = (found.details[name] for name in ("epochs", "similarity", "accuracy"))
    assert epochs == [1, 2, 3, 6, 20] and len(similarity) == len(accuracies) == 5
    assert accuracies[-1] > accuracies[0] + 0.1 and -1.0 <= found.values[QUALITY] <= 1.0


@pytest.mark.slow
def test_classifiers_are_stitched_on_a_seed_that_no_claim_was_made_from() -> None:
    values = EXPERIMENT.run("classifiers", 20, quick=False).values
    for how in ("trained together", "frozen"):
        own, stitched = (values[f"200 anchors, {how}, {whose}"] for whose in ("own", "stitched"))
        assert own > 0.9 and own - stitched < 0.05, how
    assert values["absolute, stitched"] < 0.3
