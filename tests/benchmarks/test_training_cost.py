"""Time of one training step of the default model, beside the published networks at their published sizes, in one run.

OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_training_cost.py -n 0 --benchmark-enable -s

The published encoder is DimeNet++ of torch_geometric's blocks. Its decoder, GemNet-dT, is not in torch_geometric: our
own network with angles stands in, at the published sizes (3 blocks, 128 wide, 128 radial and 7 angular functions,
7 angstrom, 20 neighbours). It sums over the same triplets once a block, but leaves out the published one's messages
along reversed edges and its outputs on atoms, so that the ratio is rather too small than too large. Both models get
the encoder's graph ready-made; the decoder's graph belongs to the step.
"""

import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.models.cdvae import CDVAE
from cdvae_kit.models.config import CDVAEConfig, EncoderConfig, NoiseConfig, ScoreNetworkConfig
from cdvae_kit.seeding import make_generator

NUM_CRYSTALS = 64
PUBLISHED = CDVAEConfig(
    latent_dim=256,
    symmetry="none",
    composition="fractions",
    lattice="lengths_angles",
    draws_per_crystal=1,
    encoder=EncoderConfig(kind="dimenet++", cutoff=7.0, max_neighbors=20),
    score_network=ScoreNetworkConfig(
        kind="gemnet", width=128, num_layers=3, num_basis=128, cutoff=7.0, max_neighbors=20, knows_noise_level=False
    ),
    noise=NoiseConfig(coordinates="gaussian", types="published", lattice="fixed"),
    prior=None,
)
MODELS = {
    "default": CDVAEConfig(),
    "default, one noisy version a crystal": CDVAEConfig(draws_per_crystal=1),
    "published": PUBLISHED,
}


def perovskites() -> CrystalBatch:
    """Cubic ABX3 cells of 3.5 to 4.5 angstrom with random elements, as in Perov-5."""
    generator = make_generator(5)
    sites = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    elements = torch.randint(3, 84, (NUM_CRYSTALS, 3), generator=generator)[:, [0, 1, 2, 2, 2]]
    edges = 3.5 + torch.rand(NUM_CRYSTALS, generator=generator)
    return CrystalBatch(
        sites.repeat(NUM_CRYSTALS, 1),
        edges.view(-1, 1, 1) * torch.eye(3),
        elements.flatten(),
        torch.full((NUM_CRYSTALS,), 5),
    )


def ready_model(config: CDVAEConfig) -> tuple[CDVAE, SymmetricCrystals]:
    model = CDVAE(config)
    crystals = model.prepare(perovskites())
    model.fit_statistics(crystals)
    model.train()
    return model, crystals


def training_step(config: CDVAEConfig) -> Callable[[], Tensor]:
    """Forward and backward of the whole loss, which it returns."""
    model, crystals = ready_model(config)
    graph = model.graph(crystals)
    generator = make_generator(1)

    def run() -> Tensor:
        model.zero_grad(set_to_none=True)
        loss: Tensor = model.total_loss(model.loss(crystals, graph, generator=generator))
        loss.backward()
        return loss.detach()

    return run


def encoder_step(config: CDVAEConfig) -> Callable[[], Tensor]:
    """Forward and backward of the encoder alone, from the squares of what it says, whose sum it returns."""
    model, crystals = ready_model(config)
    graph = model.graph(crystals)

    def run() -> Tensor:
        model.zero_grad(set_to_none=True)
        moments: tuple[Tensor, Tensor] = model.posterior(crystals, graph)
        loss = torch.cat(moments).square().sum()
        loss.backward()
        return loss.detach()

    return run


@pytest.mark.parametrize("name", MODELS)
def test_training_step(benchmark: BenchmarkFixture, name: str) -> None:
    loss = benchmark.pedantic(training_step(MODELS[name]), rounds=5, warmup_rounds=1)
    assert bool(loss.isfinite()) and float(loss) > 0.0


def test_ratio_of_the_steps_in_turn() -> None:
    """By processor time of one thread, which other programs on the machine disturb least."""
    runs = {name: training_step(config) for name, config in MODELS.items()}
    runs |= {f"encoder of {name}": encoder_step(MODELS[name]) for name in ("default", "published")}
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(4):
        for name, run in runs.items():
            start = time.process_time()
            loss = run()
            best[name] = min(best[name], time.process_time() - start)
            # a step of nothing, or of NaN, says nothing of the cost
            assert bool(loss.isfinite()) and float(loss) > 0.0, name
    print()
    for name, config in MODELS.items():
        model, _ = ready_model(config)
        parts = (model.encoder, model.score_network)
        encoder, decoder = (sum(p.numel() for p in part.parameters()) / 1e6 for part in parts)
        print(f"{name}: {encoder:.1f} million weights in the encoder, {decoder:.1f} million in the score network")
    for name, seconds in best.items():
        print(f"{name}: {seconds / NUM_CRYSTALS * 1e3:.2f} ms a crystal, {NUM_CRYSTALS / seconds:.0f} crystals/s")
    for name in ("default", "default, one noisy version a crystal"):
        print(f"published / {name}: {best['published'] / best[name]:.1f}")
