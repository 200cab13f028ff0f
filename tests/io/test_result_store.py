"""Results on the disk: what comes back, how large the file grows, and every way in which it can go wrong."""

import hashlib
import logging
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from cdvae_kit.io.results.store import MIN_MAX_BYTES, ResultStore, ResultStoreError


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def values(start: int, stop: int, size: int = 20) -> dict[bytes, bytes]:
    return {key(i): str(i).encode().rjust(size) for i in range(start, stop)}


def test_what_was_put_comes_back_in_another_store_of_the_folder(tmp_path):
    with ResultStore(tmp_path / "new" / "folder") as store:
        assert store.get([key(1)]) == {} and len(store) == 0 and store
        store.put(values(0, 3_000))
        store.put({key(5): b"later", key(6): b""})
    with ResultStore(tmp_path / "new" / "folder") as store:
        assert len(store) == 3_000
        found = store.get([key(i) for i in range(4_000)] + [key(7)])
        assert found == values(0, 3_000) | {key(5): b"later", key(6): b""}
        store.clear()
        assert len(store) == 0 and store.get([key(5)]) == {}
        assert store.path is not None and store.path.stat().st_size < 50_000


def test_ten_thousand_values_are_written_and_read_in_a_second_or_so(tmp_path):
    with ResultStore(tmp_path) as store:
        start = time.perf_counter()
        store.put(values(0, 10_000, size=1_600))
        assert len(store.get([key(i) for i in range(10_000)])) == 10_000
        # 0.3 s measured
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("wrong", [b"short", b"x" * 33, "x" * 32, 5])
def test_a_key_that_is_none_is_refused(tmp_path, wrong):
    with ResultStore(tmp_path) as store:
        with pytest.raises(ValueError, match="32 bytes"):
            store.get([wrong])
        with pytest.raises(ValueError, match="32 bytes"):
            store.put({wrong: b"value"})


def test_a_closed_store_says_so(tmp_path):
    store = ResultStore(tmp_path)
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store.get([key(1)])


def test_a_limit_that_nothing_fits_in_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least"):
        ResultStore(tmp_path, max_bytes=1_000)


# Size


def test_the_file_stays_bounded_and_the_results_used_last_stay(tmp_path, monkeypatch):
    limit = 400_000
    clock = 1_000_000_000
    monkeypatch.setattr("cdvae_kit.io.results.store.time.time", lambda: clock)
    with ResultStore(tmp_path, max_bytes=limit) as store:
        store.put(values(0, 100, size=1_000))
        for start in range(100, 3_000, 50):
            clock += 7_200
            store.put(values(start, start + 50, size=1_000))
            # these are looked up again and again, the others never
            assert len(store.get([key(i) for i in range(20)])) == 20
        assert store.get([key(i) for i in range(2_950, 3_000)]) == values(2_950, 3_000, size=1_000)
        assert store.get([key(i) for i in range(20, 100)]) == {}
        assert 100 < len(store) < limit / 1_000
        assert store.path is not None and store.path.stat().st_size < limit * 1.3


def test_a_value_that_would_push_all_others_out_is_not_kept(tmp_path, caplog):
    with ResultStore(tmp_path, max_bytes=MIN_MAX_BYTES) as store:
        store.put({key(1): b"small"})
        store.put({key(2): b"x" * MIN_MAX_BYTES})
        assert store.get([key(1), key(2)]) == {key(1): b"small"}
    assert "too large" in caplog.text


# Damage


def filled(folder: Path) -> Path:
    with ResultStore(folder) as store:
        store.put(values(0, 2_000))
        assert store.path is not None
        return store.path


def overwritten(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("text", lambda path: path.write_text("material_id,cif\n" * 100)),
        ("header", lambda path: overwritten(path, 0, b"\0" * 100)),
        ("pages", lambda path: overwritten(path, 4096, random.Random(0).randbytes(path.stat().st_size - 4096))),
        ("cut", lambda path: os.truncate(path, path.stat().st_size // 2)),
        ("format", lambda path: overwritten_format(path)),
        ("foreign", lambda path: foreign_database(path)),
        ("schema", lambda path: replaced(path, b"CREATE TABLE results", b"CREATE\xd9TABLE results")),
        # the header of the row says that there is no key, the index still names it
        ("key", lambda path: replaced(path, b"\x05\x4c\x34\x04\x04" + key(5), b"\x05\x00\x34\x04\x04" + key(5))),
    ],
)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path, caplog, name, damage):
    path = filled(tmp_path)
    damage(path)
    damaged = path.read_bytes()
    with caplog.at_level(logging.WARNING), ResultStore(tmp_path) as store:
        everything = store.get([key(i) for i in range(2_000)])
        assert everything.items() <= values(0, 2_000).items()
        store.put(values(0, 10))
        assert store.get([key(i) for i in range(10)]) == values(0, 10)
    aside = list(tmp_path.glob("*.damaged-*"))
    assert [file.read_bytes() == damaged for file in aside if not file.name.endswith(("-wal", "-shm"))] == [True]
    assert "damaged" in caplog.text and aside[0].name.split("-wal")[0] in caplog.text


def replaced(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def overwritten_format(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE about SET value = 99")
    connection.commit()
    connection.close()


def foreign_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE results (energy REAL)")
    connection.commit()
    connection.close()


def test_a_file_damaged_while_it_is_open_is_set_aside(tmp_path, caplog):
    path = filled(tmp_path)
    with ResultStore(tmp_path) as store:
        overwritten(path, 0, random.Random(1).randbytes(path.stat().st_size))
        assert store.get([key(1)]) == {}
        store.put(values(0, 10))
        assert len(store) == 10
    assert "damaged" in caplog.text


def test_a_flipped_bit_in_a_value_makes_it_absent(tmp_path, caplog):
    path = filled(tmp_path)
    content = path.read_bytes()
    place = content.index(b"1234".rjust(20))
    overwritten(path, place + 18, b"9")
    with ResultStore(tmp_path) as store:
        assert store.get([key(1234), key(1235)]) == values(1235, 1236)
        assert len(store) == 1_999
    assert "checksum" in caplog.text


def test_a_file_removed_while_it_is_open_is_begun_anew(tmp_path):
    path = filled(tmp_path)
    with ResultStore(tmp_path) as store:
        for file in tmp_path.iterdir():
            file.unlink()
        store.put(values(0, 3))
        assert path.exists() and len(store) == 3


# Several processes


def put_all(folder: Path, start: int, stop: int) -> None:
    with ResultStore(folder) as store:
        for i in range(start, stop, 5):
            store.put(values(i, i + 5))
            store.get([key(i)])


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=put_all, args=(tmp_path, i * 300, i * 300 + 500)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with ResultStore(tmp_path) as store:
        assert store.get([key(i) for i in range(1_100)]) == values(0, 1_100)
    assert not list(tmp_path.glob("*.damaged-*"))


def test_processes_that_meet_one_damaged_file_set_it_aside_once(tmp_path):
    overwritten(filled(tmp_path), 0, b"\0" * 100)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=put_all, args=(tmp_path, i * 100, i * 100 + 100)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    with ResultStore(tmp_path) as store:
        assert len(store) == 300
    assert len([file for file in tmp_path.glob("*.damaged-*") if file.name[-4:] not in ("-wal", "-shm")]) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_store_can_be_used_on_both_sides_of_a_fork(tmp_path):
    with ResultStore(tmp_path) as store:
        store.put(values(0, 10))
        child = multiprocessing.get_context("fork").Process(target=store.put, args=(values(10, 20),))
        child.start()
        store.put(values(20, 30))
        child.join(60)
        assert child.exitcode == 0
        assert store.get([key(i) for i in range(30)]) == values(0, 30)


def test_a_kill_between_or_in_two_writes_loses_nothing_that_was_written(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from tests.io.test_result_store import values
        from cdvae_kit.io.results.store import ResultStore
        store = ResultStore(sys.argv[1])
        for i in range(1_000_000):
            store.put(values(i, i + 1))
            print(i, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 300:
            pass
        process.send_signal(signal.SIGKILL)
        last = [int(line) for line in process.stdout.read().splitlines()] or [300]
    with ResultStore(tmp_path) as store:
        written = values(0, last[-1] + 1)
        assert written.items() <= store.get([key(i) for i in range(last[-1] + 2)]).items()
    assert not list(tmp_path.glob("*.damaged-*"))


# Folders that cannot be used


def test_a_file_in_the_place_of_the_folder_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ResultStoreError, match="name a folder that can be written"):
        ResultStore(tmp_path / "taken")


@pytest.mark.skipif(os.name == "nt", reason="folders have no such rights here")
def test_a_read_only_folder_is_an_error_that_says_what_to_do(tmp_path):
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        # root may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(ResultStoreError, match="name a folder that can be written"):
            ResultStore(tmp_path / "results")
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("home", ["taken/cache", "taken"])
def test_a_cache_that_cannot_be_used_costs_a_warning(tmp_path, monkeypatch, caplog, home):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
    with ResultStore() as store:
        store.put(values(0, 10))
        assert store.get([key(1)]) == {} and len(store) == 0 and store.path is None
        store.clear()
    assert caplog.text.count("going on without it") == 1


def test_the_cache_of_the_user_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with ResultStore() as store:
        store.put(values(0, 10))
    with ResultStore(tmp_path / "cdvae_kit" / "results") as store:
        assert len(store) == 10


FULL_DISK = """
    import logging, resource, sys
    from tests.io.test_result_store import values, key
    from cdvae_kit.io.results.store import ResultStore, ResultStoreError
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
    store = ResultStore(sys.argv[1], required=sys.argv[2] == "required")
    store.put(values(0, 100))
    # no file may grow beyond this, as on a disk without room
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    for start in range(100, 3_000, 100):
        try:
            store.put(values(start, start + 100, size=1_000))
        except ResultStoreError as error:
            print("refused", error)
            break
    print("end", len(store.get([key(1)])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
@pytest.mark.parametrize("required", ["required", "optional"])
def test_a_full_disk_is_said_and_loses_nothing_written_before(tmp_path, required):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path), required],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "free some room or name another" in done.stdout
    assert ("refused" in done.stdout) == (required == "required")
    assert ("going on without it" in done.stdout) == (required == "optional")
    assert done.stdout.splitlines()[-1] == ("end 1" if required == "required" else "end 0")
    with ResultStore(tmp_path) as store:
        assert store.get([key(i) for i in range(100)]) == values(0, 100)
    assert not list(tmp_path.glob("*.damaged-*"))
