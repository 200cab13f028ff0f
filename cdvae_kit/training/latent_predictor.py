"""A property predictor from codes: members fitted to draws from the frozen encoder's posteriors, then calibrated.

It takes a minute, so that there is no state to resume from: a killed fit starts anew and gives the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.seeding import make_generator
from cdvae_kit.training.config import TrainingConfig
from cdvae_kit.training.data import find_graph
from cdvae_kit.training.ema import WeightAverage
from cdvae_kit.training.errors import TrainingDivergedError
from cdvae_kit.training.prior import encode_moments
from cdvae_kit.training.protocols import TrainableModel, as_module
from cdvae_kit.typing import Progress

logger = logging.getLogger(__name__)

_STEP_KEY, _CHECK_KEY = 8, 9


class TrainableLatentPredictor(Protocol):
    """An ensemble on codes; `cdvae_kit.models.LatentPredictor` fits."""

    config: Any
    """With `properties`."""
    members: Any

    def member(self, k: int, z: Tensor, *, generator: torch.Generator | None = None) -> Tensor: ...

    def predict(self, z: Tensor) -> Any: ...

    def standardised(self, values: Tensor) -> Tensor: ...

    def in_units(self, standardised: Tensor) -> Tensor: ...

    def fit_statistics(self, codes: Tensor, values: Tensor) -> None: ...

    def calibrate(self, codes: Tensor, values: Tensor, *, out_of_fold: Tensor) -> None: ...


@dataclass(frozen=True)
class LatentFit:
    """What fitting a predictor to codes gave.

    Attributes:
        best_steps: of each member: the one whose averaged weights it has.
        out_of_fold_error: property to the mean absolute error of members on the fold that they did not learn from.
        calibration_error: property to the ensemble's mean absolute error on the calibration crystals.
        num_calibrated: crystals that the intervals were calibrated on.
        seconds: it took.
    """

    best_steps: tuple[int, ...]
    out_of_fold_error: dict[str, float]
    calibration_error: dict[str, float]
    num_calibrated: int
    seconds: float


@dataclass(frozen=True)
class _Codes:
    """Posteriors of some crystals, and their properties in the data's own units."""

    mu: Tensor
    log_var: Tensor
    values: Tensor

    def draw(self, index: Tensor, generator: torch.Generator) -> Tensor:
        mu, std = self.mu[index], torch.exp(0.5 * self.log_var[index])
        return mu + std * torch.randn(mu.shape, generator=generator, device=mu.device)

    def draw_all(self, generator: torch.Generator) -> Tensor:
        return self.draw(torch.arange(len(self.mu), device=self.mu.device), generator)


def fit_latent_predictor(
    predictor: TrainableLatentPredictor,
    autoencoder: TrainableModel,
    folds: Sequence[CrystalBatch],
    calibration: CrystalBatch,
    config: TrainingConfig,
    *,
    progress: Progress | None = None,
) -> LatentFit:
    """Fits and calibrates `predictor` in place, on the CPU; the autoencoder stays as it is.

    Member k learns from all folds but fold k (modulo their number), which chooses its weights. A code is drawn anew
    from its crystal's posterior each time that it is used, which makes the prediction smooth.

    Args:
        predictor: a fresh one; for the same start from a seed make it within `seeded_weights`.
        autoencoder: whose codes they are.
        folds: parts of the crystals to learn from, at least two; reduced to their Niggli cells, as for the encoder.
        calibration: crystals that no member sees.
        config: `max_steps`, `batch_size`, `learning_rate`, `weight_decay`, `ema_decay`, `check_every`, `seed`, ...
        progress: called with (steps done, steps in all).
    """
    started = time.monotonic()
    if len(folds) < 2:
        raise ValueError(f"members are chosen on a fold that they do not learn from: give at least 2, got {len(folds)}")
    if config.max_steps is None:
        raise ValueError("fitting to codes needs its number of steps: set max_steps")
    as_module(autoencoder).eval()
    names = predictor.config.properties
    parts = [_encode(autoencoder, fold, names) for fold in folds]
    held_out = _encode(autoencoder, calibration, names)
    every = _join(parts)
    predictor.fit_statistics(every.draw_all(make_generator(config.seed, _CHECK_KEY)), every.values)
    best_steps, errors = [], []
    num_members = len(predictor.members)
    for k in range(num_members):
        left_out = k % len(parts)
        train = _join([part for i, part in enumerate(parts) if i != left_out])

        def advance(done: int, k: int = k) -> None:
            if progress is not None:
                progress(k * (config.max_steps or 0) + done, num_members * (config.max_steps or 0))

        best_steps.append(_fit_member(predictor, k, train, parts[left_out], config, advance))
        z = parts[left_out].draw_all(make_generator(config.seed, _CHECK_KEY, k))
        with torch.no_grad():
            errors.append(predictor.in_units(predictor.member(k, z)) - parts[left_out].values)
    z = held_out.draw_all(make_generator(config.seed, _CHECK_KEY))
    out_of_fold = torch.cat(errors)
    predictor.calibrate(z, held_out.values, out_of_fold=out_of_fold)
    found = predictor.predict(z)
    final = torch.stack([found[name].mean for name in names], dim=-1) - held_out.values
    return LatentFit(
        best_steps=tuple(best_steps),
        out_of_fold_error=dict(zip(names, out_of_fold.abs().nanmean(0).tolist(), strict=True)),
        calibration_error=dict(zip(names, final.abs().nanmean(0).tolist(), strict=True)),
        num_calibrated=len(calibration),
        seconds=time.monotonic() - started,
    )


def _fit_member(
    predictor: TrainableLatentPredictor,
    k: int,
    train: _Codes,
    val: _Codes,
    config: TrainingConfig,
    advance: Callable[[int], None],
) -> int:
    """Fits member k and leaves it with its best averaged weights; gives their step."""
    member: nn.Module = predictor.members[k]
    named = list(member.named_parameters())
    weights = [weight for _, weight in named]
    average = WeightAverage(named, decay=config.ema_decay)
    optimizer = torch.optim.AdamW(weights, betas=config.adam_betas, weight_decay=config.weight_decay)
    targets = predictor.standardised(train.values)
    val_z, val_targets = (
        val.draw_all(make_generator(config.seed, _CHECK_KEY, k)),
        predictor.standardised(val.values),
    )
    best, kept = (math.inf, 0), average.state_dict()
    assert config.max_steps is not None
    for step in range(config.max_steps):
        generator = make_generator(config.seed, _STEP_KEY, k, step)
        index = torch.randint(len(train.mu), (config.batch_size,), generator=generator)
        warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
        optimizer.param_groups[0]["lr"] = (
            config.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * step / config.max_steps))
        )
        optimizer.zero_grad()
        z = train.draw(index, generator)
        loss = _error(predictor.member(k, z, generator=generator), targets[index])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, config.clip_norm)
        if not bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
            raise TrainingDivergedError(
                f"member {k}: the loss is not finite at step {step}; look whether codes and properties are finite, or "
                "lower learning_rate"
            )
        optimizer.step()
        average.update()
        if (step + 1) % config.check_every == 0 or step + 1 == config.max_steps:
            with average.applied(), torch.no_grad():
                val_loss = float(_error(predictor.member(k, val_z), val_targets))
                if val_loss < best[0]:
                    best = (val_loss, step + 1)
                    kept = {name: weight.detach().clone() for name, weight in named}
            logger.info("member %d, step %d: loss %.4f, validation %.4f", k, step + 1, float(loss.detach()), val_loss)
        advance(step + 1)
    with torch.no_grad():
        for name, weight in named:
            weight.copy_(kept[name])
    return best[1]


def _error(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error over the values that there are."""
    there = truth.isfinite()
    error = (predicted - torch.where(there, truth, 0.0)).abs()
    return torch.where(there, error, 0.0).sum() / there.sum().clamp_min(1)


def _encode(autoencoder: TrainableModel, crystals: CrystalBatch, names: Sequence[str]) -> _Codes:
    missing = [name for name in names if name not in crystals.properties]
    if missing:
        raise ValueError(
            f"the crystals have no property {', '.join(map(repr, missing))}; they have "
            f"{', '.join(sorted(crystals.properties)) or 'none'}"
        )
    prepared = autoencoder.prepare(crystals)
    mu, log_var = encode_moments(autoencoder, prepared, find_graph(autoencoder, prepared))
    values = torch.stack([crystals.properties[name] for name in names], dim=-1)
    return _Codes(mu.cpu(), log_var.cpu(), values.to(mu.dtype).cpu())


def _join(parts: Sequence[_Codes]) -> _Codes:
    return _Codes(*(torch.cat([getattr(part, name) for part in parts]) for name in ("mu", "log_var", "values")))
