"""The progress bar of a run, on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from cdvae_kit.training.module import TrainingModule

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def progress_is_seen() -> bool:
    """Whether someone looks: standard error is a terminal."""
    return sys.stderr.isatty()


def make_bar() -> Progress:
    """A bar on standard error, not yet started."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[about]}"),
        console=Console(stderr=True),
    )


class ProgressCallback(pl.Callback):
    """Moves a bar by the share of the run that is done, be its end a number of steps or a time."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._task = self._bar.add_task("autoencoder", total=1.0, about="")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, TrainingModule) and self._task is not None
        about = f"step {pl_module.steps_done}"
        if pl_module.best_step:
            about += f", best validation loss {pl_module.best_loss:.4f}"
        if pl_module.skipped_steps:
            about += f", {pl_module.skipped_steps} skipped"
        self._bar.update(self._task, completed=pl_module.progress(), about=about)
