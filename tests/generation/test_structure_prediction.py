"""Candidates for a formula: the formula holds, no two match, the best come first."""

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from cdvae_kit.datasets import load_dataset
from cdvae_kit.generation.conditions import conditions_from
from cdvae_kit.generation.structure_prediction import all_candidates, predict_structures
from cdvae_kit.generation.templates import crystals_of, vote
from cdvae_kit.generation.wishes import wishes_of
from cdvae_kit.models import CDVAE
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.config import PriorConfig
from cdvae_kit.seeding import make_generator
from tests.models.tiny import seed_weights, tiny_config


@pytest.fixture(scope="module")
def model() -> CDVAE:
    made = CDVAE(tiny_config(max_atoms=14))
    seed_weights(made, 1)
    made.fit_statistics(made.prepare(load_dataset("ionic_prototypes", split="val").crystals))
    assert made.prior is not None
    made.prior.set_statistics(torch.randn(50, made.config.latent_dim, generator=make_generator(3)))
    return made.eval()


def test_every_candidate_has_the_formula_and_none_matches_another(model: CDVAE) -> None:
    matcher = StructureMatcher()
    for one in predict_structures(model, ["MgO", "BaTiO3"], num_candidates=8, steps=2):
        structures = one.crystals.plain().structures()
        assert {structure.composition.reduced_formula for structure in structures} == {one.formula}
        assert int(one.times.sum()) == 8
        assert not any(matcher.fit(a, b) for i, a in enumerate(structures) for b in structures[:i])
        ranks = [(-support, distance) for support, distance in zip(one.support, one.distance, strict=True)]
        assert ranks == sorted(ranks)


def test_a_formula_does_not_depend_on_those_after_it(model: CDVAE) -> None:
    alone = predict_structures(model, ["MgO"], num_candidates=4, steps=2)[0]
    first = predict_structures(model, ["MgO", "CaF2"], num_candidates=4, steps=2)[0]
    torch.testing.assert_close(alone.crystals.lattice, first.crystals.lattice)
    assert all_candidates([alone]).properties["rank"].tolist() == list(range(1, len(alone.crystals) + 1))


def test_the_group_is_held_where_it_is_given(model: CDVAE) -> None:
    found = predict_structures(model, ["CaF2"], num_candidates=4, space_group=225, steps=2)[0]
    assert set(found.crystals.space_group.tolist()) == {225}


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("Mg15O15", "Mg15O15: a formula unit has 30 atoms"),
        ("XeF2", "XeF2: the model has never seen Xe"),
        ("Q2", "Q2"),
        ("Mg1e400O", "inf Mg"),
    ],
)
def test_a_formula_that_the_model_cannot_make_is_refused_by_name(model: CDVAE, formula: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_structures(model, ["MgO", formula], num_candidates=2, steps=2)


@pytest.fixture(scope="module")
def knowing() -> CDVAE:
    made = CDVAE(tiny_config(max_atoms=14, prototypes=True, prior=PriorConfig(width=16, num_layers=1, hint=8)))
    seed_weights(made, 1)
    made.fit_statistics(made.prepare(load_dataset("ionic_prototypes", split="val").crystals))
    assert made.prior is not None
    made.prior.set_statistics(torch.randn(50, made.config.latent_dim, generator=make_generator(3)))
    return made.eval()


def test_known_compounds_vote_first_and_draws_alone_where_they_are_told_to(knowing: CDVAE) -> None:
    wish = conditions_from(formula="MgO", formula_units=1)
    assert wish is not None and knowing.prototypes is not None
    known = knowing.prototypes.of({12: 1, 8: 1})
    only_known, only_drawn, both = (vote(knowing, [wish], known_share=share)[0] for share in (1.0, 0.0, 0.8))
    assert (only_known[0].space_group, only_known[0].sites) == (known[0].space_group, known[0].sites)
    for templates in (only_known, only_drawn, both):
        assert sum(template.support for template in templates) == pytest.approx(1.0)
        assert all(template.support > 0.0 for template in templates)
        assert [one.support for one in templates] == sorted((one.support for one in templates), reverse=True)
    shares = {(one.space_group, one.sites): one.support for one in only_drawn}
    for one in both:
        of_known = {(k.space_group, k.sites): k.share for k in known}.get((one.space_group, one.sites), 0.0)
        assert one.support == pytest.approx(0.8 * of_known + 0.2 * shares.get((one.space_group, one.sites), 0.0))


def test_what_is_known_of_the_very_composition_can_be_left_out(knowing: CDVAE) -> None:
    wish = wishes_of(load_dataset("ionic_prototypes", split="val").crystals.select([0]), knowing)[0]
    assert wish.composition is not None and wish.units is not None and knowing.prototypes is not None
    counts = {number: count * wish.units[0] for number, count in wish.composition.items()}
    own = {(one.space_group, one.sites) for one in knowing.prototypes.of(counts) if one.nearest == 0}
    with_known, without = vote(knowing, [wish])[0], vote(knowing, [wish], new=True)[0]
    assert own & {(one.space_group, one.sites) for one in with_known}
    assert not own & {(one.space_group, one.sites) for one in without}
    assert sum(one.support for one in without) == pytest.approx(1.0)


def test_what_cannot_be_voted_for_is_refused(model: CDVAE, knowing: CDVAE) -> None:
    wish = conditions_from(formula="MgO", formula_units=1)
    assert wish is not None
    with pytest.raises(ValueError, match="does not keep what its training crystals have"):
        vote(model, [wish], new=True)
    settled = conditions_from(space_group=225, sites={"Mg": ["a"], "O": ["b"]})
    assert settled is not None
    with pytest.raises(ValueError, match="leave the Wyckoff positions open"):
        vote(knowing, [settled])


def test_sites_are_told_as_the_canonical_description_has_them() -> None:
    for letters in ("ab", "ba"):
        wish = conditions_from(space_group=225, sites={"Mg": letters[0], "O": letters[1]})
        assert wish is not None and wish.composition == {8: 1, 12: 1} and wish.units == (1,)
        assert sorted(wish.sites or ()) == [(8, "a"), (12, "b")]
    with pytest.raises(ValueError, match="asked for are num_atoms=None, units=\\(2,\\)"):
        conditions_from(formula="NaCl", formula_units=2, space_group=225, sites={"Na": "a", "Cl": "b"})
    with pytest.raises(ValueError, match="fixed set of points, and is taken 2 times"):
        Conditions(composition={11: 1, 17: 1}, space_group=225, sites=((11, "a"), (17, "a")))


def test_crystals_of_templates_have_them(knowing: CDVAE) -> None:
    wishes = [conditions_from(formula=formula, formula_units=1) for formula in ("MgO", "BaTiO3", "CaF2")]
    asked = [wish for wish in wishes if wish is not None]
    first = [templates[0] for templates in vote(knowing, asked)]
    crystals, z = crystals_of(knowing, asked, first, ids=torch.arange(3), num_steps=2)
    assert z.shape == (3, knowing.config.latent_dim)
    for i, template in enumerate(first):
        one = crystals.select([i])
        assert int(one.space_group) == template.space_group
        assert tuple(sorted(zip(one.elements.tolist(), one.position.tolist(), strict=True))) == template.sites


def test_wishes_for_a_group_leave_only_its_templates(knowing: CDVAE) -> None:
    wish = conditions_from(formula="MgO", formula_units=1, space_group=216)
    assert wish is not None
    assert {one.space_group for one in vote(knowing, [wish])[0]} == {216}


def test_without_noise_the_code_of_a_template_is_the_same_whatever_the_seed(knowing: CDVAE) -> None:
    wish = conditions_from(formula="BaTiO3", formula_units=1)
    assert wish is not None
    templates = vote(knowing, [wish], known_share=1.0)[0][:1]

    def code(seed: int, temperature: float) -> torch.Tensor:
        rest = {"ids": torch.arange(1), "seed": seed, "temperature": temperature, "num_steps": 1}
        return crystals_of(knowing, [wish], templates, **rest)[1]

    assert torch.equal(code(0, 0.0), code(1, 0.0))
    assert not torch.equal(code(0, 1.0), code(1, 1.0))
