"""Random wishes never break, and would without being held; one crystal for each of many wishes."""

from math import gcd
from typing import Any

import pytest
import torch
from ase.data import chemical_symbols
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets import load_dataset
from cdvae_kit.generation import check_crystals, check_possible, conditions_from
from cdvae_kit.generation.conditions import parse_formula
from cdvae_kit.generation.wishes import sample_each, wishes_of
from cdvae_kit.models import CDVAE, decoding
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.contents import NothingFitsError
from cdvae_kit.seeding import make_generator
from tests.models.tiny import seed_weights, tiny_config

MAX_ATOMS = 14


@pytest.fixture(scope="module")
def known() -> CrystalBatch:
    return load_dataset("ionic_prototypes", split="val").crystals


@pytest.fixture(scope="module")
def model(known: CrystalBatch) -> CDVAE:
    """Random weights, and the elements, groups and positions of the built-in crystals."""
    made = CDVAE(tiny_config(max_atoms=MAX_ATOMS))
    seed_weights(made, 1)
    made.fit_statistics(made.prepare(known))
    assert made.prior is not None
    made.prior.set_statistics(torch.randn(50, made.config.latent_dim, generator=make_generator(3)))
    return made.eval()


def elements_of(known: CrystalBatch) -> list[int]:
    return sorted(set(known.atomic_numbers.tolist()))


@st.composite
def words(draw: st.DrawFn, elements: list[int], groups: list[int]) -> dict[str, Any]:
    """Options of `conditions_from`, any of them together, sensible or not."""
    symbols = st.sampled_from([chemical_symbols[number] for number in elements])
    some = st.lists(symbols, min_size=1, max_size=3, unique=True)
    wish: dict[str, Any] = {}
    kind = draw(st.sampled_from(["formula", "elements", "free"]))
    if kind == "formula":
        counts = st.integers(1, 4)
        wish["formula"] = "".join(f"{symbol}{draw(counts)}" for symbol in draw(some))
        wish["formula_units"] = draw(st.sampled_from(["all", 1, 2]))
    elif kind == "elements":
        wish["elements"] = draw(some)
    if draw(st.booleans()):
        wish["contains"] = draw(some)
    if draw(st.booleans()):
        wish["without"] = draw(some)
    if draw(st.booleans()):
        wish["num_atoms"] = draw(st.integers(1, MAX_ATOMS))
    if draw(st.booleans()):
        wish["space_group"] = draw(st.sampled_from(groups))
    elif draw(st.booleans()):
        wish["crystal_system"] = draw(st.sampled_from(["cubic", "tetragonal", "hexagonal", "trigonal"]))
    if draw(st.integers(0, 4)) == 0:
        wish["neutral"] = "charge"
    return wish


COUNTS = {"sampled": 0, "refused": 0}


def test_no_random_wish_breaks(model: CDVAE, known: CrystalBatch) -> None:
    """A wish is refused with a reason before anything is sampled, or holds in every crystal."""
    groups = model.symmetry_head.known_groups.nonzero().squeeze(-1).tolist()
    COUNTS.update(sampled=0, refused=0)

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(wish=words(elements_of(known), groups), seed=st.integers(0, 2**31))
    def check(wish: dict[str, Any], seed: int) -> None:
        note(f"wish {wish}, seed {seed}")
        try:
            conditions = conditions_from(**wish)
            if conditions is None:
                return
            check_possible(model, conditions)
            crystals = model.sample(2, seed=seed, conditions=conditions, num_steps=1, max_tries=6)
        except ValueError:
            # NothingFitsError among them: numbers that fit, and no choice of positions that has the group and no more
            COUNTS["refused"] += 1
            return
        COUNTS["sampled"] += 1
        for held in check_crystals(conditions, crystals):
            assert all(held.values()), held

    check()
    # else nothing was tested
    assert COUNTS["sampled"] >= 15 and COUNTS["refused"] >= 5, COUNTS


@pytest.mark.parametrize(
    "wish",
    [
        Conditions(contains=(8,)),
        Conditions(without=(8, 9)),
        Conditions(num_atoms=5),
        Conditions(space_group=225),
        Conditions(crystal_system="cubic"),
    ],
    ids=["contains", "without", "num_atoms", "space_group", "crystal_system"],
)
def test_wishes_break_where_the_heads_are_not_held(model: CDVAE, wish: Conditions) -> None:
    """The negative control: the prior is told the wish all the same, and decoding does not keep to it."""
    ids = torch.arange(64)
    if wish.without:
        # what a model of random weights draws
        drawn = decoding.decode(model, decoding.sample_codes(model, ids, seed=0), num_steps=1).atomic_numbers
        wish = Conditions(without=(int(drawn.mode().values),))
    codes = decoding.sample_codes(model, ids, seed=0, conditions=wish, tries=1)
    broken = decoding.decode(model, codes, num_steps=1)
    assert not all(all(one.values()) for one in check_crystals(wish, broken))
    held = decoding.decode(model, codes, num_steps=1, limits=wish.limits())
    # a special place in a cell that is drawn at random may have more symmetry than its group: see `max_tries`
    kept = [all(one.values()) for one in check_crystals(wish, held)]
    assert all(kept) or (wish.space_group is not None and sum(kept) >= 48)


def test_each_of_many_wishes_holds(model: CDVAE, known: CrystalBatch) -> None:
    truth = known.select(range(0, 60, 4))
    wishes = wishes_of(truth, model)
    crystals, codes = sample_each(model, wishes, num_steps=1)
    assert codes.shape == (len(truth), model.config.latent_dim)
    for i, wish in enumerate(wishes):
        assert all(check_crystals(wish, crystals.select([i]))[0].values())
    # the wish is the composition and the number of atoms of the crystal, in its primitive cell
    assert crystals.num_atoms.tolist() == model.prepare(truth).num_atoms.tolist()
    ours, theirs = crystals.plain().structures(), truth.structures()
    assert [s.composition.reduced_formula for s in ours] == [s.composition.reduced_formula for s in theirs]


def test_a_crystal_of_many_wishes_depends_on_its_own_alone(model: CDVAE, known: CrystalBatch) -> None:
    wishes = [Conditions(num_atoms=5), Conditions(contains=(8,)), Conditions(space_group=225), Conditions(num_atoms=2)]
    whole, _ = sample_each(model, wishes, num_steps=1, max_tries=1)
    other, _ = sample_each(model, [wishes[3], *wishes[1:]], num_steps=1, max_tries=1)
    torch.testing.assert_close(whole.select([1, 2]).lattice, other.select([1, 2]).lattice)
    assert bool((whole.select([2]).space_group == 225).all())


def test_a_wish_alone_gives_the_crystal_of_sample(model: CDVAE) -> None:
    wish = Conditions(contains=(8,), num_atoms=5)
    alone = model.sample(3, conditions=wish, num_steps=2, max_tries=1)
    each, _ = sample_each(model, [wish] * 3, num_steps=2, max_tries=1)
    assert torch.equal(alone.atomic_numbers, each.atomic_numbers)
    torch.testing.assert_close(alone.lattice, each.lattice)


def test_wishes_of_a_supercell_are_those_of_its_primitive_cell(model: CDVAE, known: CrystalBatch) -> None:
    structure = known.select([0]).structures()[0]
    from cdvae_kit.crystal.conversion import structures_to_batch

    small, large = (wishes_of(structures_to_batch([s]), model)[0] for s in (structure, structure * (1, 1, 2)))
    assert small == large
    assert small.composition is not None and gcd(*small.composition.values()) == 1


def test_what_cannot_be_is_refused(model: CDVAE) -> None:
    with pytest.raises(ValueError, match="one wish at least"):
        sample_each(model, [])
    with pytest.raises(NothingFitsError):
        sample_each(model, [Conditions(composition={22: 1, 8: 4}, units=(1,), space_group=225)], num_steps=1)


def test_what_is_no_element_is_named_as_it_was_written() -> None:
    with pytest.raises(ValueError, match="holds Xx, which is no element"):
        parse_formula("BaTi7Xx3")
