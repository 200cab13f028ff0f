"""The learned prior, on codes whose distribution is known."""

import pytest
import torch
from torch import Tensor

from cdvae_kit.models.config import PriorConfig
from cdvae_kit.models.prior import LatentPrior
from cdvae_kit.seeding import make_generator

CENTRES = torch.tensor([[5.0, -1.0], [9.0, -1.0], [7.0, 3.0]])
SPREAD = 0.3


def mixture(num_codes: int, generator: torch.Generator) -> Tensor:
    """Three round heaps in the plane."""
    which = torch.randint(0, 3, (num_codes,), generator=generator)
    return CENTRES[which] + SPREAD * torch.randn(num_codes, 2, generator=generator)


@pytest.fixture(scope="module")
def fitted() -> LatentPrior:
    generator = make_generator(0)
    prior = LatentPrior(PriorConfig(width=48, num_layers=2), 2)
    with torch.no_grad():
        for parameter in prior.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
    prior.set_statistics(mixture(4000, generator))
    optimizer = torch.optim.Adam(prior.parameters(), lr=4e-3)
    for step in range(500):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1.0 - step / 500)
        optimizer.zero_grad()
        prior.loss(mixture(256, generator), generator=generator).backward()
        optimizer.step()
    return prior


@torch.no_grad()
def test_noise_is_carried_to_the_codes(fitted: LatentPrior) -> None:
    codes = fitted.transport(torch.randn(2000, 2, generator=make_generator(1)), num_steps=20)
    distance = torch.cdist(codes, CENTRES)
    shares = torch.bincount(distance.argmin(1), minlength=3) / 2000
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.06, rtol=0.0)
    # three deviations hold 98.9 % of a round heap; some few lie on the way between two
    assert float((distance.amin(1) < 3.0 * SPREAD).float().mean()) > 0.85
    for k in range(3):
        own = codes[distance.argmin(1) == k]
        torch.testing.assert_close(own.median(0).values, CENTRES[k], atol=0.2, rtol=0.0)


@torch.no_grad()
def test_plain_noise_is_not_already_there(fitted: LatentPrior) -> None:
    """The control: a normal distribution of the same mean and standard deviation lies mostly between the heaps."""
    codes = torch.randn(2000, 2, generator=make_generator(1)) @ fitted.colour + fitted.mean
    assert float((torch.cdist(codes, CENTRES).amin(1) < 3.0 * SPREAD).float().mean()) < 0.5


@torch.no_grad()
def test_the_steps_are_of_second_order(fitted: LatentPrior) -> None:
    noise = torch.randn(200, 2, generator=make_generator(2), dtype=torch.float64)
    prior = fitted.double()
    exact = prior.transport(noise, num_steps=800)
    coarse, fine = (float((prior.transport(noise, num_steps=n) - exact).norm()) for n in (50, 100))
    fitted.float()
    assert 3.0 < coarse / fine < 5.5


def test_the_flow_works_on_codes_whose_covariance_is_the_identity() -> None:
    prior = LatentPrior(PriorConfig(width=8, num_layers=1), 2)
    turn_and_stretch = torch.tensor([[3.0, 1.0], [0.1, 0.2]])
    codes = mixture(500, make_generator(3)) @ turn_and_stretch
    prior.set_statistics(codes)
    white = (codes - prior.mean) @ prior.whiten
    torch.testing.assert_close(white.mean(0), torch.zeros(2), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(2), atol=1e-3, rtol=0.0)
    # the way back, and what travels with a checkpoint
    torch.testing.assert_close(white @ prior.colour + prior.mean, codes, atol=1e-3, rtol=1e-4)
    assert {"mean", "whiten", "colour"} <= set(prior.state_dict())


def test_codes_that_do_not_vary_give_finite_numbers() -> None:
    prior = LatentPrior(PriorConfig(width=8, num_layers=1), 2)
    codes = torch.tensor([[1.0, 2.0]]).expand(10, 2)
    prior.set_statistics(codes)
    assert bool(prior.loss(codes, generator=make_generator(4)).isfinite())
    assert bool(prior.transport(torch.zeros(3, 2)).isfinite().all())


@pytest.mark.parametrize("shape", [(1, 2), (10, 3), (2,)])
def test_codes_that_have_no_statistics_are_refused(shape: tuple[int, ...]) -> None:
    prior = LatentPrior(PriorConfig(width=8, num_layers=1), 2)
    with pytest.raises(ValueError, match="expected codes"):
        prior.set_statistics(torch.zeros(shape))


def test_a_transport_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        LatentPrior(PriorConfig(width=8, num_layers=1), 2).transport(torch.zeros(1, 2), num_steps=0)
