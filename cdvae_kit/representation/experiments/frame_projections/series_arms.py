"""Arms that frame projections are compared with on any series (b, c, t), and themselves: each gives features.

What is compared is what a simple reader of few labels makes of the features; nothing here sees a label. Experiments
choose the arms and the labels; `series_comparison` does it for a set of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.representation.methods.contrastive import SimCLR
from cdvae_kit.representation.methods.encoder import embed
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.methods.frame_projections import (
    MAPPER_FIT,
    FrameProjections,
    ScalogramEncoder,
    SeriesEncoder,
    SpectrumEncoder,
    View,
    same,
)
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.transforms.base import Compose, Transform
from cdvae_kit.transforms.frames import FourierBasis, HaarBasis, MorletFrame
from cdvae_kit.transforms.time_series import Amplify, Jitter, PermuteSegments, Resample, Shift
from cdvae_kit.typing import ShareDone

Features = tuple[Tensor, Tensor]
"""Of the training and of the test samples."""

JITTER: tuple[Transform[Tensor], ...] = (Jitter(0.2), Amplify(0.3))
AUGMENTATIONS: dict[str, Transform[Tensor]] = {
    "jitter": Compose(JITTER),
    "jitter and permutation": Compose([*JITTER, PermuteSegments(4)]),
    "jitter and shift": Compose([*JITTER, Shift()]),
    "jitter and resampling": Compose([*JITTER, Resample(1.5)]),
}
"""Of the arms of SimCLR; series have the standard deviation 1 when they come here."""


@dataclass(frozen=True)
class SeriesSettings:
    """How each network of a comparison is made and trained: the same for all arms.

    Attributes:
        num_steps: of an objective.
        batch_size: samples a step, at most half of those that there are.
        learning_rate: the highest of one cycle.
        temperature: of every contrastive loss.
        num_scales: of the wavelets.
        max_scale: points; None for half the length.
        num_windows: parts of the time that encoders keep apart; with 1 they are blind to a shift by construction.
        widths: of the encoder of the series.
        out_features: d.
        mapper_epochs: of the mappers.
    """

    num_steps: int = 200
    batch_size: int = 128
    learning_rate: float = 3e-3
    temperature: float = 0.15
    num_scales: int = 24
    max_scale: float | None = None
    num_windows: int = 8
    widths: tuple[int, ...] = (32, 32, 64, 64)
    out_features: int = 64
    mapper_epochs: int = 20

    def fit(self, num_samples: int) -> FitSettings:
        """The settings of an objective on so many samples."""
        size = max(2, min(self.batch_size, num_samples // 2))
        epochs = max(1, round(self.num_steps * size / num_samples))
        return FitSettings(epochs, batch_size=size, learning_rate=self.learning_rate)


def without_network(train: Tensor, test: Tensor, settings: SeriesSettings) -> dict[str, Features]:
    """The series, its principal components, the amplitudes of its spectrum, its wavelets' mean magnitudes."""

    def both(view: View) -> Features:
        return view(train).flatten(1), view(test).flatten(1)

    morlet = morlet_of(train, settings)
    return {
        "raw series": both(same),
        "principal components": principal_components(train.flatten(1), test.flatten(1)),
        "raw spectrum": both(lambda x: FourierBasis().coefficients(x).abs()),
        "raw scalogram": both(lambda x: over_windows(morlet(x), settings.num_windows)),
    }


def over_windows(scalogram: Tensor, num_windows: int) -> Tensor:
    """(b, c, scales, num_windows): the mean over each of as many parts of the time."""
    return functional.adaptive_avg_pool2d(scalogram, (scalogram.shape[2], num_windows))


def principal_components(train: Tensor, test: Tensor, *, num_components: int = 32) -> Features:
    """Both on the axes of the training set's largest variance, at most as many as it has."""
    mean = train.mean(0)
    _, _, axes = torch.linalg.svd(train - mean, full_matrices=False)
    axes = axes[:num_components].T
    return (train - mean) @ axes, (test - mean) @ axes


def morlet_of(series: Tensor, settings: SeriesSettings) -> MorletFrame:
    """The wavelets that the settings ask for."""
    largest = settings.max_scale or series.shape[-1] / 2.0
    return MorletFrame(num_scales=settings.num_scales, max_scale=largest)


def standardised(train: Tensor, test: Tensor) -> Features:
    """Both less the training mean of each channel, over its standard deviation."""
    mean, spread = train.mean((0, 2), keepdim=True), train.std((0, 2), keepdim=True)
    # a channel that is constant stays zero
    spread = spread.where(spread > 0.0, torch.inf)
    return (train - mean) / spread, (test - mean) / spread


def base_encoder(series: Tensor, settings: SeriesSettings) -> SeriesEncoder:
    """The network that every arm trains, each in its way."""
    return SeriesEncoder(
        series.shape[1],
        widths=settings.widths,
        num_windows=settings.num_windows,
        out_features=settings.out_features,
    )


def untrained(train: Tensor, test: Tensor, settings: SeriesSettings, *, seed: int) -> Features:
    """Features of the base encoder as it starts, normalised by the training set's batches."""
    with seeded_weights(seed):
        encoder = base_encoder(train, settings)
    # as in training, batch normalisation needs to have seen data
    encoder.train()
    with torch.no_grad():
        for _ in range(20):
            encoder(train[: 4 * settings.batch_size])
    return embed(encoder, train), embed(encoder, test)


def simclr(
    train: Tensor,
    test: Tensor,
    augmentation: Transform[Tensor],
    settings: SeriesSettings,
    *,
    seed: int,
    progress: ShareDone | None = None,
) -> Features:
    """Features of the base encoder after SimCLR."""
    with seeded_weights(seed):
        encoder = base_encoder(train, settings)
        objective = SimCLR(encoder, augmentation, temperature=settings.temperature)
    fit(objective, train, settings.fit(len(train)), seed=seed, progress=progress)
    return embed(encoder, train), embed(encoder, test)


def regressed_spectrum(
    train: Tensor, test: Tensor, settings: SeriesSettings, *, seed: int, progress: ShareDone | None = None
) -> Features:
    """Features of the base encoder after learning the logarithms of the amplitudes: the spectrum without contrast."""
    target = FourierBasis().coefficients(train).abs().log1p().flatten(1)
    with seeded_weights(seed):
        encoder = base_encoder(train, settings)
        objective = Supervision(encoder, target.shape[1], error=functional.mse_loss)
    fit(objective, (train, target), settings.fit(len(train)), seed=seed, progress=progress)
    return embed(encoder, train), embed(encoder, test)


FRAMES = ("fourier", "morlet", "haar")


def frame_views(series: Tensor, settings: SeriesSettings, frames: Sequence[str] = FRAMES) -> dict[str, View]:
    """The views of series beside the series itself, by name."""
    known: dict[str, View] = {
        "fourier": FourierBasis(),
        "morlet": morlet_of(series, settings),
        "haar": HaarBasis(),
    }
    if unknown := [name for name in frames if name not in known]:
        raise ValueError(f"there are no frames {unknown}; there are {list(known)}")
    return {name: known[name] for name in frames}


def make_frame_projections(
    series: Tensor, settings: SeriesSettings, *, frames: Sequence[str], seed: int
) -> FrameProjections:
    """Encoders of the series and of each of `frames`, untrained."""
    views = frame_views(series, settings, frames)
    channels, length = series.shape[1:]
    with seeded_weights(seed):
        encoders: dict[str, nn.Module] = {"time": base_encoder(series, settings)}
        for name, view in views.items():
            if name == "fourier":
                encoders[name] = SpectrumEncoder(channels, length, out_features=settings.out_features)
                continue
            encoders[name] = ScalogramEncoder(
                channels,
                view(series[:1]).shape[2],
                num_windows=settings.num_windows,
                out_features=settings.out_features,
            )
        return FrameProjections(encoders, views, temperature=settings.temperature)


def frame_projections(
    train: Tensor,
    test: Tensor,
    settings: SeriesSettings,
    *,
    frames: Sequence[str] = ("fourier", "morlet"),
    seed: int,
    progress: ShareDone | None = None,
) -> dict[str, Features]:
    """Features by what they are made from: `concatenated`, and each view's own encoder, `time encoder` first."""
    model = make_frame_projections(train, settings, frames=frames, seed=seed)
    fit(model, train, settings.fit(len(train)), seed=seed, progress=progress)
    model.fit_mappers(train, replace(MAPPER_FIT, num_epochs=settings.mapper_epochs), seed=seed)
    found = {"concatenated": (model.embed(train), model.embed(test))}
    for name in model.encoders:
        found[f"{name} encoder"] = (model.embed_view(train, name), model.embed_view(test, name))
    return found


@dataclass(frozen=True)
class SeriesArms:
    """All arms of a comparison, in parts that each train at most one network.

    Attributes:
        settings: of every network.
        augmentations: name of an arm of SimCLR and its views.
        frame_sets: name of an arm of frame projections and its frames beside the series, `FRAMES` at most.

    >>> arms = SeriesArms(SeriesSettings(), {"jitter": Jitter(0.2)}, {"frames": ("fourier", "morlet")})
    >>> arms.parts
    ['without a network', 'untrained', 'spectrum regressed', 'SimCLR, jitter', 'frames']
    """

    settings: SeriesSettings
    augmentations: Mapping[str, Transform[Tensor]]
    frame_sets: Mapping[str, Sequence[str]]

    @property
    def parts(self) -> list[str]:
        contrasted = [f"SimCLR, {name}" for name in self.augmentations]
        return ["without a network", "untrained", "spectrum regressed", *contrasted, *self.frame_sets]

    def features(
        self, part: str, train: Tensor, test: Tensor, *, seed: int, progress: ShareDone | None = None
    ) -> dict[str, Features]:
        """The arms of a part and their features of `standardised` series (n, c, t)."""
        settings = self.settings
        if part == "without a network":
            return without_network(train, test, settings)
        if part == "untrained":
            return {part: untrained(train, test, settings, seed=seed)}
        if part == "spectrum regressed":
            return {part: regressed_spectrum(train, test, settings, seed=seed, progress=progress)}
        if part in self.frame_sets:
            frames = self.frame_sets[part]
            found = frame_projections(train, test, settings, frames=frames, seed=seed, progress=progress)
            return {f"{part}, {what}": features for what, features in found.items()}
        if (name := part.removeprefix("SimCLR, ")) in self.augmentations:
            views = self.augmentations[name]
            return {part: simclr(train, test, views, settings, seed=seed, progress=progress)}
        raise ValueError(f"there is no part {part!r}; there are {self.parts}")
