"""A server in this process that stands for one of others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class StubServer:
    """Answers POST requests by `_meet`, each in a thread of its own; a context manager.

    Attributes
    ----------
    url
        Its address, on a free port.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self._meet))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _meet(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        raise NotImplementedError


def _handler_of(meet: Callable[[BaseHTTPRequestHandler], None]) -> type[BaseHTTPRequestHandler]:
    """A handler that hands each POST request to `meet`, and logs nothing."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            meet(self)

        def log_message(self, *_: object) -> None:
            """Log nothing: tests look at the recorded requests."""

    return Handler
