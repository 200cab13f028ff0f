"""Stage three: the critic learns balance from compositions, and does not learn them by heart."""

import math

import pytest
import torch
from torch import Tensor

from cdvae_kit.models.critic import CompositionCritic, charge_facts, chemical_kinds
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


def test_calibration_gives_what_is_accepted_the_sizes_of_the_real_ones() -> None:
    critic, _ = fitted()
    real, drawn = compositions(4000, 7, balanced=True), compositions(4000, 8, balanced=False)
    # real crystals are larger: twice the counts for half of them, and of those drawn for a third
    real[::2] *= 2
    drawn[::3] *= 2

    def sizes(counts: Tensor, weight: Tensor) -> Tensor:
        shares = torch.bincount(counts.sum(1), weight, minlength=17)
        return shares / shares.sum()

    with torch.no_grad():
        wanted = sizes(real, torch.ones(len(real)))
        before = critic.acceptance(drawn)
        critic.calibrate(real, drawn)
        after = critic.acceptance(drawn)
    assert 0.0 <= float(after.min()) and float(after.max()) <= 1.0
    assert abs(float(after.mean() - before.mean())) < 0.05
    without, with_it = ((wanted - sizes(drawn, accepted)).abs().sum().item() for accepted in (before, after))
    assert without > 0.2 and with_it < 0.4 * without


def salts(anion: int, num: int, *, share_balanced: float, seed: int) -> Tensor:
    """(num, num_elements): sodium, 1 of it an anion of charge -1 where it balances, else 3."""
    counts = torch.zeros(num, NUM_ELEMENTS, dtype=torch.long)
    counts[:, anion - 1] = 1
    odd = torch.rand(num, generator=make_generator(seed)) >= share_balanced
    counts[:, 10] = torch.where(odd, 3, 1)
    return counts


def test_kinds_are_the_anion_and_whether_charges_balance() -> None:
    """Of chlorides and fluorides, which a flat critic cannot tell apart, the balanced ones are drawn too seldom."""
    critic = CompositionCritic(8)
    real = torch.cat([salts(9, 1500, share_balanced=0.9, seed=1), salts(17, 500, share_balanced=0.9, seed=2)])
    drawn = torch.cat([salts(9, 1000, share_balanced=0.5, seed=3), salts(17, 1000, share_balanced=0.7, seed=4)])

    def shares(counts: Tensor, weight: Tensor) -> list[float]:
        """Of fluorides, and of what balances among them and among chlorides."""
        fluoride, balanced = counts[:, 8] > 0, counts[:, 10] == 1
        found = [weight[fluoride].sum() / weight.sum()]
        for one in (fluoride, ~fluoride):
            found.append(weight[one & balanced].sum() / weight[one].sum())
        return [float(share) for share in found]

    with torch.no_grad():
        before = shares(drawn, critic.acceptance(drawn))
        critic.calibrate(real, drawn)
        after = shares(drawn, critic.acceptance(drawn))
    assert before == pytest.approx([0.5, 0.5, 0.7], abs=0.05)
    assert after == pytest.approx(shares(real, torch.ones(len(real))), abs=0.02)


def test_metals_alone_are_one_kind_that_balances() -> None:
    counts = torch.zeros(5, NUM_ELEMENTS, dtype=torch.long)
    for row, numbers in enumerate(([29, 79], [11], [11, 17], [11, 9], [11, 53])):
        counts[row, [number - 1 for number in numbers]] = 1
    kinds = chemical_kinds(counts, charge_facts(counts)).tolist()
    assert kinds[0] == kinds[1] == 1
    assert len(set(kinds)) == 3 and kinds[2] == kinds[4] != kinds[3], "iodide is as chloride, fluoride is not"
    assert all(kind % 2 == 1 for kind in kinds)


def test_a_model_of_before_kinds_were_calibrated_loads_and_favours_none() -> None:
    critic, _ = fitted()
    stored = critic.state_dict()
    del stored["of_kind"]
    fresh = CompositionCritic(32)
    fresh.of_kind.fill_(1.0)
    fresh.load_state_dict(stored)
    assert not fresh.of_kind.any()
    torch.testing.assert_close(fresh.of_num_atoms, critic.of_num_atoms)


def test_a_critic_that_nobody_calibrated_favours_no_size() -> None:
    critic, _ = fitted()
    fresh = CompositionCritic(32)
    tables = (fresh.of_num_atoms, fresh.of_num_elements, fresh.of_kind)
    assert not any(table.any() for table in tables)
    counts = compositions(50, 9, balanced=True)
    accepted = critic.acceptance(counts)
    critic.of_num_elements.zero_()
    critic.of_num_atoms.zero_()
    critic.of_kind.zero_()
    assert not torch.allclose(accepted, critic.acceptance(counts))
    torch.testing.assert_close(critic.acceptance(counts), (critic(counts).exp() / 3.0).clamp_max(1.0))
