"""Experiment `relative`: does the head of one training read the encoder of another, and at what price?

Moschella et al., "Relative representations enable zero-shot latent space communication" (ICLR 2023, arXiv 2209.15430).
Four parts: classifiers, autoencoders and the quality of encoders on digits (`on_digits`), CDVAEs on ionic prototypes
(`on_crystals`). The method for one's own encoders and data is in `methods.relative`.

Theirs are convolutional networks, transformers and word embeddings on MNIST to CIFAR-100, WikiMatrix and Amazon, with
300 to 768 anchors; ours are MLPs on 8×8 digits with 200, and the crystals are our addition. Encoders that are trained
together with their relative head stand beside frozen ones that never knew of it. The claims are about the mean over the
six pairs; the worst pair has an arm of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cdvae_kit.representation.experiments.relative.on_digits import (
    ACTIVATIONS,
    QUALITY,
    QUICK,
    DigitSizes,
    measure_quality,
    stitch_autoencoders,
    stitch_classifiers,
)
from cdvae_kit.representation.panels import Bars, Curve, Lines, Matrix, Panel, Pictures, Points
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult
from cdvae_kit.typing import ShareDone

_CLASSIFIERS, _AUTOENCODERS, _QUALITY, _CRYSTALS = "classifiers", "autoencoders", "quality", "crystals"
_DIGITS = {_CLASSIFIERS: stitch_classifiers, _AUTOENCODERS: stitch_autoencoders, _QUALITY: measure_quality}
_TYPES = "crystals, structure type: {}, {}".format
_LARGEST_LOSS = 0.05
_KINDS_OF_CODES = ("absolute", "cosine", "centred cosine", "distance", "whitened cosine", "carried back to absolute")


class RelativeStitching(Experiment):
    """Classifiers, autoencoders, CDVAEs."""

    name = "relative"
    paper = (
        "Moschella et al., Relative representations enable zero-shot latent space communication, ICLR 2023, "
        "arXiv 2209.15430"
    )
    summary = "heads of one training on the encoder of another, in absolute and in relative coordinates"

    def parts(self, *, quick: bool) -> Sequence[str]:
        return [*_DIGITS, _CRYSTALS]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        if part == _CRYSTALS:
            # here alone is pymatgen needed
            from cdvae_kit.representation.experiments.relative import on_crystals as crystals

            return crystals.stitch_crystals(crystals.QUICK if quick else crystals.CrystalSizes(), seed, progress)
        sizes = QUICK if quick else DigitSizes()
        return _DIGITS[part](sizes, seed, progress)

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        # without the classifiers their claims are dropped, whatever the number
        anchors = 0 if _CLASSIFIERS in result.left_out else _num_anchors(result)
        claims = [
            Claim(
                f"{anchors} anchors, {how}: accuracy with the own head less that with another's",
                result.differences(f"{anchors} anchors, {how}, own", f"{anchors} anchors, {how}, stitched"),
                _LARGEST_LOSS,
                "at most",
            )
            for how in ("trained together", "frozen")
        ]
        claims.append(
            Claim(
                "absolute features: accuracy with another's head",
                result.per_seed("absolute, stitched"),
                0.30,
                "at most",
            )
        )
        claims += [
            Claim(
                "autoencoders, relative: error with another's decoder over that of the mean image",
                _ratio(result, "autoencoders, relative, stitched", "autoencoders, mean image"),
                1.0,
                "at most",
            ),
            Claim(
                "autoencoders, absolute: error with another's decoder over that of the mean image",
                _ratio(result, "autoencoders, absolute, stitched", "autoencoders, mean image"),
                1.0,
            ),
            Claim(
                "how alike relative spaces are tells which encoder is better: rank correlation",
                result.per_seed(QUALITY),
            ),
            Claim(
                "crystals, structure types: accuracy with another's head, published cosines less absolute codes",
                result.differences(_TYPES("cosine", "stitched"), _TYPES("absolute", "stitched")),
                0.3,
            ),
            Claim(
                "crystals, structure types: published cosines, accuracy with another's head over that with the own",
                _ratio(result, _TYPES("cosine", "stitched"), _TYPES("cosine", "own")),
                0.5,
            ),
            Claim(
                "crystals: least effective rank of a latent space",
                result.per_seed("crystals: least effective rank"),
                8.0,
            ),
            Claim(
                "crystals: R² of absolute codes with another's head, median of the pairs",
                result.per_seed("crystals: absolute, stitched, median"),
                0.0,
                "at most",
            ),
        ]
        for kind, name in (
            ("cosine", "cosines as published"),
            ("centred cosine", "centred cosines"),
            ("whitened cosine", "whitened cosines"),
        ):
            stitched = result.per_seed(f"crystals: {kind}, stitched, median")
            claims.append(Claim(f"crystals: R² of {name} with another's head, median of the pairs", stitched, 0.5))
        return claims

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        classifiers, autoencoders = (result.details[part][0] for part in (_CLASSIFIERS, _AUTOENCODERS))
        anchors = _num_anchors(result)
        return [
            *_spaces(classifiers["points"], result.seeds[0]),
            _mean_matrix(result, "absolute", "accuracy, absolute features"),
            _mean_matrix(result, "trained together", f"accuracy, {anchors} anchors, trained together"),
            _mean_matrix(result, "frozen", f"accuracy, {anchors} anchors, frozen encoders"),
            _by_number(result),
            _pictures(autoencoders["pictures"]),
            Bars(
                "structure types from codes of three CDVAEs",
                "accuracy on unseen compositions",
                {
                    f"{kind}, {whose}": result.per_seed(_TYPES(kind, whose))
                    for kind in ("absolute", "cosine", "whitened cosine")
                    for whose in ("own", "stitched")
                },
                ("the commonest", result.mean("crystals, structure type: commonest")),
            ),
            Bars(
                "R² of the Ewald energy from codes of three CDVAEs",
                "R² on unseen compositions, cut at −1",
                {
                    f"{kind}, {whose}": [max(-1.0, value) for value in result.per_seed(f"crystals: {kind}, {whose}")]
                    for kind in _KINDS_OF_CODES
                    for whose in ("own", "stitched")
                },
                ("the mean of all", 0.0),
            ),
        ]


def _ratio(result: ExperimentResult, arm: str, other: str) -> list[float]:
    return [a / b for a, b in zip(result.per_seed(arm), result.per_seed(other), strict=True)]


def _num_anchors(result: ExperimentResult) -> int:
    return int(result.details[_CLASSIFIERS][0]["num_anchors"])


def _spaces(points: Mapping[str, Any], seed: int) -> list[Panel]:
    """The paper's first picture: spaces of three encoders, drawn on two directions of the first."""
    labels = torch.tensor(points["labels"])
    panels: list[Panel] = []
    for kind in ("absolute", "relative"):
        for i, (activation, rows) in enumerate(zip(ACTIVATIONS, points[kind], strict=True)):
            plane = torch.tensor(rows)
            groups = {
                str(label): (plane[labels == label, 0].tolist(), plane[labels == label, 1].tolist())
                for label in labels.unique().tolist()
            }
            panels.append(Points(f"{kind}, encoder {i + 1} ({activation}), seed {seed}", groups))
    return panels


def _mean_matrix(result: ExperimentResult, name: str, title: str) -> Matrix:
    found = torch.tensor([details[name] for details in result.details[_CLASSIFIERS]], dtype=torch.float64)
    labels = [f"{i + 1} ({activation})" for i, activation in enumerate(ACTIVATIONS)]
    return Matrix(title, labels, labels, found.mean(0).tolist(), row_label="encoder", column_label="head")


def _by_number(result: ExperimentResult) -> Lines:
    numbers = sorted(
        int(arm.split()[0]) for arm in result.arms if arm.endswith("anchors, frozen, own") and arm.split()[0].isdigit()
    )
    return Lines(
        "how many anchors, frozen encoders",
        "number of anchors",
        "accuracy",
        {
            name: Curve(
                numbers,
                [result.mean(f"{number} anchors, frozen, {whose}") for number in numbers],
                [result.standard_error(f"{number} anchors, frozen, {whose}") for number in numbers],
            )
            for name, whose in (("own head", "own"), ("another's head", "stitched"), ("worst pair", "worst stitched"))
        },
        log_x=True,
    )


def _pictures(pictures: Mapping[str, Any]) -> Pictures:
    images = torch.stack([torch.tensor(rows).reshape(-1, 1, 8, 8) for rows in pictures.values()])
    return Pictures("encoder 1; decoder 1 (own) or 3 (stitched)", images, list(pictures))


EXPERIMENT = RelativeStitching()
