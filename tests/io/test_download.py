"""Downloads against a real HTTP server on the loopback that breaks in every way a server can."""

from __future__ import annotations

import functools
import gzip
import hashlib
import multiprocessing
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cdvae_kit.io.download import DownloadError, download_file, git_blob_id

CONTENT = bytes(range(256)) * 4096
BLOB_ID = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Server:
    """Serves `files`; `answers` holds what happens to the next requests, one each, before it behaves well."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/train.csv": CONTENT}
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.etag = '"one"'
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.requests.append((self.path, dict(self.headers)))
                answer = server.answers.pop(0) if server.answers else well_behaved
                self.close_connection = True
                if self.path not in server.files:
                    self.send_error(404)
                    return
                answer(self, server.files[self.path])

            def log_message(self, format: str, *args: object) -> None:
                return

        Handler.server_etag = property(lambda _: server.etag)  # type: ignore[attr-defined]
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def well_behaved(handler: BaseHTTPRequestHandler, content: bytes, stop: int | None = None) -> None:
    """Ranges and If-Range as the standard wants them; sends nothing past byte `stop` and hangs up."""
    etag = handler.server_etag  # type: ignore[attr-defined]
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(match[1]) if match and handler.headers.get("If-Range", etag) == etag else None
    if start is not None and start >= len(content):
        send(handler, 416, b"", Content_Range=f"bytes */{len(content)}")
        return
    handler.send_response(200 if start is None else 206)
    handler.send_header("ETag", etag)
    handler.send_header("Content-Length", str(len(content) - (start or 0)))
    if start is not None:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.end_headers()
    handler.wfile.write(content[start or 0 : stop])


def breaks_after(num_bytes: int) -> Answer:
    return functools.partial(well_behaved, stop=num_bytes)


def without_ranges(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    send(handler, 200, content)


def fails_with(status: int) -> Answer:
    return lambda handler, content: handler.send_error(status)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.close()


fetch = functools.partial(download_file, backoff=0.01, retries=2, timeout=10.0)


def test_git_itself_gives_the_same_blob_id(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    try:
        answer = subprocess.run(
            ["git", "hash-object", "--no-filters", path], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("git is not installed")
    assert git_blob_id(path) == answer.stdout.strip() == BLOB_ID


def test_a_file_arrives_whole_and_leaves_nothing_else_in_the_folder(server: Server, tmp_path: Path) -> None:
    path = fetch(f"{server.url}/train.csv", tmp_path / "new" / "train.csv", git_blob_id=BLOB_ID)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["train.csv"]


def test_progress_ends_at_the_size_of_the_file(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(f"{server.url}/train.csv", tmp_path / "a", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


@pytest.mark.parametrize("blob_id", [BLOB_ID, None])
def test_a_broken_connection_is_continued_where_it_broke(server: Server, tmp_path: Path, blob_id: str | None) -> None:
    server.answers = [breaks_after(300_000)]
    path = fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=blob_id)
    assert path.read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=300000-"]


def test_a_file_that_changes_during_the_download_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    new = b"x" * 400_000

    def break_and_change(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        well_behaved(handler, content, stop=1000)
        server.files["/train.csv"], server.etag = new, '"two"'

    server.answers = [break_and_change]
    assert fetch(f"{server.url}/train.csv", tmp_path / "a").read_bytes() == new
    assert server.ranges() == [None, "bytes=1000-"]


def test_a_server_without_ranges_makes_it_start_anew(server: Server, tmp_path: Path) -> None:
    server.answers = [breaks_after(1000), without_ranges]
    assert fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID).read_bytes() == CONTENT


def test_a_connection_that_keeps_breaking_ends_in_advice_on_how_to_go_on(server: Server, tmp_path: Path) -> None:
    server.answers = [breaks_after(1000), breaks_after(2000), breaks_after(3000)]
    with pytest.raises(DownloadError, match=r"3 tries.*of 1048576 bytes.*3000 bytes are kept.*again to go on"):
        fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID)
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "a.part").read_bytes() == CONTENT[:3000]
    fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID)
    assert server.ranges()[-1] == "bytes=3000-"
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert not (tmp_path / "a.part").exists()


def test_without_a_blob_id_nothing_of_a_failed_download_is_kept(server: Server, tmp_path: Path) -> None:
    server.answers = [breaks_after(1000)] * 3
    with pytest.raises(DownloadError, match="start anew"):
        fetch(f"{server.url}/train.csv", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_complete_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT)
    assert fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID).read_bytes() == CONTENT
    assert server.ranges() == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("part", [b"not the beginning", CONTENT + b"too long"], ids=["wrong", "long"])
def test_a_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "a.part").write_bytes(part)
    assert fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID).read_bytes() == CONTENT


def test_wrong_bytes_are_an_error_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    server.files["/train.csv"] = CONTENT[:-1] + b"!"
    with pytest.raises(DownloadError, match=f"not the file that was asked for.*expected {BLOB_ID}"):
        fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID)
    assert [file for file in tmp_path.iterdir() if not file.name.startswith(".")] == []
    assert len(server.requests) == 1


def test_a_missing_file_is_not_asked_for_twice_and_named_in_both_forms(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"nope.csv does not exist.*404.*nope.csv.gz"):
        fetch(f"{server.url}/nope.csv", tmp_path / "a")
    assert [path for path, _ in server.requests] == ["/nope.csv", "/nope.csv.gz"]


def test_a_server_error_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.answers = [fails_with(500), fails_with(503)]
    assert fetch(f"{server.url}/train.csv", tmp_path / "a").read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_refusal_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.answers = [fails_with(403)]
    with pytest.raises(DownloadError, match="refused: the server answered 403"):
        fetch(f"{server.url}/train.csv", tmp_path / "a")
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/train.csv"
    server.http.server_close()
    with pytest.raises(DownloadError, match=r"train.csv could not be fetched in 3 tries: .*[Rr]efused"):
        fetch(url, tmp_path / "a")


@pytest.mark.parametrize("form", ["http", "file", "path"])
def test_a_packed_variant_is_unpacked_and_checked(server: Server, tmp_path: Path, form: str) -> None:
    packed = gzip.compress(CONTENT, mtime=0)
    server.files = {"/train.csv.gz": packed}
    mirror = tmp_path / "a mirror"
    mirror.mkdir()
    (mirror / "train.csv.gz").write_bytes(packed)
    url = {"http": server.url, "file": mirror.as_uri(), "path": str(mirror)}[form] + "/train.csv"
    path = fetch(url, tmp_path / "out" / "train.csv", git_blob_id=BLOB_ID)
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["train.csv"]


def test_a_cut_packed_variant_is_an_error_and_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(CONTENT)[:-20])
    for blob_id in (BLOB_ID, None):
        with pytest.raises(DownloadError, match="not a whole gzip file"):
            fetch(str(tmp_path / "train.csv"), tmp_path / "out" / "a", git_blob_id=blob_id)
        assert [file for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")] == []


def test_a_file_that_is_there_and_right_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID)
    assert server.requests == []


@pytest.mark.parametrize("blob_id", [BLOB_ID, None])
def test_another_file_in_the_way_stays_unless_overwriting_is_allowed(
    server: Server, tmp_path: Path, blob_id: str | None
) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=blob_id)
    assert (tmp_path / "a").read_bytes() == b"mine"
    fetch(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=blob_id, overwrite=True)
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["ftp://example.org/a", "s3://bucket/a"])
def test_an_unknown_kind_of_address_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="expected an http, https or file address"):
        fetch(url, tmp_path / "a")


def test_a_malformed_blob_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="40 hexadecimal digits"):
        fetch("/nowhere", tmp_path / "a", git_blob_id="abc")


def _fetch_in_process(url: str, path: Path) -> None:
    fetch(url, path, git_blob_id=BLOB_ID)


def test_two_processes_download_the_same_file_once(server: Server, tmp_path: Path) -> None:
    arrived = threading.Event()

    def slowly(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        arrived.wait(timeout=1.0)
        well_behaved(handler, content)

    server.answers = [slowly]
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_fetch_in_process, args=(f"{server.url}/train.csv", tmp_path / "a")) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_public_file_has_its_public_blob_id(server: Server, tmp_path: Path, shared_dir: Path) -> None:
    content = gzip.decompress((shared_dir / "data/perov_5/val.csv.gz").read_bytes())
    server.files["/perov_5/val.csv"] = content
    server.answers = [breaks_after(len(content) // 2)]
    path = fetch(
        f"{server.url}/perov_5/val.csv", tmp_path / "val.csv", git_blob_id="4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f"
    )
    assert path.read_bytes() == content
    assert server.ranges() == [None, f"bytes={len(content) // 2}-"]


def _send_without_end(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(content)


def _trickle(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    with suppress(OSError):
        for byte in content:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.05)


def _trickle_the_head(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    with suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 10_000:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.05)


def _lie(length: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        handler.wfile.write(content[:1000])

    return answer


@pytest.mark.parametrize("blob_id", [None, BLOB_ID])
def test_a_source_that_sends_more_than_the_file_can_have_is_left(
    server: Server, tmp_path: Path, blob_id: str | None
) -> None:
    server.answers = [_send_without_end]
    with pytest.raises(DownloadError, match=rf"more than {len(CONTENT)} bytes"):
        download_file(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=blob_id, num_bytes=len(CONTENT))
    server.answers = [_send_without_end]
    with pytest.raises(DownloadError, match=r"more than 3000000 bytes.*max_bytes"):
        download_file(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=blob_id, max_bytes=3_000_000)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_a_stated_size_that_is_too_large_is_not_waited_for(server: Server, tmp_path: Path) -> None:
    server.answers = [_lie(str(10**15))]
    with pytest.raises(DownloadError, match="more than"):
        download_file(f"{server.url}/train.csv", tmp_path / "a", num_bytes=len(CONTENT))
    assert len(server.requests) == 1


@pytest.mark.parametrize("length", ["9" * 5000, "-5", "2000"])
def test_a_false_length_is_no_reason_to_take_a_part_for_the_whole(server: Server, tmp_path: Path, length: str) -> None:
    server.answers = [_lie(length)] * 2
    limits = {"retries": 1, "backoff": 0.01, "num_bytes": len(CONTENT)}
    with pytest.raises(DownloadError):
        download_file(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID, **limits)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("answer", [_trickle, _trickle_the_head])
def test_a_byte_now_and_then_holds_nobody(server: Server, tmp_path: Path, answer: Answer) -> None:
    server.answers = [answer] * 2
    began = time.monotonic()
    with pytest.raises(DownloadError, match="could not be fetched in 2 tries"):
        download_file(f"{server.url}/train.csv", tmp_path / "a", retries=1, backoff=0.01, timeout=0.5)
    assert time.monotonic() - began < 20.0


def test_a_packed_variant_that_unpacks_to_more_is_refused(server: Server, tmp_path: Path) -> None:
    server.files = {"/train.csv.gz": gzip.compress(bytes(50_000_000))}
    with pytest.raises(DownloadError, match=f"unpacks to more than {len(CONTENT)} bytes"):
        download_file(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID, num_bytes=len(CONTENT))


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_part_that_is_a_link_is_not_followed(server: Server, tmp_path: Path, kind: str) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    part = tmp_path / "a.part"
    part.symlink_to(tmp_path / "thesis.tex") if kind == "symbolic" else part.hardlink_to(tmp_path / "thesis.tex")
    download_file(f"{server.url}/train.csv", tmp_path / "a", git_blob_id=BLOB_ID)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "a").read_bytes() == CONTENT and not (tmp_path / "a").is_symlink()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
@pytest.mark.parametrize("place", ["server", "folder"])
def test_a_disk_without_room_is_told_with_the_name_of_the_file(server: Server, tmp_path: Path, place: str) -> None:
    import resource

    (tmp_path / "source.csv").write_bytes(CONTENT)
    source = f"{server.url}/train.csv" if place == "server" else str(tmp_path / "source.csv")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # no file may grow beyond this
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.part"):
            download_file(source, tmp_path / "a", git_blob_id=BLOB_ID)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "a").exists()
