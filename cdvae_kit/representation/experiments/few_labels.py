"""The experiment `few-labels`: do two of the methods serve a predictor of an energy that has few labels?

The formation energy of Perov-5, of which a few crystals have labels. Crystals are drawn from the validation split, for
training, for the policy or the tolerance, and for measuring; the test split is not touched. Two tries:

* MADAug (see `methods.curriculum`) with 200 labels, for a network that sees distances and elements. It is asked for the
  energy of crystals as they are, and for that of the relaxed crystal where it is handed one that is displaced and
  strained, as it comes out of a generator or before relaxation. The policy costs 100 labels; plain training and the
  right operations on these too stand beside it.
* Invariance-constrained learning (see `methods.invariance_discovery`) for attention over Cartesian coordinates, which
  knows no symmetry of a crystal but the order of its atoms: which changes does the energy not mind, and does a network
  that was made to follow them know more of crystals as they are, or of turned ones?

The number of an arm is the mean absolute error, eV/atom: smaller is better.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from cdvae_kit.nn.mlp import mlp
from cdvae_kit.representation.methods.curriculum import (
    AdaptiveAugmentation,
    AugmentationPolicy,
    CurriculumSettings,
    FixedPolicy,
)
from cdvae_kit.representation.methods.encoder import SetTransformer, embed
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.methods.invariance_discovery import discover_invariances
from cdvae_kit.representation.panels import Bars, Panel
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.base import Identity, IndexedDraws, Transform, join_samples, select_samples
from cdvae_kit.typing import ShareDone

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch

Labelled = tuple[Any, Tensor]
"""Crystals and energies (n,), standardised."""

TARGET = "heat_ref"
DISPLACEMENT, STRAIN = 0.15, 0.04
"""Of what is unrelaxed: angstrom in each direction, and without a unit. The operations reach twice as far."""
RELAXED, UNRELAXED, TURNED = "relaxed", "unrelaxed", "turned"
NONE, UNIFORM, RIGHT, POLICY = "no change", "uniform", "right operations", "policy"
FOR_RELAXED = "policy, validated on relaxed ones"
MORE, MORE_RIGHT = "no change, the policy's labels too", "right operations, the policy's labels too"
RIGHT_ONES = ("displacement", "strain")
INVARIANCES = "invariances"
PLAIN, AUGMENTED, CONSTRAINED = "plain", "turned at random", "constrained by the rotation"
TRUE, FALSE = ("rotation", "origin", "supercell"), "other elements"
TOLERANCE = 1.5
"""Shares of the validation loss, as in `invariance-constrained-crystals`."""
_MEAN = "the mean of the labels"


@dataclass(frozen=True)
class Arm:
    """Policy, labels, and what the policy is validated on."""

    policy: Literal["none", "uniform", "right", "learned"]
    more_labels: bool = False
    validation: Literal["relaxed", "unrelaxed"] = "unrelaxed"


ARMS: dict[str, Arm] = {
    NONE: Arm("none"),
    UNIFORM: Arm("uniform"),
    RIGHT: Arm("right"),
    POLICY: Arm("learned"),
    FOR_RELAXED: Arm("learned", validation="relaxed"),
    MORE: Arm("none", more_labels=True),
    MORE_RIGHT: Arm("right", more_labels=True),
}


@dataclass(frozen=True)
class Sizes:
    """How much is trained and measured.

    Attributes:
        num_labels: crystals that the arms of MADAug train on.
        num_validation: others, for the policy.
        num_steps: of each of these trainings.
        fit: the rest; its number of epochs is set by the steps.
        curriculum: of the policy.
        num_discovery: crystals that the constrained networks train on, and half as many set the tolerance.
        discovery: of the plain training.
        constrained: of the others, which go on from there.
        dual_lr: of the multiplier.
        num_test: crystals that all are measured on.
    """

    num_labels: int
    num_validation: int
    num_steps: int
    fit: FitSettings
    curriculum: CurriculumSettings
    num_discovery: int
    discovery: FitSettings
    constrained: FitSettings
    dual_lr: float
    num_test: int


FULL = Sizes(
    num_labels=200,
    num_validation=100,
    num_steps=600,
    fit=FitSettings(1, batch_size=40, learning_rate=5e-3),
    curriculum=CurriculumSettings(
        timescale=150.0, policy_learning_rate=0.02, policy_weight_decay=1e-4, validation_batch_size=50
    ),
    num_discovery=1000,
    discovery=FitSettings(40, batch_size=50, learning_rate=3e-3, clip_norm=1.0),
    constrained=FitSettings(20, batch_size=50, learning_rate=1e-3, schedule="cosine", clip_norm=1.0),
    dual_lr=0.05,
    num_test=1000,
)
_SHORT = FitSettings(1, batch_size=10)
QUICK = Sizes(12, 8, 4, _SHORT, CurriculumSettings(timescale=3.0), 60, _SHORT, _SHORT, dual_lr=0.05, num_test=20)


def operations() -> dict[str, Transform[CrystalBatch]]:
    """What the policy of an energy chooses from."""
    from cdvae_kit.transforms.crystal_motions import AtomDisplacement, AtomScatter, CrystalRotation
    from cdvae_kit.transforms.crystals import RandomStrain

    return {
        "identity": Identity(),
        "displacement": AtomDisplacement(2.0 * DISPLACEMENT),
        "strain": RandomStrain(2.0 * STRAIN),
        "rotation": CrystalRotation(),
        "scatter": AtomScatter(),
    }


def changes(elements: Sequence[int]) -> dict[str, Transform[CrystalBatch]]:
    """What the energy is asked about: three descriptions of one crystal, two crystals close by, and another compound.

    Args:
        elements: atomic numbers that occur.
    """
    from cdvae_kit.transforms.crystal_motions import AtomDisplacement, CrystalRotation, OriginShift, Supercell
    from cdvae_kit.transforms.crystals import ElementSubstitution, RandomStrain

    own = (CrystalRotation(), OriginShift(), Supercell(2))
    return {
        **dict(zip(TRUE, own, strict=True)),
        "displacement": AtomDisplacement(DISPLACEMENT),
        "strain": RandomStrain(STRAIN),
        FALSE: ElementSubstitution(1.0, tuple(elements)),
    }


def unrelaxed(crystals: CrystalBatch, *, seed: int) -> CrystalBatch:
    """The crystals, each displaced and strained once and for all."""
    from cdvae_kit.transforms.base import Compose
    from cdvae_kit.transforms.crystal_motions import AtomDisplacement
    from cdvae_kit.transforms.crystals import RandomStrain

    heat = Compose([RandomStrain(STRAIN), AtomDisplacement(DISPLACEMENT)])
    changed: CrystalBatch = heat(crystals, generator=IndexedDraws(seed, torch.arange(len(crystals))))
    return changed


@dataclass(frozen=True)
class Draw:
    """Crystals of one seed, in parts that share none; energies are in units of `spread` about the labels' mean."""

    train: Labelled
    validation: Labelled
    test: Labelled
    spread: float

    def error(self, network: Any, crystals: CrystalBatch) -> float:
        """Mean absolute error of the network's one number on the test crystals, or others in their place."""
        return self.spread * float((embed(network, crystals)[:, 0] - self.test[1]).abs().mean())


def draw(crystals: CrystalBatch, energies: Tensor, counts: tuple[int, int, int], *, seed: int) -> Draw:
    """As many crystals to train on, to validate on and to test on as `counts` says, drawn by the seed."""
    if sum(counts) > len(crystals):
        raise ValueError(f"{sum(counts)} crystals are asked for, there are {len(crystals)}")
    order = torch.randperm(len(crystals), generator=make_generator(seed, 0))[: sum(counts)]
    parts = order.split(list(counts))
    mean, spread = energies[parts[0]].mean(), energies[parts[0]].std()
    train, validation, test = ((crystals.select(rows), (energies[rows] - mean) / spread) for rows in parts)
    return Draw(train, validation, test, float(spread))


def squares(output: Tensor, target: Tensor) -> Tensor:
    """(b,) squared error of a network's one number."""
    return (output[:, 0] - target).square()


def train_arm(found: Draw, arm: Arm, sizes: Sizes, *, seed: int, progress: ShareDone | None = None) -> PartResult:
    """The errors of one arm on crystals as they are and unrelaxed, and the weights of a learnt policy."""
    from cdvae_kit.representation.methods.environments import RadialEncoder

    chosen = operations()
    kinds = {RELAXED: found.validation, UNRELAXED: (unrelaxed(found.validation[0], seed=seed), found.validation[1])}
    data = found.train
    if arm.more_labels:
        data = join_samples([data, found.validation if arm.policy == "right" else kinds[UNRELAXED]])
    # the same start for every arm
    with seeded_weights(seed):
        encoder = RadialEncoder(width=48, cutoff=5.0)
        head = mlp([48, 48, 1])
    used = {"none": ["identity"], "uniform": list(chosen), "right": list(RIGHT_ONES)}
    policy: nn.Module
    if arm.policy == "learned":
        policy = AugmentationPolicy(48, len(chosen))
    else:
        policy = FixedPolicy([float(name in used[arm.policy]) for name in chosen])
    objective = AdaptiveAugmentation(
        encoder,
        head,
        list(chosen.values()),
        policy,
        sizes.curriculum,
        validation=kinds[arm.validation],
        sample_loss=squares,
        seed=seed,
    )
    steps = max(1, len(data[1]) // min(sizes.fit.batch_size, len(data[1])))
    settings = replace(sizes.fit, num_epochs=max(1, round(sizes.num_steps / steps)))
    fit(objective, data, settings, seed=seed, progress=progress)
    test = {RELAXED: found.test[0], UNRELAXED: unrelaxed(found.test[0], seed=seed + 1)}
    values = {kind: found.error(objective, crystals) for kind, crystals in test.items()}
    details = {}
    if objective.history:
        weights = objective.plan(found.train[0]).probabilities.detach().double().mean(0).tolist()
        details["weights"] = dict(zip(chosen, weights, strict=True))
    return PartResult(values, details)


def find_invariances(found: Draw, sizes: Sizes, seed: int, progress: ShareDone | None) -> PartResult:
    """Multipliers of all changes, and errors of the plain, the augmented and the constrained network."""
    asked = changes(found.train[0].atomic_numbers.unique().tolist())
    turn = asked["rotation"]
    discovery = discover_invariances(
        make_network,
        found.train,
        found.validation,
        asked,
        loss_fn=squares,
        settings=sizes.discovery,
        constrained_settings=sizes.constrained,
        dual_lr=sizes.dual_lr,
        tolerances=[TOLERANCE],
        start="plain",
        seed=seed,
        progress=progress,
    )
    readings = discovery.at(TOLERANCE)
    with seeded_weights(seed):
        augmented = make_network()
    learner = Supervision(
        augmented, head=nn.Identity(), augmentation=turn, error=lambda output, target: squares(output, target).mean()
    )
    # as many steps as plain and constrained training have together
    epochs = sizes.discovery.num_epochs + sizes.constrained.num_epochs
    fit(learner, found.train, replace(sizes.discovery, num_epochs=epochs), seed=seed)
    with seeded_weights(seed):
        longer = make_network()
    plain = Supervision(longer, head=nn.Identity(), error=lambda output, target: squares(output, target).mean())
    fit(plain, found.train, replace(sizes.discovery, num_epochs=epochs), seed=seed)
    turned = turn(found.test[0], generator=make_generator(seed, 3))
    networks = {PLAIN: longer, AUGMENTED: augmented, CONSTRAINED: readings["rotation"].model}
    values = {
        f"{INVARIANCES}, {name}: {kind}": found.error(network, crystals)
        for name, network in networks.items()
        for kind, crystals in ((RELAXED, found.test[0]), (TURNED, turned))
    }
    values[f"{INVARIANCES}, {_MEAN}"] = found.spread * float(found.test[1].abs().mean())
    for name, reading in readings.items():
        values[f"{INVARIANCES}: multiplier of {name}"] = reading.dual
        values[f"{INVARIANCES}: {name} costs nothing"] = float(reading.verdict == "free")
    return PartResult(values, {name: reading.as_details() for name, reading in readings.items()})


def make_network() -> nn.Module:
    """Attention over Cartesian coordinates, and one number."""
    return nn.Sequential(SetTransformer(width=48, num_layers=1, length=1.0), mlp([48, 48, 1]))


@lru_cache(maxsize=2)
def _labelled(folder: str | None) -> CrystalBatch | str:
    """The validation split of Perov-5, or why it is not there."""
    from cdvae_kit.datasets.loading import load_dataset

    try:
        return load_dataset("perov_5", split="val", folder=folder).crystals
    except FileNotFoundError as error:
        return str(error)


class FewLabels(Experiment):
    """Arms of MADAug, and a network without symmetry, on the formation energies of Perov-5.

    Args:
        data: the folder where the data sets lie, by default where `generate-crystals download` puts them.
    """

    name = "few-labels"
    paper = (
        "the methods of Hou et al., ICCV 2023, arXiv 2309.04747, and Hounie et al., ICML 2023, arXiv 2209.15031, on "
        "crystals: ours"
    )
    summary = "learnt augmentation and constrained invariance for the energy of perovskites, with few labels"
    reads_data = True

    def __init__(self, data: str | os.PathLike[str] | None = None) -> None:
        self.data = data

    def with_data(self, folder: str | os.PathLike[str]) -> Experiment:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"there is no folder {os.fspath(folder)} to read data sets from")
        return FewLabels(folder)

    def parts(self, *, quick: bool) -> Sequence[str]:
        return [*ARMS, INVARIANCES]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        if quick:
            return PartResult({}, {"skipped": "a trial reads no data set"})
        loaded = _labelled(None if self.data is None else os.fspath(self.data))
        if isinstance(loaded, str):
            return PartResult({}, {"skipped": loaded})
        return run_part(part, loaded, FULL, seed, progress)

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        def less(kind: str, arm: str, other: str) -> tuple[float, ...]:
            return result.differences(f"{arm}: {kind}", f"{other}: {kind}")

        if not {f"{NONE}: {RELAXED}", f"{INVARIANCES}, {PLAIN}: {RELAXED}"} & set(result.arms):
            return []
        claims = [
            Claim(f"unrelaxed crystals: error of the policy less that of {other}", less(UNRELAXED, POLICY, other))
            for other in (NONE, UNIFORM, MORE, MORE_RIGHT)
        ]
        claims.append(
            Claim("relaxed crystals: error of the policy less that of no change", less(RELAXED, FOR_RELAXED, NONE))
        )
        own, made = f"{INVARIANCES}, {CONSTRAINED}", f"{INVARIANCES}, {PLAIN}"
        claims += [
            Claim("relaxed crystals: error of the network that minds no rotation less plain", less(RELAXED, own, made)),
            Claim("turned crystals: error of the network that minds no rotation less plain", less(TURNED, own, made)),
            Claim(
                "turned crystals: error of the constrained network less that of one trained on turned crystals",
                less(TURNED, own, f"{INVARIANCES}, {AUGMENTED}"),
            ),
        ]
        claims = [replace(claim, relation="at most") for claim in claims]
        free = [result.per_seed(f"{INVARIANCES}: {name} costs nothing") for name in TRUE]
        false = result.per_seed(f"{INVARIANCES}: {FALSE} costs nothing")
        named = [
            (sum(column) + 1.0 - wrong) / (len(TRUE) + 1)
            for column, wrong in zip(zip(*free, strict=True), false, strict=True)
        ]
        claims.append(
            Claim("share of rotation, origin, supercell and other elements that is named rightly", named, 0.9)
        )
        return claims

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        def bars(title: str, ending: str) -> Bars:
            arms = {name.removesuffix(ending): values for name, values in result.arms.items() if name.endswith(ending)}
            return Bars(title, "mean absolute error, eV/atom", arms)

        if not result.arms:
            return []
        multipliers = {
            name.partition(" of ")[2]: values for name, values in result.arms.items() if "multiplier of" in name
        }
        return [
            bars("relaxed crystals", f": {RELAXED}"),
            bars("unrelaxed crystals", f": {UNRELAXED}"),
            bars("turned crystals", f": {TURNED}"),
            Bars("what the energy does not mind", "multiplier γ", multipliers),
        ]


def run_part(
    part: str, crystals: CrystalBatch, sizes: Sizes, seed: int, progress: ShareDone | None = None
) -> PartResult:
    """One part on crystals with the property `heat_ref`, of all of which the label is known."""
    energies = crystals.properties[TARGET].float()
    bare = crystals.replace(properties={}, material_ids=None)
    known = torch.nonzero(energies.isfinite()).flatten()
    bare, energies = select_samples((bare, energies), known)
    if part == INVARIANCES:
        half = sizes.num_discovery // 2
        found = draw(bare, energies, (sizes.num_discovery, half, sizes.num_test), seed=seed)
        return find_invariances(found, sizes, seed, progress)
    found = draw(bare, energies, (sizes.num_labels, sizes.num_validation, sizes.num_test), seed=seed)
    result = train_arm(found, ARMS[part], sizes, seed=seed, progress=progress)
    details: Mapping[str, Any] = result.details
    return PartResult({f"{part}: {kind}": error for kind, error in result.values.items()}, details)


EXPERIMENT = FewLabels()
