"""One step of training, and one validation: the part of a run that is the project's own."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from pydantic import ValidationError
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.missing import finite_or_none
from cdvae_kit.seeding import make_generator
from cdvae_kit.training.config import TrainingConfig
from cdvae_kit.training.data import TrainingBatch, steps_per_epoch
from cdvae_kit.training.ema import WeightAverage
from cdvae_kit.training.errors import ResumeError, TrainingDivergedError
from cdvae_kit.training.log import MetricsLog
from cdvae_kit.training.protocols import Decoding, TrainableNetwork, as_module, is_trained
from cdvae_kit.transforms.crystal_fields import RandomFieldDisplacement
from cdvae_kit.transforms.crystals import ElementSubstitution, OrderedSubstitution, RandomStrain

logger = logging.getLogger(__name__)

_NOISE_KEY, _VALIDATION_KEY = 2, 3
_STATE = "cdvae_kit"
_MAY_CHANGE = {
    *(
        "epochs",
        "max_steps",
        "max_minutes",
        "patience",
        "log_every",
        "loggers",
        "num_devices",
        "num_nodes",
        "strategy",
        "compile",
    ),
    *(
        "prior_steps",
        "prior_learning_rate",
        "prior_weight_decay",
        "prior_batch_size",
        "prior_ema_decay",
        "prior_check_every",
    ),
    *("critic_steps", "keep"),
}
"""Settings that a resumed run may have otherwise; any other one would make it a different run."""


class TrainingModule(pl.LightningModule):
    """The model with its optimiser, average and counters. Randomness at step n is a function of (seed, n, rank) alone.

    Lightning's own count of steps and epochs is not used: a "Lightning epoch" is what lies between two validations,
    and `steps_done` is the truth, saved with the state.

    Args:
        model: the model; its prior is not touched.
        config: the settings.
        num_crystals: of the training set.
        digest: names the data, so that a run is not resumed on others.
        log: where rows go; None on all processes but one.
        keep_best: called with the averaged weights in place whenever the validation loss is the lowest yet.
        state_folder: where the state to resume from goes after each validation.
    """

    def __init__(
        self,
        model: TrainableNetwork,
        config: TrainingConfig,
        *,
        num_crystals: int,
        digest: str,
        log: MetricsLog | None,
        keep_best: Callable[[TrainingModule], None],
        state_folder: str,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = as_module(model)
        self.config = config
        self._trainable: TrainableNetwork = model
        self._loss = model.loss
        if config.codes == "kept":
            if not isinstance(model, Decoding):
                raise ValueError(f"codes='kept' trains a score network, which a {type(model).__name__} has not")
            self._loss = model.decoder_loss
        self._digest = digest
        self._log = log
        self._keep_best = keep_best
        self._state_folder = state_folder
        named = [(name, value) for name, value in self.model.named_parameters() if is_trained(name, config.codes)]
        self._weights = [value for _, value in named]
        self.average = WeightAverage(named, decay=config.ema_decay)
        self._strain = RandomStrain(config.strain)
        self._displacement = RandomFieldDisplacement(rms=config.displacement)
        self._in_epoch = steps_per_epoch(num_crystals, config.batch_size)
        self.max_steps = min(
            (config.epochs * self._in_epoch if config.epochs is not None else math.inf),
            (config.max_steps if config.max_steps is not None else math.inf),
        )
        self.steps_done = 0
        self.skipped_steps = 0
        self.skipped_in_a_row = 0
        self.best_loss = math.inf
        self.best_step = 0
        self.checks_without_gain = 0
        self.seconds = 0.0
        self.stop_requested = False
        self.stop_signal: int | None = None
        """Set from outside (Ctrl-C); all processes stop together after the step that is under way."""
        self.interrupted = False
        self._is_restored = False
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._term_names: list[str] = []
        self._sums: Tensor | None = None
        self._num_summed = 0
        self._validation_sums: Tensor | None = None

    # -- where training stands -----------------------------------------------------------------------------------

    def progress(self) -> float:
        """The share of the run that is done, 0 to 1."""
        by_time = self.seconds / (60.0 * self.config.max_minutes) if self.config.max_minutes is not None else 0.0
        return min(1.0, max(self.steps_done / self.max_steps, by_time))

    def _time_left(self) -> str:
        """When stage one is likely to end, by the time that it has taken so far."""
        share = self.progress()
        return f"about {self.seconds * (1.0 - share) / share:.0f} s left" if share else "no estimate of its end yet"

    def is_finished(self) -> bool:
        return self.progress() >= 1.0 or (
            self.config.patience is not None and self.checks_without_gain >= self.config.patience
        )

    def stops(self) -> bool:
        """Whether no further step should be taken before the next validation."""
        return self.interrupted or self.progress() >= 1.0

    def next_step(self) -> int:
        return self.steps_done

    def last_step(self, step: int) -> int:
        """The step before which a round of training ends that begins at `step`."""
        return int(min((step // self.config.check_every + 1) * self.config.check_every, self.max_steps))

    def learning_rate(self) -> float:
        """Of the step to come: warm-up, then a cosine."""
        warm = min(1.0, (self.steps_done + 1) / max(1, self.config.warmup_steps))
        end = self.config.final_learning_rate
        cosine = 0.5 * (1.0 + math.cos(math.pi * self.progress()))
        return self.config.learning_rate * warm * (end + (1.0 - end) * cosine)

    # -- training ------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self._weights,
            lr=self.config.learning_rate,
            betas=self.config.adam_betas,
            weight_decay=self.config.weight_decay,
            # one pass over the weights: on a CPU 3 times as fast
            fused=True,
        )

    def on_train_start(self) -> None:
        self._started = time.monotonic()
        self._seconds_before = self.seconds
        known = tuple(self._trainable.known_elements.tolist())
        self._substitution = ElementSubstitution(self.config.substitution, known)
        self._ordered_substitution = OrderedSubstitution(self.config.substitution, known)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """One step; a loss or gradient that is not finite leaves the weights as they are, and is counted."""
        if batch.step != self.steps_done:
            raise RuntimeError(f"the loader is at step {batch.step}, training at step {self.steps_done}")
        generator = make_generator(
            self.config.seed, _NOISE_KEY, batch.step, self.trainer.global_rank, device=self.device
        )
        crystals = self._augment(batch.crystals, generator)
        graph = batch.graph
        if self.config.displacement > 0.0:
            graph = graph.after_moves(batch.crystals, crystals)
        terms = self._loss(crystals, graph, generator=generator)
        loss = self._trainable.total_loss(terms)
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        learning_rate = self.learning_rate()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self._weights, self.config.clip_norm)
        is_finite = bool(torch.isfinite(loss.detach()) & torch.isfinite(norm))
        now = self._seconds_before + time.monotonic() - self._started
        fault, self.seconds, stop = self._agree(float(not is_finite), now, float(self.stop_requested))
        self.interrupted = stop > 0.0
        self._term_names = list(terms)
        if fault > 0.0:
            self._skip(optimizer, terms, norm)
        else:
            optimizer.step()
            self.average.update()
            self.skipped_in_a_row = 0
            values = torch.stack([loss, *terms.values()]).detach().float()
            self._sums = values if self._sums is None else self._sums.to(values.device) + values
            self._num_summed += 1
        self.steps_done += 1
        if self.steps_done % self.config.log_every == 0:
            self._log_step(learning_rate, float(norm))

    def _augment(self, crystals: CrystalBatch, generator: torch.Generator) -> CrystalBatch:
        if self.config.strain > 0.0:
            crystals = self._strain.apply(crystals, self._strain.sample(crystals, generator=generator))
            if isinstance(crystals, SymmetricCrystals):
                crystals = crystals.in_family()
        if self.config.displacement > 0.0:
            moved = self._displacement(_plain(crystals), generator=generator)
            if isinstance(crystals, SymmetricCrystals):
                crystals = crystals.moved_to(moved.frac_coords).replace(lattice=moved.lattice).in_family()
            else:
                crystals = moved
        if self.config.substitution > 0.0:
            config = getattr(self._trainable, "config", None)
            is_kept = isinstance(crystals, SymmetricCrystals) and getattr(config, "symmetry", "orbits") != "none"
            # with symmetry, another order of the elements would have another canonical description
            substitution = self._ordered_substitution if is_kept else self._substitution
            other = substitution(_plain(crystals), generator=generator)
            if isinstance(crystals, SymmetricCrystals):
                elements = other.atomic_numbers.index_select(0, crystals.orbits.first_atom)
                crystals = crystals.replace(elements=elements, properties=other.properties)
            else:
                crystals = other
        return crystals

    def _agree(self, *values: float) -> tuple[float, ...]:
        """The means of numbers over all processes, so that all of them do the same."""
        if self.trainer.world_size == 1:
            return values
        here = torch.tensor(values, dtype=torch.float64, device=self.device)
        return tuple(self.trainer.strategy.reduce(here, reduce_op="mean").tolist())

    def _skip(self, optimizer: Any, terms: Mapping[str, Tensor], norm: Tensor) -> None:
        optimizer.zero_grad()
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        shown = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
        logger.warning(
            "step %d is skipped, its loss or gradient is not finite (%s; gradient norm %.4g); %d skipped so far",
            *(self.steps_done, shown, float(norm), self.skipped_steps),
        )
        if self.skipped_in_a_row >= self.config.max_skipped_in_a_row:
            raise TrainingDivergedError(
                f"{self.skipped_in_a_row} steps on end had a loss or gradient that is not finite (the last: {shown}); "
                "look for broken crystals, lower learning_rate or raise warmup_steps, and resume from the last state"
            )

    def _log_step(self, learning_rate: float, norm: float) -> None:
        means: dict[str, float | None] = {}
        if self._sums is not None:
            values = self._agree(*(self._sums / self._num_summed).tolist())
            means = dict(zip(["loss", *self._term_names], values, strict=True))
        self._sums, self._num_summed = None, 0
        row = means | {"learning_rate": learning_rate, "gradient_norm": finite_or_none(norm)}
        self._write("train", row | {"skipped_steps": self.skipped_steps})

    def _write(self, split: str, values: Mapping[str, float | None]) -> None:
        if self._log is None:
            return
        names: dict[str, Any] = dict.fromkeys(["loss", *self._term_names])
        about = {"step": self.steps_done, "split": split, "epoch": self.steps_done // self._in_epoch}
        self._log.add(names | dict(values) | about | {"seconds": round(self.seconds, 3)})
        scalars = {f"{split}/{name}": value for name, value in values.items() if value is not None}
        for other in self.loggers:
            other.log_metrics(scalars, step=self.steps_done)

    def on_train_epoch_end(self) -> None:
        """After a validation: saves the state, ends the run if it is time."""
        self.trainer.should_stop = self.interrupted or self.is_finished()
        self.trainer.save_checkpoint(self._state_folder, weights_only=False)

    # -- validation ----------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        self.average.swap()
        self._validation_sums = None

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Adds up the terms of the loss; the noise is the same at every validation."""
        if not len(batch.crystals) or self.interrupted:
            return
        generator = make_generator(
            self.config.seed, _VALIDATION_KEY, batch.step, self.trainer.global_rank, device=self.device
        )
        terms = self._loss(batch.crystals, batch.graph, generator=generator)
        self._term_names = list(terms)
        weight = float(len(batch.crystals))
        values = torch.stack([*terms.values()]).detach().float() * weight
        values = torch.cat([values, values.new_tensor([weight])])
        self._validation_sums = values if self._validation_sums is None else self._validation_sums + values

    def on_validation_epoch_end(self) -> None:
        """The loss of all validation crystals; keeps the averaged weights if it is the lowest yet."""
        if self._validation_sums is None:
            return
        sums = self._validation_sums
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        terms = dict(zip(self._term_names, sums[:-1] / sums[-1], strict=True))
        loss = float(self._trainable.total_loss(terms))
        is_best = loss < self.best_loss
        if is_best or (self.config.keep == "last" and math.isfinite(loss)):
            self.best_loss, self.best_step = loss, self.steps_done
            self._keep_best(self)
        self.checks_without_gain = 0 if is_best else self.checks_without_gain + 1
        self._write("val", {"loss": loss, **{name: float(value) for name, value in terms.items()}})
        logger.info(
            "step %d, %.0f %%, %.0f s, %s: validation loss %.4f (best %.4f at step %d), %d steps skipped",
            *(self.steps_done, 100.0 * self.progress(), self.seconds, self._time_left()),
            *(loss, self.best_loss, self.best_step, self.skipped_steps),
        )

    def on_validation_end(self) -> None:
        self.average.swap()

    # -- state ---------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a resumed run needs, and takes out Lightning's own counters, which would only contradict it."""
        checkpoint.pop("loops")
        checkpoint[_STATE] = {
            "config": self.config.model_dump(mode="json"),
            "model_config": self._trainable.config.model_dump(mode="json"),
            "digest": self._digest,
            "average": self.average.state_dict(),
            "num_updates": self.average.num_updates,
            "sums": self._sums,
            "num_summed": self._num_summed,
            "term_names": self._term_names,
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from a state, if it is one of the same data, model and settings."""
        if self._is_restored:
            # whoever asked first whether the run is finished has done it
            return
        state = checkpoint[_STATE]
        if state["digest"] != self._digest:
            raise ResumeError(
                "this run was started on other crystals (training or validation); resume it with the same data and "
                "split, or start a new one in another folder"
            )
        self._refuse_other_settings(state)
        self.average.load_state_dict(state["average"], num_updates=state["num_updates"])
        self._sums = state["sums"]
        self._num_summed = state["num_summed"]
        self._term_names = state["term_names"]
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self._is_restored = True

    def _refuse_other_settings(self, state: Mapping[str, Any]) -> None:
        before, now = self._model_settings(state), self._trainable.config.model_dump(mode="json")
        changed = sorted(name for name in now if now[name] != before.get(name))
        if changed:
            raise ResumeError(
                f"this run's model differs in {', '.join(changed)}: {[before.get(c) for c in changed]} "
                f"then, {[now[c] for c in changed]} now; resume with the settings that it was started with"
            )
        if set(state["average"]) != set(self.average.state_dict()):
            # the optimiser's state goes by the order of the weights, which is another one, too
            raise ResumeError(
                "this run was started with another version of cdvae_kit, whose network has other parts; resume it with "
                "that version, or start a new run from its weights (--init, its folder `model`)"
            )
        before, now = state["config"], self.config.model_dump(mode="json")
        changed = sorted(name for name in now if now[name] != before.get(name))
        if refused := [name for name in changed if name not in _MAY_CHANGE]:
            raise ResumeError(
                f"this run was started with {', '.join(f'{name}={before.get(name)!r}' for name in refused)}, not "
                f"{', '.join(f'{name}={now[name]!r}' for name in refused)}; resume with the same values, or start a "
                "new run in another folder"
            )
        for name in changed:
            logger.warning("resumed with %s=%r; the run was started with %r", name, now[name], before.get(name))

    def _model_settings(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The model's settings of a state, their values in the words of this version."""
        stored = dict(state["model_config"])
        try:
            read = type(self._trainable.config).model_validate(stored)
        except ValidationError:
            return stored
        # a setting that the state does not name stays out
        return dict(read.model_dump(mode="json", exclude_unset=True))


def _plain(crystals: CrystalBatch) -> CrystalBatch:
    return crystals.plain() if isinstance(crystals, SymmetricCrystals) else crystals


_COUNTERS = (
    *("steps_done", "skipped_steps", "skipped_in_a_row", "best_loss", "best_step", "checks_without_gain", "seconds"),
)


def steps_done(checkpoint: Mapping[str, Any]) -> int:
    """The number of steps that a saved state was taken after."""
    return int(checkpoint[_STATE]["steps_done"])
