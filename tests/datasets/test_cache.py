"""The cache of read crystals: right, shared, and none the worse for kills and damage."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.datasets import cache, load_crystals
from cdvae_kit.io.crystals.reading import ReadError, ReadResult, read_crystals

HEADER = 'Lattice="{0} 0 0 0 {0} 0 {1} 0 {0}" Properties=species:S:1:pos:R:3 energy={2} material_id={3}'


def write_crystals(path: Path, count: int = 5) -> Path:
    """Caesium chloride in a cell that is not reduced, one frame a size, and a frame without a cell before the last."""
    frames = []
    for i in range(count):
        edge = 4.0 + 0.1 * i
        header = HEADER.format(edge, edge, -0.5 * i, f"salt-{i}")
        frames.append(f"2\n{header}\nCs 0 0 0\nCl {edge / 2} {edge / 2} {edge / 2}\n")
    frames.insert(count - 1, "1\nProperties=species:S:1:pos:R:3\nCs 0 0 0\n")
    path.write_text("".join(frames))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_crystals(tmp_path / "salts.extxyz")


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    return tmp_path / "entries"


@pytest.fixture
def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever the file itself is read."""
    reads: list[str] = []

    def counted(path: Path, **options: Any) -> ReadResult:
        reads.append(str(path))
        return read_crystals(path, **options)

    monkeypatch.setattr(cache, "read_crystals", counted)
    return reads


def assert_same(first: CrystalBatch, second: CrystalBatch) -> None:
    for name in ("frac_coords", "lattice", "atomic_numbers", "num_atoms"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.material_ids == second.material_ids
    assert list(first.properties) == list(second.properties)
    for name, values in first.properties.items():
        assert torch.equal(values, second.properties[name]), name


def test_the_cache_gives_what_reading_gives(source: Path, entries: Path, count_reads: list[str]) -> None:
    expected = read_crystals(source, reduce="niggli", dtype=torch.float64)
    for _ in range(2):
        found = load_crystals(source, cache_dir=entries, num_workers=1, dtype=torch.float64)
        assert_same(found.crystals, expected.crystals)
        assert found.failures == expected.failures
        assert found.num_records == 6
    assert len(count_reads) == 1


def test_cells_are_reduced_in_the_canonical_frame(source: Path, entries: Path) -> None:
    crystals = load_crystals(source, cache_dir=entries, num_workers=1).crystals
    edges = 4.0 + 0.1 * torch.arange(5)
    assert torch.allclose(crystals.lattice, torch.diag_embed(edges[:, None].expand(5, 3)), atol=1e-5)
    as_it_is = load_crystals(source, cache_dir=entries, num_workers=1, reduce=None).crystals
    assert not torch.allclose(as_it_is.lattice, crystals.lattice, atol=1e-1)


def test_numbers_come_in_the_precision_asked_for(source: Path, entries: Path) -> None:
    for dtype in (torch.float64, torch.float32):
        crystals = load_crystals(source, cache_dir=entries, num_workers=1, dtype=dtype).crystals
        assert crystals.lattice.dtype == crystals.frac_coords.dtype == crystals.properties["energy"].dtype == dtype


def test_each_set_of_options_has_its_own_entry(source: Path, entries: Path, count_reads: list[str]) -> None:
    load_crystals(source, cache_dir=entries, num_workers=1)
    load_crystals(source, cache_dir=entries, num_workers=1, reduce=None)
    with pytest.raises(ReadError, match="no crystal could be read"):
        load_crystals(source, cache_dir=entries, num_workers=1, max_atoms=1)
    assert len(count_reads) == 3


def test_changed_content_under_the_same_name_is_read_anew(source: Path, entries: Path) -> None:
    before = load_crystals(source, cache_dir=entries, num_workers=1)
    stamp = source.stat()
    source.write_text(source.read_text().replace("Cs", "Rb"))
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = load_crystals(source, cache_dir=entries, num_workers=1)
    assert set(before.crystals.atomic_numbers.tolist()) == {55, 17}
    assert set(after.crystals.atomic_numbers.tolist()) == {37, 17}


def test_the_same_file_elsewhere_is_not_read_again_and_failures_name_the_new_place(
    source: Path, entries: Path, tmp_path: Path, count_reads: list[str]
) -> None:
    load_crystals(source, cache_dir=entries, num_workers=1)
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.move(source, tmp_path / "elsewhere" / source.name))
    (failure,) = load_crystals(moved, cache_dir=entries).failures
    assert failure.source == str(moved)
    assert len(count_reads) == 1


def test_a_folder_is_known_by_the_names_and_contents_of_its_files(tmp_path: Path, entries: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_crystals(folder / "a.extxyz", 2)
    assert len(load_crystals(folder, cache_dir=entries, num_workers=1).crystals) == 2
    write_crystals(folder / "b.extxyz", 3)
    assert len(load_crystals(folder, cache_dir=entries, num_workers=1).crystals) == 5


def test_strict_raises_with_and_without_an_entry(source: Path, entries: Path) -> None:
    for _ in range(2):
        with pytest.raises(ReadError, match=r"salts\.extxyz.*strict"):
            load_crystals(source, cache_dir=entries, num_workers=1, strict=True)
        load_crystals(source, cache_dir=entries, num_workers=1)


def test_progress_ends_at_the_number_of_records(source: Path, entries: Path) -> None:
    for _ in range(2):
        seen: list[tuple[int, int | None]] = []
        load_crystals(source, cache_dir=entries, num_workers=1, progress=lambda *counts, seen=seen: seen.append(counts))
        assert seen[-1] == (6, 6)


@pytest.mark.parametrize(
    ("num_workers", "num_frames", "expected"), [(None, 5, 1), (None, 150_000, 4), (None, 400_000, 7), (3, 5, 3)]
)
def test_more_processes_read_where_there_is_more_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int | None, num_frames: int, expected: int
) -> None:
    source = write_crystals(tmp_path / "salts.extxyz")
    small = read_crystals(source)
    # frames of 110 bytes
    source.write_text("x" * 110 * num_frames)
    asked: list[int] = []

    def recorded(path: Path, **options: Any) -> ReadResult:
        asked.append(options["num_workers"])
        return small

    monkeypatch.setattr(cache, "read_crystals", recorded)
    monkeypatch.setattr(cache, "_num_cores", lambda: 7)
    load_crystals(source, cache_dir=tmp_path / "entries", num_workers=num_workers)
    assert asked == [expected]


def test_no_workers_at_all_are_refused(source: Path, entries: Path) -> None:
    with pytest.raises(ValueError, match="num_workers must be at least 1, got 0"):
        load_crystals(source, cache_dir=entries, num_workers=0)


def flip_last_byte(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)


def cut(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:-100])


def empty(entry: Path) -> None:
    entry.write_bytes(b"")


def other_file(entry: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, entry)


@pytest.mark.parametrize("damage", [flip_last_byte, cut, empty, other_file], ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_told_and_made_anew(
    source: Path, entries: Path, caplog: pytest.LogCaptureFixture, count_reads: list[str], damage: object
) -> None:
    expected = load_crystals(source, cache_dir=entries, num_workers=1)
    (entry,) = entries.iterdir()
    damage(entry)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        found = load_crystals(source, cache_dir=entries, num_workers=1)
    assert "is damaged" in caplog.text and str(entry) in caplog.text
    assert_same(found.crystals, expected.crystals)
    load_crystals(source, cache_dir=entries, num_workers=1)
    assert len(count_reads) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"nowhere\.csv: there is no such file"):
        load_crystals(tmp_path / "nowhere.csv", cache_dir=tmp_path / "entries")
    assert not (tmp_path / "entries").exists()


def _load_and_log(source: Path, entries: Path, log: Path) -> None:
    def counted(path: Path, **options: Any) -> ReadResult:
        with log.open("a") as file:
            file.write("read\n")
        time.sleep(0.5)
        return read_crystals(path, **options)

    cache.read_crystals = counted  # type: ignore[assignment]
    assert len(load_crystals(source, cache_dir=entries, num_workers=1).crystals) == 5


def test_two_processes_at_once_read_the_file_once(source: Path, entries: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=_load_and_log, args=(source, entries, log)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert log.read_text() == "read\n"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system knows no SIGKILL")
def test_a_kill_in_the_middle_costs_nothing_but_the_work(source: Path, entries: Path) -> None:
    """Killed when the content is written but does not have its name yet."""
    code = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from cdvae_kit.datasets import cache
        from cdvae_kit.io import atomic

        def die(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGKILL)

        atomic.sync = die
        cache.load_crystals(Path(sys.argv[1]), cache_dir=sys.argv[2], num_workers=1)
        """
    )
    root = Path(__file__).resolve().parents[2]
    killed = subprocess.run([sys.executable, "-c", code, source, entries], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [file.name for file in entries.iterdir()]
    assert not any(not name.startswith(".") and name.endswith(".safetensors") for name in left)
    assert any(name.startswith(".tmp-") for name in left), "it was killed too early for the test to say anything"
    assert len(load_crystals(source, cache_dir=entries, num_workers=1).crystals) == 5
    assert [file.suffix for file in entries.iterdir()] == [".safetensors"]


def test_a_cache_that_cannot_be_written_costs_a_warning(
    source: Path, read_only: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = load_crystals(source, cache_dir=read_only, num_workers=1)
    assert len(found.crystals) == 5 and "cannot be written" in caplog.text and str(read_only) in caplog.text
    caplog.clear()
    assert len(load_crystals(source, cache_dir=read_only / "below", num_workers=1).crystals) == 5
    assert "cannot be written" in caplog.text


def test_a_cache_that_is_full_costs_a_warning(
    source: Path, entries: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_save_entry", full)
    assert len(load_crystals(source, cache_dir=entries, num_workers=1).crystals) == 5
    assert "No space left on device" in caplog.text


def test_a_user_without_a_home_reads_without_a_cache(
    source: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache, "default_cache_dir", homeless)
    assert len(load_crystals(source, num_workers=1).crystals) == 5
    assert "home directory" in caplog.text
