"""Frame projections: one sample in several bases are its views, and no augmentation is needed.

Demirel and Holz, "Learning without augmenting: unsupervised time series representation learning via frame projections"
(NeurIPS 2025, arXiv 2510.22655). An encoder for each view is trained so that the views of a sample find each other.
Afterwards small mappers learn to tell the features of the other views from those of the base, so that a new series
needs the base encoder alone. Where we differ: the frame of wavelets is scaled otherwise (`transforms.frames`), and a
prediction between views that enters their first stage with a weight of one over the batch is left out.

Views are any functions of a batch to a tensor, encoders any modules; here also stand small ones for the two frames.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.nn.losses import nt_xent
from cdvae_kit.representation.methods.encoder import ConvEncoder, MLPEncoder, Objective, embed
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.transforms.base import num_samples, select_samples
from cdvae_kit.typing import ShareDone

View: TypeAlias = Callable[[Any], Tensor]
"""A batch to what an encoder sees; without randomness."""

MAPPER_FIT = FitSettings(num_epochs=20, batch_size=128, learning_rate=3e-3, weight_decay=1e-6)
"""How the mappers are fitted unless the caller says otherwise."""


def same(batch: Any) -> Any:
    """The batch as it is: the view of the base."""
    return batch


class FrameProjections(nn.Module, Objective):
    """Views of a sample in several frames attract, those of others repel.

    The loss is the sum over pairs of views of the symmetric contrastive loss of SimCLR between their projections, with
    all other 2b − 2 projections of the pair as negatives. Train with `fitting.fit`, then call `fit_mappers`; `embed`
    gives [base, mapped to the second view, mapped to the third, ...].

    Args:
        encoders: view's name and its encoder with `out_features`, all of one width; the first one is the base, which
            alone is needed once the mappers are fitted.
        views: view's name and its function; the base may be left out where it takes the batch as it comes.
        width: of the projections.
        temperature: τ of the loss.
        mapper_channels: h of the mappers; the paper's program has 64, and 1 at its end.

    >>> from cdvae_kit.seeding import make_generator
    >>> encoders = {"time": MLPEncoder([8, 4]), "fourier": MLPEncoder([5, 4])}
    >>> model = FrameProjections(encoders, {"fourier": lambda x: torch.fft.rfft(x).abs()})
    >>> series = torch.randn(6, 8, generator=make_generator(0))
    >>> sorted(model.loss(series, generator=make_generator(0))), model.embed(series).shape
    (['loss', 'time~fourier'], torch.Size([6, 8]))
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        views: Mapping[str, View],
        *,
        width: int = 64,
        temperature: float = 0.15,
        mapper_channels: int = 64,
    ) -> None:
        super().__init__()
        names = list(encoders)
        if len(names) < 2:
            raise ValueError(f"views are compared with each other: expected at least 2 encoders, got {names}")
        self.views = {names[0]: same, **views}
        if set(self.views) != set(names):
            raise ValueError(
                f"expected a view for each of the encoders {names} and no other, got {sorted(views)}; the first "
                "encoder is the base, whose view may be left out"
            )
        if not temperature > 0.0:
            raise ValueError(f"the temperature must be positive, got {temperature}")
        lacking = [name for name in names if not isinstance(getattr(encoders[name], "out_features", None), int)]
        if lacking:
            raise ValueError(
                f"the encoders {lacking} do not say their out_features; wrap them by "
                "representation.methods.encoder.as_encoder"
            )
        widths = {name: int(getattr(encoders[name], "out_features")) for name in names}  # noqa: B009
        if len(set(widths.values())) > 1:
            raise ValueError(f"mappers keep the width of features: expected one out_features for all, got {widths}")
        self.base = names[0]
        self.temperature = temperature
        self.out_features = len(names) * widths[self.base]
        self.encoders = nn.ModuleDict({name: encoders[name] for name in names})
        self.projectors = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width))
                for name, hidden in widths.items()
            }
        )
        self.mappers = nn.ModuleDict(
            {name: FeatureMapper(widths[name], channels=mapper_channels) for name in names if name != self.base}
        )

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The sum, and its terms by `first~second`; the generator is not used, for nothing is drawn."""
        projections = {name: self.projectors[name](self.features(batch, name)) for name in self.encoders}
        terms = {
            f"{first}~{second}": nt_xent(projections[first], projections[second], temperature=self.temperature)
            for first, second in itertools.combinations(projections, 2)
        }
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def features(self, batch: Any, view: str) -> Tensor:
        """(b, d): what the encoder of a view makes of a batch."""
        if view not in self.views:
            raise KeyError(f"there is no view {view!r}; there are {', '.join(self.encoders)}")
        features: Tensor = self.encoders[view](self.views[view](batch))
        return features

    def forward(self, batch: Any) -> Tensor:
        """(b, num_views · d) from the base's view alone: its features, and what the mappers tell of the others."""
        base = self.features(batch, self.base)
        return torch.cat([base, *(mapper(base) for mapper in self.mappers.values())], dim=1)

    def fit_mappers(
        self,
        data: Any,
        settings: FitSettings = MAPPER_FIT,
        *,
        seed: int,
        progress: ShareDone | None = None,
    ) -> list[float]:
        """Fits the mappers anew to frozen encoders, and returns the mean loss of each epoch.

        Args:
            data: what the encoders were trained on, or other samples of the kind.
            settings: of the fit.
            seed: of the mappers' start and the order of samples.
            progress: told the share of steps that are done.
        """
        features = {name: self.embed_view(data, name) for name in self.encoders}
        targets = [features[name] for name in self.mappers]
        with seeded_weights(seed):
            for mapper in self.mappers.values():
                assert isinstance(mapper, FeatureMapper)
                mapper.reset()
        objective = _Mapping(list(self.mappers.values()))
        return fit(objective, (features[self.base], *targets), settings, seed=seed, progress=progress)

    def embed(self, data: Any, *, batch_size: int = 512) -> Tensor:
        """(n, num_views · d): `forward` in evaluation mode and without gradient, a part at a time."""
        return embed(self, data, batch_size=batch_size)

    def embed_view(self, data: Any, view: str, *, batch_size: int = 512) -> Tensor:
        """(n, d): the features of one view, as `embed` gives them."""
        parts = torch.arange(num_samples(data)).split(batch_size)
        encoder = self.encoders[view]
        return torch.cat([embed(encoder, self.views[view](select_samples(data, part))) for part in parts])


class FeatureMapper(nn.Module):
    """Features of one view to those of another: a convolution along the features, ReLU, and its transpose.

    Args:
        features: d, kept.
        channels: between the two.
    """

    def __init__(self, features: int, *, channels: int = 64) -> None:
        super().__init__()
        self.down = nn.Conv1d(1, channels, kernel_size=3, stride=2, padding=1)
        # what halving the length leaves open
        self.up = nn.ConvTranspose1d(channels, 1, kernel_size=3, stride=2, padding=1, output_padding=(features + 1) % 2)

    def reset(self) -> None:
        self.down.reset_parameters()
        self.up.reset_parameters()

    def forward(self, features: Tensor) -> Tensor:
        return self.up(functional.relu(self.down(features[:, None])))[:, 0]


class _Mapping(nn.Module, Objective):
    """The mean absolute error of mappers; the batch is (base features, those of each other view)."""

    def __init__(self, mappers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.mappers = nn.ModuleList(mappers)

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        base, *targets = batch
        errors = [functional.l1_loss(m(base), target) for m, target in zip(self.mappers, targets, strict=True)]
        return {"loss": torch.stack(errors).sum()}


class SeriesEncoder(nn.Module):
    """For series as they are: 1-D convolutions, the mean over each of `num_windows` parts of the time, a linear map.

    Args:
        num_channels: of the series.
        widths: of the convolutions, between which time is halved; four see 61 points.
        num_windows: 1 forgets where in time something was, which suits a frequency; more suit a peak whose position
            counts.
        out_features: d.

    >>> SeriesEncoder(1, num_windows=4)(torch.zeros(2, 1, 128)).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        num_channels: int,
        *,
        widths: Sequence[int] = (32, 32, 64, 64),
        num_windows: int = 1,
        out_features: int = 64,
    ) -> None:
        super().__init__()
        self.blocks = ConvEncoder(in_channels=num_channels, widths=widths, dimensions=1).blocks
        self.readout = _readout(widths[-1] * num_windows, out_features)
        self.num_windows = num_windows
        self.out_features = out_features

    def forward(self, series: Tensor) -> Tensor:
        return self.readout(functional.adaptive_avg_pool1d(self.blocks(series), self.num_windows).flatten(1))


class SpectrumEncoder(nn.Module):
    """For `FourierBasis`: a branch for logarithms of amplitudes, one for phases, and a linear map of both.

    Amplitudes are normalised frequency by frequency, and the phase branch starts at zero: phases are the larger
    numbers and mostly noise, and a network that starts with both reads little else.

    Args:
        num_channels: of the series.
        length: points of the series.
        hidden: width of each branch.
        out_features: d.

    >>> SpectrumEncoder(1, 128)(torch.zeros(2, 2, 65)).shape
    torch.Size([2, 64])
    """

    def __init__(self, num_channels: int, length: int, *, hidden: int = 128, out_features: int = 64) -> None:
        super().__init__()
        inputs = num_channels * (length // 2 + 1)
        self.norm = nn.BatchNorm1d(inputs)
        self.amplitude = MLPEncoder([inputs, hidden, hidden])
        self.phase = MLPEncoder([inputs, hidden, hidden])
        last = self.phase.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.both = _readout(2 * hidden, out_features)
        self.out_features = out_features

    def forward(self, spectrum: Tensor) -> Tensor:
        amplitude, phase = spectrum.chunk(2, dim=1)
        branches = [self.amplitude(self.norm(amplitude.log1p().flatten(1))), self.phase(phase / math.pi)]
        return self.both(torch.cat(branches, dim=1))


class ScalogramEncoder(nn.Module):
    """For `MorletFrame` and `HaarBasis`: 2-D convolutions, means over parts of the time, a map that knows the scale.

    Args:
        num_channels: of the series.
        num_scales: rows of the view.
        widths: of the convolutions, between which scale and time are halved.
        num_windows: parts of the time, as for `SeriesEncoder`.
        out_features: d.

    >>> ScalogramEncoder(1, 24)(torch.zeros(2, 1, 24, 128)).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        num_channels: int,
        num_scales: int,
        *,
        widths: Sequence[int] = (8, 16, 32),
        num_windows: int = 1,
        out_features: int = 64,
    ) -> None:
        super().__init__()
        rows = num_scales // 2 ** (len(widths) - 1)
        if not rows:
            raise ValueError(f"{num_scales} scales cannot be halved {len(widths) - 1} times; take fewer widths")
        self.blocks = ConvEncoder(in_channels=num_channels, widths=widths).blocks
        self.readout = _readout(widths[-1] * rows * num_windows, out_features)
        self.shape = (rows, num_windows)
        self.out_features = out_features

    def forward(self, scalogram: Tensor) -> Tensor:
        # a mean over scales would forget the frequency
        return self.readout(functional.adaptive_avg_pool2d(self.blocks(scalogram), self.shape).flatten(1))


def _readout(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Linear(inputs, outputs))
