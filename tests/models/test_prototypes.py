"""Known compounds tell what compositions like them have; how much they hold goes with the weights."""

from pathlib import Path

import pytest
import torch

from cdvae_kit.crystal.wyckoff import all_positions, position_of
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


def test_elements_that_are_alike_stand_where_their_relatives_stand() -> None:
    model = CDVAE(tiny_config(max_atoms=14, prototypes=True))
    model.fit_statistics(model.prepare(load_dataset("ionic_prototypes", split="val").crystals))
    # no known compound has rhenium; rock salt is what the nearest ones of one to one have
    found = known(model).of({75: 3, 8: 3})
    assert found == []
    for vote in known(model).of({75: 1, 8: 1}):
        positions = [all_positions()[position] for _, position in vote.sites]
        assert {number for number, _ in vote.sites} == {75, 8}
        assert {position.space_group for position in positions} == {vote.space_group}
        assert sum(position.primitive_multiplicity for position in positions) == 2
        assert vote.nearest > 0


def test_positions_go_with_the_elements_and_not_with_their_order() -> None:
    """Perovskites: the larger cation has the corner; a compound with both cations exchanged is farther."""
    from cdvae_kit.crystal.orbits import Orbits
    from cdvae_kit.crystal.symmetric import SymmetricCrystals

    a, b, c = (position_of(221, letter).index for letter in "abc")
    known = KnownPrototypes()
    orbits = Orbits(torch.tensor([221, 221]), torch.tensor([3, 3]), torch.tensor([a, b, c, a, b, c]))
    # Ba on a and Ti on b; in the other one Ca on b and Zr on a
    elements = torch.tensor([56, 22, 8, 40, 20, 8])
    known.fit(SymmetricCrystals(orbits, elements, torch.zeros(6, 3), 4.0 * torch.eye(3).expand(2, 3, 3)))
    best = known.of({38: 1, 22: 1, 8: 3})[0]
    # strontium and titanium: the nearer one is that with barium, two columns of Pettifor's chain beside it
    assert dict(best.sites)[22] in (a, b) and dict(best.sites)[8] == c
    votes = {vote.sites: vote.share for vote in known.of({56: 1, 22: 1, 8: 3})}
    assert max(votes, key=lambda sites: votes[sites]) == tuple(sorted([(56, a), (22, b), (8, c)]))


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
