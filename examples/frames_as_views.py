"""Train an encoder of series without any augmentation, on series that come from files of one's own.

Run `python frames_as_views.py`: it writes two files of noisy signals (`train.ts`, `test.csv`), reads them again, and
prints what a logistic regression on ten labels a class makes of the features: of plain spectra, of SimCLR, of frame
projections. Then it puts the method around a small network of one's own. The picture shows the accuracies, and one
signal in each frame. Put your own files in the place of the two.
"""

from pathlib import Path

import torch
from torch import nn

from cdvae_kit.datasets import SignalLaw, periodic_signals
from cdvae_kit.io import class_labels, read_series
from cdvae_kit.representation.encoder import as_encoder, embed
from cdvae_kit.representation.fitting import FitSettings, fit
from cdvae_kit.representation.frame_projections import FrameProjections, ScalogramEncoder
from cdvae_kit.representation.frames_on_signals import views_of_a_signal
from cdvae_kit.representation.panels import Bars
from cdvae_kit.representation.probing import ProbeScore, linear_probe, over_label_draws
from cdvae_kit.representation.series_arms import AUGMENTATIONS, SeriesSettings
from cdvae_kit.representation.series_comparison import compare_on_series
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.transforms import MorletFrame
from cdvae_kit.visualization.experiments import plot_experiment

NUM_TRAIN, NUM_TEST = 500, 300
LAW = SignalLaw(num_classes=5, most_cycles=9.0, length=64)


def write_files() -> None:
    signals = periodic_signals(NUM_TRAIN + NUM_TEST, seed=0, law=LAW)
    rows = [",".join(f"{value:.4f}" for value in series) for series in signals.series[:, 0].tolist()]
    labels = [f"bin{label}" for label in signals.labels.tolist()]
    pairs = list(zip(rows, labels, strict=True))
    head = (
        "@problemName Signals\n@timeStamps false\n@univariate true\n@classLabel true bin0 bin1 bin2 bin3 bin4\n@data\n"
    )
    Path("train.ts").write_text(head + "".join(f"{row}:{label}\n" for row, label in pairs[:NUM_TRAIN]))
    Path("test.csv").write_text("".join(f"{label},{row}\n" for row, label in pairs[NUM_TRAIN:]))


def compare() -> dict[str, ProbeScore]:
    train, test = read_series("train.ts"), read_series("test.csv")
    return compare_on_series(
        train,
        test,
        labels_per_class=10,
        settings=SeriesSettings(num_steps=100, num_scales=12),
        augmentations={name: AUGMENTATIONS[name] for name in ("jitter", "jitter and resampling")},
    )


def learn_with_an_own_network() -> None:
    train, test = read_series("train.ts"), read_series("test.csv")
    _, (labels, test_labels) = class_labels(train, test)
    morlet = MorletFrame(num_scales=16, max_scale=32.0)
    with seeded_weights(0):
        module = nn.Sequential(
            *(nn.Conv1d(1, 32, 15, stride=2), nn.ReLU(), nn.Conv1d(32, 32, 9, stride=2), nn.ReLU()),
            *(nn.AdaptiveAvgPool1d(1), nn.Flatten()),
        )
        own = as_encoder(module, train.values[:2])
        model = FrameProjections(
            {"series": own, "morlet": ScalogramEncoder(1, 16, out_features=32)}, {"morlet": morlet}
        )
    fit(model, train.values, FitSettings(num_epochs=8), seed=0)
    model.fit_mappers(train.values, seed=0)
    score = over_label_draws(
        linear_probe,
        embed(model, train.values),
        labels,
        embed(model, test.values),
        test_labels,
        labels_per_class=10,
    )
    print(f"a network of one's own, concatenated: {score.mean:.3f}")
    low, high = morlet.bounds(LAW.length, low=2.0 / LAW.length, high=0.5)
    print(f"bounds of the wavelets from 2 periods up: {low:.2f} and {high:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_files()
    scores = compare()
    for arm, score in scores.items():
        print(f"{arm}: {score.mean:.3f} ± {score.standard_error:.3f}")
    learn_with_an_own_network()
    bars = Bars(
        "10 labels a class",
        "accuracy",
        {arm: score.per_draw for arm, score in scores.items()},
        ("raw spectrum", scores["raw spectrum"].mean),
    )
    plot_experiment([bars, *views_of_a_signal()]).savefig("frames_as_views.png", dpi=110)
