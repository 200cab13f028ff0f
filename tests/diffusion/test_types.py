"""Noise on elements."""

from itertools import pairwise, permutations

import pytest
import torch

from cdvae_kit.diffusion.state import MASKED
from cdvae_kit.diffusion.types import AbsorbingTypes, ExchangedTypes, FixedTypes, PublishedTypes, draw_elements
from cdvae_kit.seeding import make_generator

NUM_ELEMENTS = 5
NONE = torch.empty(0)


def certain(atomic_numbers: torch.Tensor) -> torch.Tensor:
    """Logits that leave no doubt."""
    return 50.0 * torch.nn.functional.one_hot(atomic_numbers - 1, NUM_ELEMENTS).float()


# -- absorbing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_an_element_is_masked_with_probability_t(t: float) -> None:
    numbers = torch.full((20000,), 3)
    noisy = AbsorbingTypes().perturb(numbers, torch.full((20000,), t), NONE, alike=NONE, generator=make_generator(0))
    assert set(noisy.tolist()) <= {MASKED, 3}
    # four standard errors
    assert abs(float((noisy == MASKED).float().mean()) - t) < 0.0131


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
def test_every_atom_is_revealed_at_the_end_and_none_is_revealed_twice(num_steps: int) -> None:
    process, generator = AbsorbingTypes(), make_generator(1)
    truth = torch.randint(1, NUM_ELEMENTS + 1, (500,), generator=generator)
    numbers = process.start(truth)
    assert bool((numbers == MASKED).all())
    for step in range(num_steps):
        t, t_next = (torch.full((500,), 1.0 - (step + i) / num_steps) for i in (0, 1))
        uniform = torch.rand(500, 2, generator=generator)
        after = process.step(numbers, certain(truth), t, t_next, uniform, alike=NONE)
        known = numbers != MASKED
        assert torch.equal(after[known], numbers[known])
        numbers = after
    assert torch.equal(numbers, truth)


def test_the_reverse_steps_pass_through_the_forward_marginals() -> None:
    process, generator, num_atoms = AbsorbingTypes(), make_generator(2), 20000
    numbers = torch.full((num_atoms,), MASKED)
    times = [1.0, 0.9, 0.5, 0.45, 0.1, 0.0]
    for now, after in pairwise(times):
        numbers = process.step(
            numbers,
            torch.zeros(num_atoms, NUM_ELEMENTS),
            torch.full((num_atoms,), now),
            torch.full((num_atoms,), after),
            torch.rand(num_atoms, 2, generator=generator),
            alike=NONE,
        )
        assert abs(float((numbers == MASKED).float().mean()) - after) < 0.0142
    shares = torch.bincount(numbers, minlength=NUM_ELEMENTS + 1)[1:] / num_atoms
    torch.testing.assert_close(shares, torch.full((NUM_ELEMENTS,), 0.2), atol=0.012, rtol=0.0)


def test_a_step_that_takes_no_time_reveals_nothing() -> None:
    masked, t = torch.full((100,), MASKED), torch.full((100,), 0.5)
    uniform = torch.rand(100, 2, generator=make_generator(3))
    assert torch.equal(AbsorbingTypes().step(masked, torch.zeros(100, NUM_ELEMENTS), t, t, uniform, alike=NONE), masked)


def test_only_masked_atoms_have_a_loss() -> None:
    numbers, noisy = torch.tensor([2, 4]), torch.tensor([MASKED, 4])
    logits = torch.randn(2, NUM_ELEMENTS, generator=make_generator(4))
    loss = AbsorbingTypes().loss(logits, numbers, noisy, torch.tensor([0.5, 0.5]))
    assert float(loss[0]) == pytest.approx(-float(torch.log_softmax(logits[0], -1)[1]))
    assert float(loss[1]) == 0.0


# -- published -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_published_noise_has_the_published_marginals(t: float) -> None:
    """(1 + sigma c_k) / (1 + sigma) for the true element k, sigma c_j / (1 + sigma) for the others."""
    sigma = 0.01 * 500.0**t
    shares = torch.tensor([0.5, 0.1, 0.0, 0.4, 0.0])
    expected = (torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]) + sigma * shares) / (1.0 + sigma)
    noisy = PublishedTypes().perturb(
        torch.full((40000,), 2),
        torch.full((40000,), t),
        shares.expand(40000, -1),
        alike=NONE,
        generator=make_generator(5),
    )
    found = torch.bincount(noisy - 1, minlength=NUM_ELEMENTS) / 40000
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.0)
    assert float(found[2]) == 0.0


def test_the_published_loss_is_the_cross_entropy_over_the_level() -> None:
    logits, numbers = torch.randn(3, NUM_ELEMENTS, generator=make_generator(6)), torch.tensor([1, 3, 5])
    t = torch.tensor([0.0, 0.5, 1.0])
    expected = -torch.log_softmax(logits, -1)[torch.arange(3), numbers - 1] / torch.tensor([0.01, 0.05**0.5, 5.0])
    torch.testing.assert_close(PublishedTypes().loss(logits, numbers, numbers, t), expected)


def test_published_types_are_set_to_the_likeliest_at_every_step() -> None:
    truth = torch.tensor([5, 1, 3])
    t, uniform = torch.ones(3), torch.full((3, 2), 0.99)
    assert torch.equal(PublishedTypes().step(torch.tensor([1, 1, 1]), certain(truth), t, t, uniform, alike=NONE), truth)


# -- exchanged -------------------------------------------------------------------------------------------------------


def groups_of(numbers: torch.Tensor, alike: torch.Tensor) -> list[list[int]]:
    return [sorted(numbers[alike == group].tolist()) for group in alike.unique()]


@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_exchanges_keep_what_there_is_in_each_group(t: float) -> None:
    generator = make_generator(7)
    numbers = torch.randint(1, NUM_ELEMENTS + 1, (3000,), generator=generator)
    alike = torch.randint(0, 200, (3000,), generator=generator)
    noisy = ExchangedTypes().perturb(numbers, torch.full((3000,), t), NONE, alike=alike, generator=generator)
    assert groups_of(noisy, alike) == groups_of(numbers, alike)
    moved = float((noisy != numbers).float().mean())
    assert moved == 0.0 if t == 0.0 else 0.1 * t < moved < t


def test_at_the_end_of_time_every_arrangement_of_a_group_is_as_likely() -> None:
    numbers = torch.tensor([1, 2, 3]).repeat(6000)
    alike = torch.arange(6000).repeat_interleave(3)
    noisy = ExchangedTypes().perturb(numbers, torch.ones(18000), NONE, alike=alike, generator=make_generator(8))
    arrangements, counts = noisy.view(-1, 3).unique(dim=0, return_counts=True)
    assert len(arrangements) == 6
    # five standard errors
    assert float((counts / 6000 - 1 / 6).abs().max()) < 0.0241


def test_a_step_puts_the_elements_of_a_group_where_they_are_most_probable_together() -> None:
    generator = make_generator(9)
    process, t = ExchangedTypes(), torch.ones(9)
    numbers = torch.tensor([1, 2, 2, 3, 4, 5, 1, 1, 1])
    alike = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])
    uniform = torch.full((9, 2), 0.5)
    for _ in range(20):
        logits = torch.randn(9, NUM_ELEMENTS, generator=generator)
        found = process.step(numbers, logits, t, t, uniform, alike=alike)
        assert groups_of(found, alike) == groups_of(numbers, alike)
        log_p = torch.log_softmax(logits, -1)
        for group in alike.unique():
            rows = (alike == group).nonzero().squeeze(-1)
            best = max(
                sum(float(log_p[row, element - 1]) for row, element in zip(rows, arrangement, strict=True))
                for arrangement in permutations(numbers[rows].tolist())
            )
            assert float(log_p[rows, found[rows] - 1].sum()) == pytest.approx(best, abs=1e-5)
    # without a group there is nothing to exchange, and what limits exclude does not break the assignment
    assert torch.equal(process.step(numbers, logits, t, t, uniform, alike=torch.arange(9)), numbers)
    excluded = torch.full((9, NUM_ELEMENTS), -torch.inf)
    excluded[:, 0] = 0.0
    assert groups_of(process.step(numbers, excluded, t, t, uniform, alike=alike), alike) == groups_of(numbers, alike)


def test_exchanges_start_from_the_assignment_of_the_heads_and_have_a_loss_everywhere() -> None:
    numbers = torch.tensor([2, 4])
    logits = torch.randn(2, NUM_ELEMENTS, generator=make_generator(4))
    assert torch.equal(ExchangedTypes().start(numbers), numbers)
    expected = -torch.log_softmax(logits, -1)[torch.arange(2), numbers - 1]
    torch.testing.assert_close(ExchangedTypes().loss(logits, numbers, numbers, torch.zeros(2)), expected)


# -- fixed, and the draw ---------------------------------------------------------------------------------------------


def test_fixed_types_are_left_alone_and_cost_nothing() -> None:
    numbers, process, t = torch.tensor([3, 1]), FixedTypes(), torch.ones(2)
    logits = torch.zeros(2, NUM_ELEMENTS)
    assert torch.equal(process.perturb(numbers, t, NONE, alike=NONE, generator=None), numbers)
    uniform = torch.full((2, 2), 0.5)
    assert torch.equal(process.step(numbers, certain(torch.tensor([2, 2])), t, t, uniform, alike=NONE), numbers)
    assert torch.equal(process.loss(logits, numbers, numbers, t), torch.zeros(2))
    assert torch.equal(process.start(numbers), numbers)


def test_drawn_elements_are_those_that_the_cumulative_probabilities_reach() -> None:
    p = torch.tensor([0.0, 0.2, 0.3, 0.0, 0.5])
    points = torch.tensor([1e-8, 0.1, 0.199, 0.201, 0.499, 0.501, 0.999, 1.0])
    drawn = draw_elements(p.expand(len(points), -1), points)
    assert drawn.tolist() == [2, 2, 2, 3, 3, 5, 5, 5]


def test_drawn_elements_have_the_right_shares_whatever_the_scale() -> None:
    p = torch.tensor([0.1, 0.0, 0.6, 0.3, 0.0])
    uniform = torch.rand(40000, generator=make_generator(7))
    shares = torch.bincount(draw_elements(7.0 * p.expand(40000, -1), uniform) - 1, minlength=5) / 40000
    torch.testing.assert_close(shares, p, atol=0.01, rtol=0.0)
    assert float(shares[1]) == float(shares[4]) == 0.0
