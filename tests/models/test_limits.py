"""Masks on elements and number of atoms: the decoded crystals keep to them, whatever the code says."""

import itertools

import pytest
import torch

from cdvae_kit.models import decoding
from cdvae_kit.models.heads import most_probable_counts
from cdvae_kit.models.limits import DecodingLimits
from cdvae_kit.seeding import make_generator
from tests.models.tiny import LATENT_DIM, MAX_ATOMS, tiny_model

CHANGES = {
    "counts": {},
    "fractions": {"composition": "fractions"},
    "absorbing": {"composition": "fractions", "noise": {"types": "absorbing"}},
    "published": {"composition": "fractions", "noise": {"types": "published"}},
}


def codes(num_crystals: int = 12) -> torch.Tensor:
    return 2.0 * torch.randn(num_crystals, LATENT_DIM, generator=make_generator(5))


@pytest.mark.parametrize("kind", CHANGES)
def test_decoded_crystals_keep_to_elements_and_sizes(kind: str) -> None:
    model = tiny_model(**CHANGES[kind])
    known = model.known_elements.tolist()
    limits = DecodingLimits(elements=tuple(known[3:9]), num_atoms=(3, 4))
    free, kept = decoding.decode(model, codes()), decoding.decode(model, codes(), limits=limits)
    assert set(kept.atomic_numbers.tolist()) <= set(known[3:9])
    assert set(kept.num_atoms.tolist()) <= {3, 4}
    # the control: without limits this model makes other crystals
    assert not set(free.atomic_numbers.tolist()) <= set(known[3:9])
    assert not set(free.num_atoms.tolist()) <= {3, 4}


def test_required_elements_stand_in_every_crystal_of_counts() -> None:
    model = tiny_model()
    known = model.known_elements.tolist()
    required = (known[0], known[5])
    for batch_size in (1, None):
        crystals = decoding.decode(model, codes(), limits=DecodingLimits(required=required), batch_size=batch_size)
        for i in range(len(crystals)):
            assert set(required) <= set(crystals.select([i]).atomic_numbers.tolist()), i


def test_the_masked_composition_is_the_most_probable_of_those_that_are_left() -> None:
    """Against every composition of four elements, one of them required."""
    log_p = torch.log_softmax(torch.randn(1, 4, 5, generator=make_generator(2)), dim=-1)
    log_p[:, 2, 0] = -torch.inf
    best = max(
        (counts for counts in itertools.product(range(5), repeat=4) if sum(counts) == 4 and counts[2]),
        key=lambda counts: sum(float(log_p[0, e, c]) for e, c in enumerate(counts)),
    )
    assert most_probable_counts(log_p, torch.tensor([4])).tolist() == [list(best)]


def test_limits_that_hold_already_change_nothing() -> None:
    model = tiny_model()
    limits = DecodingLimits(elements=tuple(model.known_elements.tolist()), num_atoms=(1, MAX_ATOMS))
    free, kept = decoding.decode(model, codes()), decoding.decode(model, codes(), limits=limits)
    assert torch.equal(free.atomic_numbers, kept.atomic_numbers)
    assert torch.equal(free.frac_coords, kept.frac_coords)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (DecodingLimits(num_atoms=(MAX_ATOMS + 1, MAX_ATOMS + 3)), "no number of atoms is left"),
        (DecodingLimits(required=tuple(range(1, 20)), num_atoms=(1, 3)), "no number of atoms is left"),
        (DecodingLimits(elements=(100,)), "no element is left"),
        (DecodingLimits(elements=(), required=(8,)), "required elements"),
    ],
)
def test_limits_that_leave_nothing_are_refused(limits: DecodingLimits, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoding.decode(tiny_model(), codes(), limits=limits)
