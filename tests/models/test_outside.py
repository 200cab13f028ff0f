"""Which crystals a model says it has never seen the like of."""

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.cells import in_cell
from cdvae_kit.datasets import load_dataset
from cdvae_kit.models import CDVAE
from cdvae_kit.models.outside import FARTHEST, OutsideModelError
from tests.models.tiny import seed_weights, tiny_config


@pytest.fixture(scope="module")
def known() -> CrystalBatch:
    return load_dataset("ionic_prototypes", split="val").crystals.select(range(60))


@pytest.fixture(scope="module")
def model(known: CrystalBatch) -> CDVAE:
    made = CDVAE(tiny_config(max_atoms=14))
    seed_weights(made, 2)
    prepared = made.prepare(known)
    made.fit_statistics(prepared)
    made.eval()
    assert made.prior is not None
    made.prior.set_statistics(made.encode(prepared))
    return made


def changed(crystals: CrystalBatch, number: int) -> CrystalBatch:
    numbers = crystals.atomic_numbers.clone()
    numbers[numbers == numbers[0]] = number
    return crystals.replace(atomic_numbers=numbers)


def test_training_crystals_lie_inside(model: CDVAE, known: CrystalBatch) -> None:
    assert model.outside(known) == [None] * len(known)


def test_the_answer_does_not_depend_on_the_cell(model: CDVAE, known: CrystalBatch) -> None:
    conventional = in_cell(known, "conventional")
    assert int(conventional.num_atoms.max()) > model.config.max_atoms
    assert model.outside(conventional) == [None] * len(known)
    torch.testing.assert_close(model.encode(conventional), model.encode(known), atol=2e-3, rtol=2e-3)


def test_an_element_that_no_training_crystal_has_is_named(model: CDVAE, known: CrystalBatch) -> None:
    strange = changed(known.select([3]), 54)
    assert model.outside(strange) == ["has Xe, which no training crystal has"]
    with pytest.raises(OutsideModelError, match="1 of 1 crystals lie outside the model: number 0 has Xe"):
        model.encode(strange)
    assert model.encode(strange, allow_outside=True).shape == (1, model.config.latent_dim)


def test_a_group_and_a_position_that_are_not_known_are_named(known: CrystalBatch) -> None:
    model = CDVAE(tiny_config(max_atoms=14))
    seed_weights(model, 2)
    described = model.prepare(known)
    groups, counts = described.space_group.unique(return_counts=True)
    rare = int(groups[counts.argmin()])
    model.fit_statistics(described.select((described.space_group != rare).nonzero().squeeze(-1)))
    one = described.select((described.space_group == rare).nonzero().squeeze(-1)[:1])
    numbers = one.elements.clone()
    numbers[:] = model.known_elements[0]
    reason = model.eval().outside(one.replace(elements=numbers))[0]
    assert reason is not None and f"space group {rare}" in reason


def test_a_code_far_out_is_said(model: CDVAE, known: CrystalBatch) -> None:
    assert model.prior is not None
    kept = model.prior.farthest.clone()
    try:
        # as if the training codes had lain ten times as close together
        model.prior.farthest.mul_(0.1)
        reasons = model.outside(known)
    finally:
        model.prior.farthest.copy_(kept)
    said = [reason for reason in reasons if reason is not None]
    assert said and all("times as far out as any training crystal" in reason for reason in said)
    assert FARTHEST > 1.0


def test_too_many_atoms_are_said(model: CDVAE) -> None:
    large = CrystalBatch(
        torch.rand(20, 3, generator=torch.Generator().manual_seed(0)),
        8.0 * torch.eye(3)[None],
        torch.full((20,), int(model.known_elements[0])),
        torch.tensor([20]),
    )
    assert model.outside(large) == ["has 20 atoms, more than the 14 (max_atoms)"]
