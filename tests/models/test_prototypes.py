"""Known compounds tell what compositions like them have; how much they hold goes with the weights."""

from pathlib import Path

import pytest
import torch

from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.wyckoff import position_of
from cdvae_kit.datasets import load_dataset
from cdvae_kit.models import CDVAE
from cdvae_kit.models.prototypes import KnownPrototypes
from tests.models.tiny import seed_weights, tiny_config


@pytest.fixture(scope="module")
def model() -> CDVAE:
    made = CDVAE(tiny_config(max_atoms=14, prototypes=True))
    seed_weights(made, 1)
    made.fit_statistics(made.prepare(load_dataset("ionic_prototypes", split="val").crystals))
    return made.eval()


def known(model: CDVAE) -> KnownPrototypes:
    assert model.prototypes is not None
    return model.prototypes


def test_every_training_crystal_is_among_the_votes_for_its_own_composition(model: CDVAE) -> None:
    crystals = model.prepare(load_dataset("ionic_prototypes", split="val").crystals)
    for i in range(len(crystals)):
        one = crystals.select([i])
        numbers = one.atomic_numbers.tolist()
        found = known(model).of({number: numbers.count(number) for number in set(numbers)})
        sites = tuple(sorted(zip(one.elements.tolist(), one.position.tolist(), strict=True)))
        assert (int(one.space_group), sites) in [(vote.space_group, vote.sites) for vote in found]
        assert sum(vote.share for vote in found) == pytest.approx(1.0)
        assert [vote.share for vote in found] == sorted((vote.share for vote in found), reverse=True)
        assert min(vote.nearest for vote in found) == 0


def perovskites(*pairs: tuple[int, int]) -> KnownPrototypes:
    """Oxides with the first element of each pair on a, the second one on b."""
    positions = [position_of(221, letter).index for letter in "abc"] * len(pairs)
    orbits = Orbits(torch.full((len(pairs),), 221), torch.full((len(pairs),), 3), torch.tensor(positions))
    elements = torch.tensor([number for a, b in pairs for number in (a, b, 8)])
    known = KnownPrototypes()
    lattice = 4.0 * torch.eye(3).repeat(len(pairs), 1, 1)
    known.fit(SymmetricCrystals(orbits, elements, torch.zeros(len(elements), 3), lattice))
    return known


def test_elements_stand_where_their_relatives_stand() -> None:
    a, b, c = (position_of(221, letter).index for letter in "abc")
    # barium, calcium and strontium are alike, and so are titanium, zirconium and hafnium
    known = perovskites((56, 22), (20, 40))
    best = known.of({38: 1, 72: 1, 8: 3})[0]
    assert best.space_group == 221 and best.nearest > 0
    assert set(best.sites) == {(38, a), (72, b), (8, c)}
    # the other way about, where the known ones are
    assert set(perovskites((22, 56), (40, 20)).of({38: 1, 72: 1, 8: 3})[0].sites) == {(72, a), (38, b), (8, c)}


def test_the_nearer_compound_has_more_votes() -> None:
    a, b = (position_of(221, letter).index for letter in "ab")
    # one like the composition, and one whose elements are far away and stand the other way about
    votes = {dict(vote.sites)[38]: vote.share for vote in perovskites((56, 22), (53, 29)).of({38: 1, 22: 1, 8: 3})}
    assert votes[a] > 0.8 > votes[b]


def test_no_compound_of_the_same_numbers_of_atoms_has_no_vote() -> None:
    assert perovskites((56, 22)).of({56: 1, 22: 2, 8: 3}) == []


def test_all_that_is_kept_can_be_sent_between_processes_that_train_together() -> None:
    # gloo and NCCL know no 16-bit integers
    assert {buffer.dtype for buffer in perovskites((56, 22)).buffers()} == {torch.uint8, torch.int32}


def test_what_is_known_goes_with_the_weights(model: CDVAE, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    again = CDVAE.from_pretrained(tmp_path / "model", device="cpu")
    assert len(known(again)) == len(known(model)) > 0
    assert known(again).of({12: 1, 8: 1}) == known(model).of({12: 1, 8: 1})


def test_equal_crystals_are_kept_once() -> None:
    known = KnownPrototypes()
    crystals = CDVAE(tiny_config(max_atoms=14)).prepare(load_dataset("ionic_prototypes", split="val").crystals)
    known.fit(crystals)
    once = len(known)
    known.fit(crystals.select([*range(len(crystals)), *range(len(crystals))]))
    assert len(known) == once <= len(crystals)
    known.fit(crystals.select([0]))
    assert len(known) == 1


def test_without_the_setting_nothing_is_kept() -> None:
    assert CDVAE(tiny_config()).prototypes is None
    assert CDVAE(tiny_config(prototypes=True, symmetry="none")).prototypes is None


def test_weights_of_another_number_of_crystals_are_taken_as_they_are(model: CDVAE) -> None:
    other = KnownPrototypes()
    other.load_state_dict(known(model).state_dict())
    assert other.of({12: 1, 8: 1}) == known(model).of({12: 1, 8: 1})
