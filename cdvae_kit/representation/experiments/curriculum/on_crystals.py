"""The task of `curriculum` on crystals: trained on relaxed ones, served displaced and strained ones.

Which structure type is it? The nine commonest types of two kinds of ions, filled with every choice of ions that the
package knows; training sees the ideal cells, as relaxation gives them, and what is to be told apart comes hot and
strained, as from molecular dynamics or before relaxation. The network sees distances alone, at one density and of one
element, so that it cannot go by composition. A rotation is no change to it at all: its weight must stay with that of
the identity, whatever else the policy learns. Scattered atoms belong to no type.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets.ionic_prototypes import load_ionic_prototypes
from cdvae_kit.representation.experiments.curriculum.arms import ArmSizes, Task
from cdvae_kit.representation.methods.curriculum import CurriculumSettings
from cdvae_kit.representation.methods.environments import RadialEncoder
from cdvae_kit.representation.methods.fitting import FitSettings
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import Compose, Identity, IndexedDraws, Transform
from cdvae_kit.transforms.crystal_motions import AtomDisplacement, AtomScatter, CrystalRotation
from cdvae_kit.transforms.crystals import RandomStrain

DISPLACEMENT, STRAIN = 0.15, 0.04
"""Of what is served: angstrom in each direction, hot; and without a unit. The operations reach twice as far."""
TYPES = (
    "rock_salt",
    "caesium_chloride",
    "zinc_blende",
    "wurtzite",
    "nickel_arsenide",
    "fluorite",
    "antifluorite",
    "rutile",
    "cadmium_iodide",
)
OPERATIONS: dict[str, Transform[CrystalBatch]] = {
    "identity": Identity(),
    "displacement": AtomDisplacement(2.0 * DISPLACEMENT),
    "strain": RandomStrain(2.0 * STRAIN),
    "rotation": CrystalRotation(),
    "scatter": AtomScatter(),
}
MOST_OF_A_TYPE = 40
NUM_TRAIN, NUM_VALIDATION = 120, 60
"""Of 285 crystals; the rest are for testing."""

_FIT = FitSettings(1, batch_size=40, learning_rate=0.01)
FULL = ArmSizes(
    num_steps=600,
    fit=_FIT,
    curriculum=CurriculumSettings(
        timescale=150.0, policy_learning_rate=0.02, policy_weight_decay=1e-4, validation_batch_size=60
    ),
)
QUICK = ArmSizes(
    num_steps=6, fit=_FIT, curriculum=CurriculumSettings(timescale=3.0, validation_batch_size=20), num_points=2
)


class GeometryAlone(nn.Module):
    """An encoder that sees each crystal as of one element and of one density.

    Args:
        encoder: of crystals.
        volume: of an atom, cubic angstrom.
    """

    def __init__(self, encoder: RadialEncoder, *, volume: float = 20.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.volume = volume
        self.out_features = encoder.out_features

    def forward(self, batch: CrystalBatch) -> Tensor:
        volumes = torch.linalg.det(batch.lattice).abs() / batch.num_atoms
        length = (self.volume / volumes) ** (1.0 / 3.0)
        bare = batch.replace(
            lattice=batch.lattice * length[:, None, None], atomic_numbers=torch.ones_like(batch.atomic_numbers)
        )
        features: Tensor = self.encoder(bare)
        return features


def heated_crystals(seed: int, *, displacement: float = DISPLACEMENT, strain: float = STRAIN) -> Task:
    """Ideal crystals to train on, and others, displaced and strained once and for all, to validate and to test on."""
    everything = load_ionic_prototypes()
    types = [name.split(".")[0] for name in everything.material_ids or []]
    shuffled = torch.randperm(len(types), generator=make_generator(seed, 2)).tolist()
    # so many of each type that the commonest is no good guess for whatever looks like none
    rows = torch.tensor(sorted(i for kind in TYPES for i in [i for i in shuffled if types[i] == kind][:MOST_OF_A_TYPE]))
    labels = torch.tensor([TYPES.index(types[i]) for i in rows.tolist()])
    ideal = everything.select(rows).replace(properties={}, material_ids=None)
    heat = Compose([RandomStrain(strain), AtomDisplacement(displacement)])
    hot = heat(ideal, generator=IndexedDraws(seed, torch.arange(len(ideal))))
    order = torch.randperm(len(ideal), generator=make_generator(seed, 1))
    train, validation, test = order.split([NUM_TRAIN, NUM_VALIDATION, len(ideal) - NUM_TRAIN - NUM_VALIDATION])
    return Task(
        train=(ideal.select(train), labels[train]),
        validation=(hot.select(validation), labels[validation]),
        plain_validation=(ideal.select(validation), labels[validation]),
        test=(hot.select(test), labels[test]),
        operations=OPERATIONS,
        right=["displacement", "strain"],
        destroying="scatter",
        make_encoder=lambda: GeometryAlone(RadialEncoder(width=48, cutoff=5.0)),
        num_classes=len(TYPES),
    )
