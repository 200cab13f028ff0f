"""The four comparisons of the paper on invariance transfer, each for one seed: data, networks, numbers.

`invariance_transfer` puts them together and judges them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.datasets.composed_images import ComposedImages, Ingredient, make_random_pixels, make_sprites, paired_by
from cdvae_kit.representation.methods.encoder import ConvEncoder
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, accuracy, fit
from cdvae_kit.representation.methods.invariance_measures import ProbeData, Table, sensitivity_of_pairs, transfer_matrix
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms.images import GROUPS, Translate
from cdvae_kit.typing import ShareDone

GROUP_NAMES = {name: tuple(kind().name for kind in kinds) for name, kinds in GROUPS.items()}
OTHER_CLASSES, OWN_CLASSES, BOTH_CLASSES = "other classes", "own classes", "own and other classes"
HALF_OF_THE_CLASSES = "half of the own classes"
FEWER_IMAGES, DEEPER = "other classes, a tenth of the images", "other classes, one layer more"
_TRAIN_SEED, _TARGET_SEED, _PAIR_SEED = 1, 2, 3
_SMALL, _AT_THE_CORNER = 0.4, "upper_right"
_FITTING = FitSettings(num_epochs=1, batch_size=64, learning_rate=1e-2)


@dataclass(frozen=True)
class Sizes:
    """Of one comparison.

    Attributes:
        num_classes: of the target, and as many others.
        num_train: images that a network is trained on.
        num_passes: how often each is seen.
        widths: of the convolutions, where no encoder is given.
        enlarged: how many times as large as in the other comparisons the images are.
    """

    num_classes: int = 10
    num_train: int = 20_000
    num_passes: int = 1
    widths: tuple[int, ...] = (16, 32, 64)
    enlarged: int = 1


@dataclass(frozen=True)
class Setup:
    """What all comparisons share, and the sizes of each.

    Attributes:
        factors: many classes, so that what is learnt of them may serve others.
        nested: few classes, large images and a long training: eight transforms at once must be learnable at all, and
            where colours are not to be minded, shapes must tell.
        irrelevant: features of ten classes each.
        transfer: for networks of a single transform.
        num_probe: labelled images of the target that a probe is fitted on, and as many that judge it.
        tuning_passes: how often each of them is seen where the whole network is fine-tuned on them.
        num_pairs: pairs that a sensitivity is measured on.
        image_size: pixels a side, but where a comparison enlarges it.
        fitting: of the networks.
        make_encoder: an untrained encoder of images (b, 3, size, size), of the enlarged size too, with `out_features`,
            instead of the small one; only the arm of one layer more keeps that.
        objects: (n, 4, s, s), twice as many as the classes of the largest comparison, instead of the sprites; each seed
            chooses others.
        backgrounds: (n, 3, size, size), photographs instead of smooth noise where a background has no class.
    """

    factors: Sizes = Sizes(num_classes=20)
    nested: Sizes = Sizes(num_classes=5, num_train=28_000, num_passes=2, widths=(16, 32, 64, 96), enlarged=2)
    irrelevant: Sizes = Sizes(num_train=12_000)
    transfer: Sizes = Sizes(num_train=15_000)
    num_probe: int = 1000
    tuning_passes: int = 10
    num_pairs: int = 1000
    image_size: int = 16
    fitting: FitSettings = _FITTING
    make_encoder: Callable[[], nn.Module] | None = None
    objects: Tensor | None = None
    backgrounds: Tensor | None = None

    def __post_init__(self) -> None:
        most = 2 * max(sizes.num_classes for sizes in (self.factors, self.nested, self.irrelevant, self.transfer))
        if self.objects is not None and len(self.objects) < most:
            raise ValueError(
                f"the comparisons need {most} objects, those of the target and as many others, got {len(self.objects)}"
            )

    def quick(self) -> Setup:
        """The sizes of a trial."""
        few = Sizes(num_classes=5, num_train=256, widths=(8, 16))
        return replace(
            self, factors=few, nested=few, irrelevant=few, transfer=few, num_probe=100, num_pairs=60, tuning_passes=1
        )


@dataclass(frozen=True)
class _Objects:
    """Pictures of classes, and the classes' numbers."""

    classes: tuple[int, ...]
    pictures: Tensor

    def part(self, start: int, stop: int) -> _Objects:
        return _Objects(self.classes[start:stop], self.pictures[start:stop])


class _Bench:
    """Makes the data sets and networks of one comparison and seed, and tells how far it is."""

    def __init__(self, setup: Setup, sizes: Sizes, seed: int, num_networks: int, progress: ShareDone | None) -> None:
        self.setup, self.sizes, self.seed = setup, sizes, seed
        self._num_networks, self._done, self._progress = num_networks, 0, progress

    def objects(self, *, random_pixels: bool = False) -> tuple[_Objects, _Objects]:
        """The target's classes and as many others, for each seed new ones."""
        num = self.sizes.num_classes
        classes = tuple(range(100 * self.seed, 100 * self.seed + 2 * num))
        if random_pixels:
            pictures = make_random_pixels(classes)
        elif self.setup.objects is None:
            pictures = make_sprites(classes)
        else:
            order = torch.randperm(len(self.setup.objects), generator=make_generator(self.seed, 11))[: 2 * num]
            classes, pictures = tuple(order.tolist()), self.setup.objects[order]
        everything = _Objects(classes, pictures)
        return everything.part(0, num), everything.part(num, 2 * num)

    def images(
        self, objects: _Objects, transforms: Sequence[Any], num: int, kind: int, **options: Any
    ) -> ComposedImages:
        side = self.sizes.enlarged * self.setup.image_size
        if "background_classes" not in options:
            photographs = self.setup.backgrounds
            if photographs is not None and photographs.shape[-1] != side:
                photographs = functional.interpolate(photographs, (side, side), mode="bilinear")
            options = {"backgrounds": photographs, **options}
        return ComposedImages(
            objects.classes,
            transforms,
            num,
            seed=1000 * self.seed + kind,
            image_size=side,
            objects=objects.pictures,
            **options,
        )

    def train(
        self,
        objects: _Objects,
        transforms: Sequence[Any],
        *,
        fewer: int = 1,
        widths: tuple[int, ...] | None = None,
        **options: Any,
    ) -> nn.Module:
        """A network trained to tell the classes of D(objects, transforms).

        With a `fewer`-th of the images each is seen so much oftener.
        """
        data = self.images(objects, transforms, self.sizes.num_train // fewer, _TRAIN_SEED, **options)
        images, labels = data.tensors()
        with seeded_weights(self.seed):
            if self.setup.make_encoder is None or widths is not None:
                encoder: nn.Module = ConvEncoder(in_channels=3, widths=widths or self.sizes.widths)
            else:
                encoder = self.setup.make_encoder()
            objective = Supervision(encoder, data.num_labels)
        fitting = replace(self.setup.fitting, num_epochs=fewer * self.sizes.num_passes * self.setup.fitting.num_epochs)
        # the order of memory in which convolutions of few channels are faster
        fit(objective, (images.contiguous(memory_format=torch.channels_last), labels), fitting, seed=self.seed)
        self._done += 1
        if self._progress is not None:
            self._progress(self._done / self._num_networks)
        return encoder

    def tuned(self, network: nn.Module, target: ProbeData) -> float:
        """The accuracy of a copy of the network whose weights, and a new last layer, are all trained on the target."""
        with seeded_weights(self.seed):
            objective = Supervision(copy.deepcopy(network), int(target.train_labels.max()) + 1)
        # as for the linear probe before it, a gentle rate: what was learnt is a start, not noise
        fitting = replace(
            self.setup.fitting,
            num_epochs=self.setup.tuning_passes,
            learning_rate=0.2 * self.setup.fitting.learning_rate,
        )
        fit(objective, (target.train, target.train_labels), fitting, seed=self.seed)
        return accuracy(objective, (target.test, target.test_labels))

    def target(self, objects: _Objects, transforms: Sequence[Any], **options: Any) -> ProbeData:
        num = self.setup.num_probe
        images, labels = self.images(objects, transforms, 2 * num, _TARGET_SEED, **options).tensors()
        return ProbeData(images[:num], labels[:num], images[num:], labels[num:])

    def pairs(
        self, objects: _Objects, transforms: Sequence[Any], what: Ingredient = "transform", **options: Any
    ) -> tuple[Tensor, Tensor]:
        data = self.images(objects, transforms, self.setup.num_pairs, _PAIR_SEED, **options)
        return paired_by(data, what, (1000 * self.seed + 101, 1000 * self.seed + 102))


def two_choices(seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Two sets of three transforms, one of each group, that share none."""
    generator = make_generator(seed, 21)
    drawn = [[names[i] for i in torch.randperm(len(names), generator=generator)[:2]] for names in GROUP_NAMES.values()]
    return tuple(names[0] for names in drawn), tuple(names[1] for names in drawn)


def nested_choice(seed: int, num: int) -> tuple[str, ...]:
    """`num` transforms, the groups in turn; its beginnings are the nested sets."""
    generator = make_generator(seed, 22)
    columns = [[names[i] for i in torch.randperm(len(names), generator=generator)] for names in GROUP_NAMES.values()]
    return tuple(name for row in zip(*columns, strict=True) for name in row)[:num]


def a_third(seed: int) -> tuple[str, ...]:
    """Six of the eighteen, two of each group; three seeds in a row have all."""
    start = 2 * (seed % 3)
    return tuple(name for names in GROUP_NAMES.values() for name in names[start : start + 2])


def compare_factors(setup: Setup, seed: int, progress: ShareDone | None = None) -> PartResult:
    """The target's transforms or others, against classes, number of images and depth of the network.

    All networks are probed on the same target. Arms are `same: FACTOR` and `disjoint: FACTOR`; of the first factor also
    `fine-tuned, same` and `fine-tuned, disjoint`, where the whole network goes on to learn from the probe's images.
    """
    own, foreign = two_choices(seed)
    bench = _Bench(setup, setup.factors, seed, 2 * 6, progress)
    wanted, others = bench.objects()
    both = _Objects(wanted.classes + others.classes, torch.cat([wanted.pictures, others.pictures]))
    factors: dict[str, dict[str, Any]] = {
        OTHER_CLASSES: {"objects": others},
        OWN_CLASSES: {"objects": wanted},
        HALF_OF_THE_CLASSES: {"objects": wanted.part(0, (setup.factors.num_classes + 1) // 2)},
        BOTH_CLASSES: {"objects": both},
        FEWER_IMAGES: {"objects": others, "fewer": 10},
        DEEPER: {
            "objects": others,
            "widths": (*setup.factors.widths, setup.factors.widths[-1]),
        },
    }
    target = {"target": bench.target(wanted, own)}
    values, tuned = {}, {}
    for name, options in factors.items():
        for relation, transforms in (("same", own), ("disjoint", foreign)):
            network = bench.train(transforms=transforms, **options)
            values[f"{relation}: {name}"] = transfer_matrix({"network": network}, target)["network", "target"]
            if name == OTHER_CLASSES:
                tuned[f"fine-tuned, {relation}"] = bench.tuned(network, target["target"])
    values |= tuned
    return PartResult(values, {"target_transforms": own, "disjoint_transforms": foreign, "factors": list(factors)})


def compare_nested(setup: Setup, seed: int, progress: ShareDone | None = None) -> PartResult:
    """Networks trained on the first 1 .. 8 transforms of a list, each probed on each: does more harm, does less?

    Classes are the same throughout. A shortfall is the accuracy of the network that was trained on the target's own
    transforms, less that of the network in question.
    """
    counts = (1, 2, 4, 8)
    most, least = str(counts[-1]), str(counts[0])
    names = nested_choice(seed, counts[-1])
    bench = _Bench(setup, setup.nested, seed, len(counts), progress)
    objects, _ = bench.objects()
    networks = {str(count): bench.train(objects, names[:count]) for count in counts}
    targets = {str(count): bench.target(objects, names[:count]) for count in counts}
    table = transfer_matrix(networks, targets)
    values = {
        "nested: 1 transform on its own target": table[least, least],
        "nested: 8 transforms on their own target": table[most, most],
        "nested: 8 transforms on the target of 1": table[most, least],
        "nested: 1 transform on the target of 8": table[least, most],
        "nested: worst shortfall of 8 transforms": max(table[name, name] - table[most, name] for name in targets),
        "nested: worst shortfall of 1 transform": max(table[name, name] - table[least, name] for name in targets),
    }
    return PartResult(values, {"transforms": names, "accuracy": _plain(table)})


def compare_irrelevant(setup: Setup, seed: int, progress: ShareDone | None = None) -> PartResult:
    """Two features in one image, one of them without use for the task: what of it is left?

    A background C (smooth noise about the prototype of its class, where the paper has CIFAR-10), an object O pasted
    small at the upper right. Networks and probes are named FEATURES→LABEL. Then the objects show more or less often, or
    follow the background's class more or less often, while the network learns the background; what is read from it is
    the object. Last, the object stands anywhere.
    """
    sweeps: dict[str, Sequence[float]] = {"availability": (0.25, 0.5, 0.75), "correlation": (0.5, 0.8, 0.95, 1.0)}
    bench = _Bench(setup, setup.irrelevant, seed, 4 + sum(map(len, sweeps.values())) + 2, progress)
    objects, _ = bench.objects()
    backgrounds = tuple(range(100 * seed, 100 * seed + setup.irrelevant.num_classes))
    both: dict[str, Any] = {"background_classes": backgrounds, "object_share": _SMALL, "place": _AT_THE_CORNER}
    tasks: dict[str, dict[str, Any]] = {
        "C→C": {**both, "availability": 0.0, "label": "background"},
        "CO→C": {**both, "label": "background"},
        "CO→O": {**both, "label": "object"},
        "O→O": {"backgrounds": "black", "object_share": _SMALL, "place": _AT_THE_CORNER},
    }
    networks = {name: bench.train(objects, [], **options) for name, options in tasks.items()}
    targets = {name: bench.target(objects, [], **options) for name, options in tasks.items()}
    table = transfer_matrix(networks, targets)
    ingredients: tuple[Ingredient, ...] = ("background", "object")
    felt = sensitivity_of_pairs(
        {name: networks[name] for name in ("CO→C", "CO→O")},
        {what: bench.pairs(objects, [], what, **both) for what in ingredients},
        generator=make_generator(seed, 31),
    )
    read = {"object": targets["CO→O"]}
    curves = {"availability": {0.0: table["C→C", "CO→O"]}, "correlation": {0.0: table["CO→C", "CO→O"]}}
    for what, levels in sweeps.items():
        for level in levels:
            network = bench.train(objects, [], **{**tasks["CO→C"], what: level})
            curves[what][level] = transfer_matrix({"network": network}, read)["network", "object"]
    curves["availability"][1.0] = table["CO→C", "CO→O"]
    values = {f"irrelevant: {row} read as {name}": table[row, name] for row in table.rows for name in table.columns}
    for row in felt.rows:
        values |= {f"irrelevant: sensitivity of {row} to the {what}": value for what, value in felt.row(row).items()}
    values |= _anywhere(bench, objects, both)
    details = {
        "accuracy": _plain(table),
        "curves": {what: {"level": list(curve), "accuracy": list(curve.values())} for what, curve in curves.items()},
    }
    return PartResult(values, details)


def _anywhere(bench: _Bench, objects: _Objects, both: Mapping[str, Any]) -> dict[str, float]:
    """The two networks of both features read as objects, where the object stands anywhere in the image."""
    move = [Translate(most=(1.0 - _SMALL) / 2.0)]
    options = {**both, "place": "center"}
    networks = {
        f"CO→{letter}": bench.train(objects, move, **options, label=label)
        for letter, label in (("C", "background"), ("O", "object"))
    }
    table = transfer_matrix(networks, {"O": bench.target(objects, move, **options, label="object")})
    return {f"irrelevant: {row} read as objects that stand anywhere": table[row, "O"] for row in table.rows}


def compare_transfer(setup: Setup, seed: int, progress: ShareDone | None = None) -> PartResult:
    """One network a transform, and one without: does what it learnt to ignore hold for what it has not seen?

    Trained on objects, then on squares of random pixels. Sensitivity to a transform of the network trained on it (own),
    of those trained on another (other), and of the one trained on none (without).
    """
    names = a_third(seed)
    bench = _Bench(setup, setup.transfer, seed, 2 * (len(names) + 1), progress)
    grounds = {"objects": bench.objects(), "random pixels": bench.objects(random_pixels=True)}
    values: dict[str, float] = {}
    details: dict[str, Any] = {"transforms": names}
    for ground, (seen, unseen) in grounds.items():
        networks = {name: bench.train(seen, [name]) for name in names} | {"none": bench.train(seen, [])}
        stranger = next(name for name in grounds if name != ground)
        tested = {"seen": seen, "unseen": unseen, stranger: grounds[stranger][0]}
        for other, pasted in tested.items():
            pairs = {name: bench.pairs(pasted, [name]) for name in names}
            table = sensitivity_of_pairs(networks, pairs, generator=make_generator(seed, 41))
            for kind, value in own_other_without(table).items():
                values[f"trained on {ground}, {other}: {kind}"] = value
            details[f"{ground}, {other}"] = _plain(table)
    return PartResult(values, details)


def own_other_without(table: Table, *, without: str = "none") -> dict[str, float]:
    """The mean sensitivity to the transform of training, to each by networks of another, and by the one without.

    >>> table = Table(("a", "b", "none"), ("a", "b"), ((0.1, 0.5), (0.5, 0.3), (0.6, 0.8)))
    >>> {kind: round(value, 3) for kind, value in own_other_without(table).items()}
    {'own': 0.2, 'other': 0.5, 'without': 0.7}
    """
    own = [table[name, name] for name in table.columns]
    other = [table[row, name] for row in table.rows for name in table.columns if row not in (name, without)]
    plain = list(table.row(without).values())
    return {kind: sum(found) / len(found) for kind, found in (("own", own), ("other", other), ("without", plain))}


def _plain(table: Table) -> dict[str, Any]:
    return {"rows": list(table.rows), "columns": list(table.columns), "values": [list(row) for row in table.values]}


def table_from(plain: Mapping[str, Any]) -> Table:
    """A table out of a part's details."""
    return Table(tuple(plain["rows"]), tuple(plain["columns"]), tuple(tuple(row) for row in plain["values"]))


def examples(seed: int, image_size: int = 32) -> Tensor:
    """(6, 8, 3, size, size): one object, a row under draws of a transform, each image on its own background."""
    sprite = make_sprites([100 * seed])
    rows = [
        ComposedImages([0], [name], 8, seed=seed, image_size=image_size, objects=sprite).tensors()[0]
        for name in a_third(seed)
    ]
    return torch.stack(rows)
