"""Stage two: the prior is fitted to the codes that the finished encoder gives the training crystals."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.seeding import make_generator
from cdvae_kit.training.config import TrainingConfig
from cdvae_kit.training.data import find_graph
from cdvae_kit.training.ema import WeightAverage
from cdvae_kit.training.errors import TrainingDivergedError
from cdvae_kit.training.protocols import TrainableModel, as_module
from cdvae_kit.typing import Progress

logger = logging.getLogger(__name__)

_STATISTICS_KEY, _STEP_KEY, _CODES_KEY, _CHECK_KEY = 4, 5, 6, 7
_STATISTICS_DRAWS = 4
_CODES_PER_CHECK = 4096
_CRYSTALS_AT_ONCE = 256


@dataclass(frozen=True)
class PriorFit:
    """How stage two went.

    Attributes:
        steps: that were taken.
        skipped_steps: of these, with a loss that was not finite.
        best_step: the one whose averaged weights the prior has now.
        loss: of the training codes, a running mean, at the best step.
        val_loss: of codes of the validation crystals, at the best step; by it the step was chosen.
        final_val_loss: at the last step; much above `val_loss` it tells of over-fitting that was avoided.
        curve: (step, loss, val_loss) at each look.
        seconds: it took.
    """

    steps: int
    skipped_steps: int
    best_step: int
    loss: float
    val_loss: float
    final_val_loss: float
    curve: tuple[tuple[int, float, float], ...]
    seconds: float


@torch.no_grad()
def encode_moments(model: TrainableModel, crystals: CrystalBatch, graph: PeriodicGraph) -> tuple[Tensor, Tensor]:
    """mu and log_var (num_crystals, latent_dim) of all crystals, some hundred at a time."""
    device = next(as_module(model).parameters()).device
    crystals, graph = crystals.replace(material_ids=None).to(device), graph.to(device)
    moments = []
    for index in torch.arange(len(crystals), device=device).split(_CRYSTALS_AT_ONCE):
        moments.append(model.posterior(crystals.select(index), graph.select(index, crystals.num_atoms)))
    mu, log_var = zip(*moments, strict=True)
    return torch.cat(mu), torch.cat(log_var)


def fit_prior(
    model: TrainableModel,
    train: CrystalBatch,
    val: CrystalBatch,
    config: TrainingConfig,
    *,
    graphs: tuple[PeriodicGraph, PeriodicGraph] | None = None,
    progress: Progress | None = None,
) -> PriorFit:
    """Fits `model.prior` in place, on the model's device; the rest of the model stays as it is.

    A code is drawn anew from its crystal's posterior each time that it is used. The averaged weights with the lowest
    loss on codes of the validation crystals are kept: a flow can learn some thousand codes by heart.

    Args:
        model: with a prior.
        train: the crystals whose codes the prior learns.
        val: the crystals whose codes tell when it learns by heart.
        config: `prior_steps` and the other settings of the prior, `clip_norm`, `seed`.
        graphs: the edges of both sets, if they are at hand.
        progress: called with (steps done, steps in all).
    """
    if model.prior is None:
        raise ValueError("this model has no prior to fit (model.prior is None)")
    if config.prior_steps < 1:
        raise ValueError(f"fitting the prior takes at least one step, got prior_steps={config.prior_steps}")
    as_module(model).eval()
    if graphs is None:
        graphs = find_graph(model, train), find_graph(model, val)
    codes = encode_moments(model, train, graphs[0])
    held_out = encode_moments(model, val, graphs[1])
    facts = None
    if model.conditions is not None:
        device = codes[0].device
        facts = model.conditions.facts(train).to(device), model.conditions.facts(val).to(device)
    return fit_prior_to_codes(model.prior, codes, held_out, config, facts=facts, progress=progress)


def fit_prior_to_codes(
    prior: nn.Module,
    codes: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    config: TrainingConfig,
    *,
    facts: tuple[Tensor, Tensor] | None = None,
    progress: Progress | None = None,
) -> PriorFit:
    """As `fit_prior`, from mu and log_var (num_codes, latent_dim) of training and held-out codes.

    `facts` are what is known of the crystals of both, (num_codes, width), for a prior that can be told of them.
    """
    started = time.monotonic()
    mu, log_var = codes
    device = mu.device
    statistics = make_generator(config.seed, _STATISTICS_KEY, device=device)
    every = torch.arange(len(mu), device=device).repeat(_STATISTICS_DRAWS)
    prior.set_statistics(_draw(mu, log_var, every, statistics))  # type: ignore[operator]
    every = torch.arange(len(held_out[0]), device=device)
    every = every.repeat(max(1, min(16, _CODES_PER_CHECK // len(every))))
    val_codes = _draw(*held_out, every, make_generator(config.seed, _CODES_KEY, device=device))
    known, val_known = (None, None) if facts is None else (facts[0], facts[1][every])

    named = list(prior.named_parameters())
    average = WeightAverage(named, decay=config.prior_ema_decay)
    weights = [weight for _, weight in named]
    optimizer = torch.optim.AdamW(
        weights, lr=config.prior_learning_rate, weight_decay=config.prior_weight_decay, fused=True
    )
    curve: list[tuple[int, float, float]] = []
    best, kept = (math.inf, 0, math.nan), average.state_dict()
    running, skipped, in_a_row = math.nan, 0, 0
    for step in range(config.prior_steps):
        generator = make_generator(config.seed, _STEP_KEY, step, device=device)
        index = torch.randint(len(mu), (config.prior_batch_size,), generator=generator, device=device)
        prior.train()
        loss = _loss(prior, _draw(mu, log_var, index, generator), known if known is None else known[index], generator)
        optimizer.param_groups[0]["lr"] = (
            config.prior_learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / config.prior_steps))
        )
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, config.clip_norm)
        if bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
            optimizer.step()
            average.update()
            value, in_a_row = float(loss.detach()), 0
            running = value if math.isnan(running) else 0.98 * running + 0.02 * value
        else:
            skipped, in_a_row = skipped + 1, in_a_row + 1
            if in_a_row >= config.max_skipped_in_a_row:
                raise TrainingDivergedError(
                    f"the prior's loss was not finite for {in_a_row} steps on end; lower prior_learning_rate, and look "
                    "whether the codes are finite"
                )
        if (step + 1) % config.prior_check_every == 0 or step + 1 == config.prior_steps:
            prior.eval()
            with average.applied(), torch.no_grad():
                val_loss = float(
                    _loss(prior, val_codes, val_known, make_generator(config.seed, _CHECK_KEY, device=device))
                )
                if val_loss < best[0]:
                    best = (val_loss, step + 1, running)
                    kept = {name: weight.detach().clone() for name, weight in named}
            curve.append((step + 1, running, val_loss))
            logger.info("prior, step %d: loss %.4f, validation %.4f", step + 1, running, val_loss)
        if progress is not None:
            progress(step + 1, config.prior_steps)
    if not math.isfinite(best[0]):
        raise TrainingDivergedError("the prior's validation loss was never finite; lower prior_learning_rate")
    with torch.no_grad():
        for name, weight in named:
            weight.copy_(kept[name])
    return PriorFit(
        steps=config.prior_steps,
        skipped_steps=skipped,
        best_step=best[1],
        loss=best[2],
        val_loss=best[0],
        final_val_loss=curve[-1][2],
        curve=tuple(curve),
        seconds=time.monotonic() - started,
    )


def _draw(mu: Tensor, log_var: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(len(index), mu.shape[1], generator=generator, device=mu.device, dtype=mu.dtype)
    return mu[index] + torch.exp(0.5 * log_var[index]) * noise


def _loss(prior: nn.Module, codes: Tensor, facts: Tensor | None, generator: torch.Generator) -> Tensor:
    told = {} if facts is None else {"facts": facts}
    return prior.loss(codes, generator=generator, **told)  # type: ignore[operator]
