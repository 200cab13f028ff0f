"""The two experiments of invariance constraints: arms, claims that can fail, labels against closed forms."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.representation.experiments.invariance_constrained.invariance_constrained_crystals import (
    FREE,
    KINDS,
    RANGES,
    RANGES_OF,
    TOLERANCES,
    LabelName,
    bond_tensor,
    first_component_loss,
    laboratory_label,
    layered_crystals,
    rattled_crystals,
    standardised,
)
from cdvae_kit.representation.experiments.invariance_constrained.on_gaussians import FALSE, TRUE, gaussian_classes
from cdvae_kit.representation.experiments.invariance_constrained.on_images import CONSTRAINED, PREFIX
from cdvae_kit.representation.experiments.registry import load_experiment
from cdvae_kit.representation.experiments.running import run_experiment
from cdvae_kit.representation.panels import Bars, Lines
from cdvae_kit.representation.protocol import Experiment, ExperimentResult
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import Transform
from cdvae_kit.transforms.crystal_motions import AtomPermutation, CrystalRotation, OriginShift, Supercell
from cdvae_kit.visualization.experiments import plot_experiment

ROTATED_ARM = PREFIX + CONSTRAINED
NAMES = ("invariance-constrained", "invariance-constrained-crystals")


@pytest.fixture(scope="module")
def trials() -> dict[str, ExperimentResult]:
    return {name: run_experiment(load_experiment(name), seeds=[0], quick=True) for name in NAMES}


def made_up(trial: ExperimentResult, changes: dict[str, Any]) -> ExperimentResult:
    """Three seeds; `changes` are values by the beginning of an arm's name, the later ones stronger."""
    arms = {}
    for arm in trial.arms:
        value = 0.0
        for start, changed in changes.items():
            value = changed if arm.startswith(start) else value
        arms[arm] = (value,) * 3
    return ExperimentResult(trial.experiment, "", False, (0, 1, 2), arms, trial.details, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_has_numbers_claims_and_a_figure(trials: dict[str, ExperimentResult], name: str) -> None:
    experiment: Experiment = load_experiment(name)
    trial = trials[name]
    assert all(math.isfinite(value) for values in trial.arms.values() for value in values)
    assert (
        len({claim.text for claim in experiment.claims(trial)})
        == len(experiment.claims(trial))
        == (8 + 2 * (ROTATED_ARM in trial.arms), 6)[NAMES.index(name)]
    )
    panels = experiment.panels(trial)
    assert {type(panel) for panel in panels} >= {Lines, Bars}
    # places of the grid that no panel takes have no title
    assert sum(bool(axes.get_title()) for axes in plot_experiment(panels).axes) == len(panels)


@pytest.mark.parametrize(("name", "part"), [(NAMES[0], "one by one"), (NAMES[0], "images"), (NAMES[1], "tensor")])
def test_the_same_seed_gives_the_same_numbers(trials: dict[str, ExperimentResult], name: str, part: str) -> None:
    again = load_experiment(name).run(part, 0, quick=True)
    assert {arm: trials[name].arms[arm][0] for arm in again.values} == again.values
    other = load_experiment(name).run(part, 1, quick=True)
    assert other.values != again.values


def test_claims_of_the_discovery_hold_and_fail_with_the_numbers(trials: dict[str, ExperimentResult]) -> None:
    experiment, trial = load_experiment(NAMES[0]), trials[NAMES[0]]
    multipliers = dict.fromkeys(TRUE, 0.4) | dict.fromkeys(FALSE, 10.0)
    accuracies = {f"{name}, ε {share}: accuracy": 0.97 for name in TRUE for share in (1.1, 1.5)}
    good = {
        **multipliers,
        **accuracies,
        "no constraint": 0.96,
        "all four at once": 5.0,
        "all four at once: accuracy": 0.7,
        "constrained augmentation": 0.9,
        "uniform": 0.8,
        "no augmentation": 0.7,
    }
    rotated = 2 * (ROTATED_ARM in trial.arms)
    claims = experiment.claims(made_up(trial, good))[rotated:]
    assert [claim.verdict == "holds" for claim in claims] == [True] * 8
    for place, changes in {
        0: {"rotate, ε 1.1: multiplier": 0.6},
        1: {"scale, ε 1.5: multiplier": 0.0},
        2: {"shift, ε 1.1: accuracy": 0.9},
        3: {"rotate, ε 1.5: accuracy": 0.9},
        4: {"all four at once: rotate": 0.1, "all four at once: shift": 0.1},
        5: {"all four at once: accuracy": 0.92},
        6: {"no augmentation": 0.91},
        7: {"uniform": 0.91},
    }.items():
        held = [claim.verdict == "holds" for claim in experiment.claims(made_up(trial, {**good, **changes}))[rotated:]]
        assert held == [i != place for i in range(8)], changes


def test_claims_about_rotated_digits_look_at_their_arms(trials: dict[str, ExperimentResult]) -> None:
    experiment, trial = load_experiment(NAMES[0]), trials[NAMES[0]]
    if ROTATED_ARM not in trial.arms:
        pytest.skip(trial.details["rotated MNIST"][0]["skipped"])
    arms = {ROTATED_ARM: 0.8, PREFIX + "uniform augmentation": 0.7, PREFIX + "no augmentation": 0.6}
    assert [claim.verdict for claim in experiment.claims(made_up(trial, arms))[:2]] == ["holds", "holds"]
    arms[PREFIX + "uniform augmentation"] = 0.85
    assert [claim.verdict for claim in experiment.claims(made_up(trial, arms))[:2]] == ["fails", "holds"]


def test_claims_of_the_crystals_hold_and_fail_with_the_numbers(trials: dict[str, ExperimentResult]) -> None:
    experiment, trial = load_experiment(NAMES[1]), trials[NAMES[1]]
    good: dict[str, Any] = dict.fromkeys(KINDS, 10.0)
    good |= {f"{label}, ε {share:g}: {name}": 0.4 for label, name in FREE for share in TOLERANCES}
    good |= {f"{label}, ε {share:g}: named": 1.0 for label in KINDS for share in TOLERANCES}
    good |= {f"{RANGES}, ε 1.5: largest free {what}": levels[1] for what, levels in RANGES_OF.items()}
    assert [claim.verdict == "holds" for claim in experiment.claims(made_up(trial, good))] == [True] * 6
    for place, changes in {
        0: {"scalar, ε 1.5: origin": 0.6},
        1: {"tensor, ε 1.5: named": 0.0},
        2: {"wrong signs, ε 2: rotation, label turns": 1.0},
        3: {"scalar, ε 2: named": 0.0},
        4: {f"{RANGES}, ε 1.5: largest free displacement": 0.0},
        5: {f"{RANGES}, ε 1.5: largest free strain": RANGES_OF["strain"][-1]},
    }.items():
        held = [claim.verdict == "holds" for claim in experiment.claims(made_up(trial, {**good, **changes}))]
        assert held == [i != place for i in range(6)], changes


def test_true_transforms_keep_the_class_of_a_vector_and_false_ones_do_not() -> None:
    x, labels = gaussian_classes(4000, generator=make_generator(0))
    assert all(abs(float((labels == k).double().mean()) - 0.25) < 0.03 for k in range(4))

    def classes(vectors: Tensor) -> Tensor:
        return 2 * (vectors[:, :2].norm(dim=1) > 1.177).long() + (vectors[:, 2] > 0.0).long()

    for name, transform in {**TRUE, **FALSE}.items():
        kept = (classes(transform(x, generator=make_generator(1))) == labels).double().mean()
        assert (kept > 0.999) == (name in TRUE), name


def test_the_bond_tensor_of_a_cubic_crystal_is_its_shells() -> None:
    cubic = CrystalBatch(torch.zeros(1, 3), 4.0 * torch.eye(3)[None], torch.tensor([84]), torch.tensor([1]))
    shells = 6.0 * math.exp(-4.0 / 0.8) + 12.0 * math.exp(-4.0 * math.sqrt(2.0) / 0.8)
    assert torch.allclose(bond_tensor(cubic, length=0.8), shells / 3.0 * torch.eye(3), rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_each_label_turns_as_its_kind_says(name: LabelName) -> None:
    crystals = layered_crystals(6, generator=make_generator(0))
    crystals = crystals.replace(frac_coords=crystals.frac_coords.double(), lattice=crystals.lattice.double())
    turn = CrystalRotation(target_rank=2)
    params = turn.sample(crystals, generator=make_generator(1))
    before = laboratory_label(crystals, name)
    after = laboratory_label(turn.apply(crystals, params), name)
    scale = before.abs().max()
    assert torch.allclose(after, before, atol=1e-6 * float(scale)) == (KINDS[name] == "invariant")
    follows = torch.allclose(after, turn.act_on_target(before, params), atol=1e-6 * float(scale))
    assert follows == (KINDS[name] != "neither")
    # what else leaves the crystal as it is leaves every label
    changes: list[Transform[CrystalBatch]] = [OriginShift(), AtomPermutation(), Supercell(2)]
    for change in changes:
        again = laboratory_label(change(crystals, generator=make_generator(2)), name)
        assert torch.allclose(again, before, atol=1e-5 * float(scale)), change


def test_standardised_labels_stay_tensors() -> None:
    labels = torch.randn(50, 3, 3, generator=make_generator(0))
    train, _ = standardised(labels, labels)
    assert abs(float(train[:, 0, 0].mean())) < 1e-5 and float(train[:, 0, 0].std()) == pytest.approx(1.0)
    rotation = CrystalRotation().sample(layered_crystals(50, generator=make_generator(1)), generator=make_generator(2))
    turn = CrystalRotation(target_rank=2)
    # shift and scale commute with every rotation
    turned = turn.act_on_target(labels, rotation)
    std, mean = labels[:, 0, 0].std(), labels[:, 0, 0].mean()
    expected = (turned - mean * torch.eye(3)) / std
    assert torch.allclose(turn.act_on_target(train, rotation), expected, atol=1e-4)
    assert torch.equal(first_component_loss(torch.ones(2, 1), torch.zeros(2, 3, 3)), torch.ones(2))


def test_rattled_crystals_are_one_compound_whose_atoms_stay_inside_the_cell() -> None:
    crystals = rattled_crystals(200, generator=make_generator(0))
    assert crystals.atomic_numbers.reshape(-1, 2).unique(dim=0).tolist() == [[55, 17]]
    assert 0.02 < crystals.frac_coords.min() and crystals.frac_coords.max() < 0.98
    assert 0.15 < crystals.frac_coords.reshape(-1, 2, 3).std(0).mean() * 4.1 < 0.35


def test_users_of_images_load_neither_pymatgen_nor_the_crystals() -> None:
    code = (
        "import sys; from cdvae_kit.representation.experiments.invariance_constrained import invariance_constrained; "
        "invariance_constrained.EXPERIMENT.parts(quick=True); from cdvae_kit.representation.experiments."
        "invariance_constrained import on_images, invariance_constrained_crystals; "
        "print([m for m in ('pymatgen', 'torch_geometric', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_multipliers_find_the_symmetries_of_vectors() -> None:
    found = load_experiment(NAMES[0]).run("one by one", 20, quick=False).values
    for share in ("1.1", "1.5"):
        true, false = ([found[f"{name}, ε {share}: multiplier"] for name in names] for names in (TRUE, FALSE))
        assert max(true) < 0.05 * min(false)
