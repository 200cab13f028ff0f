"""A whole run: the autoencoder, then the prior, with a folder that holds all that came of it.

The folder: `model/` (averaged weights, what `from_pretrained` loads), `metrics.csv`, `tensorboard/` or `wandb/` where
asked for, `loss.png` and `training.json` at the end, `state/` with what a killed run resumes from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import signal
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cdvae_kit import __version__
from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.io.atomic import atomic_file
from cdvae_kit.io.result_folder import result_folder
from cdvae_kit.nn.fractional import set_precision
from cdvae_kit.seeding import seeded_weights as seeded_weights  # its first home
from cdvae_kit.training.config import TrainingConfig
from cdvae_kit.training.critic import CriticFit, fit_critic
from cdvae_kit.training.data import CrystalDataModule, find_graph
from cdvae_kit.training.errors import TrainingDivergedError
from cdvae_kit.training.log import DAMAGED_METRICS, MetricsLog, make_loggers, plot_losses, read_metrics
from cdvae_kit.training.module import TrainingModule, steps_done
from cdvae_kit.training.prior import PriorFit, fit_prior
from cdvae_kit.training.progress import ProgressCallback, make_bar, progress_is_seen
from cdvae_kit.training.protocols import Critical, TrainableModel, TrainableNetwork, as_module, is_trained
from cdvae_kit.training.state import StateIO, load_state, save_state

logger = logging.getLogger(__name__)

_OURS = ("model", "state", "tensorboard", "wandb", "metrics.csv", DAMAGED_METRICS, "loss.png", "training.json")


@dataclass(frozen=True)
class FitResult:
    """What a run gave.

    Attributes:
        output_dir: the run's folder; `output_dir / "model"` is the checkpoint.
        best_loss: the lowest validation loss, all terms weighted; its averaged weights are the model's now.
        best_step: the step that it was reached at.
        steps: that were taken, skipped ones included.
        skipped_steps: of these, with a loss or gradient that was not finite.
        seconds: of stage one, the time before a resume included.
        device: that it ran on.
        prior: how stage two went; None where there was none.
        critic: how stage three went; None where there was none.
        is_main: False on all processes of a distributed run but one; only that one writes and fits the prior.
    """

    output_dir: Path
    best_loss: float
    best_step: int
    steps: int
    skipped_steps: int
    seconds: float
    device: str
    prior: PriorFit | None
    critic: CriticFit | None = None
    is_main: bool = True


def fit(
    model: TrainableNetwork,
    train: CrystalBatch,
    val: CrystalBatch,
    config: TrainingConfig,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> FitResult:
    """Trains `model` in place and leaves it with the best weights, on the CPU, in evaluation mode.

    Ctrl-C or SIGTERM ends the step under way, saves the state and raises `KeyboardInterrupt` (with the number of the
    signal); a second one does not wait. After either, or a kill, `resume=True` goes on to the same result as if nothing
    had happened.

    Args:
        model: a fresh model; for the same start from a seed make it within `seeded_weights`.
        train: the crystals to learn from.
        val: the crystals that choose the weights that are kept; none of the training set's.
        config: the settings.
        output_dir: the run's folder.
        resume: go on with the run in the folder. It must have the same data, model and settings; its end may move.
        overwrite: remove the run in the folder first.
        device: `auto` takes CUDA, then Apple's MPS, then the CPU; or `cpu`, `cuda`, `cuda:1`, `mps`.
        progress: show a bar if standard error is a terminal. A line a validation goes to the log either way.
    """
    output = Path(output_dir)
    _check_crystals(train, val, config)
    is_main = getattr(rank_zero_only, "rank", 0) == 0
    with ExitStack() as stack:
        if is_main:
            stack.enter_context(result_folder(output, ours=_OURS, resume=resume, overwrite=overwrite))
        return _fit(model, train, val, config, output, resume=resume, device=device, progress=progress)


def _fit(
    model: TrainableNetwork,
    train: CrystalBatch,
    val: CrystalBatch,
    config: TrainingConfig,
    output: Path,
    *,
    resume: bool,
    device: str,
    progress: bool,
) -> FitResult:
    """`fit` in a folder that is laid out."""
    module = as_module(model)
    is_main = getattr(rank_zero_only, "rank", 0) == 0
    module.cpu()
    set_precision(module, half=config.precision == "bf16-mixed")
    train, val = _prepared(model, train, "training"), _prepared(model, val, "validation")
    if config.codes == "learned":
        # codes that are kept go with the statistics that they were learnt with
        model.fit_statistics(train)
    graphs = find_graph(model, train), find_graph(model, val)
    last = output / "state" / "last"
    state = load_state(last) if resume and last.is_dir() else None
    if resume and state is None and is_main:
        logger.warning("%s holds no state yet; training starts from the beginning", output)
    last_step = steps_done(state) if state else 0
    learned = getattr(model.config, "properties", ()) if config.codes == "learned" else ()
    log = MetricsLog(output / "metrics.csv", last_step=last_step) if is_main else None
    training = TrainingModule(
        model,
        config,
        num_crystals=len(train),
        digest=_digest(train, val, properties=learned),
        log=log,
        keep_best=lambda run: _keep_best(run, model, train, output),
        state_folder=str(last),
    )
    show = progress and is_main and progress_is_seen()
    with ExitStack() as stack:
        bar = stack.enter_context(make_bar()) if show else None
        callbacks: list[pl.Callback] = [ProgressCallback(bar)] if bar is not None else []
        stack.enter_context(_quiet_lightning())
        loggers = make_loggers(output, config.loggers, last_step=last_step) if is_main else []
        trainer = _make_trainer(config, output, device, callbacks, loggers)
        root_device = trainer.strategy.root_device
        _run_stage_one(training, trainer, train, val, graphs, state, last)
        if not training.best_step:
            raise TrainingDivergedError(
                "the validation loss was never finite; look for broken crystals in the validation set, lower "
                "learning_rate or raise warmup_steps"
            )
        if is_main:
            module.load_state_dict(load_state(output / "state" / "best")["weights"])
        module.eval()
        prior = None
        prior_steps = config.prior_steps if config.codes == "learned" else 0
        if is_main and isinstance(model, TrainableModel) and model.prior is not None and prior_steps:
            module.to(root_device)
            task = bar.add_task("prior", total=config.prior_steps, about="") if bar is not None else None

            def advance(done: int, total: int) -> None:
                if bar is not None and task is not None:
                    bar.update(task, completed=done)

            prior = fit_prior(model, train, val, config, graphs=graphs, progress=advance)
        critic = None
        if prior is not None and isinstance(model, Critical) and model.critic is not None and config.critic_steps:
            # a prior of a few steps has nothing to be judged by
            steps = min(config.critic_steps, config.prior_steps)
            critic = fit_critic(model, train, val, config.model_copy(update={"critic_steps": steps}))
        module.cpu()
    set_precision(module, half=False)
    result = FitResult(
        output_dir=output,
        best_loss=training.best_loss,
        best_step=training.best_step,
        steps=training.steps_done,
        skipped_steps=training.skipped_steps,
        seconds=training.seconds,
        device=_device_name(root_device),
        prior=prior,
        critic=critic,
        is_main=is_main,
    )
    if is_main:
        _write_results(result, model, train, val, config)
    return result


def _prepared(model: TrainableNetwork, crystals: CrystalBatch, name: str) -> CrystalBatch:
    logger.info("preparing %d %s crystals", len(crystals), name)
    return model.prepare(crystals)


# -- stage one -------------------------------------------------------------------------------------------------------


def _run_stage_one(
    training: TrainingModule,
    trainer: pl.Trainer,
    train: CrystalBatch,
    val: CrystalBatch,
    graphs: tuple[PeriodicGraph, PeriodicGraph],
    state: dict[str, Any] | None,
    last: Path,
) -> None:
    """Trains until the end; on Ctrl-C the state is saved before `KeyboardInterrupt` is raised."""
    if state is not None:
        training.on_load_checkpoint(state)
        if training.is_finished():
            logger.info("the autoencoder of this run is finished (step %d)", training.steps_done)
            return
    data = CrystalDataModule(
        train,
        val,
        graphs,
        batch_size=training.config.batch_size,
        seed=training.config.seed,
        next_step=training.next_step,
        last_step=training.last_step,
        stops=training.stops,
    )
    model = training.model
    frozen = [
        value
        for name, value in model.named_parameters()
        if not is_trained(name, training.config.codes) and value.requires_grad
    ]
    if training.config.compile:
        names = {name for name, _ in model.named_children()} & {"encoder", "score_network"}
        for part in [model.get_submodule(name) for name in sorted(names)] or [model]:
            part.compile(dynamic=True)
    try:
        for value in frozen:
            # under DDP a parameter that never gets a gradient would be waited for
            value.requires_grad_(False)
        with _stop_on_signals(training, trainer):
            trainer.fit(training, datamodule=data, ckpt_path=str(last) if state is not None else None)
    except SystemExit as error:
        # what Lightning makes of a second Ctrl-C
        if training.stop_requested:
            raise KeyboardInterrupt(*_signal_of(training)) from error
        raise
    finally:
        for value in frozen:
            value.requires_grad_(True)
    if training.interrupted:
        raise KeyboardInterrupt(*_signal_of(training))


def _signal_of(training: TrainingModule) -> tuple[int, ...]:
    return () if training.stop_signal is None else (training.stop_signal,)


@contextmanager
def _stop_on_signals(training: TrainingModule, trainer: pl.Trainer) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for a stop after the step under way, the second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop_now(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(number)

    def ask(number: int, frame: Any) -> None:
        training.stop_requested, training.stop_signal = True, number
        for one in before:
            signal.signal(one, stop_now)
        logger.warning(
            "%s: the state is saved after this step; once more stops at once",
            "interrupted" if number == signal.SIGINT else "asked to end",
        )

    trainer.callbacks.append(_SetHandlers(dict.fromkeys(before, ask)))  # type: ignore[attr-defined]
    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _SetHandlers(pl.Callback):
    """Sets handlers of signals once more: Lightning puts its own in their place, which end a run before it is saved."""

    def __init__(self, handlers: dict[signal.Signals, Any]) -> None:
        self._handlers = handlers

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # among several processes Lightning's handler passes the signal on
        if trainer.world_size == 1:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """No tips of Lightning's, and no FutureWarning of torch's about its calls; other warnings still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _make_trainer(
    config: TrainingConfig, output: Path, device: str, callbacks: list[pl.Callback], loggers: list[Any]
) -> pl.Trainer:
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {device!r}")
    is_missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if is_missing.get(kind, False):
        raise ValueError(f"device {device!r} is not available on this machine; use 'auto' or 'cpu'")
    if number and config.num_devices > 1:
        raise ValueError(f"device {device!r} is one device, num_devices is {config.num_devices}; use 'cuda'")
    several = config.world_size > 1 or config.strategy == "ddp"
    return pl.Trainer(
        accelerator=kind,
        devices=[int(number)] if number else config.num_devices,
        num_nodes=config.num_nodes,
        # heads of properties or types that this model does not use never get a gradient
        strategy=DDPStrategy(find_unused_parameters=True) if several else "auto",
        # mixed precision is the message layers' own: Lightning's would reach into the geometry
        precision="32-true",
        plugins=[StateIO()],
        callbacks=callbacks,
        logger=loggers or False,
        max_epochs=-1,
        # each rank cuts its own part of the same order
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        # swapping averages in is done in place
        inference_mode=False,
        default_root_dir=str(output),
    )


# -- files -----------------------------------------------------------------------------------------------------------


def _check_crystals(train: CrystalBatch, val: CrystalBatch, config: TrainingConfig) -> None:
    for name, crystals in (("training", train), ("validation", val)):
        if len(crystals) < config.world_size:
            raise ValueError(
                f"the {name} set has {len(crystals)} crystals; it needs at least one for each of the "
                f"{config.world_size} processes"
            )
        bad = ~(crystals.frac_coords.isfinite().all(-1) & crystals.lattice.isfinite().all(-1).all(-1)[crystals.batch])
        if bad.any():
            first = int(crystals.batch[bad][0])
            label = (crystals.material_ids or [str(i) for i in range(len(crystals))])[first]
            raise ValueError(
                f"{len(crystals.batch[bad].unique())} {name} crystals have coordinates or lattices that are not finite "
                f"(the first: {label}); take them out"
            )


def _digest(*sets: CrystalBatch, properties: Collection[str]) -> str:
    """A name for the content of crystals, and of the properties that are learned."""
    digest = hashlib.sha256()
    for crystals in sets:
        values = [crystals.properties[name] for name in properties]
        for field in (crystals.num_atoms, crystals.atomic_numbers, crystals.frac_coords, crystals.lattice, *values):
            digest.update(f"{field.dtype} {tuple(field.shape)}".encode())
            digest.update(field.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _keep_best(run: TrainingModule, model: TrainableNetwork, train: CrystalBatch, output: Path) -> None:
    """Saves the weights that the model holds right now: the averages."""
    if not run.trainer.is_global_zero:
        return
    save_state(output / "state" / "best", {"weights": run.model.state_dict(), "step": run.steps_done})
    model.card["training"] = {
        "finished": False,
        "config": run.config.model_dump(mode="json"),
        "num_training_crystals": len(train),
        "steps": run.steps_done,
        "validation_loss": run.best_loss,
    }
    model.save_pretrained(output / "model", overwrite=True)


def _write_results(
    result: FitResult, model: TrainableNetwork, train: CrystalBatch, val: CrystalBatch, config: TrainingConfig
) -> None:
    prior = None
    if result.prior is not None:
        prior = {key: value for key, value in asdict(result.prior).items() if key != "curve"}
    about: dict[str, Any] = {
        "finished": True,
        "config": config.model_dump(mode="json"),
        "num_training_crystals": len(train),
        "num_validation_crystals": len(val),
        "steps": result.steps,
        "skipped_steps": result.skipped_steps,
        "best_step": result.best_step,
        "validation_loss": result.best_loss,
        "seconds": round(result.seconds, 1),
        "device": result.device,
        "prior": prior,
        "critic": asdict(result.critic) if result.critic is not None else None,
        "versions": {"cdvae_kit": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    model.card["training"] = about
    model.save_pretrained(result.output_dir / "model", overwrite=True)
    curve = result.prior.curve if result.prior is not None else ()
    metrics = result.output_dir / "metrics.csv"
    plot_losses(read_metrics(metrics) if metrics.is_file() else [], result.output_dir / "loss.png", prior=curve)
    with atomic_file(result.output_dir / "training.json", overwrite=True) as temporary:
        temporary.write_text(json.dumps(about | {"prior_curve": curve}, indent=2) + "\n", encoding="utf-8")
    if result.skipped_steps:
        logger.warning("%d of %d steps were skipped, see metrics.csv", result.skipped_steps, result.steps)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"
