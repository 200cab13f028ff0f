"""The critic of compositions: what it sees, what it accepts, and that codes without it stay as they are."""

import torch

from cdvae_kit.models import CDVAE, CDVAEConfig, decoding
from cdvae_kit.models.contents import read_counts
from cdvae_kit.models.critic import CompositionCritic
from cdvae_kit.seeding import make_generator
from cdvae_kit.training import seeded_weights


def small_model(**settings: object) -> CDVAE:
    with seeded_weights(0):
        return CDVAE(CDVAEConfig(max_atoms=6, latent_dim=8, **settings)).eval()  # type: ignore[arg-type]


def critic_with_opinions() -> CompositionCritic:
    with seeded_weights(0):
        critic = CompositionCritic(16)
        torch.nn.init.normal_(critic.out[-1].weight)  # type: ignore[arg-type]
    return critic


def test_the_batch_does_not_matter_and_what_is_not_there_neither() -> None:
    critic = critic_with_opinions()
    counts = torch.zeros(2, 100, dtype=torch.long)
    counts[:, 7], counts[0, 10], counts[1, 11] = 3, 1, 2
    together = critic(counts).detach()
    assert torch.allclose(together[1], critic(counts[1:])[0])
    assert float(together[0] - together[1]) != 0.0


def test_it_accepts_in_proportion_to_the_odds() -> None:
    critic = CompositionCritic(8)
    counts = torch.ones(20_000, 100, dtype=torch.long)
    uniform = torch.rand(20_000, generator=make_generator(0))
    for odds in (0.3, 1.5, 3.0, 5.0):
        expected = min(1.0, odds / critic.ceiling)
        torch.nn.init.constant_(critic.out[-1].bias, torch.tensor(odds).log().item())  # type: ignore[arg-type]
        share = float(critic.accepts(counts, uniform).float().mean())
        assert abs(share - expected) < 0.015, odds


def test_a_critic_that_hates_an_element_keeps_it_from_samples() -> None:
    model = small_model()
    ids = torch.arange(300)
    before = read_counts(model, decoding.sample_codes(model, ids, seed=0, tries=1))
    hated = int(before.sum(0).argmax())

    class Hates(CompositionCritic):
        def log_odds(
            self, counts: torch.Tensor, facts: torch.Tensor, generator: torch.Generator | None = None
        ) -> torch.Tensor:
            return torch.where(counts[:, hated] > 0, -50.0, 50.0)

    model.critic = Hates(8)
    after = read_counts(model, decoding.sample_codes(model, ids, seed=0, tries=20))
    assert int((before[:, hated] > 0).sum()) > 20
    assert int((after[:, hated] > 0).sum()) < 0.1 * int((before[:, hated] > 0).sum())
    # codes that were accepted at once are the same
    same = before[:, hated] == 0
    assert torch.equal(after[same], before[same])


def test_a_code_depends_on_its_number_alone() -> None:
    model = small_model()
    model.critic = critic_with_opinions()
    whole = decoding.sample_codes(model, torch.arange(40), seed=3)
    part = decoding.sample_codes(model, torch.arange(30, 40), seed=3)
    assert torch.allclose(whole[30:], part, atol=1e-5)


def test_there_is_none_without_a_prior_or_counts() -> None:
    assert small_model(critic=0).critic is None
    assert small_model(prior=None).critic is None
    assert small_model(composition="fractions").critic is None
