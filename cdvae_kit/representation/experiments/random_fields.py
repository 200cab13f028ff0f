"""The experiment `random-fields`: how strong a field may be, and whether it beats the ordinary augmentation.

Mansfield et al., "Random field augmentations for self-supervised representation learning" (NeurReps 2023, PMLR 228,
arXiv 2311.03629), on the handwritten digits of scikit-learn instead of ImageNet. The method is a transform
(`transforms.image_fields`) and any contrastive objective; here SimCLR. Every parameter of the ordinary augmentation
(rotation, scale, shear, translation, brightness) becomes a function of the pixel, theta(r) = theta_0 + sigma u(r). Two
claims of theirs are looked at: mild fields help and strong ones destroy, and fields serve better than the ordinary
augmentation of the same root mean square, in displacement and in brightness. How much of the variance is local, half
of it or all, is an option; none is the ordinary augmentation. Their spectra, ranges and networks are not known to us.

For data of one's own, hand `augmentation` to `contrastive.SimCLR` with any encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cdvae_kit.datasets.digits import load_digits
from cdvae_kit.representation.methods.contrastive import SimCLR
from cdvae_kit.representation.methods.encoder import ConvEncoder, embed
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.representation.methods.probing import linear_probe, over_label_draws, split_samples
from cdvae_kit.representation.panels import Bars, Curve, Lines, Panel, Pictures
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult, averaged
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Compose
from cdvae_kit.transforms.image_fields import FieldDistribution, RandomFieldColor, RandomFieldNoise, RandomFieldWarp
from cdvae_kit.transforms.random_field import gaussian_random_field
from cdvae_kit.typing import ShareDone

Kind = Literal["fields", "local", "ordinary"]

KINDS: dict[Kind, str] = {"fields": "fields", "local": "fields alone", "ordinary": "ordinary augmentation"}
LOCAL_SHARES: dict[Kind, float] = {"fields": 0.5, "local": 1.0, "ordinary": 0.0}
"""Of the variance of each parameter."""
SIDE = 20
"""Pixels; the digits have 8."""
MARGIN = 2
"""Pixels around the digit: without them strong and mild fields alike cut strokes off at the border."""
_TEST_SHARE = 1.0 / 3.0
_MEASURED, _SHOWN = 1, 2  # keys of draws


@dataclass(frozen=True)
class Strength:
    """How strong the views are.

    Attributes:
        displacement: root mean square of each component, shares of the side.
        brightness: root mean square of the logarithm of the factor.
    """

    displacement: float
    brightness: float


STRENGTHS = {
    "none": Strength(0.0, 0.0),
    "mild": Strength(0.03, 0.2),
    "mid": Strength(0.06, 0.4),
    "strong": Strength(0.2, 1.2),
}
"""By name; mild and mid are those of the figure's rise, strong is past the hump: it folds three pixels of ten."""


def warp_of(local_share: float, displacement: float, *, exponent: float = 4.0) -> RandomFieldWarp:
    """Rotation, scale, shear and translation, a quarter of the mean square displacement each.

    The displacement has the same root mean square whatever the share, to first order.

    Args:
        local_share: of the variance of each parameter; 0 is one affine motion for the whole picture.
        displacement: root mean square of each component over draws and pixels, shares of the side.
        exponent: of the fields.
    """
    # a coordinate that is uniform over the side has the mean square 1/12
    slope = FieldDistribution.of_rms(0.5 * math.sqrt(12.0) * displacement, local_share=local_share)
    return RandomFieldWarp(
        translation=FieldDistribution.of_rms(0.5 * displacement, local_share=local_share),
        rotation=FieldDistribution(most=math.degrees(slope.most), local=math.degrees(slope.local)),
        scale=slope,
        shear=slope,
        exponent=exponent,
    )


def augmentation(strength: Strength, *, local_share: float = 0.5, noise: float = 0.05) -> Compose[Tensor]:
    """Displacement, brightness and white noise for images (b, c, h, w).

    Args:
        strength: of displacement and brightness.
        local_share: of the variance of their parameters; 0 is the ordinary augmentation.
        noise: standard deviation of what is added to each pixel.

    >>> from cdvae_kit.seeding import make_generator
    >>> views = augmentation(Strength(0.03, 0.2))
    >>> views(torch.zeros(2, 1, 20, 20), generator=make_generator(0)).shape
    torch.Size([2, 1, 20, 20])
    """
    return Compose(
        [
            warp_of(local_share, strength.displacement),
            RandomFieldColor(brightness=FieldDistribution.of_rms(strength.brightness, local_share=local_share)),
            RandomFieldNoise(distribution=FieldDistribution(local=noise)),
        ]
    )


@dataclass(frozen=True)
class Sizes:
    """How much is trained and tested.

    Attributes:
        num_digits: of the 1797, the first ones.
        fit: of SimCLR.
        labels_per_class: of the logistic probe.
        num_draws: of these labels.
    """

    num_digits: int
    fit: FitSettings
    labels_per_class: int
    num_draws: int


FULL = Sizes(1797, FitSettings(num_epochs=15, batch_size=100), labels_per_class=10, num_draws=10)
QUICK = Sizes(300, FitSettings(num_epochs=1, batch_size=100), labels_per_class=5, num_draws=2)


def arm_name(kind: Kind, level: str) -> str:
    """The name of an arm: that of its strength for the paper's fields, else of strength and kind."""
    return level if kind == "fields" else f"{level} {kind}"


ARMS: dict[str, tuple[Kind, Strength]] = {
    arm_name(kind, level): (kind, strength)
    for kind in KINDS
    for level, strength in STRENGTHS.items()
    # a strength of zero is the same for all kinds
    if kind == "fields" or level != "none"
}
UNTRAINED = "untrained"


class RandomFields(Experiment):
    """Digits under views of each kind and strength; the number is the accuracy of a probe on few labels."""

    name = "random-fields"
    paper = (
        "Mansfield, Afkanpour, Morningstar, Singhal, Random field augmentations for self-supervised representation "
        "learning, NeurReps 2023 (PMLR 228), arXiv 2311.03629"
    )
    summary = "SimCLR on digits: fields of rising strength, against the ordinary augmentation of the same displacement"

    def parts(self, *, quick: bool) -> Sequence[str]:
        return [UNTRAINED, *ARMS]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        sizes = QUICK if quick else FULL
        images, labels = (values[: sizes.num_digits] for values in load_digits(side=SIDE, margin=MARGIN))
        train, test = split_samples(len(images), test_share=_TEST_SHARE, seed=seed)
        details: dict[str, Any] = {}
        # the same start and the same order of digits for every arm
        with seeded_weights(seed):
            encoder = ConvEncoder(in_channels=1)
            kind, strength = ARMS.get(part, ("fields", STRENGTHS["none"]))
            objective = SimCLR(encoder, augmentation(strength, local_share=LOCAL_SHARES[kind]))
        if part != UNTRAINED:
            details |= measured(kind, strength, images, seed=seed)
            details["loss"] = fit(objective, images[train], sizes.fit, seed=seed, progress=progress)
        features = embed(encoder, images)
        score = over_label_draws(
            linear_probe,
            features[train],
            labels[train],
            features[test],
            labels[test],
            labels_per_class=sizes.labels_per_class,
            num_draws=sizes.num_draws,
            seed=seed,
        )
        return PartResult({part: score.mean}, details | {"standard_error_over_labels": score.standard_error})

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        return [
            Claim("mild fields serve better than no augmentation but noise", result.differences("mild", "none"), 0.04),
            Claim("strong fields destroy: mild ones serve better", result.differences("mild", "strong"), 0.06),
            *(
                Claim(
                    f"{KINDS[kind]} serve better than the ordinary augmentation of the same displacement and "
                    "brightness (mean over mild and mid)",
                    averaged(
                        [
                            result.differences(arm_name(kind, level), arm_name("ordinary", level))
                            for level in ("mild", "mid")
                        ]
                    ),
                )
                for kind in KINDS
                if kind != "ordinary"
            ),
        ]

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        arms = {arm: result.arms[arm] for arm in [*ARMS, UNTRAINED]}
        return [
            Lines(
                "what strength does",
                "rms displacement / side (brightness along)",
                "accuracy, 10 labels a class",
                {KINDS[kind]: _hump(result, kind) for kind in KINDS},
            ),
            Bars("every arm", "accuracy", arms, ("untrained", result.mean(UNTRAINED))),
            Lines(
                "folded pixels",
                "rms displacement / side",
                "share",
                {KINDS[kind]: _folded(result, kind) for kind in KINDS},
            ),
            _pictures_of_fields(),
            _pictures_of_digits("fields", "digits under fields: none, mild, mid, strong"),
            _pictures_of_digits("ordinary", "under the ordinary augmentation, same rms"),
        ]


EXPERIMENT = RandomFields()


def measured(kind: Kind, strength: Strength, images: Tensor, *, seed: int) -> dict[str, float]:
    """What the views of an arm do to `images`: displacement and brightness, root mean squares, and folded pixels."""
    views = augmentation(strength, local_share=LOCAL_SHARES[kind])
    warp, color = views.transforms[0], views.transforms[1]
    assert isinstance(warp, RandomFieldWarp) and isinstance(color, RandomFieldColor)
    generator = make_generator(seed, _MEASURED)
    fields = warp.sample(images, generator=generator)
    brightness = color.sample(images, generator=generator)["log_brightness"]
    return {
        "displacement": float(warp.displacement(fields).square().mean().sqrt()),
        "log_brightness": float(brightness.square().mean().sqrt()),
        "folded": float(warp.folding_fraction(fields).mean()),
    }


def _hump(result: ExperimentResult, kind: Kind) -> Curve:
    arms = ["none", *(arm_name(kind, level) for level in STRENGTHS if level != "none")]
    return Curve(
        [strength.displacement for strength in STRENGTHS.values()],
        [result.mean(arm) for arm in arms],
        [result.standard_error(arm) for arm in arms],
    )


def _folded(result: ExperimentResult, kind: Kind) -> Curve:
    def mean(part: str, key: str) -> float:
        found: Sequence[Mapping[str, Any]] = result.details[part]
        return sum(float(details[key]) for details in found) / len(found)

    arms = ["none", *(arm_name(kind, level) for level in STRENGTHS if level != "none")]
    return Curve([mean(arm, "displacement") for arm in arms], [mean(arm, "folded") for arm in arms])


def _pictures_of_fields() -> Pictures:
    exponents = (2.0, 3.0, 4.0, 6.0)
    # the same white noise in each row
    rows = [
        gaussian_random_field((40, 40), exponent=exponent, num_fields=4, generator=make_generator(0, _SHOWN))
        for exponent in exponents
    ]
    return Pictures(
        "fields of spectrum |k|^-γ",
        (0.5 + torch.stack(rows)[:, :, None] / 5.0).clamp(0.0, 1.0),
        [f"γ = {exponent:g}" for exponent in exponents],
    )


def _pictures_of_digits(kind: Kind, title: str) -> Pictures:
    images = load_digits(side=2 * SIDE, margin=2 * MARGIN)[0][:6]
    rows = [
        augmentation(strength, local_share=LOCAL_SHARES[kind], noise=0.0)(images, generator=make_generator(0, _SHOWN))
        for strength in STRENGTHS.values()
    ]
    return Pictures(title, torch.stack(rows), list(STRENGTHS))
