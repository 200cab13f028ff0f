"""Experiments `obow` and `obow-crystals`: trials run and are drawn, arms are fair, and claims look at their arms."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from cdvae_kit.representation.experiments.obow import obow as obow_on_images
from cdvae_kit.representation.experiments.obow import obow_crystals as obow_on_crystals
from cdvae_kit.representation.experiments.obow.obow import (
    ARMS,
    BOWNET,
    FROZEN,
    IN_USE,
    KMEANS_WORDS,
    ONLINE,
    PIXELS,
    PROTOTYPES,
    QUICK,
    RANDOM_WORDS,
    SIGNED_WORDS,
    UNTRAINED,
    composed_images,
    make_method,
    part_encoder,
    patches_of_words,
    second_round,
)
from cdvae_kit.representation.experiments.running import run_experiment
from cdvae_kit.representation.methods.fitting import fit
from cdvae_kit.representation.panels import Lines, Pictures
from cdvae_kit.representation.protocol import Experiment, ExperimentResult
from cdvae_kit.visualization.experiments import plot_experiment


@pytest.fixture(scope="module")
def trial() -> ExperimentResult:
    return run_experiment(obow_on_images.EXPERIMENT, seeds=[0], quick=True)


@pytest.fixture(scope="module")
def crystal_trial() -> ExperimentResult:
    return run_experiment(obow_on_crystals.EXPERIMENT, seeds=[0], quick=True)


def test_a_trial_has_every_arm_and_is_drawn(trial: ExperimentResult) -> None:
    for arm in (PIXELS, UNTRAINED, *ARMS):
        assert 0.0 < trial.mean(arm) < 1.0 and 0.0 < trial.mean(arm + PROTOTYPES) < 1.0
    assert all(0.0 < trial.mean(arm + IN_USE) <= 1.0 for arm in ARMS)
    panels = obow_on_images.EXPERIMENT.panels(trial)
    assert {type(panel) for panel in panels} >= {Lines, Pictures}
    assert len(plot_experiment(panels).axes) >= len(panels)
    # before training and after each epoch
    assert len(trial.details[ONLINE][0]["perplexity"]["of a bag"]) == QUICK.fit.num_epochs + 1


def test_a_part_and_a_seed_decide_the_result(trial: ExperimentResult) -> None:
    again = obow_on_images.EXPERIMENT.run(ONLINE, 0, quick=True)
    assert again.details["loss"] == trial.details[ONLINE][0]["loss"]
    assert again.details["loss"] != obow_on_images.EXPERIMENT.run(ONLINE, 1, quick=True).details["loss"]


def test_all_arms_start_from_one_network_and_differ_in_teacher_and_words_alone() -> None:
    images = composed_images(QUICK, 0)[0][0][:40]
    methods = {arm: make_method(ARMS[arm], images, QUICK, seed=3) for arm in ARMS}
    start = part_encoder(1).state_dict().keys()
    for method in methods.values():
        assert method.encoder.state_dict().keys() == start
        for name, value in methods[ONLINE].encoder.state_dict().items():
            assert torch.equal(value, method.encoder.state_dict()[name])
    words = {arm: method.vocabularies[-1].words for arm, method in methods.items()}
    assert torch.equal(words[FROZEN], words[ONLINE]) and torch.equal(words["random words"], words[ONLINE])
    assert not torch.equal(words["k-means words"], words[ONLINE])
    assert {arm for arm, method in methods.items() if method.decay == 1.0} == {FROZEN, "BoWNet"}
    assert {arm for arm, method in methods.items() if method.update_words} == {ONLINE, "online words, two levels"}


def test_other_seeds_have_other_sprites_and_the_test_other_images() -> None:
    (train, _), (test, _) = composed_images(QUICK, 0)
    assert not torch.equal(train[: len(test)], test)
    assert not torch.equal(train, composed_images(QUICK, 1)[0][0])
    assert torch.equal(train, composed_images(QUICK, 0)[0][0])


def test_a_patch_is_what_its_place_of_the_map_sees() -> None:
    images = composed_images(QUICK, 0)[0][0][:1].clone().requires_grad_()
    encoder = part_encoder().eval()
    (local,) = encoder.levels(images)
    # the third place of the second row: rows of six
    local.features[8].sum().backward()
    rows, columns = (images.grad.abs().sum((0, 1)).sum(axis).nonzero().flatten() for axis in (1, 0))
    patches = functional.unfold(functional.pad(images.detach(), (1, 1, 1, 1), mode="replicate"), 8, stride=2)
    mine = patches[0, :, 8].reshape(3, 8, 8)
    assert (int(rows.min()), int(columns.min())) == (1, 3) and (int(rows.max()), int(columns.max())) == (8, 10)
    assert torch.equal(mine, images.detach()[0, :, 1:9, 3:11])


def test_patches_of_words_are_pieces_of_the_images() -> None:
    images = composed_images(QUICK, 0)[0][0][:40]
    method = make_method(ARMS[ONLINE], images, QUICK, seed=0)
    found = torch.tensor(patches_of_words(method, images, num_words=3, num_patches=4))
    assert found.shape == (3, 4, 3, 8, 8)
    pieces = functional.unfold(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 8, stride=2)
    pieces = (255.0 * pieces.transpose(1, 2).reshape(-1, 192)).round().int()
    assert all(bool((patch.flatten() == pieces).all(1).any()) for patch in found.flatten(0, 1))


def made_up(experiment: Experiment, **values: float) -> ExperimentResult:
    return ExperimentResult(experiment.name, "", False, (0, 1, 2), {k: (v,) * 3 for k, v in values.items()}, {}, 0.0)


def test_the_second_round_starts_anew_from_a_teacher_that_stays() -> None:
    (images, _), _ = composed_images(QUICK, 0)
    first = make_method(ARMS[BOWNET], images, QUICK, seed=0)
    start = {name: value.clone() for name, value in first.encoder.state_dict().items()}
    fit(first, images, QUICK.fit, seed=0)
    second = second_round(first, ARMS[BOWNET], images, QUICK, seed=0)
    learnt = first.encoder.state_dict()
    weights = [name for name in start if name.endswith("weight")]
    assert all(torch.equal(second.teacher.state_dict()[name], learnt[name]) for name in weights)
    assert all(torch.equal(second.encoder.state_dict()[name], start[name]) for name in start)
    assert any(not torch.equal(learnt[name], start[name]) for name in weights)
    fit(second, images, QUICK.fit, seed=0)
    assert all(torch.equal(second.teacher.state_dict()[name], learnt[name]) for name in weights)


def test_words_of_any_sign_are_and_others_are_not() -> None:
    (images, _), _ = composed_images(QUICK, 0)
    words = {
        arm: make_method(ARMS[arm], images, QUICK, seed=0).vocabularies[-1].words
        for arm in (SIGNED_WORDS, RANDOM_WORDS)
    }
    assert 0.4 < float((words[SIGNED_WORDS] < 0.0).double().mean()) < 0.6
    assert float(words[RANDOM_WORDS].min()) == 0.0


def test_claims_hold_and_fail_with_their_arms() -> None:
    def holds(online: float, in_use: float) -> list[bool]:
        words = {RANDOM_WORDS: 0.35, KMEANS_WORDS: 0.38, BOWNET: 0.39, SIGNED_WORDS: 0.3}
        values = {ONLINE: online, UNTRAINED: 0.2, FROZEN: 0.32, ONLINE + IN_USE: in_use, **words}
        experiment = obow_on_images.EXPERIMENT
        return [claim.verdict == "holds" for claim in experiment.claims(made_up(experiment, **values))]

    assert holds(0.4, 0.4) == [True] * 7
    assert holds(0.36, 0.4) == [True, False, True, True, False, False, True]
    assert holds(0.3, 0.3) == [False] * 6 + [True]


def test_a_trial_on_crystals_has_every_arm_and_is_drawn(crystal_trial: ExperimentResult) -> None:
    for arm in obow_on_crystals.FEATURES:
        assert 0.0 < crystal_trial.mean(obow_on_crystals.TYPE + arm) <= 1.0
        assert crystal_trial.mean(obow_on_crystals.ENERGY + arm) <= 1.0
    panels = obow_on_crystals.EXPERIMENT.panels(crystal_trial)
    assert len(plot_experiment(panels).axes) >= len(panels)
    assert crystal_trial.mean(obow_on_crystals.BAG + "composition") < 1.0


def test_bags_of_crystals_are_judged_against_what_needs_no_training() -> None:
    experiment = obow_on_crystals.EXPERIMENT
    arms = {obow_on_crystals.TYPE + arm: 0.5 for arm in obow_on_crystals.FEATURES}
    arms |= {obow_on_crystals.ENERGY + arm: 0.5 for arm in obow_on_crystals.FEATURES}
    good = {
        **arms,
        obow_on_crystals.TYPE + obow_on_crystals.OBOW: 0.6,
        obow_on_crystals.TYPE + obow_on_crystals.BESIDE_RADIAL: 0.7,
        obow_on_crystals.ENERGY + obow_on_crystals.OBOW: 0.6,
    }
    assert [claim.verdict for claim in experiment.claims(made_up(experiment, **good))] == ["holds"] * 5
    beaten = {**good, obow_on_crystals.TYPE + obow_on_crystals.RADIAL: 0.9}
    assert [claim.verdict for claim in experiment.claims(made_up(experiment, **beaten))][2:4] == ["fails"] * 2


def test_the_bag_of_a_supercell_is_measured_and_an_encoder_of_cells_does_not_pass(
    crystal_trial: ExperimentResult,
) -> None:
    from cdvae_kit.datasets.ionic_prototypes import load_ionic_prototypes
    from cdvae_kit.representation.methods.encoder import SetTransformer
    from cdvae_kit.representation.methods.local_features import OneLevel
    from cdvae_kit.seeding import seeded_weights

    assert crystal_trial.mean(obow_on_crystals.SUPERCELL) < 1e-4
    crystals = load_ionic_prototypes(num_crystals=20, seed=0)
    method = obow_on_crystals.make_method(32, seed=0)
    assert obow_on_crystals.change_in_supercell(method, crystals, seed=0) < 1e-9
    with seeded_weights(0):
        method.teacher = OneLevel(SetTransformer())
    assert obow_on_crystals.change_in_supercell(method, crystals, seed=0) > 1e-3


def test_users_of_images_load_neither_pymatgen_nor_the_crystals() -> None:
    code = (
        "import sys; import cdvae_kit.representation.experiments.obow.obow as o; o.EXPERIMENT.parts(quick=True); "
        "print([m for m in ('pymatgen', 'torch_geometric', 'sklearn', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
