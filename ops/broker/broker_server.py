"""The broker as a server: connections on loopback, each answered in the order of its requests."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import struct
import time
import uuid
from base64 import urlsafe_b64encode
from collections import deque
from pathlib import Path
from typing import Any, cast

import uvloop
from kafka.protocol.metadata import ApiVersionsRequest

from ops.broker.group_coordinator import GroupCoordinator
from ops.broker.message_requests import MessageRequests
from ops.broker.request_kinds import VERSIONS, RequestKinds
from ops.broker.topic_catalog import TopicCatalog

MAX_REQUEST_BYTES = 100 * 1024 * 1024
"""Largest request, as Apache Kafka's default; a larger one ends its connection."""

MAX_WAITING_REQUESTS = 100
"""Requests of a connection that wait for an answer before more are read."""

EXPIRE_S, RETENTION_S = 0.25, 60.0
"""Pauses between looks at sessions of members, and at messages that are too old."""

LOG = logging.getLogger(__name__)

_SIZE = struct.Struct(">i")
_HEAD = struct.Struct(">hhi")


class ClientConnection(asyncio.Protocol):
    """A client's connection.

    Parameters
    ----------
    kinds
        Who answers.
    """

    def __init__(self, kinds: RequestKinds) -> None:
        self._kinds = kinds
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._requests: deque[memoryview] = deque()
        self._waits: asyncio.Future[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        """Give up a request that waits."""
        self._transport = None
        self._requests.clear()
        if self._waits is not None:
            self._waits.cancel()

    def data_received(self, data: bytes) -> None:
        """Take whole requests out of what has arrived, and answer them."""
        self._buffer += data
        buffer, at = self._buffer, 0
        while len(buffer) - at >= _SIZE.size:
            (size,) = _SIZE.unpack_from(buffer, at)
            if not _HEAD.size <= size <= MAX_REQUEST_BYTES:
                self._abort(f"a request of {size} bytes")
                return
            if len(buffer) - at - _SIZE.size < size:
                break
            at += _SIZE.size
            self._requests.append(memoryview(bytes(buffer[at : at + size])))
            at += size
        if at:
            del buffer[:at]
        if self._transport is not None and len(self._requests) > MAX_WAITING_REQUESTS:
            self._transport.pause_reading()
        self._answer_all()

    def _answer_all(self) -> None:
        """Answer requests up to one that waits."""
        while self._requests and self._waits is None and self._transport is not None:
            frame = self._requests.popleft()
            key, version, correlation_id = _HEAD.unpack_from(frame)
            try:
                self._answer(frame, key, version, correlation_id)
            except Exception:
                # A client that sends what cannot be read must not end the broker.
                LOG.exception("request of kind %d, version %d", key, version)
                self._abort("a request that could not be answered")
        if (
            self._transport is not None
            and len(self._requests) <= MAX_WAITING_REQUESTS
            and not self._transport.is_reading()
        ):
            self._transport.resume_reading()

    def _answer(self, frame: memoryview, key: int, version: int, correlation_id: int) -> None:
        api = VERSIONS.get(key)
        if api is None or not api.oldest <= version <= api.newest:
            if key != ApiVersionsRequest.API_KEY:
                self._abort(f"a request of kind {key}, version {version}, which is not answered")
                return
            answer = self._kinds.unsupported_versions()
        else:
            request = api.request[version].decode(frame, header=True)
            answer = self._kinds.answer(key, version, request)
        if isinstance(answer, asyncio.Future):
            self._waits = answer
            answer.add_done_callback(lambda done: self._finish(done, correlation_id))
        elif answer is not None:
            self._send(answer, correlation_id)

    def _finish(self, done: asyncio.Future[Any], correlation_id: int) -> None:
        self._waits = None
        if done.cancelled() or self._transport is None:
            return
        try:
            self._send(done.result(), correlation_id)
        except Exception:
            LOG.exception("an answer that had to wait")
            self._abort("a request that could not be answered")
        self._answer_all()

    def _send(self, answer: Any, correlation_id: int) -> None:  # noqa: ANN401  kafka-python's
        if self._transport is not None:
            answer.with_header(correlation_id=correlation_id)
            self._transport.write(answer.encode(header=True, framed=True))

    def _abort(self, what: str) -> None:
        LOG.warning("a connection ends: %s", what)
        if self._transport is not None:
            self._transport.abort()


async def serve(
    folder: Path, host: str, port: int, proxied_port: int = 0, advertised_port: int = 0
) -> None:
    """Serve until SIGINT or SIGTERM.

    Parameters
    ----------
    folder
        Where messages are kept, in files without a name.
    host, port
        Where to listen, and what clients are told.
    proxied_port, advertised_port
        Where to listen as well, and what clients who come there are told: the port of a proxy.
    """
    catalog, groups = TopicCatalog(folder), GroupCoordinator()
    messages = MessageRequests(catalog)
    # As Apache Kafka's: 22 characters.
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    advertised = {port: port, **({proxied_port: advertised_port} if proxied_port else {})}
    loop, ends = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ends.set)
    servers = []
    for own, told in advertised.items():
        kinds = RequestKinds(
            catalog, groups, cluster_id=cluster_id, messages=messages, host=host, port=told
        )
        connection = functools.partial(ClientConnection, kinds)
        servers.append(await loop.create_server(connection, host, own))
        LOG.info("listens on %s:%d", host, own)
    swept_s = time.monotonic()
    while not ends.is_set():
        groups.expire()
        if time.monotonic() - swept_s > RETENTION_S:
            swept_s = time.monotonic()
            catalog.drop_old(round(1000 * time.time()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXPIRE_S):
                await ends.wait()
    for server in servers:
        server.close()


def run(
    folder: Path, host: str, port: int, proxied_port: int = 0, advertised_port: int = 0
) -> None:
    """Serve in this process until a signal; see `serve`."""
    uvloop.run(serve(folder, host, port, proxied_port, advertised_port))
