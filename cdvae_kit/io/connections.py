"""Connections to servers that hang up on one that takes its time; what is fetched over them is `download`'s affair."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that another try a little later may not get."""

_CHUNK = 1 << 18


class BrokenConnectionError(OSError):
    """A connection that failed in a way that may pass."""


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


OPENER = urllib.request.build_opener(_PromptHandler, _PromptSecureHandler)


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
