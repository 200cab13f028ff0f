"""The folder of a run: no moment at which a run is killed leaves it stuck, and nobody works in it twice."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cdvae_kit.io.atomic import atomic_file, temporary_beside
from cdvae_kit.io.result_folder import LOCK_FILE, InUseError, ResumeError, locked, result_folder

OURS = ("run.json", "trials", "table.csv")
MODES: dict[str, dict[str, Any]] = {"plain": {}, "resume": {"resume": True}, "overwrite": {"overwrite": True}}


def lay_out(folder: Path, **options: Any) -> list[str]:
    """What lies in the folder once it is laid out."""
    with result_folder(folder, ours=OURS, **options):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != LOCK_FILE)


def remains(folder: Path, kind: str) -> None:
    folder.mkdir()
    if kind == "lock":
        (folder / LOCK_FILE).write_text("1 elsewhere")
    elif kind == "unfinished file":
        temporary_beside(folder / "run.json").write_text("{")
    elif kind == "unfinished folder":
        unfinished = temporary_beside(folder / "model")
        unfinished.mkdir()
        (unfinished / "weights").write_bytes(bytes(100))
    elif kind == "empty folder of ours":
        (folder / "trials").mkdir()
    elif kind == "unfinished file in a folder of ours":
        (folder / "trials").mkdir()
        temporary_beside(folder / "trials" / "batch_0.json").write_text("{")


KINDS = (
    *("nothing", "lock", "unfinished file", "unfinished folder", "empty folder of ours"),
    "unfinished file in a folder of ours",
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kill_leaves_before_the_first_result_stands_in_nobodys_way(tmp_path: Path, kind: str, mode: str) -> None:
    remains(tmp_path / "run", kind)
    found = lay_out(tmp_path / "run", **MODES[mode])
    assert found in ([], ["trials"])


@pytest.mark.parametrize(("mode", "left"), [("resume", ["run.json", "trials", "trials/0.json"]), ("overwrite", [])])
def test_a_run_is_gone_on_with_or_removed_as_is_asked_for(tmp_path: Path, mode: str, left: list[str]) -> None:
    (tmp_path / "run" / "trials").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "trials" / "0.json").write_text("{}")
    temporary_beside(tmp_path / "run" / "trials" / "1.json").write_text("{")
    with pytest.raises(FileExistsError, match="resume=True"):
        lay_out(tmp_path / "run")
    assert lay_out(tmp_path / "run", **MODES[mode]) == left


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path, mode: str) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"not of such a run \(thesis\.tex\)"):
        lay_out(tmp_path, **MODES[mode])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="does not exist"):
        lay_out(tmp_path / "nothing", resume=True)
    assert lay_out(tmp_path / "nothing", resume=True, must_exist=False) == []


def test_a_link_in_a_run_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trials").symlink_to(tmp_path / "mine")
    assert lay_out(tmp_path / "run", overwrite=True) == []
    assert (tmp_path / "mine" / "thesis.tex").exists()


_HOLDS = """
import sys, time
from cdvae_kit.io.result_folder import result_folder
with result_folder(sys.argv[1], ours=["run.json"]):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_second_run_in_a_folder_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    first = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert first.stdout is not None and first.stdout.readline() == "in\n"
        for options in MODES.values():
            with pytest.raises(InUseError, match=rf"in use by process {first.pid};"):
                lay_out(tmp_path / "run", **options)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert lay_out(tmp_path / "run") == []
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError), locked(tmp_path / "lock", "it"):
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_lock_holds_on_a_full_disk_and_what_is_written_next_names_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "out"))):  # noqa: SIM117 - the lock is the outer one
        with locked(tmp_path / "lock", "it"), atomic_file(tmp_path / "out") as temporary:
            temporary.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written_is_named(read_only: Path) -> None:
    with pytest.raises(OSError, match=str(read_only)) as caught:
        lay_out(read_only)
    assert LOCK_FILE not in str(caught.value)
