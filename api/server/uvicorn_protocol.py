"""The protocol of the HTTP server: uvicorn's with limits on heads, connections, and time.

uvicorn buffers an incomplete head without bound, and waits for ever for the rest of a head or body.
No ASGI server has all the limits that are needed here (docs/decisions/0014-http-limits.md), so this
protocol adds them to uvicorn's, with coalesced writes (docs/decisions/0020-uvicorn-protocol.md) and
refusals that cost little while too much comes (docs/decisions/0039-falling-bounds.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.server.admission import Gate
from api.server.coalesced_writes import CoalescedWrites
from api.server.connections import Connections
from api.server.origins import names_same_host
from api.server.refusals import CLOSES, REFUSED, Refusal, too_many_connections
from api.server.request_metrics import count_request

LOG = logging.getLogger(__name__)

STEP_BYTES = 2048
"""Bytes parsed at a time: a broken bound is noticed at most this many bytes late."""

DRAINED_BYTES = 16 * 1024 * 1024
"""Bound on the bytes of a body that are dropped after its request has been answered."""

LINGER_BYTES = 256 * 1024
"""Bound on the bytes dropped after a refusal; most clients read it only after sending."""

LINGER_S = 2.0
"""Time limit for a client to close a connection that is closed here."""


REASONS_BY_STATUS = {408: "slow", 414: "head", 431: "head"}


ENDLESS = "recommender.endless"
"""Member of the state of a request whose answer goes on until the client leaves."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a `CoalescedWrites` transport, with limits.

    A client that breaks a limit gets one error answer, after the answers to its earlier requests;
    then nothing more is parsed, and the connection ends.
    """

    def __init__(
        self,
        pool: Connections,
        gates: Mapping[tuple[str, str], Gate],
        **options: Any,  # noqa: ANN401  uvicorn's
    ) -> None:
        super().__init__(**options)
        self._pool = pool
        self._gates = gates
        self._settings = pool.settings
        # Of the message that is being read.
        self._is_in_head = self._is_in_body = False
        self._step_bytes = 0
        self._framing_bytes = 0
        self._body_bytes = 0
        self._field_bytes = 0
        self._n_fields = 0
        self._host: bytes | None = None
        # Of the connection.
        self._since_s = self.loop.time()
        self._paused_s = 0.0
        self._ending_s: float | None = None
        self._is_ignoring_input = False
        self._refusal: Refusal | None = None
        self._held = b""
        self._dropped_bytes = 0
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  asyncio types it in part
        """Begin to serve a connection."""
        coalesced: Any = CoalescedWrites(transport, self.loop)
        super().connection_made(coalesced)
        self.flow = _Flow(coalesced, self)
        self._pool.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the requests under way that the client has disconnected."""
        self._pool.closed(self)
        super().connection_lost(exc)
        self._held = b""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            # uvicorn notifies the latest request only, which may still wait behind this one.
            self._running.disconnected = True
            self._running.message_event.set()

    def shutdown(self) -> None:
        """End the connection after the answer under way, and at once if that has no end."""
        super().shutdown()
        if self._running is not None and self._running.scope["state"].get(ENDLESS):
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse received data, or drop it after a refusal."""
        if self._is_ignoring_input:
            self._drop(len(data), LINGER_BYTES)
        elif self._held:
            self._hold(self._held + data)
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if len(data) <= STEP_BYTES:
            self._parse(data)
            return
        view = memoryview(data)
        for at in range(0, len(data), STEP_BYTES):
            if self.pipeline:
                self._hold(data[at:])
                return
            if not self._parse(view[at : at + STEP_BYTES]):
                self._drop(len(data) - at, LINGER_BYTES)
                return

    def _hold(self, data: bytes) -> None:
        """Keep pipelined requests until those before them are answered."""
        self._held = data
        self.flow.pause_reading()

    @property
    def holds(self) -> bool:
        """True if received data has not been parsed yet."""
        return bool(self._held)

    def _parse(self, data: bytes | memoryview) -> bool:
        """Parse data; False if nothing more is to be parsed."""
        self._step_bytes = len(data)
        self._framing_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Only HTTP/1.1 is supported: data of another protocol is not read.
            self._is_ignoring_input = True
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return False
        except httptools.HttpParserError as error:
            LOG.debug("not HTTP: %s", error)
            self._refuse(self._refusal or Refusal(400, "invalid_request", "this is not HTTP/1.1"))
            return False
        most = self._settings.max_head_bytes + 2 * STEP_BYTES
        if self._framing_bytes > most + self._body_bytes:
            self._refuse(
                Refusal(400, "invalid_request", "more bytes frame the body than are in it")
                if self._is_in_body
                else self._too_large()
            )
            return False
        return not self._is_ignoring_input

    def on_message_begin(self) -> None:
        """Callback at the first byte of a request."""
        super().on_message_begin()
        self._is_in_head, self._is_in_body = True, False
        self._framing_bytes = self._step_bytes
        self._body_bytes = self._field_bytes = self._n_fields = 0
        self._host = None
        self._dropped_bytes = 0
        self._since_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Callback for a part of the target."""
        super().on_url(url)
        self._field_bytes += len(url)
        if len(self.url) > self._settings.max_target_bytes:
            most = self._settings.max_target_bytes
            self._stop_parsing(
                Refusal(414, "target_too_long", f"a path and query may have {most} bytes")
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Callback for a header, or for a trailer, which is ignored."""
        self._n_fields += 1
        self._field_bytes += len(name) + len(value) + 4
        if (
            self._n_fields > self._settings.max_headers
            or self._field_bytes > self._settings.max_head_bytes
        ):
            self._stop_parsing(self._too_large())
        if self._is_in_body:
            return
        super().on_header(name, value)
        if self.headers[-1][0] == b"host":
            if self._host is not None:
                self._stop_parsing(Refusal(400, "invalid_request", "there is more than one Host"))
            self._host = self.headers[-1][1]

    def on_headers_complete(self) -> None:
        """Callback after the last header."""
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._stop_parsing(Refusal(505, "invalid_request", "only HTTP/1.1 is supported"))
        if self._host is None and version == "1.1":
            self._stop_parsing(Refusal(400, "invalid_request", "there is no Host"))
        if not names_same_host(self.url, self._host):
            self._stop_parsing(Refusal(400, "invalid_request", "target and Host name two hosts"))
        super().on_headers_complete()
        self._is_in_head, self._is_in_body = False, True
        if not self.cycle.response_complete:
            self._pool.busy(self)

    def on_body(self, body: bytes) -> None:
        """Callback for a part of the body."""
        self._body_bytes += len(body)
        self._framing_bytes -= len(body)
        super().on_body(body)
        if self.cycle.response_complete:
            self._drop(len(body), DRAINED_BYTES)

    def on_message_complete(self) -> None:
        """Callback at the end of a request."""
        super().on_message_complete()
        self._is_in_body = False
        self._since_s = self.loop.time()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        self._running = cycle
        scope = cycle.scope
        gate = self._gates.get((scope["method"], scope["path"]))
        # Of pipelined requests the application refuses; pages read CORS headers, which it knows.
        if gate is not None and not self.pipeline and not _has_origin(cycle.scope["headers"]):
            overload = gate.announce(self.loop)
            if overload is not None:
                self._refuse_early(cycle, Refusal(429, "overloaded", str(overload)))
                return
        super()._start_asgi_task(cycle, app)

    def _refuse_early(self, cycle: RequestResponseCycle, refusal: Refusal) -> None:
        """Answer a request before the application sees it; its body is dropped."""
        started = time.perf_counter()
        headers = [*cycle.default_headers, *([] if cycle.keep_alive else [CLOSES])]
        self.transport.write(refusal.to_http(headers))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
        count_request(cycle.scope["path"], refusal.status, started=started)

    def on_response_complete(self) -> None:
        """Callback after an answer: go on with the next request."""
        super().on_response_complete()
        self._since_s = self.loop.time()
        if self.transport.is_closing():
            return
        if self._held and not self.pipeline:
            held, self._held = self._held, b""
            self._feed(held)
            if not self.pipeline:
                self.flow.resume_reading()
        if self._is_busy:
            return
        self._pool.idle(self)
        if self._refusal is not None:
            self._answer_refusal()
        elif self._is_in_body and self.expect_100_continue and not self._body_bytes:
            self._end()  # the client may still send the body or not

    @property
    def _is_busy(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def pause_writing(self) -> None:
        """Callback when the client does not read."""
        self._paused_s = self.loop.time()
        super().pause_writing()

    def close_waiting(self) -> None:
        """Close; called while no request is under way."""
        if self._is_in_head:
            self.abort()
        else:
            self.transport.close()

    def refuse_requests(self) -> None:
        """Answer every request with 503."""
        self.app = too_many_connections

    def abort(self) -> None:
        """End at once."""
        self._is_ignoring_input = True
        self.transport.abort()

    def check(self, now_s: float) -> None:
        """End the connection if a time limit has passed."""
        if self.flow.write_paused:
            if now_s - self._paused_s > self._settings.write_timeout_s:
                REFUSED.labels("unread").inc()
                self.abort()
        elif self._ending_s is not None or self.transport.is_closing():
            self._ending_s = self._ending_s or now_s
            is_sending = self.transport.get_write_buffer_size() > 0
            most_s = self._settings.write_timeout_s if is_sending else LINGER_S
            if now_s - self._ending_s > most_s:
                self.abort()
        elif not self._is_busy:
            # The application limits the time of requests under way.
            self._check_silence(now_s - self._since_s)

    def _check_silence(self, waited_s: float) -> None:
        settings = self._settings
        if self._is_in_head:
            if waited_s > settings.head_timeout_s:
                text = f"the head did not arrive within {settings.head_timeout_s:g} s"
                self._refuse(Refusal(408, "timeout", text))
        elif self._is_in_body:
            # The request is answered already, and its body is dropped.
            if waited_s > settings.body_timeout_s:
                self._end()
        elif waited_s > (settings.keep_alive_s if self.cycle else settings.head_timeout_s):
            self.transport.close()

    def _too_large(self) -> Refusal:
        bytes_, fields = self._settings.max_head_bytes, self._settings.max_headers
        text = f"a head may have {bytes_} bytes and {fields} headers"
        return Refusal(431, "headers_too_large", text)

    def _stop_parsing(self, refusal: Refusal) -> None:
        """Stop the parser, from one of its callbacks."""
        self._refusal = refusal
        raise ValueError(refusal.message)

    def _refuse(self, refusal: Refusal) -> None:
        """Stop parsing, and send the refusal in the order of the requests."""
        REFUSED.labels(REASONS_BY_STATUS.get(refusal.status, "malformed")).inc()
        self._refusal, self._is_ignoring_input, self._held = refusal, True, b""
        running = self._running
        if self._is_in_body and self.pipeline:
            self.pipeline.popleft()  # the newest: it will not get the rest of its body
        elif self._is_in_body and running is not None and not running.response_complete:
            if running.response_started:
                self.abort()
                return
            # The refusal is its answer.
            running.disconnected = running.response_complete = True
            running.message_event.set()
        if not self._is_busy:
            self._answer_refusal()

    def _answer_refusal(self) -> None:
        if self._refusal is not None and not self.transport.is_closing():
            self.transport.write(self._refusal.to_http([CLOSES]))
            self._end()

    def _end(self) -> None:
        """Close the sending side, and wait for the client to close too; see `check`."""
        self._is_ignoring_input = True
        self._unset_keepalive_if_required()
        if self._ending_s is None:
            self._ending_s = self.loop.time()
            self.flow.resume_reading()
            with contextlib.suppress(OSError):  # the client closed first
                self.transport.write_eof()
            if not self.transport.can_write_eof():  # TLS has no half-closed connections
                self.transport.close()

    def _drop(self, n_bytes: int, most: int) -> None:
        self._dropped_bytes += n_bytes
        if self._dropped_bytes > most:
            self.abort()


class _Flow(FlowControl):
    """uvicorn's flow control, which reads on only once all received data is parsed."""

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        """Read on, unless pipelined requests wait."""
        if not self._protocol.holds:
            super().resume_reading()


def _has_origin(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"origin" for name, _ in headers)
