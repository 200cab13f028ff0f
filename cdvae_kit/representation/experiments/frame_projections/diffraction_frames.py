"""The experiment `diffraction-frames`: frames of powder patterns, from few labelled crystals to system and lattice.

The frames do not help here (seeds 10 to 12): the mean magnitudes of the wavelets, without a network, answer best what
the system and the structure type are, and SimCLR with a small shift does better in all three questions, though the
position of a peak is the answer and one would expect a shift or a stretch to be the wrong invariance. Crystals
are the package's own ionic prototypes, strained at random, and no formula stands on both sides of the split; patterns
are pymatgen's with counting noise. Three questions are put to the same features: the crystal system and the structure
type, by a logistic probe, and the lattice parameter a of the Niggli cell, by a ridge. For crystals of one's own, read
from any file: `compare_on_crystals`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.diffraction import DiffractionGrid, powder_patterns
from cdvae_kit.crystal.symmetry import crystal_system
from cdvae_kit.datasets.ionic_prototypes import load_ionic_prototypes
from cdvae_kit.datasets.prototype_cells import PROTOTYPES
from cdvae_kit.representation.experiments.frame_projections.series_arms import (
    Features,
    SeriesArms,
    SeriesSettings,
    standardised,
)
from cdvae_kit.representation.methods.probing import (
    ProbeScore,
    TooFewSamplesError,
    draw_labels,
    knn_probe,
    linear_probe,
    over_label_draws,
    ridge_probe,
    split_samples,
)
from cdvae_kit.representation.panels import Bars, Curve, Lines, Panel
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import Compose, Transform, uniform
from cdvae_kit.transforms.crystals import RandomStrain
from cdvae_kit.transforms.time_series import Amplify, Jitter, Resample, Shift
from cdvae_kit.typing import ShareDone

Question = Literal["classes", "numbers"]

AUGMENTATIONS: dict[str, Transform[Tensor]] = {
    "jitter": Compose([Jitter(0.2), Amplify(0.3)]),
    "jitter and shift": Compose([Jitter(0.2), Amplify(0.3), Shift(0.1)]),
    "jitter and stretch": Compose([Jitter(0.2), Amplify(0.3), Resample(1.1)]),
}
FRAME_SETS = {"frames": ("fourier", "morlet")}
"""As in the paper. Over Q = 4π sin θ / λ the Fourier view would be a pair distribution function; the grid is of 2θ,
over which the period of a wave means no distance."""
SYSTEM, TYPE, LATTICE = "system", "structure type", "lattice"
_FRAMES = "frames, concatenated"
_STRAIN, _COPIES, _NOISE, _LABELS = 1, 2, 3, 4  # keys of draws


class Patterns(NamedTuple):
    """Powder patterns with what is asked of them.

    Attributes:
        series: (n, 1, points).
        systems: (n,) long, the crystal system.
        types: (n,) long, the structure type.
        lattices: (n,) angstrom, the lattice parameter a.
    """

    series: Tensor
    systems: Tensor
    types: Tensor
    lattices: Tensor


@dataclass(frozen=True)
class Sizes:
    """How much is trained and tested.

    Attributes:
        train_per_type: strained crystals of each structure type, without labels.
        test_per_type: others, of other formulas.
        strain: standard deviation of `RandomStrain`.
        counts: photons at the highest point of a pattern.
        background: share of the highest point.
        labels_per_class: of the logistic probe.
        labels_of_lattice: crystals whose lattice parameter is told.
        num_draws: of the labels.
        grid: of the patterns.
        settings: of the networks.
    """

    train_per_type: int = 40
    test_per_type: int = 20
    strain: float = 0.02
    counts: float = 100.0
    background: float = 0.1
    labels_per_class: int = 10
    labels_of_lattice: int = 100
    num_draws: int = 5
    grid: DiffractionGrid = DiffractionGrid()  # noqa: RUF009  it is frozen
    settings: SeriesSettings = SeriesSettings(num_steps=100)  # noqa: RUF009


FULL = Sizes()
QUICK = Sizes(
    train_per_type=3,
    test_per_type=2,
    labels_per_class=2,
    labels_of_lattice=20,
    num_draws=2,
    settings=SeriesSettings(num_steps=2, batch_size=16, num_scales=8, num_windows=4, mapper_epochs=1),
)


@lru_cache(maxsize=4)
def prototype_patterns(split: Literal["train", "test"], sizes: Sizes, seed: int) -> Patterns:
    """Patterns of as many crystals of each structure type; where it has fewer, some are strained more than once."""
    # kept: the parts of a seed ask for the same ones
    pool = _of_split(split)
    types = torch.tensor([_type_of(name) for name in pool.material_ids or []])
    key = 0 if split == "train" else 1
    num_each = sizes.train_per_type if split == "train" else sizes.test_per_type
    generator = make_generator(seed, key, _COPIES)
    chosen = torch.cat(
        [
            members[(uniform(generator, num_each) * len(members)).long().clamp_max(len(members) - 1)]
            for label in types.unique()
            for members in [(types == label).nonzero().flatten()]
        ]
    )
    strain = RandomStrain(sizes.strain)
    crystals = strain(pool.replace(material_ids=None).select(chosen), generator=make_generator(seed, key, _STRAIN))
    found = powder_patterns(crystals, sizes.grid)
    sound = torch.tensor([reason is None for reason in found.reasons])
    noisy = counted(
        found.intensities[sound],
        counts=sizes.counts,
        background=sizes.background,
        generator=make_generator(seed, key, _NOISE),
    )
    systems = torch.tensor([_SYSTEMS.index(crystal_system(p.space_group)) for p in PROTOTYPES])
    labels = types[chosen][sound]
    return Patterns(noisy[:, None], systems[labels], labels, lattice_parameter(crystals)[sound])


_SYSTEMS = ["triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal", "cubic"]


def _of_split(split: Literal["train", "test"]) -> CrystalBatch:
    """The prototypes of a split; validation counts to the test, for some structure types are few."""
    if split == "train":
        return load_ionic_prototypes(split="train")
    return concatenate([load_ionic_prototypes(split="val"), load_ionic_prototypes(split="test")])


def _type_of(material_id: str) -> int:
    return [prototype.name for prototype in PROTOTYPES].index(material_id.split(".")[0])


def lattice_parameter(crystals: CrystalBatch) -> Tensor:
    """(n,) angstrom: the length a of the cell as it is given; of the prototypes' Niggli cells it is the shortest."""
    return crystals.lattice[:, 0].norm(dim=-1)


def counted(intensities: Tensor, *, counts: float, background: float, generator: torch.Generator) -> Tensor:
    """Patterns as a counter sees them: Poisson noise on intensity and flat background, as square roots.

    The square root makes the noise alike at all heights.

    Args:
        intensities: (n, points), the highest point 1.
        counts: expected at the highest point.
        background: share of the highest point.
        generator: of the noise.

    >>> seen = counted(torch.ones(2, 50), counts=1e4, background=0.0, generator=make_generator(0))
    >>> bool((seen - 1.0).abs().max() < 0.03)
    True
    """
    expected = counts * (intensities + background) / (1.0 + background)
    return (torch.poisson(expected, generator=generator) / counts).sqrt()


def score_features(
    features: Features,
    labels: tuple[Tensor, Tensor],
    question: Question,
    *,
    num_labels: int,
    num_draws: int,
    seed: int,
    neighbours: bool = False,
) -> ProbeScore:
    """Accuracy of a logistic probe on `num_labels` a class, or R² of a ridge on `num_labels` in all.

    Args:
        features: of training and test samples.
        labels: of both.
        question: what the labels are.
        num_labels: that the probe sees in each draw.
        num_draws: of labels, the same for all arms.
        seed: of the draws.
        neighbours: vote of the nearest neighbour in place of the logistic regression.
    """
    train, test = features
    if question == "classes":
        probe = _nearest if neighbours else linear_probe
        return over_label_draws(
            probe, train, labels[0], test, labels[1], labels_per_class=num_labels, num_draws=num_draws, seed=seed
        )
    alike = torch.zeros(len(train), dtype=torch.long)
    scores = []
    for draw in range(num_draws):
        chosen = draw_labels(alike, num_labels, generator=make_generator(seed, draw, _LABELS))
        # the penalty of a standardised ridge: as many labels as columns are no rarity here
        scores.append(ridge_probe(train[chosen], labels[0][chosen], test, labels[1], penalty=10.0))
    return ProbeScore(tuple(scores))


def _nearest(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    return knn_probe(train, train_labels, test, test_labels, k=1)


class FramesOnDiffraction(Experiment):
    """Three questions to the patterns of strained prototypes, for each arm's features; ours, and its answer is no."""

    name = "diffraction-frames"
    paper = (
        "Demirel, Holz, Learning without augmenting: unsupervised time series representation learning via frame "
        "projections, NeurIPS 2025, arXiv 2510.22655; on powder diffraction"
    )
    summary = "crystal system, structure type and lattice parameter from powder patterns with few labels"

    def parts(self, *, quick: bool) -> Sequence[str]:
        return _arms(FULL.settings).parts

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        sizes = QUICK if quick else FULL
        train, test = (prototype_patterns(split, sizes, seed) for split in ("train", "test"))
        series, test_series = standardised(train.series, test.series)
        values, errors = {}, {}
        for arm, features in (
            _arms(sizes.settings).features(part, series, test_series, seed=seed, progress=progress).items()
        ):
            for what, score in _questions(arm, features, train, test, sizes, seed).items():
                values[what], errors[what] = score.mean, score.standard_error
        return PartResult(values, {"standard_error_over_labels": errors, "patterns": [len(series), len(test_series)]})

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        if result.left_out:
            # each claim is about the best of all arms
            return []
        claims = []
        for question in (SYSTEM, TYPE, LATTICE):
            own = f"{question}: {_FRAMES}"
            asked = [arm for arm in result.arms if arm.startswith(f"{question}: ")]
            for what, arms in (
                ("the best arm of SimCLR", [arm for arm in asked if ": SimCLR, " in arm]),
                ("the best row without a trained network", [arm for arm in asked if _is_plain(arm)]),
            ):
                best = result.best(arms)
                claims.append(Claim(f"frames beat {what} ({best})", result.differences(own, best), 0.0))
        return claims

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        bars = [
            Bars(
                title,
                label,
                {
                    arm.removeprefix(f"{question}: "): values
                    for arm, values in result.arms.items()
                    if arm.startswith(f"{question}: ")
                },
                ("raw pattern", result.mean(f"{question}: raw series")),
            )
            for question, title, label in (
                (SYSTEM, "crystal system", f"accuracy, {FULL.labels_per_class} labels a class"),
                (TYPE, "structure type", f"accuracy, {FULL.labels_per_class} labels a class"),
                (LATTICE, "lattice parameter a", f"R², {FULL.labels_of_lattice} labels"),
            )
        ]
        return [*bars, _shown_patterns()]


EXPERIMENT = FramesOnDiffraction()


def _arms(settings: SeriesSettings) -> SeriesArms:
    return SeriesArms(settings, AUGMENTATIONS, FRAME_SETS)


def _is_plain(arm: str) -> bool:
    return ": SimCLR, " not in arm and ": frames" not in arm and ": spectrum regressed" not in arm


def _questions(
    arm: str, features: Features, train: Patterns, test: Patterns, sizes: Sizes, seed: int
) -> dict[str, ProbeScore]:
    scores = {}

    def of_classes(labels: tuple[Tensor, Tensor], *, neighbours: bool = False) -> ProbeScore:
        return score_features(
            features,
            labels,
            "classes",
            num_labels=sizes.labels_per_class,
            num_draws=sizes.num_draws,
            seed=seed,
            neighbours=neighbours,
        )

    for what, labels in ((SYSTEM, (train.systems, test.systems)), (TYPE, (train.types, test.types))):
        scores[f"{what}: {arm}"] = of_classes(labels)
        if arm == "raw series":
            scores[f"{what}: nearest pattern"] = of_classes(labels, neighbours=True)
    scores[f"{LATTICE}: {arm}"] = score_features(
        features,
        (train.lattices, test.lattices),
        "numbers",
        num_labels=min(sizes.labels_of_lattice, len(train.lattices)),
        num_draws=sizes.num_draws,
        seed=seed,
    )
    return scores


def _shown_patterns() -> Lines:
    """One crystal of each of four structure types."""
    shown = ("rock_salt", "perovskite", "wurtzite", "rutile")
    names = [prototype.name for prototype in PROTOTYPES]
    pool = load_ionic_prototypes(split="all")
    types = [_type_of(name) for name in pool.material_ids or []]
    chosen = torch.tensor([types.index(names.index(name)) for name in shown])
    grid = FULL.grid
    patterns = powder_patterns(pool.select(chosen), grid).intensities
    angles = grid.angles.tolist()
    return Lines(
        "patterns without noise, one above the other",
        "2θ, degrees",
        "intensity",
        {
            name.replace("_", " "): Curve(angles, (pattern + 1.1 * (len(shown) - 1 - i)).tolist())
            for i, (name, pattern) in enumerate(zip(shown, patterns, strict=True))
        },
    )


@dataclass(frozen=True)
class CrystalComparison:
    """What arms make of the patterns of one's own crystals.

    Attributes:
        scores: arm to its score, accuracy or R².
        num_patterns: crystals for training and for testing.
        left_out: crystals without a label or without a pattern, with the reason.
    """

    scores: Mapping[str, ProbeScore]
    num_patterns: tuple[int, int]
    left_out: Mapping[int, str]


def compare_on_crystals(
    crystals: CrystalBatch,
    labels: Tensor,
    *,
    question: Question,
    num_labels: int,
    num_draws: int = 5,
    test_share: float = 0.3,
    counts: float = FULL.counts,
    background: float = FULL.background,
    grid: DiffractionGrid | None = None,
    settings: SeriesSettings | None = None,
    augmentations: Mapping[str, Transform[Tensor]] = AUGMENTATIONS,
    seed: int = 0,
    progress: ShareDone | None = None,
) -> CrystalComparison:
    """The score of each arm on the powder patterns of any crystals, for instance `io.read_crystals(path).crystals`.

    Args:
        crystals: some 10 ms each for their patterns.
        labels: (n,), integers for `classes`, any for `numbers`; NaN where one is not known.
        question: a logistic probe and accuracy, or a ridge and R².
        num_labels: that the probe sees: of each class, or in all. Classes with fewer are left out.
        num_draws: of labels.
        test_share: of the crystals, drawn by the seed.
        counts: photons at the highest point of a pattern.
        background: share of the highest point.
        grid: of the patterns.
        settings: of the networks.
        augmentations: the arms of SimCLR.
        seed: of everything.
        progress: told the share of the parts that are done.
    """
    if labels.shape != (len(crystals),):
        raise ValueError(f"expected a label for each of {len(crystals)} crystals, got {tuple(labels.shape)}")
    found = powder_patterns(crystals, grid)
    left_out = {i: reason for i, reason in enumerate(found.reasons) if reason is not None}
    left_out |= dict.fromkeys((~torch.isfinite(labels)).nonzero().flatten().tolist(), "no label")
    kept = torch.tensor([i for i in range(len(crystals)) if i not in left_out], dtype=torch.long)
    if len(kept) < 2:
        raise TooFewSamplesError(f"{len(kept)} of {len(crystals)} crystals have a pattern and a label")
    train, test = (kept[part] for part in split_samples(len(kept), test_share=test_share, seed=seed))
    if question == "classes":
        known, counted_labels = labels[train].unique(return_counts=True)
        enough = known[counted_labels >= num_labels]
        left_out |= {
            int(i): f"class {labels[i].item():g} has fewer than {num_labels} labels"
            for i in kept[~torch.isin(labels[kept], enough)]
        }
        train, test = (part[torch.isin(labels[part], enough)] for part in (train, test))
        labels = labels.long()
    noisy = counted(
        found.intensities.nan_to_num(), counts=counts, background=background, generator=make_generator(seed, _NOISE)
    )[:, None]
    series, test_series = standardised(noisy[train], noisy[test])
    arms = SeriesArms(settings or FULL.settings, augmentations, FRAME_SETS)
    scores: dict[str, ProbeScore] = {}
    for done, part in enumerate(arms.parts):
        if progress is not None:
            progress(done / len(arms.parts))
        for arm, features in arms.features(part, series, test_series, seed=seed).items():
            scores[arm] = score_features(
                features, (labels[train], labels[test]), question, num_labels=num_labels, num_draws=num_draws, seed=seed
            )
    if progress is not None:
        progress(1.0)
    return CrystalComparison(scores, (len(train), len(test)), left_out)
