"""Stage three: the critic learns balance from compositions, and does not learn them by heart."""

import math

import torch
from torch import Tensor

from cdvae_kit.models.critic import CompositionCritic
from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.seeding import make_generator
from cdvae_kit.training import seeded_weights
from cdvae_kit.training.critic import fit_critic_to_counts
from tests.training.toy import toy_config


def compositions(num: int, seed: int, *, balanced: bool) -> Tensor:
    """(num, num_elements): two of ten elements; the first five have charge 1, the others -1."""
    generator = make_generator(seed)
    rows = torch.arange(num)
    counts = torch.zeros(num, NUM_ELEMENTS, dtype=torch.long)
    number = torch.randint(1, 5, (num,), generator=generator)
    counts[rows, torch.randint(0, 5, (num,), generator=generator)] = number
    other = number if balanced else torch.randint(1, 5, (num,), generator=generator)
    counts[rows, torch.randint(5, 10, (num,), generator=generator)] = other
    return counts


def fitted(seed: int = 0) -> tuple[CompositionCritic, float]:
    with seeded_weights(seed):
        critic = CompositionCritic(32)
    fit = fit_critic_to_counts(
        critic,
        (compositions(300, 1, balanced=True), compositions(300, 2, balanced=False)),
        (compositions(100, 3, balanced=True), compositions(100, 4, balanced=False)),
        toy_config(critic_steps=500),
    )
    return critic, fit.val_loss


def test_balance_is_learnt_and_holds_for_compositions_never_seen() -> None:
    critic, val_loss = fitted()
    with torch.no_grad():
        good = critic(compositions(500, 5, balanced=True)).exp()
        drawn = compositions(500, 6, balanced=False)
        is_balanced = drawn[:, :5].sum(1) == drawn[:, 5:].sum(1)
        bad = critic(drawn[~is_balanced]).exp()
    assert val_loss < 0.9 * math.log(2.0)
    # a quarter of the drawn ones is balanced: the ratio of densities is 4 there, and 0 elsewhere
    assert float(good.median()) > 1.8
    assert float(bad.median()) < 0.5


def test_the_same_seed_gives_the_same_critic() -> None:
    first, second = (torch.cat([w.detach().flatten() for w in fitted()[0].parameters()]) for _ in range(2))
    assert torch.equal(first, second)
