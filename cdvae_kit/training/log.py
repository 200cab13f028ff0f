"""What a run writes down: `metrics.csv`, the logs of other programs, and the loss plot."""

from __future__ import annotations

import csv
import importlib.util
import io
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cdvae_kit.io.atomic import atomic_file, errors_naming
from cdvae_kit.io.results.files import DamagedResultError
from cdvae_kit.missing import is_finite
from cdvae_kit.training.config import LoggerName

logger = logging.getLogger(__name__)

DAMAGED_METRICS = "metrics.damaged.csv"
FIRST_COLUMNS = ("step", "split", "epoch", "seconds", "loss")
LAST_COLUMNS = ("learning_rate", "gradient_norm", "skipped_steps")


class MetricsLog:
    """Rows of a CSV file, one a log step (`train`) or a validation (`val`), written at once.

    Args:
        path: the file; rows that are there already stay.
        last_step: rows after this step are dropped: they were written after the state that a run resumes from.
    """

    def __init__(self, path: str | os.PathLike[str], *, last_step: int = 0) -> None:
        self.path = Path(path)
        self._columns: list[str] | None = None
        if self.path.is_file():
            try:
                rows = [row for row in read_metrics(self.path) if row["step"] <= last_step]
            except DamagedResultError as error:
                aside = self.path.with_name(DAMAGED_METRICS)
                logger.warning("%s; it is %s now", error, aside.name)
                os.replace(self.path, aside)
                return
            if rows:
                self._columns = list(rows[0])
                with atomic_file(self.path, overwrite=True) as temporary:
                    temporary.write_bytes(self._text(rows, header=True).encode("utf-8"))
            else:
                self.path.unlink()

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends a row; the first one settles the columns, what others lack is left empty."""
        first = self._columns is None
        if self._columns is None:
            terms = sorted(set(row) - set(FIRST_COLUMNS) - set(LAST_COLUMNS))
            self._columns = [*FIRST_COLUMNS, *terms, *LAST_COLUMNS]
        text = self._text([row], header=first)
        size = 0 if first or not self.path.exists() else self.path.stat().st_size
        try:
            with errors_naming(self.path), self.path.open("wb" if first else "ab") as file:
                file.write(text.encode("utf-8"))
        except OSError:
            # on a full disk: no row that is cut short
            with suppress(OSError):
                os.truncate(self.path, size) if size else self.path.unlink()
            raise

    def _text(self, rows: Sequence[Mapping[str, Any]], *, header: bool) -> str:
        assert self._columns is not None
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="", extrasaction="ignore")
        if header:
            writer.writeheader()
        for row in rows:
            writer.writerow({key: "" if row.get(key) is None else row[key] for key in self._columns})
        return text.getvalue()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a `metrics.csv`: numbers as numbers, empty fields as None; lines that are damaged are left out.

    Raises:
        DamagedResultError: its first line, which names the columns, is damaged.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines:
        return []
    header = _fields(lines[0])
    if not set(FIRST_COLUMNS + LAST_COLUMNS) <= set(header) or len(set(header)) < len(header):
        raise DamagedResultError(
            f"{os.fspath(path)} is damaged (its first line should name {', '.join(FIRST_COLUMNS)}, ...); mend that "
            "line, or move the file away"
        )
    rows, damaged = [], []
    for number, line in enumerate(lines[1:], start=2):
        try:
            rows.append({key: _read(key, text) for key, text in zip(header, _fields(line), strict=True)})
        except ValueError:
            damaged.append(number)
    # a killed process can leave half a line at the end
    if [number for number in damaged if number < len(lines)]:
        logger.warning("%s is damaged in line %s; left out", path, ", ".join(map(str, damaged[:10])))
    return rows


def _fields(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _read(key: str, text: str) -> Any:
    if key == "split":
        if text not in ("train", "val"):
            raise ValueError(f"there is no split {text!r}")
        return text
    if key == "step":
        return int(text)
    if not text:
        return None
    return int(text) if key in ("epoch", "skipped_steps") else float(text)


def make_loggers(
    folder: str | os.PathLike[str], names: Sequence[LoggerName] | None, *, last_step: int = 0
) -> list[Any]:
    """Lightning's loggers of these names; `csv` is `MetricsLog`, which a run has anyway.

    Args:
        folder: of the run.
        names: which; None takes TensorBoard where it is installed.
        last_step: TensorBoard hides what was logged after this step: it was so after the state that a run resumes from.

    Raises:
        ImportError: one that is asked for is not installed.
    """
    by_default: tuple[LoggerName, ...] = ("tensorboard",) if importlib.util.find_spec("tensorboard") is not None else ()
    chosen = by_default if names is None else names
    return [_make_logger(folder, name, last_step) for name in dict.fromkeys(chosen) if name != "csv"]


def _make_logger(folder: str | os.PathLike[str], name: LoggerName, last_step: int) -> Any:
    if importlib.util.find_spec(name) is None:
        extra = "wandb" if name == "wandb" else "logging"
        raise ImportError(f"the logger {name} needs the package {name}: pip install 'cdvae-kit[{extra}]'")
    from lightning.pytorch import loggers

    if name == "wandb":
        return loggers.WandbLogger(project="cdvae_kit", name=Path(folder).name, save_dir=str(folder))

    class TensorBoardLogger(loggers.TensorBoardLogger):
        """Whose errors name its folder: a thread of TensorBoard's writes, and leaves the name out."""

        @property
        def experiment(self) -> Any:
            # the file is made, and first written, when it is asked for first
            with errors_naming(self.log_dir):
                return super().experiment

        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            with errors_naming(self.log_dir):
                try:
                    super().log_metrics(metrics, step)
                except ValueError as error:
                    # Lightning takes every error for one of the value
                    if isinstance(error.__cause__, OSError):
                        raise error.__cause__ from None
                    raise

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            with errors_naming(self.log_dir):
                super().log_hyperparams(*args, **kwargs)

        def save(self) -> None:
            with errors_naming(self.log_dir):
                super().save()

        def finalize(self, status: str) -> None:
            with errors_naming(self.log_dir):
                super().finalize(status)

    return TensorBoardLogger(save_dir=str(folder), name="tensorboard", version="", purge_step=last_step + 1)


def plot_losses(
    rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], *, prior: Sequence[tuple[int, float, float]] = ()
) -> None:
    """Writes a PNG: the loss of both splits against the step, each term of the validation loss, and the prior's loss.

    Args:
        rows: as `read_metrics` gives them.
        path: the picture.
        prior: step, training and validation loss of the second stage.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # no pyplot: its global state and its choice of a window are the user's
    figure = Figure(figsize=(6.0 * (3 if prior else 2), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3 if prior else 2)
    for split in ("train", "val"):
        _line(panels[0], [(row["step"], row["loss"]) for row in rows if row["split"] == split], label=split)
    panels[0].set(title="loss of the autoencoder", ylabel="loss, all terms weighted")
    terms = [key for key in (rows[0] if rows else {}) if key not in FIRST_COLUMNS + LAST_COLUMNS]
    for term in terms:
        _line(panels[1], [(row["step"], row[term]) for row in rows if row["split"] == "val"], label=term)
    panels[1].set(title="its terms, validation", ylabel="term of the loss, unweighted")
    if prior:
        _line(panels[2], [(step, train) for step, train, _ in prior], label="train")
        _line(panels[2], [(step, val) for step, _, val in prior], label="val")
        panels[2].set(title="loss of the prior", ylabel="mean squared error of the velocity")
    for panel in panels:
        panel.set_xlabel("step of the optimiser")
        if panel.lines:
            # beside the curves, of which it hides none
            panel.legend(
                fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, frameon=False
            )
        if panel.lines and all(y > 0 for line in panel.lines for y in line.get_ydata()):
            panel.set_yscale("log")
    with atomic_file(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _line(panel: Any, points: Sequence[tuple[float, float | None]], *, label: str) -> None:
    there = [(x, y) for x, y in points if is_finite(y)]
    if there:
        panel.plot(*zip(*there, strict=True), label=label, marker="." if len(there) < 30 else None)
