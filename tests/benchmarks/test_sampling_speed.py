"""Time to sample crystals with the models that the package carries, whole calls of `CDVAE.sample`.

OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_sampling_speed.py -n 0 --benchmark-enable -s
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cdvae_kit import CDVAE
from cdvae_kit.models import pretrained_names

NUM_CRYSTALS = 1000


@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize("name", ["perov_5", "carbon_24", "mp_20"])
def test_thousand_crystals(benchmark: BenchmarkFixture, name: str, steps: int) -> None:
    if name not in pretrained_names():
        pytest.skip(f"the package carries no weights for {name}")
    model = CDVAE.from_pretrained(name)
    model.sample(8, num_steps=2)
    crystals = benchmark.pedantic(
        model.sample, args=(NUM_CRYSTALS,), kwargs={"seed": 0, "num_steps": steps}, rounds=2, iterations=1
    )
    assert len(crystals) == NUM_CRYSTALS
