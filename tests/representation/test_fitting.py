"""The short training loop: seeds, schedules, what it tells the objective, what it refuses."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from cdvae_kit.representation.methods.encoder import MLPEncoder, Objective, embed
from cdvae_kit.representation.methods.fitting import FitDivergedError, FitSettings, Supervision, fit
from cdvae_kit.seeding import make_generator, seeded_weights
from cdvae_kit.transforms import Compose


def two_clouds(num: int = 64) -> tuple[Tensor, Tensor]:
    labels = torch.arange(num) % 2
    return torch.randn(num, 3, generator=make_generator(0)) + 3.0 * labels[:, None], labels


def classifier(seed: int = 0) -> Supervision:
    with seeded_weights(seed):
        return Supervision(MLPEncoder([3, 8, 4]), 2, augmentation=Compose([]))


class Recorder(nn.Module, Objective):
    """Follows the square of one weight and writes down what it is told."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))
        self.batches: list[Tensor] = []
        self.steps: list[tuple[int, int]] = []

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        self.batches.append(batch)
        return {"loss": self.weight**2}

    def after_step(self, step: int, num_steps: int) -> None:
        self.steps.append((step, num_steps))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_a_fit_learns_what_can_be_learnt(optimizer: Any, schedule: Any) -> None:
    model, data = classifier(), two_clouds()
    told: list[float] = []
    settings = FitSettings(20, batch_size=16, learning_rate=0.05, optimizer=optimizer, schedule=schedule)
    losses = fit(model, data, settings, seed=0, progress=told.append)
    assert losses[-1] < 0.2 < losses[0] and len(losses) == 20
    assert told[-1] == 1.0 and told == sorted(told)
    assert (embed(model, data[0]).argmax(1) == data[1]).float().mean() > 0.9


def test_the_seed_decides_everything_and_the_global_generator_stays() -> None:
    before = torch.random.get_rng_state()
    settings = FitSettings(3, batch_size=16)
    runs = [(classifier(start), seed) for start, seed in ((0, 0), (0, 0), (0, 1), (1, 0))]
    losses = [fit(model, two_clouds(), settings, seed=seed) for model, seed in runs]
    assert losses[0] == losses[1] and losses[0] != losses[2] and losses[0] != losses[3]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_epoch_sees_each_sample_at_most_once_and_every_step_is_told() -> None:
    recorder = Recorder()
    fit(recorder, torch.arange(10), FitSettings(2, batch_size=4), seed=0)
    assert [len(batch) for batch in recorder.batches] == [4] * 4
    first, second = (torch.cat(recorder.batches[i : i + 2]) for i in (0, 2))
    assert len(first.unique()) == len(second.unique()) == 8 and not torch.equal(first, second)
    assert recorder.steps == [(i, 4) for i in range(4)]


def test_a_batch_is_no_larger_than_the_data() -> None:
    recorder = Recorder()
    fit(recorder, torch.arange(3), FitSettings(1, batch_size=100), seed=0)
    assert [len(batch) for batch in recorder.batches] == [3]


@pytest.mark.parametrize(("schedule", "expected"), [("constant", 1.0 - 8 * 0.1), ("cosine", 1.0 - 4.5 * 0.1)])
def test_the_schedule_sums_to_what_it_should(schedule: Literal["cosine", "constant"], expected: float) -> None:
    class Slope(Recorder):
        def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
            return {"loss": self.weight}

    slope = Slope()
    settings = FitSettings(8, batch_size=4, learning_rate=0.1, optimizer="adamw", schedule=schedule)
    fit(slope, torch.arange(4), settings, seed=0)
    # Adam's step under a constant gradient is the learning rate
    assert slope.weight.item() == pytest.approx(expected, abs=1e-4)


def test_a_loss_that_is_no_number_ends_the_fit() -> None:
    with pytest.raises(FitDivergedError, match="nan at step 0"):
        fit(Recorder(float("nan")), torch.arange(4), FitSettings(1), seed=0)


def test_no_samples_and_senseless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        fit(Recorder(), torch.arange(0), FitSettings(1), seed=0)
    for epochs, size, rate in ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0)):
        with pytest.raises(ValueError, match="must be positive"):
            FitSettings(epochs, batch_size=size, learning_rate=rate)


def test_supervision_takes_any_error_and_needs_a_head_or_the_classes() -> None:
    encoder = MLPEncoder([3, 2])
    samples, targets = torch.ones(4, 3), torch.zeros(4, 2)
    objective = Supervision(encoder, head=nn.Identity(), error=nn.functional.mse_loss)
    found = objective.loss((samples, targets), generator=make_generator(0))["loss"]
    assert torch.allclose(found, encoder(samples).square().mean())
    with pytest.raises(ValueError, match="number of classes"):
        Supervision(encoder)
