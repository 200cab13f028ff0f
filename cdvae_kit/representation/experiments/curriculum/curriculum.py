"""The experiment `curriculum`: does a learnt augmentation find the right change, and is it worth its labels?

MADAug of Hou, Zhang and Zhou (ICCV 2023, arXiv 2309.04747) on two tasks whose right operations are known: digits that
are shifted when they are served (`on_digits`), and crystals that are displaced and strained
(`on_crystals`). Theirs is a WRN-28-10 on CIFAR and SVHN with 17 operations. The policy mixes losses and
learns operations and magnitudes; the arms beside it draw magnitudes at random, or mix images, with the paper's gradient
for magnitudes and with random ones. The policy costs labels of the kind that is served: plain training on the training
and these validation labels stands beside it.

For data of one's own, hand operations and a policy to `AdaptiveAugmentation` of `methods.curriculum`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cdvae_kit.representation.experiments.curriculum.arms import (
    ALL_LABELS,
    ARMS,
    IMAGES,
    NONE,
    POLICY,
    RANDOM,
    RIGHT,
    UNIFORM,
    train_arm,
    weight_name,
)
from cdvae_kit.representation.experiments.curriculum.on_digits import FULL, OPERATIONS, QUICK, shifted_digits
from cdvae_kit.representation.panels import Bars, Curve, Lines, Matrix, Panel, Pictures
from cdvae_kit.representation.protocol import (
    Claim,
    Experiment,
    ExperimentResult,
    PartResult,
    standard_error,
)
from cdvae_kit.seeding import make_generator
from cdvae_kit.typing import ShareDone

CRYSTALS = "crystals: "
"""Before the names of what concerns crystals."""
CRYSTAL_ARMS = (NONE, UNIFORM, RIGHT, POLICY, ALL_LABELS)
CRYSTAL_OPERATIONS = ("identity", "displacement", "strain", "rotation", "scatter")
"""Written here too, for figures without the crystals' modules."""
_RIGHT_FOR_CRYSTALS = ("displacement", "strain")
_NUM_SHOWN = 8
DESTROYING = 0.5
"""Times the weight of a uniform choice: so much may what destroys keep. Set before fresh seeds were seen."""


class Curriculum(Experiment):
    """Digits and crystals; the number of an arm is its accuracy on what is served."""

    name = "curriculum"
    paper = (
        "Hou, Zhang, Zhou, When to Learn What: Model-Adaptive Data Augmentation Curriculum, ICCV 2023, arXiv 2309.04747"
    )
    summary = "augmentation by a learnt policy, on shifted digits and on displaced crystals"

    def parts(self, *, quick: bool) -> Sequence[str]:
        return [*ARMS, *(CRYSTALS + arm for arm in CRYSTAL_ARMS)]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        if part.startswith(CRYSTALS):
            # here alone is pymatgen needed
            from cdvae_kit.representation.experiments.curriculum import on_crystals as crystals

            arm = part.removeprefix(CRYSTALS)
            sizes = crystals.QUICK if quick else crystals.FULL
            task = crystals.heated_crystals(seed)
            return train_arm(task, arm, sizes, seed=seed, prefix=CRYSTALS, progress=progress)
        task = shifted_digits(seed, num_test=100 if quick else None)
        return train_arm(task, part, QUICK if quick else FULL, seed=seed, progress=progress)

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        weights = {operation: result.per_seed(weight_name(POLICY, operation)) for operation in OPERATIONS}
        found = {name: result.per_seed(CRYSTALS + weight_name(POLICY, name)) for name in CRYSTAL_OPERATIONS}
        return [
            Claim("digits: the policy serves better than uniform choice", result.differences(POLICY, UNIFORM), 0.08),
            Claim("digits: the policy serves better than no change", result.differences(POLICY, NONE), 0.30),
            *_fairness(result),
            Claim("digits: weight of the shift, less that of the next operation", _lead(weights, ["shift"])),
            Claim(
                "digits: weight of the operation that destroys, over that of a uniform choice",
                _times_uniform(weights["blank"], len(weights)),
                DESTROYING,
                "at most",
            ),
            Claim(
                "digits: the same where magnitudes are drawn at random",
                _times_uniform(result.per_seed(weight_name(RANDOM, "blank")), len(weights)),
                DESTROYING,
                "at most",
            ),
            Claim(
                "crystals: the policy serves better than no change",
                result.differences(CRYSTALS + POLICY, CRYSTALS + NONE),
                0.0,
            ),
            Claim(
                "crystals: weight of displacement or strain, less that of any other operation",
                _lead(found, _RIGHT_FOR_CRYSTALS),
            ),
            Claim(
                "crystals: weight of the operation that destroys, over that of a uniform choice",
                _times_uniform(found["scatter"], len(found)),
                DESTROYING,
                "at most",
            ),
        ]

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        learnt = [name for name, arm in ARMS.items() if arm.policy == "learned"]
        crystal_arms = {arm: result.per_seed(CRYSTALS + arm) for arm in CRYSTAL_ARMS}
        return [
            weights_over_training(result.details[POLICY], list(OPERATIONS), "digits: weights of operations"),
            accuracy_over_training(
                {arm: result.details[arm] for arm in (NONE, UNIFORM, POLICY, IMAGES, ALL_LABELS)},
                "digits: accuracy on shifted ones",
            ),
            Bars(
                "digits: every arm",
                "accuracy on shifted digits",
                {arm: result.per_seed(arm) for arm in ARMS},
                (f"no change, {ALL_LABELS}", result.mean(ALL_LABELS)),
            ),
            weights_over_training(
                result.details[CRYSTALS + POLICY], list(CRYSTAL_OPERATIONS), "crystals: weights of operations"
            ),
            accuracy_over_training(
                {arm: result.details[CRYSTALS + arm] for arm in CRYSTAL_ARMS}, "crystals: accuracy on displaced ones"
            ),
            Bars(
                "crystals: every arm",
                "accuracy on displaced and strained crystals",
                crystal_arms,
                (f"no change, {ALL_LABELS}", result.mean(CRYSTALS + ALL_LABELS)),
            ),
            Matrix(
                "digits: weights at the end, by policy",
                [name.removeprefix("policy, ") for name in learnt],
                list(OPERATIONS),
                [[result.mean(weight_name(arm, operation)) for operation in OPERATIONS] for arm in learnt],
            ),
            _pictures(),
        ]


def _fairness(result: ExperimentResult) -> list[Claim]:
    """The abstract's claims about classes: each gains, and hard ones gain more."""
    from scipy.stats import spearmanr

    if not {POLICY, NONE} <= result.details.keys():
        return []
    least, hard = [], []
    for policy, none in zip(result.details[POLICY], result.details[NONE], strict=True):
        halves = zip(policy["by class"], none["by class"], strict=True)
        gains = [[a - b for a, b in zip(*half, strict=True)] for half in halves]
        least.append(min((a + b) / 2.0 for a, b in zip(*gains, strict=True)))
        # how hard a class is on one half of the samples, its gain on the other
        hard.append(-float(spearmanr(none["by class"][0], gains[1]).statistic))
    return [
        Claim("digits: every class gains by the policy: the least gain in accuracy", least),
        Claim("digits: hard classes gain more: rank correlation of gain and error without a change", hard),
    ]


def _times_uniform(weights: Sequence[float], num_operations: int) -> list[float]:
    return [num_operations * weight for weight in weights]


def _lead(weights: Mapping[str, Sequence[float]], right: Sequence[str]) -> list[float]:
    """The largest weight of the right operations less the largest of the others, one a seed."""
    own = zip(*(weights[name] for name in right), strict=True)
    others = zip(*(found for name, found in weights.items() if name not in right), strict=True)
    return [max(a) - max(b) for a, b in zip(own, others, strict=True)]


def weights_over_training(details: Sequence[Mapping[str, Any]], operations: Sequence[str], title: str) -> Lines:
    """The paper's picture: the mean weight of each operation by step, and the share of samples that is augmented.

    Args:
        details: of `train_arm`, one a seed.
        operations: names, in the policy's order.
        title: of the panel.
    """
    steps = [point["step"] for point in details[0]["policy"]]
    curves = {
        operation: _mean_curve(steps, [[point["weights"][k] for point in seed["policy"]] for seed in details])
        for k, operation in enumerate(operations)
    }
    shares = [[point["share"] for point in seed["policy"]] for seed in details]
    return Lines(title, "step", "share", {**curves, "samples augmented": _mean_curve(steps, shares)})


def accuracy_over_training(details: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> Lines:
    """Accuracy by step, a curve an arm."""
    curves = {}
    for arm, found in details.items():
        steps = [step for step, _ in found[0]["accuracy"]]
        curves[arm] = _mean_curve(steps, [[accuracy for _, accuracy in seed["accuracy"]] for seed in found])
    return Lines(title, "step", "accuracy", curves)


def _mean_curve(x: Sequence[float], per_seed: Sequence[Sequence[float]]) -> Curve:
    columns = list(zip(*per_seed, strict=True))
    return Curve(x, [math.fsum(column) / len(column) for column in columns], [standard_error(c) for c in columns])


def _pictures() -> Pictures:
    task = shifted_digits(0)
    images = task.train[0][:_NUM_SHOWN]
    rows = [
        operation(images, generator=make_generator(0)) for name, operation in OPERATIONS.items() if name != "identity"
    ]
    served = task.test[0][:_NUM_SHOWN]
    names = [name for name in OPERATIONS if name != "identity"]
    return Pictures(
        "digits under each operation", torch.stack([images, *rows, served]), ["trained on", *names, "served"]
    )


EXPERIMENT = Curriculum()
