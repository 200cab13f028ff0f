import math

import pytest
import torch
from scipy import stats

from cdvae_kit.seeding import CrystalNoise, make_generator

DRAWS = ["uniform_per_crystal", "normal_per_crystal", "uniform_per_row", "normal_per_row"]


def test_equal_keys_give_equal_numbers() -> None:
    first, second = (torch.rand(8, generator=make_generator(3, 5)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("other", [(3, 6), (4, 5), (5, 3), (3,), (3, 5, 0), (-3, 5)])
def test_any_change_of_the_key_gives_other_numbers(other: tuple[int, ...]) -> None:
    first, second = (torch.rand(8, generator=make_generator(*key)) for key in ((3, 5), other))
    assert not torch.allclose(first, second)


def test_no_global_generator_is_touched() -> None:
    before = torch.random.get_rng_state()
    CrystalNoise(make_generator(1).initial_seed(), torch.arange(3)).normal_per_crystal(4, stream=0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("draw", DRAWS)
def test_a_crystal_draws_the_same_noise_in_any_batch(draw: str) -> None:
    ids, num_rows = torch.tensor([4, 17, 9]), torch.tensor([2, 5, 3])
    together = getattr(CrystalNoise(7, ids, num_rows), draw)(3, stream=2)
    bounds = [0, 2, 7, 10] if "row" in draw else [0, 1, 2, 3]
    for k in range(3):
        alone = getattr(CrystalNoise(7, ids[k : k + 1], num_rows[k : k + 1]), draw)(3, stream=2)
        assert torch.equal(together[bounds[k] : bounds[k + 1]], alone), k


@pytest.mark.parametrize("draw", DRAWS)
def test_another_seed_crystal_or_stream_draws_other_noise(draw: str) -> None:
    num_rows = torch.tensor([3])

    def noise(seed: int, crystal: int, stream: int) -> torch.Tensor:
        return getattr(CrystalNoise(seed, torch.tensor([crystal]), num_rows), draw)(4, stream=stream)

    first = noise(1, 2, 3)
    for other in (noise(2, 2, 3), noise(1, 3, 3), noise(1, 2, 4)):
        assert not bool(torch.isclose(first, other).any())


def test_a_wider_draw_begins_with_the_narrower_one_where_it_is_uniform() -> None:
    noise = CrystalNoise(0, torch.arange(5))
    assert torch.equal(noise.uniform_per_crystal(6, stream=1)[:, :2], noise.uniform_per_crystal(2, stream=1))


@pytest.mark.parametrize("draw", ["uniform_per_crystal", "uniform_per_row"])
def test_uniform_noise_is_uniform(draw: str) -> None:
    values = getattr(CrystalNoise(11, torch.arange(2000), torch.full((2000,), 3)), draw)(3, stream=0).flatten()
    assert 0.0 < float(values.min()) and float(values.max()) < 1.0
    assert stats.kstest(values.numpy(), "uniform").pvalue > 1e-3, "seed 11"


@pytest.mark.parametrize("draw", ["normal_per_crystal", "normal_per_row"])
def test_normal_noise_is_normal_with_independent_columns(draw: str) -> None:
    values = getattr(CrystalNoise(11, torch.arange(4000), torch.full((4000,), 2)), draw)(3, stream=0)
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3, "seed 11"
    correlation = torch.corrcoef(values.T) - torch.eye(3)
    assert float(correlation.abs().max()) < 5.0 / math.sqrt(len(values)), "seed 11"


def test_neighbouring_crystals_streams_and_seeds_are_not_correlated() -> None:
    ids = torch.arange(5000)
    first = CrystalNoise(0, ids).normal_per_crystal(1, stream=0).squeeze(1)
    others = {
        "next crystal": first.roll(1),
        "next stream": CrystalNoise(0, ids).normal_per_crystal(1, stream=1).squeeze(1),
        "next seed": CrystalNoise(1, ids).normal_per_crystal(1, stream=0).squeeze(1),
    }
    for name, other in others.items():
        assert abs(float((first * other).mean())) < 5.0 / math.sqrt(len(ids)), name


def test_noise_per_row_without_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="needs num_rows"):
        CrystalNoise(0, torch.arange(2)).normal_per_row(3, stream=0)
