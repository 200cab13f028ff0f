"""What is asked for holds whatever the weights are, and what the prior is told is what was asked."""

from typing import Any

import pytest
import torch

from cdvae_kit.crystal.elements import element_features
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.crystal.symmetry import crystal_system
from cdvae_kit.crystal.wyckoff import all_positions
from cdvae_kit.datasets import load_dataset
from cdvae_kit.generation import check_crystals
from cdvae_kit.models import CDVAE
from cdvae_kit.models.codes import sample_codes
from cdvae_kit.models.condition_kinds import Composition
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.config import PriorConfig
from cdvae_kit.models.contents import NothingFitsError
from cdvae_kit.seeding import make_generator
from tests.models.tiny import seed_weights, tiny_config


@pytest.fixture(scope="module", params=[0, 8], ids=["shares", "described"])
def model(request: pytest.FixtureRequest) -> CDVAE:
    """Random weights, and the elements, groups and positions of the built-in crystals."""
    prior = PriorConfig(width=16, num_layers=1, hint=request.param)
    made = CDVAE(tiny_config(max_atoms=14, properties=("ewald_energy",), prior=prior))
    seed_weights(made, 1)
    made.fit_statistics(made.prepare(load_dataset("ionic_prototypes", split="val").crystals))
    made.prior.set_statistics(torch.randn(50, made.config.latent_dim, generator=make_generator(3)))  # type: ignore[union-attr]
    return made.eval()


def sample(model: CDVAE, **wishes: Any) -> SymmetricCrystals:
    return model.sample(6, conditions=Conditions(**wishes), num_steps=2, max_tries=4)


WISHES = {
    "formula": {"composition": {22: 1, 8: 3, 56: 1}},
    "formula units": {"composition": {12: 1, 8: 1}, "units": (2,)},
    "elements": {"elements": (8, 12, 22)},
    "contains and without": {"contains": (8,), "without": (12, 20)},
    "number of atoms": {"num_atoms": 6},
    "space group": {"space_group": 225},
    "formula in a group": {"composition": {12: 1, 8: 1}, "space_group": 225},
    "crystal system": {"crystal_system": "cubic"},
    "rule": {"contains": (8,), "is_allowed": lambda composition: composition[8] % 2 == 0},
    "all together": {"contains": (8,), "num_atoms": 5, "space_group": 221},
    "sites": {
        "composition": {22: 1, 8: 3, 56: 1},
        "units": (1,),
        "space_group": 221,
        "sites": ((56, "a"), (22, "b"), (8, "c")),
    },
}


@pytest.mark.parametrize("name", WISHES)
def test_what_is_asked_for_holds_with_random_weights(model: CDVAE, name: str) -> None:
    crystals = sample(model, **WISHES[name])
    for checks in check_crystals(Conditions(**WISHES[name]), crystals):
        assert checks
        assert all(checks.values()), checks


@pytest.mark.parametrize("name", ["formula", "space group", "elements"])
def test_without_the_wish_it_does_not_hold(model: CDVAE, name: str) -> None:
    checks = check_crystals(Conditions(**WISHES[name]), model.sample(6, num_steps=2, max_tries=1))
    assert not all(all(one.values()) for one in checks)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"contains": (8,), "without": (8,)}, "cannot be both"),
        ({"elements": (8, 12), "contains": (22,)}, "must occur, but only"),
        ({"composition": {8: 1, 12: 1}, "num_atoms": 5}, "no integer number"),
        ({"space_group": 225, "crystal_system": "hexagonal"}, "is cubic, not hexagonal"),
        ({"space_group": 231}, "1 to 230"),
        ({"contains": (101,)}, "Z = 1 to 100"),
        ({"units": (2,)}, "go with a formula"),
        ({"num_atoms": 0}, "at least 1"),
        ({"composition": {8: 0}}, "positive numbers"),
        ({"crystal_system": "round"}, "crystal systems are"),
        ({"sites": ((8, "a"),)}, "need the space group"),
        ({"composition": {8: 1}, "space_group": 221, "sites": ((8, "z"),)}, "has the Wyckoff letters"),
        ({"composition": {8: 1, 12: 1}, "space_group": 221, "sites": ((8, "a"), (12, "c"))}, "no integer number"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conditions(**wishes)


def test_a_formula_that_fits_no_position_of_the_group_is_refused(model: CDVAE) -> None:
    with pytest.raises(NothingFitsError, match="no composition and Wyckoff positions"):
        sample(model, composition={22: 1, 8: 4}, units=(1,), space_group=225)


def test_a_property_that_the_model_does_not_know_is_refused(model: CDVAE) -> None:
    with pytest.raises(ValueError, match="not trained on hardness; it knows ewald_energy"):
        sample(model, properties={"hardness": 1.0})


def test_the_facts_of_a_crystal_are_what_asking_for_them_says(model: CDVAE) -> None:
    crystals = model.prepare(load_dataset("ionic_prototypes", split="val").crystals.select(range(20)))
    facts = model.conditions.facts(crystals)
    for i in range(len(crystals)):
        numbers, counts = crystals.select([i]).atomic_numbers.unique(return_counts=True)
        group = int(crystals.space_group[i])
        asked = Conditions(
            composition=dict(zip(numbers.tolist(), counts.tolist(), strict=True)),
            units=(1,),
            space_group=group,
            crystal_system=crystal_system(group),
            sites=[
                (number, all_positions()[position].letter)
                for number, position in zip(
                    crystals.select([i]).elements.tolist(), crystals.select([i]).position.tolist(), strict=True
                )
            ],
            properties={"ewald_energy": float(crystals.properties["ewald_energy"][i])},
        )
        torch.testing.assert_close(model.conditions.asked(asked), facts[i])


def test_training_codes_are_told_nothing_all_and_parts(model: CDVAE) -> None:
    crystals = model.prepare(load_dataset("ionic_prototypes", split="val").crystals)
    facts = model.conditions.facts(crystals).repeat(10, 1)
    told = model.conditions.hide(facts, generator=make_generator(0))
    is_untold = (told == 0.0).all(-1).float().mean()
    # a quarter is told nothing at all, and some more by chance: 0.25 + 0.75 / 2^6
    assert float(is_untold) == pytest.approx(0.25 + 0.75 / 2**6, abs=0.04)
    hidden = (told == 0.0) | (told == facts)
    assert bool(hidden.all())


def test_what_is_told_changes_the_codes_and_guidance_more_so(model: CDVAE) -> None:
    noise = torch.randn(8, model.config.latent_dim, generator=make_generator(1))
    told = model.conditions.asked(Conditions(num_atoms=6)).expand(8, -1)
    assert model.prior is not None
    with torch.no_grad():
        plain = model.prior.transport(noise)
        once = model.prior.transport(noise, told=told)
        twice = model.prior.transport(noise, told=told, guidance=2.0)
        none = model.prior.transport(noise, told=told, guidance=0.0)
    assert float((once - plain).norm()) > 1e-5
    assert float((twice - plain).norm()) > float((once - plain).norm())
    torch.testing.assert_close(none, plain)


def test_a_described_composition_says_what_its_elements_are_like() -> None:
    kind = Composition(described=True)
    salt, like, other, twice = (
        kind.asked(Conditions(composition=composition))
        for composition in ({11: 1, 17: 1}, {19: 1, 17: 1}, {22: 1, 8: 2}, {11: 2, 17: 2})
    )
    assert salt is not None and like is not None and other is not None
    assert len(salt) == kind.size
    # shares and formula, not the number of formula units
    torch.testing.assert_close(salt, twice)
    described = slice(100, None)
    assert float((salt - like)[described].norm()) < 0.5 * float((salt - other)[described].norm())
    mean = 0.5 * (element_features()[11] + element_features()[17])
    torch.testing.assert_close(salt[100:124], mean)
    assert salt[-6:].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_untold_the_prior_is_not_shifted_and_told_it_is(model: CDVAE) -> None:
    prior = model.prior
    assert prior is not None
    z = torch.randn(3, model.config.latent_dim, generator=make_generator(0))
    nothing = torch.zeros(3, model.conditions.width)
    torch.testing.assert_close(prior.transport(z), prior.transport(z, told=nothing))
    told = model.conditions.asked(Conditions(composition={22: 1, 8: 2})).expand(3, -1)
    assert not torch.allclose(prior.transport(z), prior.transport(z, told=told))


def test_of_several_codes_that_with_the_property_nearest_is_taken(model: CDVAE) -> None:
    ids = torch.arange(40)
    mean, spread = float(model.property_mean[0]), float(model.property_std[0])
    target = mean + 0.8 * spread
    wish = Conditions(properties={"ewald_energy": target})

    def missed(tries: int) -> torch.Tensor:
        z = sample_codes(model, ids, seed=3, conditions=wish, tries=tries)
        return (model.predict_properties(z)["ewald_energy"] - target).abs()

    first, best = missed(1), missed(16)
    assert float(best.mean()) < 0.6 * float(first.mean())
    # a code is a function of seed and number, not of the others
    few = sample_codes(model, ids[30:], seed=3, conditions=wish)
    torch.testing.assert_close(few, sample_codes(model, ids, seed=3, conditions=wish)[30:])
