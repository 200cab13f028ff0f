"""Candidates for a formula: the formula holds, no two match, the best come first."""

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from cdvae_kit.datasets import load_dataset
from cdvae_kit.generation.structure_prediction import all_candidates, predict_structures
from cdvae_kit.models import CDVAE
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
    [("Mg15O15", "Mg15O15: a formula unit has 30 atoms"), ("XeF2", "XeF2: the model has never seen Xe"), ("Q2", "Q2")],
)
def test_a_formula_that_the_model_cannot_make_is_refused_by_name(model: CDVAE, formula: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_structures(model, ["MgO", formula], num_candidates=2, steps=2)
