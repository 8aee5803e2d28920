"""An HTTP proxy that injects faults before or after a request has arrived.

It stands in front of anything that takes POST requests: this project's stub of PutEvents, its own
Amazon Personalize endpoint, or another.
"""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from tests.streams.forwarding.personalize_stub import break_off
from tests.streams.forwarding.stub_server import StubServer

Fault = Literal[
    "pass", "outage", "throttle", "stranger", "slow", "reset", "lose", "malformed", "cut"
]
"""Fault of a call.

`outage`, `throttle`, `stranger` (something on the way answers 400 with a page of its own) and
`reset` do not let the request through. After the request has arrived, `slow` answers later than
its caller waits, `lose` closes the connection, `malformed` answers something else than HTTP, and
`cut` answers half.
"""

LETS_THROUGH = frozenset({"pass", "slow", "lose", "malformed", "cut"})
TIMEOUT_S = 30.0


class Response(NamedTuple):
    """Answer of the upstream server."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FaultyProxy(StubServer):
    """The proxy; a context manager that listens at `url`.

    Attributes
    ----------
    fault
        Returns the fault of the next call; called once for each, one call after another.
    calls
        Number of calls by fault.
    slow_s
        Seconds that a slow answer takes.
    """

    def __init__(self, upstream: str, *, slow_s: float = 1.0) -> None:
        self.fault: Callable[[], Fault] = lambda: "pass"
        self.calls: Counter[Fault] = Counter()
        self.slow_s = slow_s
        self._upstream = urlsplit(upstream)
        super().__init__()

    @property
    def n_faults(self) -> int:
        """Number of calls with a fault."""
        return sum(self.calls.values()) - self.calls["pass"]

    def _meet(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            fault = self.fault()
            self.calls[fault] += 1
        response = self._sent(handler, body) if fault in LETS_THROUGH else None
        if fault == "slow":
            self._closed.wait(self.slow_s)
        if response is None or fault == "lose":
            self._refuse(handler, fault)
        elif fault == "malformed":
            handler.wfile.write(random.Random(len(body)).randbytes(200) + b"\r\n\r\n")
            handler.close_connection = True
        else:
            _answer(handler, response, is_cut=fault == "cut")

    def _refuse(self, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        if fault == "throttle":
            text = json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"})
            headers = [("x-amzn-ErrorType", "ThrottlingException")]
            _answer(handler, Response(429, headers, text.encode()))
        elif fault in {"outage", "stranger"}:
            status = 503 if fault == "outage" else 400
            _answer(handler, Response(status, [("Content-Type", "text/html")], b"<h1>Sorry</h1>"))
        else:
            break_off(handler)

    def _sent(self, handler: BaseHTTPRequestHandler, body: bytes) -> Response:
        """Answer of the upstream server to the unchanged request."""
        upstream = self._upstream
        connection = http.client.HTTPConnection(upstream.netloc, timeout=TIMEOUT_S)
        try:
            connection.putrequest("POST", upstream.path.rstrip("/") + handler.path, skip_host=True,
                                  skip_accept_encoding=True)  # fmt: skip
            for name, value in handler.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            hidden = {"connection", "content-length", "transfer-encoding"}
            headers = [pair for pair in answer.getheaders() if pair[0].lower() not in hidden]
            return Response(answer.status, headers, answer.read())
        finally:
            connection.close()


def _answer(handler: BaseHTTPRequestHandler, response: Response, *, is_cut: bool = False) -> None:
    handler.send_response_only(response.status)
    for name, value in response.headers:
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(response.body) + 100 * is_cut))
    handler.end_headers()
    try:
        handler.wfile.write(response.body)
    except OSError:
        # A slow answer comes after its caller has left.
        handler.close_connection = True
    if is_cut:
        break_off(handler)


def in_turn(*faults: Fault, then: Fault = "pass") -> Callable[[], Fault]:
    """These faults, one call each, and `then` for all later calls.

    >>> fault = in_turn("reset", "slow")
    >>> [fault() for _ in range(3)]
    ['reset', 'slow', 'pass']
    """
    left = list(faults)
    return lambda: left.pop(0) if left else then


def at_random(seed: int, share: float, *faults: Fault) -> Callable[[], Fault]:
    """One of these faults in a share of the calls, the same in every run."""
    chance = random.Random(seed)
    return lambda: chance.choice(faults) if chance.random() < share else "pass"
