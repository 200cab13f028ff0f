"""The log of a run survives what happens to the run."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest

from cdvae_kit.io.results.files import DamagedResultError
from cdvae_kit.training.log import DAMAGED_METRICS, MetricsLog, make_loggers, plot_losses, read_metrics


def write(log: MetricsLog, *steps: int) -> None:
    for step in steps:
        log.add({"step": step, "split": "train", "epoch": 0, "seconds": 1.0, "loss": step / 4, "kl": None})


def test_rows_come_back_as_numbers(tmp_path: Path) -> None:
    write(MetricsLog(tmp_path / "metrics.csv"), 1, 2)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 2]
    assert (rows[1]["loss"], rows[1]["kl"], rows[1]["split"]) == (0.5, None, "train")


def test_rows_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    write(MetricsLog(tmp_path / "metrics.csv"), 1, 2, 3)
    write(MetricsLog(tmp_path / "metrics.csv", last_step=2), 3, 4)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [1, 2, 3, 4]


def test_half_a_line_is_left_out_and_mended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write(MetricsLog(path), 1, 2)
    path.write_bytes(path.read_bytes() + b"3,train,0")
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    write(MetricsLog(path, last_step=2), 3)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


@pytest.mark.parametrize("rows_before", [0, 2])
def test_a_full_disk_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_before: int) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path)
    write(log, *range(rows_before))
    before = path.read_bytes() if rows_before else None

    class HalfFull(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda self, mode: HalfFull(self, mode.replace("b", "")))
    with pytest.raises(OSError, match="No space left") as caught:
        write(log, 5)
    assert caught.value.filename == str(path)
    assert (path.read_bytes() if path.exists() else None) == before


def test_errors_of_tensorboard_name_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    (logger,) = make_loggers(tmp_path, ["tensorboard"])

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(logger.experiment), "add_scalar", full)
    with pytest.raises(OSError, match="No space left") as caught:
        logger.log_metrics({"loss": 1.0}, 1)
    assert str(caught.value.filename).startswith(str(tmp_path / "tensorboard"))


def test_a_log_of_tensorboard_that_cannot_be_begun_names_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = pytest.importorskip("torch.utils.tensorboard.writer")
    (logger,) = make_loggers(tmp_path, ["tensorboard"])

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "FileWriter", full)
    with pytest.raises(OSError, match="No space left") as caught:
        _ = logger.experiment
    assert str(caught.value.filename).startswith(str(tmp_path / "tensorboard"))


def test_a_log_from_the_beginning_forgets_the_old_one(tmp_path: Path) -> None:
    write(MetricsLog(tmp_path / "metrics.csv"), 1, 2)
    write(MetricsLog(tmp_path / "metrics.csv"), 1)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [1]


@pytest.mark.parametrize("steps", [(), (1,), tuple(range(1, 60))])
def test_losses_are_drawn_however_many_there_are(tmp_path: Path, steps: tuple[int, ...]) -> None:
    path = tmp_path / "metrics.csv"
    write(MetricsLog(path), *steps)
    plot_losses(read_metrics(path) if steps else [], tmp_path / "loss.png", prior=[(1, 2.0, 3.0)])
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_is_used_only_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert make_loggers(tmp_path, None) == []


def test_a_damaged_line_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.csv"
    write(MetricsLog(path), 1, 2, 3)
    path.write_bytes(path.read_bytes().replace(b"2,train,0", b"2,tr\xffin,0"))
    assert [row["step"] for row in read_metrics(path)] == [1, 3]
    assert "metrics.csv is damaged in line 3" in caplog.text


def test_a_damaged_first_line_is_told_and_costs_a_resumed_run_its_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.csv"
    write(MetricsLog(path), 1, 2)
    path.write_bytes(path.read_bytes().replace(b"step", b"stop", 1))
    with pytest.raises(DamagedResultError, match=r"metrics\.csv is damaged"):
        read_metrics(path)
    write(MetricsLog(path, last_step=2), 3)
    assert [row["step"] for row in read_metrics(path)] == [3]
    assert (tmp_path / DAMAGED_METRICS).exists() and DAMAGED_METRICS in caplog.text


def test_the_picture_of_the_loss_has_labels_and_legends_that_hide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *words, **options: (drawn.append(self), save(self, *words, **options))
    )
    path = tmp_path / "metrics.csv"
    write(MetricsLog(path), *range(1, 60))
    plot_losses(read_metrics(path), tmp_path / "loss.png", prior=[(1, 2.0, 3.0), (2, 1.0, 2.0)])
    (figure,) = drawn
    drawn_on = [panel for panel in figure.axes if panel.lines]
    assert len(drawn_on) >= 2
    for panel in drawn_on:
        assert panel.get_xlabel() and panel.get_ylabel() and panel.get_title()
        # in pixels: the legend begins where the axes end
        assert panel.get_legend().get_window_extent().x0 >= panel.get_window_extent().x1


def test_loggers_are_those_that_are_asked_for_and_missing_ones_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_loggers(tmp_path, ()) == make_loggers(tmp_path, ("csv",)) == []
    (logger,) = make_loggers(tmp_path, ("csv", "tensorboard", "tensorboard"))
    assert type(logger).__name__ == "TensorBoardLogger"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"wandb needs the package wandb.*cdvae-kit\[wandb\]"):
        make_loggers(tmp_path, ("wandb",))


def test_tensorboard_shows_no_step_twice_after_a_kill(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    # two runs that end after step 4 and go on from a state of step 2, the first from none
    for last_step in (0, 0, 2, 2):
        (logger,) = make_loggers(tmp_path, ("tensorboard",), last_step=last_step)
        for step in range(last_step + 1, 5):
            logger.log_metrics({"loss": float(step)}, step=step)
        logger.finalize("killed")
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True)
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
