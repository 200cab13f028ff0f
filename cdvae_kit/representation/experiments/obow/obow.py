"""The experiment `obow`: does a bag of online words teach a small network more than frozen ones.

OBoW (Gidaris et al., CVPR 2021, arXiv 2012.11552; see `methods.obow`) on composed images: ten coloured sprites on
smooth noise, the hue of the sprite turned at random in every image. This data was found by search: of six kinds of
small images that were tried, four gain nothing or lose (handwritten digits among them), because a random convolutional
network is good on them already. Here it is not. That is no hard data as such: the sprites stand still, and a linear
reader of raw pixels, whose arm is shown, beats every network that takes the mean over positions. What is compared is
what the training adds to such a network. The paper's data is ImageNet, its networks ResNets.

All arms share images, network, start, views, epochs and loss; they differ in the teacher and its words:

* frozen: the untrained network as teacher for ever, words the random ones of the start;
* random words, k-means words: the teacher follows the student, but the words stay what they were: random ones, or the
  centres of k-means on the untrained network's features;
* random words of any sign: the same, where features after a ReLU have one sign. If random words serve because they
  lie where features lie, these should serve worse;
* BoWNet: a first student learns from the untrained network, a second one from the first, frozen, and k-means words of
  its features; half of the epochs each;
* online words: OBoW; with one level, or with two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.datasets.composed_images import ComposedImages
from cdvae_kit.representation.methods.encoder import embed, evaluation_mode
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.representation.methods.local_features import StagedEncoder
from cdvae_kit.representation.methods.obow import OnlineBagOfWords, StudentView, kmeans_words, perplexity
from cdvae_kit.representation.methods.probing import linear_probe, over_label_draws, prototype_probe
from cdvae_kit.representation.panels import Bars, Curve, Lines, Panel, Pictures
from cdvae_kit.representation.protocol import (
    Claim,
    Experiment,
    ExperimentResult,
    PartResult,
    standard_error,
)
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Compose, Identity
from cdvae_kit.transforms.images import Brightness, Crop, Hue
from cdvae_kit.typing import ShareDone

NUM_CLASSES = 10
SIDE = 16
"""Pixels."""


@dataclass(frozen=True)
class Sizes:
    """How much is trained and tested.

    Attributes:
        num_images: without labels; those of the probe are drawn from them.
        num_test: further ones.
        num_words: of each vocabulary.
        fit: of the student.
        num_draws: of labels.
        labels_per_class: of the linear probe.
    """

    num_images: int
    num_test: int
    num_words: int
    fit: FitSettings
    num_draws: int
    labels_per_class: int = 20


FULL = Sizes(2000, 1000, 448, FitSettings(20, 56, learning_rate=3e-3), num_draws=10)
QUICK = Sizes(160, 50, 40, FitSettings(1, 40, learning_rate=3e-3), num_draws=2, labels_per_class=5)
FEW_LABELS = 5
_SIGNED = 72  # key of the draws of words of any sign
_NUM_WATCHED = 200
"""Images whose bags are counted after each epoch."""


Labelled: TypeAlias = tuple[Tensor, Tensor]


class Arm(NamedTuple):
    """What an arm does with teacher and words; the start of its words, random ones unless `kmeans`.

    The paper's decay of 0.99 is for a million steps; in 700 such a teacher hardly leaves its start. With `signed` the
    random words are normal numbers, not their positive parts; with two `rounds` the student of the first is the teacher
    of the second.
    """

    decay: float = 0.8
    update_words: bool = True
    kmeans: bool = False
    num_levels: int = 1
    signed: bool = False
    rounds: int = 1


PIXELS, UNTRAINED, FROZEN, ONLINE = "pixels", "untrained", "frozen", "online words"
RANDOM_WORDS, KMEANS_WORDS = "random words", "k-means words"
SIGNED_WORDS, BOWNET = "random words of any sign", "BoWNet"
PROTOTYPES, IN_USE = ", 5 labels", ", words in use"
"""Endings of the names of an arm's other numbers."""
ARMS: dict[str, Arm] = {
    FROZEN: Arm(decay=1.0, update_words=False),
    RANDOM_WORDS: Arm(update_words=False),
    SIGNED_WORDS: Arm(update_words=False, signed=True),
    KMEANS_WORDS: Arm(update_words=False, kmeans=True),
    BOWNET: Arm(decay=1.0, update_words=False, kmeans=True, rounds=2),
    ONLINE: Arm(),
    "online words, two levels": Arm(num_levels=2),
}


def composed_images(sizes: Sizes, seed: int) -> tuple[Labelled, Labelled]:
    """Images with the labels of the probe, and those of the test: other sprites for each seed."""
    classes = range(NUM_CLASSES * seed, NUM_CLASSES * (seed + 1))
    found = []
    for i, count in enumerate((sizes.num_images, sizes.num_test)):
        images, labels = ComposedImages(classes, ["hue"], count, seed=2 * seed + i, image_size=SIDE).tensors()
        # the layout in which a CPU convolves fastest
        found.append((images.contiguous(memory_format=torch.channels_last), labels))
    return found[0], found[1]


def part_encoder(num_levels: int = 1) -> StagedEncoder:
    """A network whose local features see 8 pixels, so that a word can only be a part of a sprite.

    >>> [tuple(level.features.shape) for level in part_encoder(2).levels(torch.zeros(1, 3, 16, 16))]
    [(36, 64), (36, 96)]
    """
    stages = [
        # pooled first, which spares the normalisation three quarters of its work
        nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.ReLU()),
        nn.Sequential(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
        nn.Sequential(nn.Conv2d(64, 96, 1, bias=False), nn.BatchNorm2d(96), nn.ReLU()),
    ]
    return StagedEncoder(stages, widths=(32, 64, 96), levels=range(3 - num_levels, 3))


def student_views() -> list[StudentView]:
    """Two crops of a third to four fifths of the image, at any hue, some brighter and some darker."""
    return [StudentView(Compose([Crop(0.35, 0.8, size=(12, 12)), Hue(), Brightness(0.7, 1.3)]), count=2)]


def make_method(arm: Arm, images: Tensor, sizes: Sizes, *, seed: int) -> OnlineBagOfWords:
    """The method of an arm, before training; the same start of the network for every arm."""
    with seeded_weights(seed):
        encoder = part_encoder(arm.num_levels)
        method = OnlineBagOfWords(
            encoder,
            Identity(),
            student_views(),
            num_words=sizes.num_words,
            decay=arm.decay,
            update_words=arm.update_words,
            seed=seed,
        )
    if arm.kmeans:
        _words_by_kmeans(method, images, sizes, seed=seed)
    if arm.signed:
        words = method.vocabularies[-1].words
        method.vocabularies[-1].replace(torch.randn(words.shape, generator=make_generator(seed, _SIGNED)))
    return method


def _words_by_kmeans(method: OnlineBagOfWords, images: Tensor, sizes: Sizes, *, seed: int) -> None:
    # normalised by the batch, as the teacher's features are in training
    with torch.no_grad():
        features = method.teacher.levels(images[:200])[-1].features
    method.vocabularies[-1].replace(kmeans_words(features, sizes.num_words, seed=seed))


def second_round(first: OnlineBagOfWords, arm: Arm, images: Tensor, sizes: Sizes, *, seed: int) -> OnlineBagOfWords:
    """A method that starts anew, whose teacher is the student of the first and stays as it is."""
    method = make_method(arm, images, sizes, seed=seed)
    method.teacher.load_state_dict(first.encoder.state_dict())
    _words_by_kmeans(method, images, sizes, seed=seed)
    return method


def measured(encoder: Any, train: Labelled, test: Labelled, sizes: Sizes, *, seed: int) -> dict[str, float]:
    """Accuracy of a linear probe, and of prototypes on fewer labels, by the ending of an arm's name."""
    features, test_features = embed(encoder, train[0]), embed(encoder, test[0])
    return {
        ending: over_label_draws(
            probe,
            features,
            train[1],
            test_features,
            test[1],
            labels_per_class=labels,
            num_draws=sizes.num_draws,
            seed=seed,
        ).mean
        for ending, probe, labels in (
            ("", linear_probe, sizes.labels_per_class),
            (PROTOTYPES, prototype_probe, FEW_LABELS),
        )
    }


class Obow(Experiment):
    """Each arm's features of the same images; the number is the accuracy of a linear probe on 20 labels a class."""

    name = "obow"
    paper = (
        "Gidaris, Bursuc, Puy, Komodakis, Cord, Pérez, OBoW: Online bag-of-visual-words generation for self-supervised "
        "learning, CVPR 2021, arXiv 2012.11552"
    )
    summary = "bags of online words on sprites of any hue, against frozen words and no training"

    def parts(self, *, quick: bool) -> Sequence[str]:
        return [UNTRAINED, *ARMS]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        sizes = QUICK if quick else FULL
        train, test = composed_images(sizes, seed)
        if part == UNTRAINED:
            with seeded_weights(seed):
                encoder = part_encoder()
            values = measured(encoder, train, test, sizes, seed=seed)
            pixels = measured(nn.Flatten(), train, test, sizes, seed=seed)
            return PartResult(
                {UNTRAINED + ending: score for ending, score in values.items()}
                | {PIXELS + ending: score for ending, score in pixels.items()}
            )
        arm, settings = ARMS[part], sizes.fit
        method = make_method(arm, train[0], sizes, seed=seed)
        if arm.rounds > 1:
            settings = replace(settings, num_epochs=max(1, settings.num_epochs // arm.rounds))
            fit(method, train[0], settings, seed=seed)
            method = second_round(method, arm, train[0], sizes, seed=seed)
        watched = test[0][:_NUM_WATCHED]
        curves: dict[str, list[float]] = {"of the mean bag": [], "of a bag": []}

        def watch(share: float) -> None:
            bags = method.bags(watched)[-1]
            curves["of the mean bag"].append(float(perplexity(bags.mean(0))))
            curves["of a bag"].append(float(perplexity(bags).mean()))
            if progress is not None:
                progress(share)

        watch(0.0)
        losses = fit(method, train[0], settings, seed=seed, progress=watch)
        values = measured(method.encoder, train, test, sizes, seed=seed)
        details: dict[str, Any] = {"loss": losses, "perplexity": curves}
        if part == ONLINE:
            details["patches of words"] = patches_of_words(method, test[0])
        return PartResult(
            {part + ending: score for ending, score in values.items()}
            | {part + IN_USE: curves["of the mean bag"][-1] / sizes.num_words},
            details,
        )

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        return [
            Claim("online words teach more than no training", result.differences(ONLINE, UNTRAINED), 0.15),
            Claim("and more than a frozen teacher with frozen words", result.differences(ONLINE, FROZEN), 0.05),
            Claim("words in use at the end, a share of all (perplexity)", result.per_seed(ONLINE + IN_USE), 1.0 / 3.0),
            *(
                Claim(f"online words serve better than {words} that stay", result.differences(ONLINE, words))
                for words in (RANDOM_WORDS, KMEANS_WORDS)
            ),
            Claim("online words serve better than BoWNet, whose teacher stays", result.differences(ONLINE, BOWNET)),
            Claim(
                "random words serve because they lie where features lie: those of any sign serve worse",
                result.differences(RANDOM_WORDS, SIGNED_WORDS),
            ),
        ]

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        arms = [PIXELS, UNTRAINED, *ARMS]
        chance = ("chance", 1.0 / NUM_CLASSES)
        panels: list[Panel] = [
            Bars("linear probe", "accuracy, 20 labels a class", {arm: result.arms[arm] for arm in arms}, chance),
            Bars(
                "nearest mean by cosine",
                "accuracy, 5 labels a class",
                {arm: result.arms[arm + PROTOTYPES] for arm in arms},
                chance,
            ),
            Lines("words in use", "epoch", "perplexity of the mean bag", _curves(result, "of the mean bag")),
            Lines("words of one image", "epoch", "perplexity of a bag", _curves(result, "of a bag")),
            _views_of_images(),
        ]
        patches = torch.tensor(result.details[ONLINE][0]["patches of words"]) / 255.0
        return [*panels, Pictures("what the words see: the closest patches", patches)]


EXPERIMENT = Obow()


def patches_of_words(method: OnlineBagOfWords, images: Tensor, *, num_words: int = 8, num_patches: int = 8) -> Any:
    """The patches (8 × 8, integers up to 255) nearest to the words that the images use most, one an image.

    The geometry is that of `part_encoder`: a position of the map, its border left out, sees 8 pixels, and its neighbour
    the 8 pixels that lie 2 farther.
    """
    with evaluation_mode(method), torch.no_grad():
        (local,) = method.teacher.levels(images)
    vocabulary = method.vocabularies[0]
    used = method.bags(images)[0].mean(0).topk(min(num_words, vocabulary.num_words)).indices
    patches = functional.unfold(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 8, stride=2)
    per_image = patches.shape[2]
    distances = torch.cdist(vocabulary.words[used], local.features).reshape(len(used), len(images), per_image)
    closest, position = distances.min(2)
    chosen = closest.topk(num_patches, dim=1, largest=False).indices
    found = patches[chosen, :, position.gather(1, chosen)].reshape(len(used), num_patches, 3, 8, 8)
    return (255.0 * found).round().int().tolist()


def _curves(result: ExperimentResult, which: str) -> dict[str, Curve]:
    curves = {}
    for arm in ARMS:
        per_seed = [details["perplexity"][which] for details in result.details[arm]]
        columns = list(zip(*per_seed, strict=True))
        errors = [standard_error(column) for column in columns]
        curves[arm] = Curve(list(range(len(columns))), [sum(c) / len(c) for c in columns], errors)
    return curves


def _views_of_images() -> Pictures:
    images = ComposedImages(range(NUM_CLASSES), [], 400, seed=0, image_size=SIDE).tensors()
    # one of each class
    first = [int((images[1] == label).nonzero()[0]) for label in range(6)]
    shown = images[0][first]
    hue, again = (Hue()(shown, generator=make_generator(0, i)) for i in range(2))
    crops = [student_views()[0].transform(hue, generator=make_generator(1, i)) for i in range(2)]
    enlarged = [functional.interpolate(crop, (SIDE, SIDE), mode="nearest") for crop in crops]
    return Pictures(
        "sprites, the images, what the student sees",
        torch.stack([shown, hue, again, *enlarged]),
        ["class", "image", "another", "view", "view"],
    )
