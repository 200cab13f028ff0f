"""Stage three: the critic learns to tell real compositions from those that are read from the prior's codes."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.seeding import make_generator
from cdvae_kit.training.config import TrainingConfig
from cdvae_kit.training.ema import WeightAverage
from cdvae_kit.training.errors import TrainingDivergedError
from cdvae_kit.training.protocols import Critical
from cdvae_kit.typing import Progress

logger = logging.getLogger(__name__)

_STEP_KEY = 8
_BATCH_SIZE = 256
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 3e-2
_AVERAGE_DECAY = 0.99
_CHECK_EVERY = 50
_DRAWN_AT_ONCE = 1024
_DRAWN_SEED = 3_000_000_019
"""Of codes that no one asks for: seeds of samples are small."""


@dataclass(frozen=True)
class CriticFit:
    """How stage three went.

    Attributes:
        steps: that were taken.
        best_step: whose averaged weights the critic has now.
        val_loss: cross entropy in nats on held-out real compositions and as many drawn ones; ln 2 = 0.693 where they
            cannot be told apart.
        accepted: share of drawn compositions that are accepted.
    """

    steps: int
    best_step: int
    val_loss: float
    accepted: float


def fit_critic(
    model: Critical,
    train: CrystalBatch,
    val: CrystalBatch,
    config: TrainingConfig,
    *,
    progress: Progress | None = None,
) -> CriticFit:
    """Fits `model.critic` in place, by as many compositions drawn from the prior as there are real ones.

    The averaged weights with the lowest loss on compositions of validation crystals are kept: a critic that knew the
    training compositions by heart would accept nothing else.
    """
    if config.critic_steps < 1:
        raise ValueError(f"fitting the critic takes at least one step, got critic_steps={config.critic_steps}")
    real, held_out = model.element_counts(train), model.element_counts(val)
    drawn = _drawn(model, len(real) + len(held_out))
    return fit_critic_to_counts(
        model.critic,
        (real.to(drawn.device), drawn[: len(real)]),
        (held_out.to(drawn.device), drawn[len(real) :]),
        config,
        progress=progress,
    )


def fit_critic_to_counts(
    critic: torch.nn.Module,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    config: TrainingConfig,
    *,
    progress: Progress | None = None,
) -> CriticFit:
    """As `fit_critic`, from counts (num, num_elements) long of real and drawn compositions, to learn from and held out.

    A small set is seen many times; the loss on what is held out says when to stop.
    """
    named = list(critic.named_parameters())
    average = WeightAverage(named, decay=_AVERAGE_DECAY)
    optimizer = torch.optim.AdamW(critic.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    device = train[0].device
    best, kept = (math.inf, 0), average.state_dict()
    for step in range(config.critic_steps):
        generator = make_generator(config.seed, _STEP_KEY, step, device=device)
        some = [
            counts[torch.randint(len(counts), (_BATCH_SIZE,), generator=generator, device=device)] for counts in train
        ]
        loss = _cross_entropy(critic, some[0], some[1], generator)
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * step / config.critic_steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update()
        if (step + 1) % _CHECK_EVERY == 0 or step + 1 == config.critic_steps:
            with average.applied(), torch.no_grad():
                val_loss = float(_cross_entropy(critic, *val))
                if val_loss < best[0]:
                    best = (val_loss, step + 1)
                    kept = {name: weight.detach().clone() for name, weight in named}
        if progress is not None:
            progress(step + 1, config.critic_steps)
    if not math.isfinite(best[0]):
        raise TrainingDivergedError("the critic's validation loss was never finite")
    with torch.no_grad():
        for name, weight in named:
            weight.copy_(kept[name])
        critic.calibrate(train[0], train[1])  # type: ignore[operator]
        accepted = float(critic.acceptance(val[1]).mean())  # type: ignore[operator]
    result = CriticFit(config.critic_steps, best[1], best[0], accepted)
    logger.info("critic: validation loss %.4f at step %d, accepts %.2f", result.val_loss, best[1], result.accepted)
    return result


def _cross_entropy(
    critic: torch.nn.Module, real: Tensor, drawn: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    of_real, of_drawn = critic(real, generator), critic(drawn, generator)
    return 0.5 * (functional.softplus(-of_real).mean() + functional.softplus(of_drawn).mean())


@torch.no_grad()
def _drawn(model: Critical, num: int) -> Tensor:
    """(num, num_elements) compositions read from codes of the prior."""
    ids = torch.arange(num).split(_DRAWN_AT_ONCE)
    return torch.cat([model.drawn_counts(part, seed=_DRAWN_SEED) for part in ids])
