"""Connections to servers that hang up on one that takes its time, and short answers over them.

Whole files are `download`'s affair.
"""

from __future__ import annotations

import http.client
import logging
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

logger = logging.getLogger(__name__)

WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that another try a little later may not get."""

_CHUNK = 1 << 18


class BrokenConnectionError(OSError):
    """A connection that failed in a way that may pass."""


class AnswerError(OSError):
    """An answer that says no: its `status`, the beginning of its `body`, and in how many seconds to ask again."""

    def __init__(self, status: int, reason: str, body: bytes, retry_after: str = "") -> None:
        super().__init__(f"the server answered {status} {reason}".rstrip())
        self.status = status
        self.body = body
        self.retry_after = float(retry_after) if re.fullmatch("[0-9]{1,6}", retry_after) else None


class LimitMetError(OSError):
    """An answer that is longer, or takes longer, than it may: `limit` is "bytes" or "seconds"."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"there is a limit of {limit}")
        self.limit = limit


class Answer(NamedTuple):
    """What came, and the address that it came from after all redirections."""

    body: bytes
    url: str


class _PromptConnection(http.client.HTTPConnection):
    """Hangs up where the head of an answer takes longer than the time-out, a byte now and then."""

    def getresponse(self) -> http.client.HTTPResponse:
        timer = threading.Timer(self.timeout or 0.0, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


class _PromptSecureConnection(_PromptConnection, http.client.HTTPSConnection):
    pass


class _PromptHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PromptConnection, req)


class _PromptSecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PromptSecureConnection, req)


def _opener() -> urllib.request.OpenerDirector:
    # `build_opener` adds handlers of files and FTP, to which a server could redirect
    opener = urllib.request.OpenerDirector()
    for handler in (
        *(urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), urllib.request.HTTPDefaultErrorHandler()),
        *(urllib.request.HTTPRedirectHandler(), urllib.request.HTTPErrorProcessor()),
        *(_PromptHandler(), _PromptSecureHandler()),
    ):
        opener.add_handler(handler)
    return opener


OPENER = _opener()


def fetch(
    url: str,
    *,
    max_bytes: int,
    seconds: float,
    timeout: float = 30.0,
    retries: int = 4,
    backoff: float = 1.0,
    min_rate: float = 256.0,
) -> Answer:
    """The answer to a question, held in memory.

    Args:
        url: an http or https address.
        max_bytes: of the body.
        seconds: for all of it, other tries included.
        timeout: seconds without a byte, and for the head, after which a connection counts as broken.
        retries: how often a broken connection, or one that a busy server refuses, is tried again.
        backoff: seconds before the first of these tries, unless the server names them; each later one waits twice as
            long.
        min_rate: bytes a second; a connection that brings less during `timeout` counts as broken.

    Raises:
        AnswerError: the server says no.
        BrokenConnectionError: there is no server, or each try broke.
        LimitMetError: it is too long, or takes too long.
    """
    end = time.monotonic() + seconds
    for failure in range(retries + 1):
        pause = backoff * 2**failure
        try:
            return _fetch_once(url, max_bytes, end, timeout, min_rate)
        except AnswerError as error:
            if error.status not in WORTH_ANOTHER_TRY or failure == retries:
                raise
            pause = error.retry_after or pause
            problem: OSError = error
        except BrokenConnectionError as error:
            if time.monotonic() >= end:
                raise LimitMetError("seconds") from error
            if failure == retries:
                raise
            problem = error
        if time.monotonic() + pause >= end:
            raise LimitMetError("seconds") from problem
        logger.warning("%s: %s; trying again in %g s", url, problem, pause)
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _fetch_once(url: str, max_bytes: int, end: float, timeout: float, min_rate: float) -> Answer:
    left = end - time.monotonic()
    if left <= 0.0:
        raise LimitMetError("seconds")
    patience = min(timeout, left)
    headers = {"User-Agent": "cdvae_kit", "Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        response = OPENER.open(urllib.request.Request(url, headers=headers), timeout=patience)
    except urllib.error.HTTPError as error:
        with error:
            body = b""
            with suppress(OSError, http.client.HTTPException, ValueError):
                body = error.read1(_CHUNK)
            raise AnswerError(error.code, error.reason, body, error.headers.get("Retry-After", "")) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BrokenConnectionError(reason_of(error)) from error
    parts: list[bytes] = []
    num_bytes = 0
    with response:
        promised = response.length
        for chunk in chunks(response, timeout=patience, min_rate=min_rate):
            parts.append(chunk)
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise LimitMetError("bytes")
            if time.monotonic() >= end:
                raise LimitMetError("seconds")
        if promised is not None and num_bytes < promised:
            raise BrokenConnectionError(f"the connection ended after {num_bytes} of {promised} bytes")
        return Answer(b"".join(parts), response.url)


def chunks(response: http.client.HTTPResponse, *, timeout: float, min_rate: float) -> Iterator[bytes]:
    """The body piece by piece; only reading is guarded: a full disk is no broken connection.

    Args:
        response: an answer whose head has come.
        timeout: seconds over which the rate is taken.
        min_rate: bytes a second.

    Raises:
        BrokenConnectionError: the connection broke, or brings less than that.
    """
    since, received = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokenConnectionError(f"the connection broke: {reason_of(error)}") from error
        if not chunk:
            return
        received += len(chunk)
        yield chunk
        waited = time.monotonic() - since
        if waited >= timeout:
            if received < min_rate * waited:
                raise BrokenConnectionError(f"the server sent {received} bytes in {waited:.0f} s, too few to go on")
            since, received = time.monotonic(), 0


def reason_of(error: BaseException) -> str:
    """What a person wants to read of it."""
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__
