"""Questions to an OPTIMADE provider on the loopback, which pages, refuses and misbehaves in every way one can."""

from __future__ import annotations

import json
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import cdvae_kit.io.crystals.optimade as optimade_module
from cdvae_kit.cli.main import app
from cdvae_kit.cli.tools import ToolError, command_line
from cdvae_kit.datasets import load_dataset
from cdvae_kit.io import ReadError, read, read_crystals
from cdvae_kit.io.crystals.formats import query_of
from cdvae_kit.io.crystals.limits import QueryLimits, query_limits
from cdvae_kit.io.crystals.optimade import Query, parse_query
from cdvae_kit.io.crystals.records import UnreadableSourceError

Answer = tuple[int, bytes]


def structure(number: int, **changes: Any) -> dict[str, Any]:
    """A salt whose cell and gap tell its number."""
    size = 4.0 + 0.01 * number
    attributes = {
        "lattice_vectors": [[size, 0, 0], [0, size, 0], [0, 0, size]],
        "cartesian_site_positions": [[0, 0, 0], [size / 2] * 3],
        "species_at_sites": ["Cs", "Cl"],
        "species": [{"name": s, "chemical_symbols": [s], "concentration": [1.0]} for s in ("Cs", "Cl")],
        "dimension_types": [1, 1, 1],
        "structure_features": [],
        "nsites": 2,
        "_x_gap": 0.5 * number,
        "_x_note": "text",
        **changes,
    }
    return {"type": "structures", "id": f"x/{number}", "attributes": attributes}


class Provider:
    """Has `structures`, gives at most `largest` a page; `answers` are what the next questions get instead."""

    def __init__(self) -> None:
        self.structures = [structure(number) for number in range(7)]
        self.largest = 3
        self.asked: list[str] = []
        self.answers: list[Answer | Callable[[dict[str, Any]], Any] | None] = []
        self.info: dict[str, Any] | None = {
            "lattice_vectors": {"type": "list"},
            "nsites": {"type": "integer"},
            "_x_gap": {"type": ["number", "null"], "x-optimade-type": "float"},
            "_x_note": {"type": "string"},
        }
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = provider.answer(self.path)
                self.close_connection = True
                if status == 0:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 302:
                    self.send_header("Location", body.decode())
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, path: str) -> Answer:
        self.asked.append(path)
        place, _, asked = path.partition("?")
        if place == "/db/v1/info/structures":
            if self.info is None:
                return 404, b"{}"
            return 200, json.dumps({"data": {"properties": self.info}}).encode()
        instead = self.answers.pop(0) if self.answers else None
        if isinstance(instead, tuple):
            return instead
        if place != "/db/v1/structures":
            return 404, b"<html>nothing here</html>"
        parameters = dict(urllib.parse.parse_qsl(asked))
        if int(parameters.get("page_limit", 1)) > 100:
            return 403, b"{}"
        start = int(parameters.get("page_offset", 0))
        page = self.structures[start : start + self.largest]
        fields = parameters.get("response_fields")
        if fields is not None:
            kept = fields.split(",")
            page = [{**one, "attributes": {k: v for k, v in one["attributes"].items() if k in kept}} for one in page]
        following = None
        if start + self.largest < len(self.structures):
            # as of a server that does not know that another one stands before it
            query = urllib.parse.urlencode({**parameters, "page_offset": start + self.largest})
            following = f"http://127.0.0.1/db/v1/structures?{query}"
        content: Any = {
            "data": page,
            "links": {"next": following},
            "meta": {"data_returned": len(self.structures), "more_data_available": following is not None},
        }
        return 200, json.dumps(instead(content) if callable(instead) else content).encode()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setattr(optimade_module, "_BACKOFF", 0.01)
    found = Provider()
    yield found
    found.close()


def ask(provider: Provider, filter_: str = "nelements=2", **settings: Any) -> Any:
    return read_crystals(f"optimade://{provider.host}/db?{filter_}", **settings)


def test_all_pages_are_read_with_names_and_targets(provider: Provider) -> None:
    result = ask(provider, 'elements HAS ALL "Cs","Cl" AND nelements=2')
    assert not result.failures and result.crystals.material_ids == [f"x/{i}" for i in range(7)]
    assert result.crystals.properties["_x_gap"].tolist() == [0.5 * i for i in range(7)]
    np.testing.assert_allclose(result.crystals.lattice[:, 0, 0], 4.0 + 0.01 * np.arange(7), rtol=1e-6)
    assert result.crystals.atomic_numbers.tolist() == [55, 17] * 7
    first = urllib.parse.parse_qs(provider.asked[1].partition("?")[2])
    assert first["filter"] == ['elements HAS ALL "Cs","Cl" AND nelements=2']
    assert set(first["response_fields"][0].split(",")) >= {"lattice_vectors", "species", "_x_gap"}
    assert len(provider.asked) == 4


def test_a_path_that_has_lost_a_slash_asks_the_same(provider: Provider) -> None:
    name = Path(f"optimade://{provider.host}/db?nelements=2")
    assert len(read(name)) == 7 and query_of(name) == f"optimade://{provider.host}/db?nelements=2"


def test_a_provider_that_does_not_say_what_it_has_gives_what_it_likes(provider: Provider) -> None:
    provider.info = None
    assert ask(provider).crystals.properties["_x_gap"].tolist() == [0.5 * i for i in range(7)]
    assert "response_fields" not in provider.asked[1]


def test_a_provider_of_small_pages_is_asked_without_their_size(provider: Provider) -> None:
    provider.answers = [(403, b'{"errors": [{"detail": "too large a page"}]}')]
    assert len(ask(provider).crystals) == 7
    assert "page_limit" in provider.asked[1] and "page_limit" not in provider.asked[2]


def test_a_bad_structure_costs_itself(provider: Provider) -> None:
    provider.structures[4] = structure(4, lattice_vectors=None)
    provider.structures[5] = "odd"  # type: ignore[call-overload]
    provider.info = None
    result = ask(provider)
    assert result.crystals.material_ids == ["x/0", "x/1", "x/2", "x/3", "x/6"]
    assert [failure.record for failure in result.failures] == ["structure 5 (x/4)", "structure 6"]
    assert result.failures[0].source == f"optimade://{provider.host}/db?nelements=2"
    with pytest.raises(ReadError, match="structure 5"):
        ask(provider, strict=True)


@pytest.mark.parametrize("trouble", [(503, b""), (429, b""), (0, b"")])
def test_a_busy_server_is_asked_again(provider: Provider, trouble: Answer) -> None:
    provider.answers = [None, trouble, trouble]
    assert len(ask(provider).crystals) == 7


def test_a_server_that_stays_busy_is_told(provider: Provider) -> None:
    provider.answers = [(503, b"")] * 9
    with pytest.raises(ReadError, match="it is refused by the provider: the server answered 503 Service Unavailable"):
        ask(provider)


def test_a_refusal_is_told_in_the_words_of_the_provider(provider: Provider) -> None:
    provider.answers = [(400, b'{"errors": [{"detail": "unknown property nelemnts"}]}')] * 2
    with pytest.raises(ReadError, match="answered 400 Bad Request: unknown property nelemnts"):
        ask(provider, "nelemnts=2")


def test_no_server_is_told(provider: Provider) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ReadError, match=rf"cannot read optimade://{host}\?x=1: it cannot be reached: .*refused"):
        read_crystals(f"optimade://{host}?x=1")


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"[1]", b'{"data": 5}', b"{}", b"[" * 100_000])
def test_what_is_no_provider_is_told(provider: Provider, body: bytes) -> None:
    provider.answers = [(200, body)]
    with pytest.raises(ReadError, match=r"it is no OPTIMADE server: .*give the base URL"):
        ask(provider)


def test_a_wrong_base_is_told(provider: Provider) -> None:
    with pytest.raises(ReadError, match=r"it is no OPTIMADE server: .*answered 404"):
        read_crystals(f"optimade://{provider.host}/other?nelements=2")


def test_nothing_that_fits_is_told(provider: Provider) -> None:
    provider.structures = []
    with pytest.raises(ReadError, match="it holds no structure that fits the filter 'nelements=2'"):
        ask(provider)


def test_more_than_the_limit_is_refused_before_it_is_fetched(provider: Provider) -> None:
    with query_limits(QueryLimits(max_records=6)), pytest.raises(ReadError, match=r"7 .*at most 6 .*\(max_records\)"):
        ask(provider)
    assert len(provider.asked) == 2


def test_a_server_that_hides_its_number_meets_the_limit(provider: Provider) -> None:
    provider.answers = [lambda page: {**page, "meta": {}}] * 3
    with query_limits(QueryLimits(max_records=4)), pytest.raises(ReadError, match=r"more structures came.*max_records"):
        ask(provider)
    assert len(provider.asked) == 3


def test_bytes_are_counted_over_all_pages(provider: Provider) -> None:
    with pytest.raises(ReadError, match=r"more than 3000 bytes \(max_bytes\)"):
        ask(provider, max_bytes=3000)
    assert len(provider.asked) > 2


def test_pages_without_an_end_meet_the_limit_of_time(provider: Provider) -> None:
    def endless(page: dict[str, Any]) -> dict[str, Any]:
        link = f"http://{provider.host}/db/v1/structures?page_offset=0&try={len(provider.asked)}"
        return {"data": [], "links": {"next": {"href": link}}, "meta": page["meta"]}

    provider.answers = [endless] * 100_000
    with query_limits(QueryLimits(max_seconds=0.5)), pytest.raises(ReadError, match=r"more than 0.5 s \(max_seconds\)"):
        ask(provider)


def test_pages_in_a_circle_are_told(provider: Provider) -> None:
    provider.answers = [lambda page: {**page, "links": {"next": provider.asked[1]}}] * 2
    with pytest.raises(ReadError, match="circle"):
        ask(provider)


@pytest.mark.parametrize("link", ["file:///etc/passwd", "http://example.invalid/x", "http://[", "/\ud800", 5])
def test_pages_of_another_server_are_not_followed(provider: Provider, link: Any) -> None:
    provider.answers = [lambda page: {**page, "links": {"next": link}}]
    # a number is an address on the same server, where nothing is
    with pytest.raises(ReadError, match=r"which is not on|is no OPTIMADE server"):
        ask(provider)


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirection_to_a_file_is_not_followed(provider: Provider, place: str) -> None:
    provider.answers = [(302, place.encode())] * 9
    with pytest.raises(ReadError, match=r"refused by the provider|cannot be reached"):
        ask(provider)


def test_pages_that_are_missing_are_told(provider: Provider) -> None:
    provider.answers = [lambda page: {**page, "links": {}}]
    result = ask(provider)
    assert len(result.crystals) == 3
    assert "there is no link to more than 3 structures" in result.failures[0].reason


def test_a_question_is_a_data_set(provider: Provider) -> None:
    found = load_dataset(f"optimade://{provider.host}/db?nelements=2", max_atoms=4)
    assert found.crystals.material_ids == [f"x/{i}" for i in range(7)]


def test_the_command_line_asks_with_its_limits(provider: Provider) -> None:
    words = ["info", f"optimade://{provider.host}/db?nelements=2"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0 and "_x_gap" in found.output
    refused = CliRunner().invoke(app, ["--limit", "max_records=2", *words])
    assert refused.exit_code != 0


def test_agents_ask_no_provider(tmp_path: Path) -> None:
    from cdvae_kit.cli.evaluate import evaluate

    with pytest.raises(ToolError, match="provider"):
        command_line(evaluate, {"generated": "optimade://example.org?x=1"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("optimade://example.org?nelements=2", Query("https://example.org/v1", "nelements=2")),
        ("optimade://example.org", Query("https://example.org/v1", "")),
        ("optimade://example.org/a/v1/structures?x=1", Query("https://example.org/a/v1", "x=1")),
        ("optimade://localhost:5000?x=1", Query("http://localhost:5000/v1", "x=1")),
        ("optimade://[::1]:5000?x=1", Query("http://[::1]:5000/v1", "x=1")),
        ("optimade://example.org?filter=x%3D%22a%22", Query("https://example.org/v1", 'x="a"')),
        ("optimade://localhost.example.org?x=1", Query("https://localhost.example.org/v1", "x=1")),
    ],
)
def test_names_stand_for_questions(name: str, query: Query) -> None:
    assert parse_query(name) == query


@pytest.mark.parametrize(
    "name", ["optimade://", "optimade://a b?x", "optimade://user@host?x", "optimade://host?filter=x&page_limit=9"]
)
def test_names_that_stand_for_none_are_refused(name: str) -> None:
    with pytest.raises(UnreadableSourceError):
        parse_query(name)
