"""Random changes of training crystals that are described by their symmetry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import wrap_displacement
from cdvae_kit.crystal.symmetric import SymmetricCrystals, describe
from cdvae_kit.datasets import load_dataset
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.models import CDVAE
from cdvae_kit.seeding import make_generator
from cdvae_kit.training import fit
from cdvae_kit.transforms import ElementSubstitution, OrderedSubstitution
from tests.crystal.every_group import asymmetry, strain_of
from tests.models.crystals import ordinary_crystals
from tests.models.tiny import tiny_config
from tests.training.toy import ToyModel, make_toy, toy_config


class SymmetricToy(ToyModel):
    """Sees descriptions, and remembers those of its training steps."""

    seen: ClassVar[list[tuple[CrystalBatch, PeriodicGraph]]]

    def prepare(self, crystals: CrystalBatch, *, progress: Callable[[int, int], None] | None = None) -> CrystalBatch:
        return describe(crystals)

    def loss(
        self, crystals: CrystalBatch, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        if torch.is_grad_enabled():
            self.seen.append((crystals, graph))
        return super().loss(crystals, graph, generator=generator)


def single(crystals: CrystalBatch) -> CrystalBatch:
    return crystals.replace(frac_coords=crystals.frac_coords.float(), lattice=crystals.lattice.float())


def trained(folder: Path, **changes: float) -> list[tuple[CrystalBatch, PeriodicGraph]]:
    """The crystals of three steps on rock salt, perovskite, wurtzite and rutile."""
    SymmetricToy.seen = []
    crystals = single(ordinary_crystals())
    config = toy_config(max_steps=3, batch_size=4, **changes)
    fit(make_toy(kind=SymmetricToy), crystals, crystals.select([0]), config, folder, device="cpu", progress=False)
    return SymmetricToy.seen


def test_strained_and_displaced_crystals_keep_their_groups(tmp_path: Path) -> None:
    before = describe(single(ordinary_crystals()))
    steps = trained(tmp_path / "run", strain=0.05, displacement=0.1)
    assert len(steps) == 3
    wurtzite_moved = []
    for crystals, graph in steps:
        assert isinstance(crystals, SymmetricCrystals)
        assert sorted(crystals.space_group.tolist()) == sorted(before.space_group.tolist())
        ends = crystals.ptr.tolist()
        for i, number in enumerate(crystals.space_group.tolist()):
            part = slice(ends[i], ends[i + 1])
            assert asymmetry(crystals.frac_coords[part], crystals.atomic_numbers[part], number) < 1e-5
            assert strain_of(crystals.lattice[i], number) < 1e-4
            same = (before.space_group == number).nonzero().item()
            assert not torch.allclose(crystals.lattice[i], before.lattice[same], rtol=1e-4)
            if number == 186:
                moved = wrap_displacement(crystals.select([i]).free - before.select([same]).free)
                wurtzite_moved.append(float(moved.abs().max()))
        # edges were found before the move, and are as long as they were up to the strain and the move
        assert 1.0 < float(graph.distances(crystals).min()) and float(graph.distances(crystals).max()) < 5.0
    assert max(wurtzite_moved) > 1e-3


def test_other_elements_in_training_leave_the_description_canonical() -> None:
    model = CDVAE(tiny_config(max_atoms=14))
    crystals = model.prepare(load_dataset("ionic_prototypes", split="val").crystals)
    known = tuple(crystals.atomic_numbers.unique().tolist())
    other = OrderedSubstitution(1.0, known)(crystals.plain(), generator=make_generator(0))
    elements = other.atomic_numbers.index_select(0, crystals.orbits.first_atom)
    assert float((elements != crystals.elements).float().mean()) > 0.7
    swapped = crystals.replace(elements=elements, properties=other.properties)
    again = model.prepare(swapped.plain())
    assert torch.equal(again.space_group, swapped.space_group)
    for i in range(len(swapped)):
        one, two = swapped.select([i]), again.select([i])
        pairs = [sorted(zip(c.elements.tolist(), c.position.tolist(), strict=True)) for c in (one, two)]
        assert pairs[0] == pairs[1]
    # elements in another order: the description of some crystals changes
    shuffled = ElementSubstitution(1.0, known)(crystals.plain(), generator=make_generator(0))
    elements = shuffled.atomic_numbers.index_select(0, crystals.orbits.first_atom)
    swapped = crystals.replace(elements=elements, properties=shuffled.properties)
    again = model.prepare(swapped.plain())
    changed = 0
    for i in range(len(swapped)):
        one, two = swapped.select([i]), again.select([i])
        pairs = [sorted(zip(c.elements.tolist(), c.position.tolist(), strict=True)) for c in (one, two)]
        changed += pairs[0] != pairs[1]
    assert changed > 0


def test_elements_change_in_training_and_groups_do_not(tmp_path: Path) -> None:
    before = describe(single(ordinary_crystals()))
    plain, swapped = trained(tmp_path / "plain"), trained(tmp_path / "swapped", substitution=1.0)
    known = set(before.atomic_numbers.tolist())
    for (as_they_are, _), (other, _) in zip(plain, swapped, strict=True):
        assert isinstance(other, SymmetricCrystals)
        assert torch.equal(other.space_group, as_they_are.space_group)
        assert torch.equal(other.position, as_they_are.position)
        assert set(other.atomic_numbers.tolist()) <= known
    pairs = zip(plain, swapped, strict=True)
    assert any(not torch.equal(one.atomic_numbers, two.atomic_numbers) for (one, _), (two, _) in pairs)
