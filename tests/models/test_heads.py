"""Composition from z: exact counts, and the published fractions."""

import itertools

import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.models import heads
from cdvae_kit.models.heads import (
    CompositionHead,
    FractionHead,
    atomic_numbers_from_counts,
    element_counts,
    most_probable_counts,
)
from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.seeding import make_generator
from tests.models.tiny import seed_weights

EVERY_ELEMENT = torch.arange(1, NUM_ELEMENTS + 1)


def by_brute_force(log_p: Tensor, total: int) -> float:
    """The best sum of log p over all counts of the elements that sum to `total`."""
    return max(
        sum(float(log_p[element, count]) for element, count in enumerate(counts))
        for counts in itertools.product(range(log_p.shape[1]), repeat=log_p.shape[0])
        if sum(counts) == total
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_most_probable_counts_are_those_of_brute_force(seed: int) -> None:
    totals = torch.tensor([0, 1, 2, 4, 4])
    log_p = torch.log_softmax(3.0 * torch.randn(5, 4, 5, generator=make_generator(seed), dtype=torch.float64), dim=-1)
    counts = most_probable_counts(log_p, totals)
    assert torch.equal(counts.sum(-1), totals)
    found = log_p.gather(-1, counts.unsqueeze(-1)).sum((1, 2))
    for k, total in enumerate(totals.tolist()):
        assert float(found[k]) == pytest.approx(by_brute_force(log_p[k], total)), (seed, k)


def test_each_element_s_own_favourite_can_miss_the_total() -> None:
    """The control: without the search the counts would not add up."""
    log_p = torch.log_softmax(3.0 * torch.randn(50, 4, 5, generator=make_generator(9)), dim=-1)
    assert bool((log_p.argmax(-1).sum(-1) != 4).any())


def test_favourites_that_add_up_are_what_the_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they do, the search is not asked; where they do not, it is, in the same batch."""
    log_p = torch.log_softmax(3.0 * torch.randn(50, 4, 5, generator=make_generator(9)), dim=-1)
    totals = log_p.argmax(-1).sum(-1).clamp_max(4)
    asked: list[int] = []
    search = heads._by_dynamic_programming

    def counted(log_p: Tensor, totals: Tensor) -> Tensor:
        asked.append(len(totals))
        return search(log_p, totals)

    monkeypatch.setattr(heads, "_by_dynamic_programming", counted)
    assert torch.equal(most_probable_counts(log_p, totals), search(log_p, totals))
    assert asked == [int((log_p.argmax(-1).sum(-1) != totals).sum())]
    assert 0 < asked[0] < 50


@pytest.mark.parametrize("sharpness", [0.5, 3.0, 20.0])
def test_elements_that_are_left_out_of_the_search_would_not_change_it(sharpness: float) -> None:
    """Against the search over all elements, in several batches; some counts are impossible."""
    generator = make_generator(3)
    logits = sharpness * torch.randn(150, 30, 9, generator=generator, dtype=torch.float64)
    logits[:, :, 0] += 2.0 * sharpness
    logits[torch.rand(logits.shape, generator=generator) < 0.2] = -torch.inf
    logits[:, :, 0] = logits[:, :, 0].clamp_min(-50.0)
    log_p = torch.log_softmax(logits, dim=-1)
    totals = torch.randint(1, 9, (150,), generator=generator)
    found = heads._by_dynamic_programming(log_p, totals)
    assert torch.equal(found.sum(-1), totals)
    assert torch.equal(found, heads._fill(log_p, totals))


def test_counts_that_cannot_be_are_never_taken() -> None:
    log_p = torch.full((1, 3, 4), -torch.inf)
    log_p[0, 0, 0] = log_p[0, 1, 3] = log_p[0, 2, 0] = 0.0
    assert most_probable_counts(log_p, torch.tensor([3])).tolist() == [[0, 3, 0]]


@pytest.fixture(scope="module")
def head() -> CompositionHead:
    head = CompositionHead(5, 16)
    seed_weights(head)
    return head


def test_probabilities_of_the_counts_sum_to_one_and_stop_at_the_number_of_atoms(head: CompositionHead) -> None:
    num_atoms = torch.tensor([1, 7, 20])
    log_p = head.log_probabilities(torch.randn(3, 5, generator=make_generator(1)), num_atoms)
    assert log_p.shape == (3, NUM_ELEMENTS, 21)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(3, NUM_ELEMENTS))
    possible = torch.arange(21) <= num_atoms.unsqueeze(-1)
    assert torch.equal(log_p.isfinite(), possible.unsqueeze(1).expand_as(log_p))


def test_probabilities_do_not_depend_on_the_batch(head: CompositionHead) -> None:
    z, num_atoms = torch.randn(3, 5, generator=make_generator(2)), torch.tensor([2, 7, 20])
    together = head.log_probabilities(z, num_atoms)
    for k in range(3):
        alone = head.log_probabilities(z[k : k + 1], num_atoms[k : k + 1])
        torch.testing.assert_close(together[k, :, : alone.shape[-1]], alone[0], rtol=1e-4, atol=1e-4)


def test_the_drawn_composition_has_the_number_of_atoms_asked_for(head: CompositionHead) -> None:
    z, num_atoms = torch.randn(4, 5, generator=make_generator(3)), torch.tensor([1, 3, 20, 8])
    numbers = head.draw(z, num_atoms, torch.zeros(32), EVERY_ELEMENT)
    assert numbers.shape == (32,)
    assert 1 <= int(numbers.min()) <= int(numbers.max()) <= NUM_ELEMENTS


@pytest.mark.parametrize("kind", [CompositionHead, FractionHead])
def test_the_loss_is_minus_the_log_of_the_probability(kind: type[CompositionHead] | type[FractionHead]) -> None:
    head = kind(5, 16)
    seed_weights(head)
    z, num_atoms = torch.randn(1, 5, generator=make_generator(4)), torch.tensor([3])
    counts = element_counts(torch.tensor([8, 8, 22]), torch.zeros(3, dtype=torch.long), 1)
    if isinstance(head, CompositionHead):
        p = head.log_probabilities(z, num_atoms)[0].detach()
        expected = -sum(float(p[e, counts[0, e]]) for e in range(NUM_ELEMENTS))
    else:
        p = head.fractions(z, num_atoms)[0].log().detach()
        expected = -(2 * float(p[7]) + float(p[21])) / 3.0
    assert float(head.loss(z, counts, num_atoms).detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", [CompositionHead, FractionHead])
def test_a_head_learns_the_composition_of_one_crystal(kind: type[CompositionHead] | type[FractionHead]) -> None:
    head = kind(5, 16)
    seed_weights(head)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(0.3)
    z, num_atoms = torch.randn(2, 5, generator=make_generator(5)), torch.tensor([5, 2])
    truth = torch.tensor([8, 8, 8, 22, 56, 11, 17])
    counts = element_counts(truth, torch.tensor([0] * 5 + [1] * 2), 2)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        head.loss(z, counts, num_atoms).sum().backward()
        optimizer.step()
    shares = head.fractions(z, num_atoms)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2))
    torch.testing.assert_close(shares, counts / num_atoms.unsqueeze(-1), atol=0.05, rtol=0.0)
    if kind is CompositionHead:
        assert torch.equal(head.draw(z, num_atoms, torch.zeros(7), EVERY_ELEMENT), truth)


def test_published_elements_are_drawn_with_their_shares() -> None:
    head = FractionHead(5, 16)
    seed_weights(head)
    z, num_atoms = torch.randn(1, 5, generator=make_generator(6)), torch.tensor([20000])
    drawn = head.draw(z, num_atoms, torch.rand(20000, generator=make_generator(7)), EVERY_ELEMENT)
    shares = torch.bincount(drawn - 1, minlength=NUM_ELEMENTS) / 20000
    torch.testing.assert_close(shares, head.fractions(z, num_atoms)[0], atol=0.015, rtol=0.0)


def test_counts_of_elements_are_those_of_a_plain_count(zoo: CrystalBatch) -> None:
    counts = element_counts(zoo.atomic_numbers, zoo.batch, len(zoo))
    assert counts.shape == (len(zoo), NUM_ELEMENTS)
    for k in range(len(zoo)):
        numbers = zoo.atomic_numbers[zoo.batch == k].tolist()
        assert {z + 1: n for z, n in enumerate(counts[k].tolist()) if n} == {z: numbers.count(z) for z in set(numbers)}


def test_elements_from_counts_give_the_counts_back(zoo: CrystalBatch) -> None:
    counts = element_counts(zoo.atomic_numbers, zoo.batch, len(zoo))
    numbers = atomic_numbers_from_counts(counts)
    assert torch.equal(element_counts(numbers, zoo.batch, len(zoo)), counts)
    for k in range(len(zoo)):
        assert numbers[zoo.batch == k].tolist() == sorted(zoo.atomic_numbers[zoo.batch == k].tolist())


@pytest.mark.parametrize("number", [101, 118])
def test_an_element_that_the_head_does_not_know_is_refused(number: int) -> None:
    """It was counted as another element of the next crystal."""
    with pytest.raises(ValueError, match=f"up to Z = {NUM_ELEMENTS}.*{number}"):
        element_counts(torch.tensor([number, 8]), torch.tensor([0, 1]), 2)


def test_only_known_elements_are_drawn() -> None:
    heads = CompositionHead(8, 16), FractionHead(8, 16)
    z = torch.randn(64, 8, generator=make_generator(4))
    known = torch.tensor([6, 8, 26])
    num_atoms = torch.full((64,), 4)
    uniform = torch.rand(256, generator=make_generator(5))
    for head in heads:
        numbers = head.draw(z, num_atoms, uniform, known)
        assert len(numbers) == 256
        assert set(numbers.tolist()) <= set(known.tolist())
