"""Frame projections beside SimCLR and plain readers, on any set of labelled series that the package can read.

`cdvae_kit.io.series.read_series` opens `.ts` files and tables; a `LabelledSeries` may be made from tensors as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from cdvae_kit.io.series import LabelledSeries, class_labels
from cdvae_kit.representation.experiments.frame_projections.series_arms import (
    AUGMENTATIONS,
    SeriesArms,
    SeriesSettings,
    standardised,
)
from cdvae_kit.representation.methods.probing import ProbeScore, TooFewSamplesError, linear_probe, over_label_draws
from cdvae_kit.transforms.base import Transform
from cdvae_kit.typing import ShareDone


def compare_on_series(
    train: LabelledSeries,
    test: LabelledSeries,
    *,
    labels_per_class: int | None = None,
    num_draws: int = 5,
    settings: SeriesSettings | None = None,
    augmentations: Mapping[str, Transform[Tensor]] = AUGMENTATIONS,
    frames: Sequence[str] = ("fourier", "morlet"),
    seed: int = 0,
    progress: ShareDone | None = None,
) -> dict[str, ProbeScore]:
    """The accuracy on the test set of a logistic regression on the features of each arm, by the arm's name.

    The networks see the training series without labels. Arms: the series, its principal components, its spectrum and
    its scalogram without a network; the encoder untrained, trained to tell the spectrum, trained by SimCLR with each
    augmentation, and by frame projections. The best row may well be one without a network: then take that.

    Args:
        train: what networks and probes learn from.
        test: of the same length and number of channels.
        labels_per_class: of the training labels, for each of `num_draws`; None for all of them, once.
        num_draws: of these labels.
        settings: of the networks; take `num_windows=1` where it does not matter when something happens.
        augmentations: the arms of SimCLR.
        frames: views beside the series: `fourier`, `morlet`, `haar`.
        seed: of the networks and draws.
        progress: told the share of the parts that are done.

    >>> import torch
    >>> wave = torch.linspace(0.0, 9.0, 32).sin().expand(6, 1, 32)
    >>> sign = torch.tensor([1.0, -1.0] * 3)[:, None, None]
    >>> toy = LabelledSeries(wave * sign, ("up", "down") * 3, "toy")
    >>> scores = compare_on_series(toy, toy, settings=SeriesSettings(num_steps=1), augmentations={})
    >>> scores["raw series"].mean, "frames, concatenated" in scores
    (1.0, True)
    """
    if train.values.shape[1:] != test.values.shape[1:]:
        raise ValueError(
            f"training series are {tuple(train.values.shape[1:])} (channels, points), test series "
            f"{tuple(test.values.shape[1:])}; a comparison needs the same"
        )
    if len(train) < 4:
        raise TooFewSamplesError(f"networks need at least 4 series to be trained, got {len(train)}")
    _, (labels, test_labels) = class_labels(train, test)
    x, x_test = standardised(train.values, test.values)
    arms = SeriesArms(settings or SeriesSettings(), augmentations, {"frames": frames})
    scores: dict[str, ProbeScore] = {}
    for done, part in enumerate(arms.parts):
        if progress is not None:
            progress(done / len(arms.parts))
        for arm, (features, test_features) in arms.features(part, x, x_test, seed=seed).items():
            if labels_per_class is None:
                scores[arm] = ProbeScore((linear_probe(features, labels, test_features, test_labels),))
            else:
                scores[arm] = over_label_draws(
                    linear_probe,
                    features,
                    labels,
                    test_features,
                    test_labels,
                    labels_per_class=labels_per_class,
                    num_draws=num_draws,
                    seed=seed,
                )
    if progress is not None:
        progress(1.0)
    return scores
