"""BasicMotions, the main set of `frame_projections`: which of four motions a watch recorded, from two labels each.

Real series of the kind that the paper reads: six channels of a wrist, 40 to learn from and 40 to be tested on. They
come with another package (`datasets.bundled`); without it these parts say so and are left out.

The paper's claim about geometry is that the views' latents lie on manifolds of different shape, so that together they
say more. It is measured here by how alike the latents of two views are (linear CKA), against how alike those of one
view are in two trainings: no view is like itself in another training, and the claim is that views differ by more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from cdvae_kit.datasets.bundled import bundled_info, load_bundled_series
from cdvae_kit.io.series import class_labels
from cdvae_kit.representation.experiments.frame_projections.series_arms import (
    AUGMENTATIONS,
    SeriesArms,
    SeriesSettings,
    frame_projections,
    standardised,
)
from cdvae_kit.representation.methods.probing import linear_probe, over_label_draws
from cdvae_kit.representation.methods.similarity import linear_cka
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.typing import ShareDone

PREFIX = "BasicMotions: "
"""Before the names of its parts and arms."""
MANIFOLDS = f"{PREFIX}manifolds"
VIEWS_ALIKE, TRAININGS_ALIKE = f"{PREFIX}CKA of two views", f"{PREFIX}CKA of two trainings of one view"
FRAMES = ("fourier", "morlet")


@dataclass(frozen=True)
class MotionSizes:
    """How each network is trained and tested.

    Attributes:
        labels_per_class: of the logistic probe.
        num_draws: of these labels.
        settings: of the networks; half of the series a step.
    """

    labels_per_class: int
    num_draws: int
    settings: SeriesSettings


FULL = MotionSizes(2, 20, SeriesSettings(batch_size=20))
QUICK = MotionSizes(2, 2, SeriesSettings(num_steps=1, batch_size=20, num_scales=8, mapper_epochs=1))


def arms(sizes: MotionSizes) -> SeriesArms:
    """The arms, without the prefix."""
    return SeriesArms(sizes.settings, AUGMENTATIONS, {"frames": FRAMES})


def parts() -> list[str]:
    """Names of the parts, with the prefix."""
    return [*(PREFIX + part for part in arms(FULL).parts), MANIFOLDS]


def run(part: str, sizes: MotionSizes, seed: int, progress: ShareDone | None) -> PartResult:
    """One of `parts`; the seed is that of networks and labels, the series are split as they are published."""
    if reason := bundled_info("BasicMotions").reason:
        return PartResult({}, {"skipped": reason})
    train, test = load_bundled_series("BasicMotions")
    _, (labels, test_labels) = class_labels(train, test)
    series, test_series = standardised(train.values, test.values)
    if part == MANIFOLDS:
        return PartResult(compare_manifolds(series, test_series, sizes.settings, seed=seed))
    found = arms(sizes).features(part.removeprefix(PREFIX), series, test_series, seed=seed, progress=progress)
    scores = {
        PREFIX + arm: over_label_draws(
            linear_probe,
            features,
            labels,
            test_features,
            test_labels,
            labels_per_class=sizes.labels_per_class,
            num_draws=sizes.num_draws,
            seed=seed,
        )
        for arm, (features, test_features) in found.items()
    }
    return PartResult(
        {arm: score.mean for arm, score in scores.items()},
        {"standard_error_over_labels": {arm: score.standard_error for arm, score in scores.items()}},
    )


def compare_manifolds(
    train: Tensor, test: Tensor, settings: SeriesSettings, *, seed: int, frames: Sequence[str] = FRAMES
) -> dict[str, float]:
    """How alike the test series' latents are: of two views of one training, and of one view in two trainings."""
    trainings: list[dict[str, Tensor]] = []
    # the second training starts elsewhere; no other seed of an experiment comes near it
    for own_seed in (seed, seed + 100_000):
        found = frame_projections(train, test, settings, frames=frames, seed=own_seed)
        trainings.append({name: of_test for name, (_, of_test) in found.items() if name.endswith(" encoder")})
    views = list(trainings[0])
    of_views = [linear_cka(training[a], training[b]) for training in trainings for a, b in combinations(views, 2)]
    of_trainings = [linear_cka(trainings[0][view], trainings[1][view]) for view in views]
    return {
        VIEWS_ALIKE: float(torch.tensor(of_views, dtype=torch.float64).mean()),
        TRAININGS_ALIKE: float(torch.tensor(of_trainings, dtype=torch.float64).mean()),
    }
