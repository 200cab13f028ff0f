"""Stitching on handwritten digits: classifiers and autoencoders of `relative`, on data without a download.

Three MLPs, from different seeds, the third with another activation. Their own runs differ by what a training draws;
data and anchors are the same for all, and nothing is fitted between two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.datasets.digits import load_digits
from cdvae_kit.representation.experiments.relative.arms import (
    SIMILARITIES,
    Error,
    Space,
    carried_back,
    compare_all,
    cross_scores,
    fit_heads,
    own_and_stitched,
    project,
    within,
)
from cdvae_kit.representation.methods.anchors import AnchorMethod, select_anchors
from cdvae_kit.representation.methods.encoder import embed
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, accuracy, fit
from cdvae_kit.representation.methods.probing import split_samples
from cdvae_kit.representation.methods.relative import (
    RelativeEncoder,
    Similarity,
    compare_spaces,
    relative_head,
    stitching_matrix,
)
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.typing import ShareDone

ACTIVATIONS = ("relu", "relu", "tanh")
"""Of the three encoders."""
_HIDDEN = 128
_NUM_CLASSES = 10
_NUM_PIXELS = 64
_NUM_SHOWN = 8
_NUM_POINTS = 200
QUALITY = "quality without training: rank correlation of similarity and accuracy"
QUALITY_SHARES = (0.02, 0.03, 0.05, 0.08, 0.15, 0.3, 1.0)
"""Of the epochs, that encoders of unequal quality are trained for."""
_METHODS: tuple[AnchorMethod, ...] = ("stratified", "farthest", "kmeans")


@dataclass(frozen=True)
class DigitSizes:
    """How much is trained on how much.

    Attributes:
        num_samples: of 1,797 digits, a third of them for testing.
        num_anchors: of the claims.
        fewer_anchors: that are tried beside.
        width: of the classifiers' features.
        latent: of the autoencoders' codes.
        epochs: of encoders.
        head_epochs: of heads on frozen encoders.
        autoencoder_epochs: of autoencoders.
        autoencoder_rate: highest learning rate of autoencoders, the paper's; at three times of it some trainings end
            where no decoder reads another's codes.
    """

    num_samples: int = 1797
    num_anchors: int = 200
    fewer_anchors: tuple[int, ...] = (10, 50, 100)
    width: int = 64
    latent: int = 32
    epochs: int = 60
    head_epochs: int = 40
    autoencoder_epochs: int = 100
    autoencoder_rate: float = 1e-3


QUICK = DigitSizes(num_samples=240, num_anchors=40, fewer_anchors=(10,), epochs=3, head_epochs=3, autoencoder_epochs=3)


@dataclass(frozen=True)
class Digits:
    """Images (n, 64) in [0, 1] and labels (n,)."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def split_digits(num_samples: int, *, seed: int) -> Digits:
    """The first `num_samples` digits, a third of them for testing; which ones, the seed decides."""
    images, labels = load_digits()
    images, labels = images[:num_samples].flatten(1), labels[:num_samples]
    train, test = split_samples(len(images), test_share=1 / 3, seed=seed)
    return Digits(images[train], labels[train], images[test], labels[test])


def _encoder(activation: str, width: int) -> nn.Sequential:
    layer = nn.Tanh() if activation == "tanh" else nn.ReLU()
    return nn.Sequential(nn.Linear(_NUM_PIXELS, _HIDDEN), layer, nn.Linear(_HIDDEN, width))


def _train_together(
    samples: Tensor,
    targets: Tensor,
    error: Error,
    *,
    width: int,
    anchors: Tensor | None,
    head: tuple[int, ...],
    settings: FitSettings,
    seed: int,
    progress: ShareDone | None,
) -> tuple[list[Any], list[nn.Module]]:
    """Three encoders with their heads: of absolute features, or relative to `anchors`."""
    encoders: list[Any] = []
    heads: list[nn.Module] = []
    *hidden, num_outputs = head
    for i, activation in enumerate(ACTIVATIONS):
        own_seed = len(ACTIVATIONS) * seed + i
        with seeded_weights(own_seed):
            encoder: nn.Module = _encoder(activation, width)
            if anchors is not None:
                encoder = RelativeEncoder(encoder, anchors)
            reader = relative_head(width if anchors is None else len(anchors), num_outputs, hidden=hidden)
        fit(Supervision(encoder, head=reader, error=error), (samples, targets), settings, seed=own_seed)
        encoders.append(encoder.eval())
        heads.append(reader.eval())
        if progress is not None:
            progress((i + 1) / len(ACTIVATIONS))
    return encoders, heads


# -- classifiers -----------------------------------------------------------------------------------------------------


def stitch_classifiers(sizes: DigitSizes, seed: int, progress: ShareDone | None) -> PartResult:
    """Accuracies of encoder and head of two trainings, and how alike the spaces are."""
    digits = split_digits(sizes.num_samples, seed=seed)
    chosen = select_anchors(len(digits.train), sizes.num_anchors, generator=make_generator(seed, 1))

    def score(logits: Tensor) -> float:
        return float((logits.argmax(1) == digits.test_labels).double().mean())

    def train(anchors: Tensor | None, share: tuple[float, float]) -> tuple[list[Any], list[nn.Module]]:
        return _train_together(
            digits.train,
            digits.train_labels,
            functional.cross_entropy,
            width=sizes.width,
            anchors=anchors,
            head=(_NUM_CLASSES,),
            settings=FitSettings(sizes.epochs),
            seed=seed,
            progress=within(progress, *share),
        )

    encoders, heads = train(None, (0.0, 0.25))
    absolute = stitching_matrix(encoders, heads, digits.test, score)
    together = stitching_matrix(*train(digits.train[chosen], (0.25, 0.5)), digits.test, score)
    spaces = [(embed(encoder, digits.train), embed(encoder, digits.test)) for encoder in encoders]
    frozen = _Frozen(digits, spaces, score, sizes, seed)
    relative = frozen.matrix(chosen)
    name = f"{sizes.num_anchors} anchors"
    values = own_and_stitched("absolute", absolute)
    values |= own_and_stitched(f"{name}, trained together", together) | own_and_stitched(f"{name}, frozen", relative)
    values |= {
        "price in own accuracy, trained together": _mean_own(absolute) - _mean_own(together),
        "price in own accuracy, frozen": _mean_own(absolute) - _mean_own(relative),
    }
    values |= frozen.variants(within(progress, 0.6, 1.0))
    values |= own_and_stitched("carried back to absolute, frozen", carried_back(spaces, heads, chosen, score))
    comparisons, points = _look_at_spaces(spaces, chosen, digits.test_labels)
    details = {
        "num_anchors": sizes.num_anchors,
        "absolute": absolute.tolist(),
        "trained together": together.tolist(),
        "frozen": relative.tolist(),
        "points": points,
    }
    return PartResult(values | comparisons, details)


def _mean_own(matrix: Tensor) -> float:
    return float(matrix.diagonal().mean())


@dataclass(frozen=True)
class _Frozen:
    """Heads on relative coordinates of encoders that stay as they are."""

    digits: Digits
    spaces: Sequence[Space]
    accuracy: Callable[[Tensor], float]
    sizes: DigitSizes
    seed: int

    def matrix(self, chosen: Tensor, similarity: Similarity = "cosine", center: bool = False) -> Tensor:
        relative = project(self.spaces, chosen, similarity, center)
        heads = fit_heads(
            [train for train, _ in relative],
            self.digits.train_labels,
            functional.cross_entropy,
            outputs=(_NUM_CLASSES,),
            num_epochs=self.sizes.head_epochs,
            seed=self.seed,
        )
        return cross_scores([test for _, test in relative], heads, self.accuracy)

    def anchors(self, num: int, method: AnchorMethod = "uniform") -> Tensor:
        # in pixels: no encoder is to choose the anchors of the others
        return select_anchors(
            self.digits.train,
            num,
            method=method,
            labels=self.digits.train_labels,
            generator=make_generator(self.seed, 1),
        )

    def variants(self, progress: ShareDone | None) -> dict[str, float]:
        """Fewer anchors, other similarities, anchors chosen otherwise."""
        most = self.sizes.num_anchors
        stages: list[tuple[str, Tensor, Similarity, bool]] = [
            (f"{num} anchors, frozen", self.anchors(num), "cosine", False) for num in self.sizes.fewer_anchors
        ]
        stages += [(f"{name}, frozen", self.anchors(most), *how) for name, how in SIMILARITIES.items()]
        stages += [(f"{method} anchors, frozen", self.anchors(most, method), "cosine", False) for method in _METHODS]
        values: dict[str, float] = {}
        for done, (name, chosen, similarity, center) in enumerate(stages):
            values |= own_and_stitched(name, self.matrix(chosen, similarity, center))
            if progress is not None:
                progress((done + 1) / len(stages))
        return values


def _look_at_spaces(spaces: Sequence[Space], chosen: Tensor, labels: Tensor) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures of similarity in the mean over pairs, and the test samples on two directions of the first space."""
    kinds = {
        "absolute": [test for _, test in spaces],
        "relative": [test for _, test in project(spaces, chosen)],
    }
    values: dict[str, float] = {}
    points: dict[str, Any] = {"labels": labels[:_NUM_POINTS].tolist()}
    for kind, features in kinds.items():
        values |= compare_all(f"{kind} spaces", features)
        mean = features[0].mean(0)
        directions = torch.linalg.svd(features[0] - mean, full_matrices=False).Vh[:2]
        points[kind] = [
            ((space[:_NUM_POINTS] - mean) @ directions.T).double().round(decimals=3).tolist() for space in features
        ]
    return values, points


# -- quality without training ---------------------------------------------------------------------------------------


def measure_quality(sizes: DigitSizes, seed: int, progress: ShareDone | None) -> PartResult:
    """Does similarity to a good training's relative space tell how good an encoder is, without a label or a head?

    Encoders from other seeds, trained for longer and longer, beside a reference that is trained to the end. The number
    is the rank correlation, over encoders, of the mean cosine between relative coordinates of the same test sample with
    the accuracy of the encoder's own head.
    """
    from scipy.stats import spearmanr

    digits = split_digits(sizes.num_samples, seed=seed)
    chosen = select_anchors(len(digits.train), sizes.num_anchors, generator=make_generator(seed, 1))
    lengths = sorted({max(1, round(sizes.epochs * share)) for share in QUALITY_SHARES})
    spaces: list[Tensor] = []
    accuracies: list[float] = []
    for i, num_epochs in enumerate([sizes.epochs, *lengths]):
        with seeded_weights(100 * seed + i):
            encoder = _encoder("relu", sizes.width)
            learner = Supervision(encoder, head=nn.Linear(sizes.width, _NUM_CLASSES))
        settings = FitSettings(num_epochs, learning_rate=1e-3, schedule="constant")
        fit(learner, (digits.train, digits.train_labels), settings, seed=100 * seed + i)
        space = (embed(encoder, digits.train), embed(encoder, digits.test))
        spaces.append(project([space], chosen)[0][1])
        accuracies.append(accuracy(learner, (digits.test, digits.test_labels)))
        if progress is not None:
            progress((i + 1) / (len(lengths) + 1))
    similarity = [compare_spaces(space, spaces[0]).cosine for space in spaces[1:]]
    return PartResult(
        {QUALITY: float(spearmanr(similarity, accuracies[1:]).statistic)},
        {"epochs": lengths, "similarity": similarity, "accuracy": accuracies[1:], "reference": accuracies[0]},
    )


# -- autoencoders ----------------------------------------------------------------------------------------------------


def stitch_autoencoders(sizes: DigitSizes, seed: int, progress: ShareDone | None) -> PartResult:
    """Mean square errors of images that one training encodes and another decodes."""
    digits = split_digits(sizes.num_samples, seed=seed)
    chosen = select_anchors(len(digits.train), sizes.num_anchors, generator=make_generator(seed, 1))
    values: dict[str, float] = {}
    pictures = {"image": digits.test[:_NUM_SHOWN]}
    details: dict[str, Any] = {}

    def error(images: Tensor) -> float:
        return float((images - digits.test).square().mean())

    for i, (kind, anchors) in enumerate((("absolute", None), ("relative", digits.train[chosen]))):
        encoders, decoders = _train_together(
            digits.train,
            digits.train,
            functional.mse_loss,
            width=sizes.latent,
            anchors=anchors,
            head=(_HIDDEN, _NUM_PIXELS),
            settings=FitSettings(sizes.autoencoder_epochs, learning_rate=sizes.autoencoder_rate),
            seed=seed,
            progress=within(progress, i / 2, (i + 1) / 2),
        )
        matrix = stitching_matrix(encoders, decoders, digits.test, error)
        details[kind] = matrix.tolist()
        values |= own_and_stitched(f"autoencoders, {kind}", matrix, low_is_good=True)
        some = digits.test[:_NUM_SHOWN]
        pictures[f"{kind}, own"] = embed(decoders[0], embed(encoders[0], some))
        # the third has the other activation
        pictures[f"{kind}, stitched"] = embed(decoders[2], embed(encoders[0], some))
        if anchors is None:
            spaces = [(embed(encoder, digits.train), embed(encoder, digits.test)) for encoder in encoders]
            carried = carried_back(spaces, decoders, chosen, error)
            values |= own_and_stitched("autoencoders, carried back to absolute", carried, low_is_good=True)
    values["autoencoders, price: own relative error over own absolute error"] = (
        values["autoencoders, relative, own"] / values["autoencoders, absolute, own"]
    )
    values["autoencoders, mean image"] = error(digits.train.mean(0).expand_as(digits.test))
    details["pictures"] = {name: shown.double().round(decimals=3).tolist() for name, shown in pictures.items()}
    return PartResult(values, details)
