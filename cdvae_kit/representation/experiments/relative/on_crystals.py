"""Stitching on crystals: the part of `relative` that trains CDVAEs, on the package's own ionic prototypes.

The prior and the KL term of a CDVAE are the same in every rotated latent space, so that the axes of z mean nothing and
two trainings share none. Three small ones are trained from different seeds; a head for the structure type, and one for
the Ewald energy, is trained on the codes of one and reads those of another. An R² knows no lower bound: that of the
energy stands with its median over the pairs. The codes are the posterior's means; the anchors are crystals, stratified
by structure type, and listed by name in the details.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets.ionic_prototypes import EWALD_ENERGY, load_ionic_prototypes
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.models import CDVAE, CDVAEConfig
from cdvae_kit.representation.experiments.relative.arms import (
    SIMILARITIES,
    Space,
    carried_back,
    compare_all,
    cross_scores,
    fit_heads,
    own_and_stitched,
    project,
    within,
)
from cdvae_kit.representation.methods.anchors import select_anchors
from cdvae_kit.representation.methods.encoder import CrystalVAEEncoder, Objective, embed
from cdvae_kit.representation.methods.fitting import FitSettings, fit
from cdvae_kit.representation.methods.relative import off_diagonal
from cdvae_kit.representation.methods.similarity import effective_rank
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.training.config import load_preset
from cdvae_kit.typing import ShareDone

_NUM_MODELS = 3
_HEAD = (64, 1)
TYPES = "crystals, structure type: "
"""Before the names of arms whose number is the accuracy of a classifier."""


@dataclass(frozen=True)
class CrystalSizes:
    """How much is trained on how much.

    Attributes:
        num_train: crystals that models and heads learn from.
        num_test: of compositions that were not seen.
        num_anchors: of the training crystals.
        epochs: of a CDVAE; the preset's own 1,500 steps on all crystals are 64 epochs.
        head_epochs: of a property head.
        draws_per_crystal: noisy versions a step.
    """

    num_train: int = 1000
    num_test: int = 190
    num_anchors: int = 200
    epochs: int = 20
    head_epochs: int = 60
    draws_per_crystal: int = 1


QUICK = CrystalSizes(num_train=48, num_test=24, num_anchors=12, epochs=1, head_epochs=2)


class _Autoencoding(nn.Module, Objective):
    """The loss of a CDVAE; the batch is (crystals, their indices among those of the graph)."""

    def __init__(self, model: CDVAE, graph: PeriodicGraph, num_atoms: Tensor) -> None:
        super().__init__()
        self.model = model
        self.graph = graph
        self.num_atoms = num_atoms

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        crystals, indices = batch
        graph = self.graph.select(indices, self.num_atoms)
        terms = self.model.loss(crystals, graph, generator=generator)
        return {"loss": self.model.total_loss(terms), **terms}


def train_small_cdvae(
    crystals: CrystalBatch, *, seed: int, num_epochs: int, draws_per_crystal: int = 1, progress: ShareDone | None = None
) -> CDVAE:
    """A CDVAE of the preset `ionic_prototypes` without its prior, for a latent space rather than for new crystals."""
    settings = load_preset("ionic_prototypes")["model"] | {"prior": None, "draws_per_crystal": draws_per_crystal}
    with seeded_weights(seed):
        model = CDVAE(CDVAEConfig.model_validate(settings))
    prepared = model.prepare(crystals).replace(material_ids=None)
    model.fit_statistics(prepared)
    objective = _Autoencoding(model, model.graph(prepared), prepared.num_atoms)
    speed = FitSettings(num_epochs, batch_size=64, learning_rate=2e-3, clip_norm=2.0)
    fit(objective, (prepared, torch.arange(len(prepared))), speed, seed=seed, progress=progress)
    return model.eval()


def stitch_crystals(sizes: CrystalSizes, seed: int, progress: ShareDone | None) -> PartResult:
    """R² of the Ewald energy from codes of one CDVAE by the head of another, and how alike the spaces are."""
    train = load_ionic_prototypes(num_crystals=sizes.num_train, seed=seed, split="train")
    test = load_ionic_prototypes(num_crystals=sizes.num_test, seed=seed, split="test")
    chosen = _anchors(train, sizes.num_anchors, seed)
    spaces = []
    for i in range(_NUM_MODELS):
        model = train_small_cdvae(
            train,
            seed=_NUM_MODELS * seed + i,
            num_epochs=sizes.epochs,
            draws_per_crystal=sizes.draws_per_crystal,
            progress=within(progress, 0.9 * i / _NUM_MODELS, 0.9 * (i + 1) / _NUM_MODELS),
        )
        encoder = CrystalVAEEncoder(model)
        spaces.append((embed(encoder, train), embed(encoder, test)))
    energies, truth = train.properties[EWALD_ENERGY], test.properties[EWALD_ENERGY].double()
    mean, spread = energies.mean(), energies.std()

    def explained(output: Tensor) -> float:
        guess = output[:, 0].double() * spread + mean
        return float(1.0 - (guess - truth).square().mean() / (truth - truth.mean()).square().mean())

    def heads_on(features: Sequence[Tensor]) -> list[nn.Module]:
        return fit_heads(
            features,
            ((energies - mean) / spread)[:, None],
            functional.mse_loss,
            outputs=_HEAD,
            num_epochs=sizes.head_epochs,
            seed=seed,
        )

    # first of all: in a collapsed space there are no angles to speak of
    ranks = [effective_rank(space) for _, space in spaces]
    values = {
        "crystals: least effective rank": min(ranks),
        "crystals: share of the mean in the squared length of z": sum(_share_of_mean(z) for z, _ in spaces)
        / len(spaces),
    }
    heads = heads_on([space for space, _ in spaces])
    matrices = {"absolute": cross_scores([space for _, space in spaces], heads, explained)}
    for name, (similarity, center) in {"cosine": ("cosine", False), **SIMILARITIES}.items():
        relative = project(spaces, chosen, similarity, center)
        matrices[name] = cross_scores([x for _, x in relative], heads_on([x for x, _ in relative]), explained)
    matrices["carried back to absolute"] = carried_back(spaces, heads, chosen, explained, center=True)
    for name, matrix in matrices.items():
        values |= own_and_stitched(f"crystals: {name}", matrix)
        values[f"crystals: {name}, stitched, median"] = float(off_diagonal(matrix).median())
    values |= compare_all("crystals, absolute spaces", [space for _, space in spaces])
    values |= compare_all("crystals, centred cosines", [space for _, space in project(spaces, chosen, "cosine", True)])
    of_types, commonest = _stitch_types(spaces, train, test, chosen, sizes, seed)
    for name, matrix in of_types.items():
        values |= own_and_stitched(f"{TYPES}{name}", matrix)
    values[f"{TYPES}commonest"] = commonest
    names = train.material_ids or []
    details = {
        "effective ranks": ranks,
        "width": spaces[0][0].shape[1],
        "anchors": [names[i] for i in chosen.tolist()],
        "matrices": {name: matrix.tolist() for name, matrix in matrices.items()},
        "matrices of types": {name: matrix.tolist() for name, matrix in of_types.items()},
    }
    return PartResult(values, details)


def _stitch_types(
    spaces: Sequence[Space], train: CrystalBatch, test: CrystalBatch, chosen: Tensor, sizes: CrystalSizes, seed: int
) -> tuple[dict[str, Tensor], float]:
    """Accuracies of heads that name the structure type, by coordinates, and that of naming the commonest always."""
    kinds = [[name.split(".")[0] for name in crystals.material_ids or []] for crystals in (train, test)]
    known = sorted({*kinds[0], *kinds[1]})
    labels, truth = (torch.tensor([known.index(name) for name in names]) for names in kinds)

    def right(output: Tensor) -> float:
        return float((output.argmax(1) == truth).double().mean())

    def matrix(features: Sequence[Space]) -> Tensor:
        heads = fit_heads(
            [x for x, _ in features],
            labels,
            functional.cross_entropy,
            outputs=(*_HEAD[:-1], len(known)),
            num_epochs=sizes.head_epochs,
            seed=seed,
        )
        return cross_scores([x for _, x in features], heads, right)

    found = {"absolute": matrix(spaces), "cosine": matrix(project(spaces, chosen))}
    found["whitened cosine"] = matrix(project(spaces, chosen, *SIMILARITIES["whitened cosine"]))
    return found, float((truth == labels.bincount().argmax()).double().mean())


def _share_of_mean(z: Tensor) -> float:
    """What all codes have in common: at 1, the angles between them are all near 0."""
    return float(z.double().mean(0).square().sum() / z.double().square().sum(1).mean())


def _anchors(crystals: CrystalBatch, num_anchors: int, seed: int) -> Tensor:
    """Indices of anchors among the crystals, the shares of the structure types kept."""
    types = [name.split(".")[0] for name in crystals.material_ids or []]
    known = sorted(set(types))
    labels = torch.tensor([known.index(name) for name in types])
    return select_anchors(
        len(crystals), num_anchors, method="stratified", labels=labels, generator=make_generator(seed, 1)
    )
