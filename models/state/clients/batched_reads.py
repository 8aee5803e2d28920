"""Reads by many tasks: those of one step of the event loop are one MGET; others go in one piece.

The scripts of steps go on the same connection: the client's own way takes longer than many a step.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import hiredis
import redis.asyncio
import redis.exceptions

from models.state.channels import Listener, Unsubscribe
from models.state.clients.batched_requests import (
    TRIES,
    Answers,
    Command,
    CommandsRequest,
    MgetRequest,
    Request,
    SubscriptionRequest,
    UnsubscriptionRequest,
    Values,
    Wanted,
)
from models.state.clients.redis_errors import NotPrimary

LOG = logging.getLogger(__name__)


class MgetBatcher:
    """Batches the keys that tasks read in one step of the event loop into one MGET.

    Beside these it sends other reads, several in one piece. It owns one connection of the client's
    pool, and writes to its transport directly: the client's tasks, streams and timers take longer
    than the rest of a command. With a server that is away it behaves as the client does: a dead
    connection is renewed, a request is repeated once, and each try may take `socket_timeout`.

    Messages of subscribed channels come on the same connection, which version 3 of the protocol
    permits: in the order of the server's work, and with the bound on unread output that servers
    have for subscribers.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool) -> None:
        # Typed as Any, as the connection is: redis-py types them in part.
        self._pool: Any = pool
        self._timeout_s: float = pool.connection_kwargs["socket_timeout"]
        self._connection: Any = None
        self._link: _RawConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._wanted: Wanted = []
        self._held: list[Request] = []
        self._listeners: dict[bytes, Listener] = {}
        self._may_subscribe = True

    def subscribe(self, channel: str, listener: Listener) -> Unsubscribe:
        """Tell a listener of a channel, whenever there is a connection; one for each channel.

        It hears nothing from a server that does not permit it, or that speaks an older protocol.
        """
        name = channel.encode()
        self._listeners[name] = listener
        if self._link is not None:
            self._listen(self._link, name)

        def unsubscribe() -> None:
            if self._listeners.get(name) is listener:
                del self._listeners[name]
                if self._link is not None and self._may_subscribe:
                    self._link.send(UnsubscriptionRequest(name))

        return unsubscribe

    def renew(self, reason: Exception) -> None:
        """Take another connection: that at hand is to a server that will not do."""
        if self._link is not None:
            self._link.abort(reason)

    def _listen(self, link: _RawConnection, channel: bytes) -> None:
        if self._may_subscribe and link.takes_messages:
            link.send(SubscriptionRequest(channel, self._refused))

    def _refused(self, error: Exception) -> None:
        if self._may_subscribe:
            LOG.warning("changes are not heard, and lists are cached for cache_s: %s", error)
        self._may_subscribe = False
        if self._link is not None:
            # A refused command has one answer more than one that is not: begin anew.
            self._link.abort(error)

    def _heard(self, channel: bytes, message: bytes) -> None:
        listener = self._listeners.get(channel)
        if listener is not None:
            listener.heard(message)

    def get(self, keys: list[str]) -> asyncio.Future[Values]:
        """The values of `keys`, absent ones as None.

        Raises, when awaited, the client's errors of a server that is away.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Values] = loop.create_future()
        if not keys:
            future.set_result([])
            return future
        if not self._wanted:
            loop.call_soon(self._gather)
        self._wanted.append((keys, future))
        return future

    def run(self, *commands: Command) -> asyncio.Future[Answers]:
        """Answers of commands that are sent in one piece, in the types of the protocol.

        Raises, when awaited, what `get` raises; an error answer to any of them.
        """
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        if commands:
            self._send(CommandsRequest(commands, future))
        else:
            future.set_result([])
        return future

    def _gather(self) -> None:
        wanted, self._wanted = self._wanted, []
        self._send(MgetRequest(wanted))

    def _send(self, request: Request) -> None:
        if self._link is not None:
            self._link.send(request)
            return
        self._held.append(request)
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._renew()
        except TimeoutError:
            self._fail(redis.exceptions.TimeoutError(f"no connection within {self._timeout_s} s"))
        except asyncio.CancelledError:
            self._fail(redis.exceptions.ConnectionError("the client is ending"))
            raise
        except Exception as error:  # noqa: BLE001  handed to the waiting tasks
            self._fail(error)
        else:
            self._link = _RawConnection(self._connection, self._timeout_s, self._lost, self._heard)
            for channel in self._listeners:
                self._listen(self._link, channel)
            held, self._held = self._held, []
            for request in held:
                self._link.send(request)
        finally:
            self._connecting = None

    async def _renew(self) -> None:
        if self._connection is None:
            self._connection = self._pool.get_available_connection()
        await self._connection.disconnect(nowait=True)
        await self._pool.ensure_connection(self._connection)

    def _fail(self, error: Exception) -> None:
        held, self._held = self._held, []
        for request in held:
            request.fail(error)

    def _lost(self, requests: list[Request], error: Exception) -> None:
        self._link = None
        for listener in self._listeners.values():
            listener.lost()
        for request in requests:
            if request.tries < TRIES:
                self._send(request)
            else:
                request.fail(error)


class AnswerReader:
    """Answers to requests, out of what a connection receives; messages go to `heard`."""

    def __init__(
        self,
        parse_error: Callable[[str], Any],
        heard: Callable[[bytes, bytes], None] | None = None,
    ) -> None:
        self._reader = hiredis.Reader(replyError=parse_error)
        self._answers: Answers = []
        self._heard = heard

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        self._reader.feed(data)

    def hand_to(self, request: Request) -> bool:
        """Hand the next answers to a request, if all of them are there."""
        answers = self._answers
        while len(answers) < request.n_answers:
            answer = self._reader.gets()
            if answer is False:
                return False
            self._take(answer)
        self._answers = []
        error = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if error is None:
            request.answer(answers)
        else:
            request.fail(error)
        return True

    def hear(self) -> None:
        """Hand on messages that came while no request waits."""
        while (answer := self._reader.gets()) is not False:
            self._take(answer)

    def _take(self, answer: Any) -> None:  # noqa: ANN401  whatever the server sends
        if not isinstance(answer, hiredis.PushNotification):
            self._answers.append(answer)
        elif self._heard is not None and answer[0] == b"message":
            _, channel, message = answer
            self._heard(channel, message)


class _RawConnection(asyncio.Protocol):
    """A connection that the client has made, taken over from its streams.

    redis-py has no public access to the transport; asyncio permits to change its protocol.
    `on_lost` is called with the requests without an answer, and the error; `heard` with the channel
    and text of each message.
    """

    def __init__(
        self,
        connection: Any,  # noqa: ANN401  as above
        timeout_s: float,
        on_lost: Callable[[list[Request], Exception], None],
        heard: Callable[[bytes, bytes], None],
    ) -> None:
        # Of an older version, a connection with subscriptions takes no other commands.
        self.takes_messages = str(connection.protocol) == "3"
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001
        self._streams: Any = self._transport.get_protocol()
        self._transport.set_protocol(self)
        self._answers = AnswerReader(connection._parser.parse_error, heard)  # noqa: SLF001
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._sent: deque[tuple[Request, asyncio.TimerHandle]] = deque()
        self._loop = asyncio.get_running_loop()
        self._is_aborted = False
        self._error: Exception = redis.exceptions.ConnectionError("the server closed a connection")

    def send(self, request: Request) -> None:
        """Send a request; its answers come after those of all before."""
        request.tries += 1
        timer = self._loop.call_later(self._timeout_s, self._give_up)
        self._sent.append((request, timer))
        # To one that was reset, uvloop raises; the loss is reported in a moment, with this request.
        if not self._transport.is_closing():
            self._transport.write(request.packed)

    def data_received(self, data: bytes) -> None:
        """Hand complete answers to their requests."""
        self._answers.feed(data)
        while self._sent and not self._is_aborted:
            if not self._answers.hand_to(self._sent[0][0]):
                return
            _, timer = self._sent.popleft()
            timer.cancel()
        if not self._is_aborted:
            self._answers.hear()

    def abort(self, reason: Exception) -> None:
        """End the connection; requests without an answer are sent on another."""
        self._error = redis.exceptions.ConnectionError(f"the connection is given up: {reason}")
        self._is_aborted = True
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Report the loss to the streams, and to the commands under way."""
        self._streams.connection_lost(error)
        for _, timer in self._sent:
            timer.cancel()
        self._on_lost([request for request, _ in self._sent], self._error)

    def _give_up(self) -> None:
        # A late answer must not be taken for another's: nothing more is read from this connection.
        self._is_aborted = True
        self._error = redis.exceptions.TimeoutError(f"no answer within {self._timeout_s} s")
        self._transport.abort()


class BatchingClient(redis.asyncio.Redis):
    """A client with `reads`, the batcher that all its users share."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  those of redis-py
        super().__init__(*args, **options)
        self.reads = MgetBatcher(self.connection_pool)
        self.replica: Any = None

    async def execute_command(self, *words: Any, **options: Any) -> Any:  # noqa: ANN401  as there
        """Answer of one command; scripts by their SHA1 go on the connection of `reads`."""
        if words[0] != "EVALSHA":
            return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]
        try:
            (answer,) = await self.reads.run(words)
        except NotPrimary as error:
            self.reads.renew(error)
            raise
        return answer

    @property
    def shared_reads(self) -> Any:  # noqa: ANN401  `MgetBatcher` or what reads as it does
        """Batched reads of what all users share: at a replica, where there is one."""
        return self.reads if self.replica is None else self.replica

    async def found_keys(self, match: str, *, count: int = 1000) -> AsyncIterator[list[bytes]]:
        """Keys that match a pattern of Redis, some at a time; a key may come twice."""
        cursor = 0
        while True:
            cursor, keys = await self.scan(cursor, match=match, count=count)
            if keys:
                yield cast("list[bytes]", keys)  # it decodes nothing
            if not cursor:
                return

    async def server_of(self, key: str) -> dict[str, Any]:  # noqa: ARG002  on a cluster it says
        """Keyword arguments that send a command without keys to the server of this key: none."""
        return {}

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections, those to a replica included."""
        await super().aclose(close_connection_pool)
        if self.replica is not None:
            await self.replica.pool.disconnect()
