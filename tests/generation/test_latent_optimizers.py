"""Optimisers of codes against closed forms: where the optimum is known, and where it may not be reached."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cdvae_kit.generation.latent_region import LatentRegion
from cdvae_kit.generation.optimization.bayesian_search import BayesianSearch
from cdvae_kit.generation.optimization.latent_optimizers import Feedback, GuidedSearch, PublishedDescent
from cdvae_kit.seeding import make_generator

DIM = 4


class Echo:
    """Takes codes for the codes of their crystals, and remembers them; every `fails`-th one fails."""

    def __init__(self, loss=None, fails: int | None = None) -> None:
        self.loss, self.fails = loss, fails
        self.tried: list[Tensor] = []
        self.steps: list[int] = []

    def __call__(self, codes: Tensor, steps: Sequence[int]) -> Feedback:
        self.tried.append(codes.clone())
        self.steps += list(steps)
        back = codes.clone()
        if self.fails:
            back[:, :: self.fails] = float("nan")
        losses = None if self.loss is None else self.loss(back.flatten(0, 1)).view(codes.shape[:2])
        return Feedback(back, losses)

    @property
    def all(self) -> Tensor:
        return torch.cat([codes.flatten(0, 1) for codes in self.tried])


class Bowl:
    """|z - optimum|^2 / 2."""

    def __init__(self, optimum: Tensor) -> None:
        self.optimum = optimum

    def __call__(self, z: Tensor, rows: Tensor | None = None) -> Tensor:
        return 0.5 * (z - self.optimum).square().sum(-1)


def ball(radius: float) -> LatentRegion:
    return LatentRegion(torch.zeros(DIM), torch.eye(DIM), torch.eye(DIM), radius)


def starts(num: int = 5) -> Tensor:
    return torch.randn(num, DIM, generator=make_generator(1)) * 0.3


def run(optimizer, objective, z, echo, region, **options) -> Echo:
    settings = {"penalty": None, "seed": 0, "crystal_ids": torch.arange(len(z)), **options}
    optimizer.run(objective, z, echo, region=region, **settings)
    return echo


QUIET = GuidedSearch(num_rounds=3, first_level=0.0, last_level=0.0, pull=0.0, steps_per_cycle=60, learning_rate=0.02)
INSIDE, OUTSIDE = torch.tensor([0.6, -0.3, 0.2, 0.1]), torch.tensor([3.0, 4.0, 0.0, 0.0])


def test_the_published_schedule_is_eleven_snapshots_at_the_published_steps() -> None:
    expected = (1, 556, 1111, 1666, 2221, 2776, 3331, 3886, 4441, 4996, 5000)
    assert PublishedDescent().snapshot_steps == expected
    echo = run(PublishedDescent(), Bowl(INSIDE), starts(2), Echo(), ball(1.0))
    assert tuple(echo.steps) == expected
    assert echo.tried[0].shape == (11, 2, DIM)


def test_the_published_descent_is_adam_on_the_mean_over_the_batch() -> None:
    """The public code's loop, written out; the mean changes nothing but Adam's epsilon."""
    z = starts(3)
    echo = run(PublishedDescent(num_steps=300, num_spaced=4), Bowl(OUTSIDE), z, Echo(), ball(1.0))
    theirs = z.clone().requires_grad_(True)
    adam, kept = torch.optim.Adam([theirs], lr=1e-3), []
    for i in range(300):
        adam.zero_grad()
        Bowl(OUTSIDE)(theirs).mean().backward()
        adam.step()
        if i % (300 // 3) == 0 or i == 299:
            kept.append(theirs.detach().clone())
    torch.testing.assert_close(echo.tried[0], torch.stack(kept), atol=1e-5, rtol=0)


def test_an_optimum_inside_the_region_is_found() -> None:
    echo = run(QUIET, Bowl(INSIDE), starts(), Echo(), ball(1.0))
    last = echo.tried[-1]
    assert float((last - INSIDE).norm(dim=-1).max()) < 0.02


def test_an_optimum_outside_is_approached_as_far_as_the_region_goes_and_no_further() -> None:
    echo = run(QUIET, Bowl(OUTSIDE), starts(), Echo(), ball(1.0))
    assert float(echo.all.norm(dim=-1).max()) <= 1.0 + 1e-5
    # on the ball's face that looks to the optimum; Adam's steps are no gradients, so not in its very middle
    directions = torch.nn.functional.normalize(echo.tried[-1], dim=-1)
    assert float((directions @ (OUTSIDE / 5.0)).min()) > 0.98
    assert float(echo.tried[-1].norm(dim=-1).min()) > 0.99


def test_the_published_descent_leaves_the_region() -> None:
    """The negative control."""
    echo = run(PublishedDescent(), Bowl(OUTSIDE), starts(2), Echo(), ball(1.0))
    assert float(echo.tried[0][-1].norm(dim=-1).min()) > 3.0


def test_no_code_goes_further_from_its_start_than_it_may() -> None:
    z = starts()
    search = GuidedSearch(max_shift=0.25)
    echo = run(search, Bowl(OUTSIDE), z, Echo(), ball(5.0))
    for codes in echo.tried:
        assert float((codes - z).norm(dim=-1).max()) <= 0.25 + 1e-5


def test_the_next_round_leaves_from_the_best_of_what_was_decoded() -> None:
    """A decoder that puts every crystal at the origin, the worst place that was ever tried, is not followed."""
    echo = Echo()
    run(QUIET, Bowl(INSIDE), starts(), echo, ball(1.0))

    def nowhere(codes: Tensor, steps: Sequence[int]) -> Feedback:
        far.tried.append(codes.clone())
        return Feedback(torch.full_like(codes, 10.0))

    far = Echo()
    QUIET.run(
        Bowl(INSIDE), starts(), nowhere, region=ball(1.0), penalty=None, seed=0, crystal_ids=torch.arange(len(starts()))
    )
    # from the starts again, so that round two is round one but for the spread of the first
    torch.testing.assert_close(far.tried[1][0], far.tried[2][0])
    assert float((far.tried[-1] - echo.tried[-1]).abs().max()) > 1e-4


def test_failures_are_left_behind_and_break_nothing() -> None:
    echo = run(QUIET, Bowl(INSIDE), starts(6), Echo(fails=2), ball(1.0))
    assert bool(echo.all.isfinite().all())
    echo = run(QUIET, Bowl(INSIDE), starts(6), Echo(fails=1), ball(1.0))
    assert bool(echo.all.isfinite().all())


@pytest.mark.parametrize("search", [GuidedSearch(num_rounds=2), PublishedDescent(num_steps=50)])
def test_a_start_goes_its_own_way_whatever_stands_beside_it(search) -> None:
    z, ids = starts(5), torch.tensor([3, 8, 1, 4, 9])
    both = run(search, Bowl(OUTSIDE), z, Echo(), ball(1.0), crystal_ids=ids)
    alone = run(search, Bowl(OUTSIDE), z[2:3], Echo(), ball(1.0), crystal_ids=ids[2:3])
    for all_codes, own in zip(both.tried, alone.tried, strict=True):
        torch.testing.assert_close(all_codes[:, 2:3], own, atol=1e-4, rtol=1e-4)
    other = run(search, Bowl(OUTSIDE), z[2:3], Echo(), ball(1.0), crystal_ids=ids[2:3], seed=1)
    if isinstance(search, GuidedSearch):
        assert not torch.allclose(other.tried[0], alone.tried[0])


def test_a_penalty_turns_the_search_away() -> None:
    def wall(z: Tensor) -> Tensor:
        return 50.0 * torch.relu(z[:, 0])

    free, kept = (run(QUIET, Bowl(INSIDE), starts(), Echo(), ball(1.0), penalty=p) for p in (None, wall))
    assert float(free.tried[-1][..., 0].min()) > 0.4
    assert float(kept.tried[-1][..., 0].abs().max()) < 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: GuidedSearch(num_kept=9),
        lambda: GuidedSearch(first_level=1.0),
        lambda: PublishedDescent(num_steps=3),
        lambda: BayesianSearch(num_rounds=0),
        lambda: BayesianSearch(first_length=0.0),
    ],
)
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(ValueError, match="got"):
        make()


def test_a_descent_needs_something_to_go_down() -> None:
    with pytest.raises(ValueError, match="none is given"):
        run(GuidedSearch(), None, starts(), Echo(), ball(1.0))


def test_bayesian_search_gets_nearer_than_as_many_random_codes() -> None:
    pytest.importorskip("botorch")
    optimum = Bowl(torch.tensor([1.5, -1.0, 0.5, 1.0]))
    search = BayesianSearch(num_rounds=6, num_candidates=200)
    echo = run(search, None, starts(4), Echo(loss=optimum), ball(3.0))
    assert len(echo.all) == 4 * 7
    random = torch.randn(4 * 7, DIM, generator=make_generator(5))
    assert float(optimum(echo.all).min()) < 0.5 * float(optimum(random).min())
    assert float(echo.all.norm(dim=-1).max()) <= 3.0 + 1e-5


def test_bayesian_search_survives_an_oracle_without_values() -> None:
    pytest.importorskip("botorch")
    search = BayesianSearch(num_rounds=2, num_candidates=50)
    never = run(search, None, starts(3), Echo(loss=lambda z: z[:, 0] * float("nan")), ball(2.0))
    assert bool(never.all.isfinite().all()) and len(never.all) == 9
    sometimes = run(search, None, starts(4), Echo(loss=Bowl(INSIDE), fails=2), ball(2.0))
    assert bool(sometimes.all.isfinite().all())


def test_bayesian_search_is_told_by_its_seed() -> None:
    pytest.importorskip("botorch")
    search = BayesianSearch(num_rounds=2, num_candidates=50)
    first, again, other = (
        run(search, None, starts(3), Echo(loss=Bowl(INSIDE)), ball(2.0), seed=seed).all for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
