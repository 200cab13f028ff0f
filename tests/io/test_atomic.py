"""A path holds the whole new content or what it held before."""

from pathlib import Path

import pytest

from cdvae_kit.io.atomic import atomic_file, atomic_folder, is_temporary, temporary_beside


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
