"""The experiment `frame-projections`: several bases of one signal as its views, against augmented views.

Demirel and Holz, "Learning without augmenting" (NeurIPS 2025, arXiv 2510.22655). They read heart rates, activities and
sleep from nine recorded sets. Here motions are read from a small recorded one (`on_motions`), and the frequency of
periodic signals is to be told, which is known because we make them. Of the signals two things should come out: the
frames beat every augmentation of SimCLR, and an augmentation that changes what is asked for (the pace) hurts. The rows
without a network belong into every table: the frames bring what is known of spectra into an encoder of the series, and
telling it the spectrum outright (`spectrum regressed`) brings more.

What all views show most clearly is what is learnt. Where that is a drift, the encoders find each other by the drift
and forget the frequency: look at the rows of each view's own encoder before you trust the concatenation.

For a set of one's own: `series_comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cdvae_kit.datasets.signals import periodic_signals
from cdvae_kit.representation.experiments.frame_projections import on_motions
from cdvae_kit.representation.experiments.frame_projections.series_arms import (
    AUGMENTATIONS,
    SeriesArms,
    SeriesSettings,
    frame_views,
    standardised,
)
from cdvae_kit.representation.methods.probing import linear_probe, over_label_draws
from cdvae_kit.representation.panels import Bars, Curve, Lines, Panel, Pictures
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult
from cdvae_kit.typing import ShareDone

FRAME_SETS = {
    "frames": ("fourier", "morlet"),
    "Fourier alone": ("fourier",),
    "Fourier and Haar": ("fourier", "haar"),
}
"""The paper's choice, one of its frames alone, and another wavelet."""
TOLD = "jitter and shift"
"""The augmentation that needs to know what is asked for: no frequency changes, and the encoder is not blind to it."""
FRAMES = "frames, concatenated"
_SPECTRUM = "raw spectrum"
_WITHOUT = ("raw series", "principal components", _SPECTRUM, "raw scalogram", "untrained", "spectrum regressed")


@dataclass(frozen=True)
class Sizes:
    """How much is trained and tested.

    Attributes:
        num_train: signals without labels.
        num_test: others.
        labels_per_class: of the logistic probe, among the training signals.
        num_draws: of these labels.
        settings: of the networks.
    """

    num_train: int
    num_test: int
    labels_per_class: int
    num_draws: int
    settings: SeriesSettings


FULL = Sizes(2000, 1000, 20, 5, SeriesSettings())
QUICK = Sizes(120, 60, 5, 2, SeriesSettings(num_steps=2, batch_size=32, num_scales=8, mapper_epochs=1))


class FramesOnSignals(Experiment):
    """Ten bins of frequency under each arm's views; the number is the accuracy of a probe on few labels."""

    name = "frame-projections"
    paper = (
        "Demirel, Holz, Learning without augmenting: unsupervised time series representation learning via frame "
        "projections, NeurIPS 2025, arXiv 2510.22655"
    )
    summary = "motions, and the frequency of noisy signals: several frames as views, against SimCLR and plain spectra"

    def parts(self, *, quick: bool) -> Sequence[str]:
        return [*on_motions.parts(), *_arms(FULL).parts]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        if part.startswith(on_motions.PREFIX):
            return on_motions.run(part, on_motions.QUICK if quick else on_motions.FULL, seed, progress)
        sizes = QUICK if quick else FULL
        train = periodic_signals(sizes.num_train, seed=seed)
        test = periodic_signals(sizes.num_test, seed=seed, first=sizes.num_train)
        series, test_series = standardised(train.series, test.series)
        arms = _arms(sizes).features(part, series, test_series, seed=seed, progress=progress)
        scores = {
            arm: over_label_draws(
                linear_probe,
                features,
                train.labels,
                test_features,
                test.labels,
                labels_per_class=sizes.labels_per_class,
                num_draws=sizes.num_draws,
                seed=seed,
            )
            for arm, (features, test_features) in arms.items()
        }
        return PartResult(
            {arm: score.mean for arm, score in scores.items()},
            {"standard_error_over_labels": {arm: score.standard_error for arm, score in scores.items()}},
        )

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        arms = [f"SimCLR, {name}" for name in AUGMENTATIONS]
        best = result.best(arms)
        untold = result.best([arm for arm in arms if arm != f"SimCLR, {TOLD}"])
        return [
            *_of_motions(result),
            Claim(f"frames beat the best arm of SimCLR ({best})", result.differences(FRAMES, best), 0.08),
            Claim(
                f"frames beat the best arm of SimCLR that is not told of the harmless shift ({untold})",
                result.differences(FRAMES, untold),
                0.08,
            ),
            Claim(
                "the mappers take nothing away from the time encoder",
                result.differences(FRAMES, "frames, time encoder"),
                -0.01,
            ),
            Claim(
                "the wrong augmentation hurts: SimCLR without resampling less SimCLR with it",
                result.differences("SimCLR, jitter", "SimCLR, jitter and resampling"),
                0.0,
            ),
        ]

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        contrasted = [arm for arm in result.arms if arm.startswith("SimCLR, ")]
        motions = {
            arm.removeprefix(on_motions.PREFIX): values
            for arm, values in result.arms.items()
            if arm.startswith(on_motions.PREFIX)
        }
        encoders = [
            arm
            for arm in result.arms
            if arm not in (*_WITHOUT, *contrasted, FRAMES) and not arm.startswith(on_motions.PREFIX)
        ]
        shown = [FRAMES, *contrasted, *_WITHOUT]
        spectrum = (_SPECTRUM, result.mean(_SPECTRUM))
        first = [Bars("BasicMotions, two labels a class", "accuracy, or CKA", motions)] if motions else []
        return [
            *first,
            Bars("frames, augmentations, plain readers", "accuracy", {a: result.arms[a] for a in shown}, spectrum),
            Bars("what of the frames", "accuracy", {arm: result.arms[arm] for arm in encoders}, spectrum),
            *views_of_a_signal(),
        ]


EXPERIMENT = FramesOnSignals()


def _of_motions(result: ExperimentResult) -> list[Claim]:
    """What the paper says, on BasicMotions; nothing where that is not there."""
    own = on_motions.PREFIX + FRAMES
    if own not in result.arms:
        return []
    best = result.best([f"{on_motions.PREFIX}SimCLR, {name}" for name in AUGMENTATIONS])
    return [
        Claim(
            f"{on_motions.PREFIX}frames beat the best arm of SimCLR ({best.removeprefix(on_motions.PREFIX)})",
            result.differences(own, best),
        ),
        Claim(f"{on_motions.PREFIX}frames beat no training", result.differences(own, f"{on_motions.PREFIX}untrained")),
        Claim(
            f"{on_motions.PREFIX}frames beat a scalogram without a network",
            result.differences(own, f"{on_motions.PREFIX}raw scalogram"),
        ),
        Claim(
            f"{on_motions.PREFIX}all views together beat that of the series alone",
            result.differences(own, f"{on_motions.PREFIX}frames, time encoder"),
        ),
        Claim(
            f"{on_motions.PREFIX}two views are less alike than two trainings of one view (CKA)",
            result.differences(on_motions.TRAININGS_ALIKE, on_motions.VIEWS_ALIKE),
        ),
    ]


def _arms(sizes: Sizes) -> SeriesArms:
    return SeriesArms(sizes.settings, AUGMENTATIONS, FRAME_SETS)


def views_of_a_signal(*, seed: int = 0, number: int = 9) -> list[Panel]:
    """One signal as it is, in the Fourier basis, in the Morlet frame and in the Haar basis.

    >>> [type(panel).__name__ for panel in views_of_a_signal()]
    ['Lines', 'Lines', 'Pictures', 'Pictures']
    """
    signal = periodic_signals(1, seed=seed, first=number)
    series = signal.series
    views = frame_views(series, SeriesSettings(num_scales=48))
    length = series.shape[-1]
    amplitudes = views["fourier"](series)[0, 0].tolist()
    cycles = float(signal.cycles)
    # zero is the middle grey of signed coefficients
    haar = views["haar"](series)[0]
    return [
        Lines(
            f"a signal of {cycles:.1f} periods",
            "time / length",
            "value",
            {"series": Curve([i / length for i in range(length)], series[0, 0].tolist())},
        ),
        Lines(
            "in the Fourier basis",
            "periods",
            "amplitude",
            {"amplitude": Curve(list(range(len(amplitudes))), amplitudes)},
        ),
        Pictures("in the Morlet frame: fast above, slow below", _picture(views["morlet"](series)[0]), []),
        Pictures("in the Haar basis: fine above, the mean below", _picture(haar, signed=True), []),
    ]


def _picture(rows: torch.Tensor, *, signed: bool = False) -> torch.Tensor:
    """(1, 1, 1, h, w) in [0, 1] of a view (1, rows, t), its rows high enough to be seen."""
    scaled = rows / rows.abs().max()
    shades = 0.5 + 0.5 * scaled if signed else scaled
    return shades.repeat_interleave(max(1, 96 // rows.shape[1]), dim=1)[None, None]
