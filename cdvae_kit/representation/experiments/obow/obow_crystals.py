"""The experiment `obow-crystals`: bags of local environments, compared with what needs no training.

The method of OBoW (Gidaris et al., CVPR 2021, arXiv 2012.11552; see `methods.obow`) with atoms in the place of image
patches: a word is a kind of surroundings of an atom, a bag says which kinds a crystal holds. The teacher sees the
crystal with all its elements hidden, so that words are of geometry; the student a strained, shaken one in which half of
the elements are hidden. An arm whose teacher sees the elements is there as well: its words are of elements first. Bags
of the largest or the mean assignment are intensive: a supercell has the bag of its cell, which is measured along.

The data are the package's own ionic prototypes, 17 structure types. Their cells hold 2 to 14 atoms of two to four
kinds, so that a bag has few words; how much of it the composition alone foretells is measured, too. Two questions are
asked of frozen features, on compositions that were not seen: the structure type, from five labels of each, and the
Ewald energy. Compared with the encoder untrained, the composition, and a radial distribution, which knows distances and
no elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets.ionic_prototypes import EWALD_ENERGY, load_ionic_prototypes
from cdvae_kit.nn.losses import kl_to_soft_target
from cdvae_kit.representation.methods.encoder import embed
from cdvae_kit.representation.methods.environments import Composition, EnvironmentEncoder, RadialDistribution
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.methods.obow import OnlineBagOfWords, StudentView, perplexity
from cdvae_kit.representation.methods.probing import linear_probe, over_label_draws, ridge_probe
from cdvae_kit.representation.panels import Bars, Curve, Lines, Panel
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Compose, Transform
from cdvae_kit.transforms.crystal_motions import AtomDisplacement, Supercell
from cdvae_kit.transforms.crystals import ElementMask, RandomStrain
from cdvae_kit.typing import ShareDone


@dataclass(frozen=True)
class Sizes:
    """How much is trained and tested.

    Attributes:
        num_train: crystals that the method learns from; the labels of the probes are drawn from them.
        num_test: of compositions that were not seen.
        num_words: of the vocabulary.
        fit: of the student.
        num_draws: of labels.
        labels_per_class: of the structure types that have as many.
    """

    num_train: int
    num_test: int
    num_words: int
    fit: FitSettings
    num_draws: int
    labels_per_class: int = 5


FULL = Sizes(1503, 197, 128, FitSettings(30, batch_size=64, learning_rate=3e-3), num_draws=10)
QUICK = Sizes(100, 40, 64, FitSettings(1, batch_size=50, learning_rate=3e-3), num_draws=2, labels_per_class=2)

UNTRAINED, OBOW, OBOW_WITH_ELEMENTS, COMPOSITION, RADIAL, BOTH = (
    "untrained",
    "OBoW",
    "OBoW, teacher sees elements",
    "composition",
    "radial distribution",
    "composition and radial distribution",
)
BESIDE_RADIAL = "OBoW and radial distribution"
FEATURES = (UNTRAINED, OBOW, OBOW_WITH_ELEMENTS, COMPOSITION, RADIAL, BOTH, BESIDE_RADIAL)
TYPE, ENERGY = "structure type: ", "Ewald energy: "
SUPERCELL = "largest change of a bag in a supercell"
IN_USE = "words in use"
BAG = "share of the bag foretold by "


def student_view() -> Compose[CrystalBatch]:
    """Half of the elements hidden, atoms shaken by 0.05 angstrom, the cell strained by some 3 %."""
    return Compose([ElementMask(0.5), AtomDisplacement(0.05), RandomStrain(0.03)])


def whole_view(arm: str) -> Transform[CrystalBatch]:
    """What the teacher of an arm sees.

    >>> whole_view(OBOW), whole_view(OBOW_WITH_ELEMENTS)
    (ElementMask(probability=1.0, stand_in=118), ElementMask(probability=0.0, stand_in=118))
    """
    return ElementMask(0.0 if arm == OBOW_WITH_ELEMENTS else 1.0)


def make_method(num_words: int, *, arm: str = OBOW, seed: int) -> OnlineBagOfWords:
    """OBoW on the atoms of crystals, before training.

    There are some hundred steps, a fifth of the images': the teacher follows faster.
    """
    with seeded_weights(seed):
        return OnlineBagOfWords(
            EnvironmentEncoder(),
            whole_view(arm),
            [StudentView(student_view(), count=2)],
            num_words=num_words,
            decay=0.9,
            seed=seed,
        )


class ObowCrystals(Experiment):
    """Features of the ionic prototypes by several encoders; accuracies of a linear probe, and R² of a ridge."""

    name = "obow-crystals"
    paper = "the method of Gidaris et al., OBoW, CVPR 2021, arXiv 2012.11552, with atoms as local features"
    summary = "bags of local environments of ionic crystals, against composition and radial distribution"

    def parts(self, *, quick: bool) -> Sequence[str]:
        return ["without training", OBOW, OBOW_WITH_ELEMENTS]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        sizes = QUICK if quick else FULL
        train = load_ionic_prototypes(num_crystals=sizes.num_train, seed=seed, split="train")
        test = load_ionic_prototypes(num_crystals=sizes.num_test, seed=seed, split="test")
        if part == "without training":
            features = {
                UNTRAINED: _embedded(make_method(sizes.num_words, seed=seed).encoder, train, test),
                COMPOSITION: _embedded(Composition(), train, test),
                RADIAL: _embedded(RadialDistribution(), train, test),
            }
            features[BOTH] = tuple(
                torch.cat(pair, 1) for pair in zip(features[COMPOSITION], features[RADIAL], strict=True)
            )
            values: dict[str, float] = {}
            for name, pair in features.items():
                values |= _measured(name, pair, train, test, sizes, seed)
            return PartResult(values)
        method = make_method(sizes.num_words, arm=part, seed=seed)
        seen = whole_view(part)(test, generator=make_generator(seed))
        curves: dict[str, list[float]] = {"of the mean bag": [], "of a bag": []}

        def watch(share: float) -> None:
            (bags,) = method.bags(seen)
            curves["of the mean bag"].append(float(perplexity(bags.mean(0))))
            curves["of a bag"].append(float(perplexity(bags).mean()))
            if progress is not None:
                progress(share)

        watch(0.0)
        losses = fit(method, train.replace(material_ids=None), sizes.fit, seed=seed, progress=watch)
        learnt = _embedded(method.encoder, train, test)
        values = dict(_measured(part, learnt, train, test, sizes, seed))
        if part == OBOW:
            beside = [torch.cat(p, 1) for p in zip(learnt, _embedded(RadialDistribution(), train, test), strict=True)]
            values |= _measured(BESIDE_RADIAL, tuple(beside), train, test, sizes, seed)
            values |= foretold(method, train, test, seed=seed)
            values[SUPERCELL] = change_in_supercell(method, test, seed=seed)
            values[IN_USE] = curves["of the mean bag"][-1] / sizes.num_words
        return PartResult(values, {"loss": losses, "perplexity": curves})

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        # that a supercell has the bag of its cell is so by construction, and tested
        return [
            Claim(
                "bags tell structure types better than no training", result.differences(TYPE + OBOW, TYPE + UNTRAINED)
            ),
            Claim("and better than the composition", result.differences(TYPE + OBOW, TYPE + COMPOSITION)),
            Claim("and better than the radial distribution", result.differences(TYPE + OBOW, TYPE + RADIAL)),
            Claim(
                "bags beside the radial distribution tell more than the distribution alone",
                result.differences(TYPE + BESIDE_RADIAL, TYPE + RADIAL),
            ),
            Claim(
                "bags tell the Ewald energy better than no training",
                result.differences(ENERGY + OBOW, ENERGY + UNTRAINED),
            ),
        ]

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        def bars(title: str, y_label: str, prefix: str, names: Sequence[str]) -> Bars:
            return Bars(title, y_label, {name: result.arms[prefix + name] for name in names})

        details = result.details[OBOW]
        curves = {}
        for which in ("of the mean bag", "of a bag"):
            columns = list(zip(*(found["perplexity"][which] for found in details), strict=True))
            curves[which] = Curve(list(range(len(columns))), [sum(c) / len(c) for c in columns])
        return [
            bars("structure type, few labels", "accuracy", TYPE, FEATURES),
            bars("Ewald energy", "R²", ENERGY, FEATURES),
            bars("what foretells the bag", "share of its information", BAG, FORETELLERS),
            Lines("words in use", "epoch", "perplexity", curves),
        ]


EXPERIMENT = ObowCrystals()


def structure_types(crystals: CrystalBatch, known: Sequence[str]) -> Tensor:
    """(num_crystals,) long: the index of each crystal's structure type in `known`."""
    return torch.tensor([list(known).index(name.split(".")[0]) for name in crystals.material_ids or []])


def _embedded(encoder: nn.Module, train: CrystalBatch, test: CrystalBatch) -> tuple[Tensor, ...]:
    return embed(encoder, train), embed(encoder, test)


def _measured(
    name: str, features: tuple[Tensor, ...], train: CrystalBatch, test: CrystalBatch, sizes: Sizes, seed: int
) -> Mapping[str, float]:
    known = sorted({name.split(".")[0] for name in (train.material_ids or []) + (test.material_ids or [])})
    labels = structure_types(train, known)
    # a type with fewer crystals than labels cannot be drawn; in the test it counts as wrong
    enough = (labels.bincount(minlength=len(known)) >= sizes.labels_per_class)[labels]
    accuracy = over_label_draws(
        linear_probe,
        features[0][enough],
        labels[enough],
        features[1],
        structure_types(test, known),
        labels_per_class=sizes.labels_per_class,
        num_draws=sizes.num_draws,
        seed=seed,
    ).mean
    explained = ridge_probe(features[0], train.properties[EWALD_ENERGY], features[1], test.properties[EWALD_ENERGY])
    return {TYPE + name: accuracy, ENERGY + name: explained}


FORETELLERS = ("composition", "the student", "the student, elements hidden")


class _BagOfComposition(Supervision):
    """Softmax regression of bags."""

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        samples, bags = batch
        return {"loss": kl_to_soft_target(self(samples), bags)}


def foretold(method: OnlineBagOfWords, train: CrystalBatch, test: CrystalBatch, *, seed: int) -> dict[str, float]:
    """1 − KL(bag ‖ guess) / KL(bag ‖ mean bag), over test crystals: 1 the bag itself, 0 no better than the mean.

    Guessed from the composition by a softmax regression on the bags of training crystals, and by the student, once as
    the crystal is and once with all its elements hidden.
    """
    # a distribution without randomness draws nothing that matters
    seen, test_seen = (method.whole_view(crystals, generator=make_generator(seed)) for crystals in (train, test))
    (bags,), (test_bags,) = method.bags(seen), method.bags(test_seen)
    composition = _BagOfComposition(Composition(), bags.shape[1])
    shares, test_shares = (embed(composition.encoder, crystals) for crystals in (train, test))
    composition.encoder = nn.Identity()
    settings = FitSettings(100, batch_size=256, learning_rate=0.03, weight_decay=0.1)
    fit(composition, (shares, bags), settings, seed=seed)

    def student(crystals: CrystalBatch) -> Tensor:
        predictor, vocabulary = method.predictors[0], method.vocabularies[0]
        return predictor(embed(method.encoder, crystals), vocabulary.words)

    with torch.no_grad():
        of_the_mean = float(kl_to_soft_target(bags.mean(0).log().expand_as(test_bags), test_bags))
        hidden = ElementMask(1.0)(test, generator=make_generator(seed))
        guesses = (composition(test_shares), student(test), student(hidden))
        errors = [float(kl_to_soft_target(logits, test_bags)) for logits in guesses]
    return {BAG + name: 1.0 - error / of_the_mean for name, error in zip(FORETELLERS, errors, strict=True)}


def change_in_supercell(method: OnlineBagOfWords, crystals: CrystalBatch, *, seed: int, num_cells: int = 3) -> float:
    """The largest change of a word's weight from a crystal's bag to that of a supercell, in double precision."""
    double = method.double()
    crystals = crystals.replace(frac_coords=crystals.frac_coords.double(), lattice=crystals.lattice.double())
    larger = Supercell(num_cells)(crystals, generator=make_generator(seed, 3))
    try:
        (before,), (after,) = double.bags(crystals), double.bags(larger)
    finally:
        method.float()
    return float((before - after).abs().max())
