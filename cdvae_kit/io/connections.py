"""Connections to servers that hang up on one that takes its time; what is fetched over them is `download`'s affair."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.request
from contextlib import suppress


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
