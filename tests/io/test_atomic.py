"""A path holds the whole new content or what it held before."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cdvae_kit.io import atomic
from cdvae_kit.io.atomic import (
    atomic_file,
    atomic_folder,
    is_temporary,
    refuse_existing,
    refuse_several,
    several_files,
    temporary_beside,
)


def names_in(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
        assert temporary.name.endswith("a.txt") and is_temporary(temporary)
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert names_in(tmp_path) == ["a.txt"]


def _fail_in_file(path: Path, error: type[BaseException]) -> None:
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text("half")
        raise error


def _fail_in_folder(path: Path, error: type[BaseException]) -> None:
    with atomic_folder(path, overwrite=True) as temporary:
        (temporary / "half").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").write_text("old")
    with pytest.raises(error):
        _fail_in_file(tmp_path / "file", error)
    with pytest.raises(error):
        _fail_in_folder(tmp_path / "folder", error)
    assert (tmp_path / "file").read_text() == "old"
    assert names_in(tmp_path / "folder") == ["old"]
    assert names_in(tmp_path) == ["file", "folder"]


def test_existing_paths_are_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(FileExistsError, match="overwrite=True"), atomic_file(tmp_path / "file"):
        pass
    with atomic_file(tmp_path / "file", overwrite=True) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "file").read_text() == "new"
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "old").write_text("")
    with pytest.raises(FileExistsError, match="overwrite=True"), atomic_folder(tmp_path / "folder"):
        pass
    with atomic_folder(tmp_path / "folder", overwrite=True) as temporary:
        (temporary / "new").write_text("")
    assert names_in(tmp_path / "folder") == ["new"]
    assert names_in(tmp_path) == ["file", "folder"]


def test_what_another_process_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    def write_late() -> None:
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_text("late")
            (tmp_path / "file").write_text("first")

    with pytest.raises(FileExistsError):
        write_late()
    assert (tmp_path / "file").read_text() == "first"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "new").write_text("")
    assert names_in(tmp_path / "folder") == ["new"]


def test_a_file_is_not_taken_for_a_folder_nor_a_folder_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError), atomic_folder(tmp_path / "file", overwrite=True):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), atomic_file(tmp_path / "folder", overwrite=True):
        pass


def test_a_missing_parent_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="create it first"), atomic_file(tmp_path / "no" / "file"):
        pass


def test_temporary_names_differ(tmp_path: Path) -> None:
    assert len({temporary_beside(tmp_path / "a") for _ in range(50)}) == 50


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_what_a_killed_process_left_goes_when_the_path_is_written_again(tmp_path: Path) -> None:
    own = temporary_beside(tmp_path / "a.txt").name
    dead = own.replace(f"-{os.getpid()}-", f"-{dead_process()}-")
    for name in (own, dead, dead.replace("a.txt", "ba.txt"), "a.txt.tmp"):
        (tmp_path / name).write_text("half")
    (tmp_path / f"{dead}.parts").mkdir()
    (tmp_path / f"{dead}.parts" / "crystals.db").write_text("half")
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    # neither that of a living process nor that of another file
    assert names_in(tmp_path) == sorted([own, dead.replace("a.txt", "ba.txt"), "a.txt", "a.txt.tmp"])


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_full_folder_is_replaced_with_and_without_the_call_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with atomic_folder(tmp_path / "out", overwrite=True) as temporary:
        (temporary / "new").write_text("new")
    assert names_in(tmp_path / "out") == ["new"] and names_in(tmp_path) == ["out"]


def test_an_error_of_the_system_names_the_final_path(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught, atomic_file(tmp_path / "a.txt") as temporary:
            temporary.write_bytes(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert names_in(tmp_path) == []


def test_a_folder_that_may_not_be_written_is_found_out_before_the_work(tmp_path: Path, read_only: Path) -> None:
    with pytest.raises(PermissionError, match=f"the folder {read_only} may not be written"):
        refuse_existing(read_only / "a.txt", overwrite=False)
    refuse_existing(tmp_path / "a.txt", overwrite=False)


def _write_both(folder: Path, *, overwrite: bool = False, fails: bool = False) -> None:
    paths = [folder / "a", folder / "b"]
    with several_files(paths, overwrite=overwrite):
        for path in paths:
            with atomic_file(path, overwrite=True) as temporary:
                temporary.write_text("new")
            if fails:
                raise RuntimeError


def test_files_that_belong_together_are_replaced_where_they_are_not_whole(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        _write_both(tmp_path, fails=True)
    assert (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    refuse_several([tmp_path / "a", tmp_path / "b"], overwrite=False)
    _write_both(tmp_path)
    assert names_in(tmp_path) == ["a", "b"]
    with pytest.raises(FileExistsError):
        _write_both(tmp_path)
    _write_both(tmp_path, overwrite=True)


def test_a_file_of_somebody_else_is_not_taken_for_one_of_an_unfinished_set(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(FileExistsError):
        _write_both(tmp_path)
    assert (tmp_path / "b").read_text() == "mine" and names_in(tmp_path) == ["b"]
