"""Read-your-writes: a request waits until acknowledged events and records have taken effect.

The watermarks of the settings' group hold for every group, as they move with the effects. All
waiting requests share one task, which asks Redis once a round for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from prometheus_client import Gauge
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from models.background_tasks import end_tasks
from models.errors import TooManyWaiting, Unavailable
from models.tokens import Position, TopicKind, parse_token, short_incarnation

POLL_S = 0.002
"""Shortest pause between two reads of the watermarks."""

MOST_POLL_S = 0.05
"""Longest pause between two reads while requests wait."""

SHARE = 0.25
"""Pause between reads as a share of the newest request's wait so far."""

REST = 4.0
"""Shortest pause between reads as a multiple of the last read's duration."""

INCARNATIONS_AGE_S = 1.0
"""Age up to which known incarnations are used for a new request; then Kafka is asked again."""

ASK_EVERY_S = 0.1
"""Shortest time between two requests to Kafka, even for unknown incarnations."""

PATIENCE_S = 0.5
"""Wait for Kafka's answer before the last known incarnations are used."""

WAITING = Gauge("recommender_after_waiting", "Requests that wait for events to take effect")

LoadIncarnations = Callable[[], Awaitable[Mapping[TopicKind, str]]]
"""The incarnation of each topic, by kind: clicks, purchases, items and users."""

FieldOf = Callable[[TopicKind, str, int], str]
"""Names the watermark of a partition, by the kind and the incarnation of its topic."""

Watermarks = Callable[[Sequence[str]], Awaitable[list[int]]]
"""Offset up to which each partition field is in effect, everywhere; -1 without one."""


class Waiter:
    """A request that waits for messages to take effect."""

    def __init__(self, positions: Sequence[Position], since_s: float) -> None:
        self.positions = positions
        self.since_s = since_s
        self.reached: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class ReadYourWrites:
    """Waits for messages to take effect, by the store's watermarks.

    Parameters
    ----------
    watermarks
        Reads them.
    most
        Bound on the requests that wait at once; more are refused.
    field_of
        Names the watermarks.
    """

    def __init__(
        self,
        watermarks: Watermarks,
        load_incarnations: LoadIncarnations,
        *,
        most: int,
        field_of: FieldOf,
    ) -> None:
        self._watermarks = watermarks
        self._field_of = field_of
        self._most = most
        self._topics = _Topics(load_incarnations)
        self._waiters: dict[Waiter, None] = {}
        self._arrived = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    def read_from(self, watermarks: Watermarks, field_of: FieldOf) -> None:
        """Read the watermarks elsewhere from now on: the group has other shards."""
        self._watermarks, self._field_of = watermarks, field_of

    async def wait(self, token: str, *, wait_s: float, receive: Receive | None = None) -> bool:
        """Wait at most `wait_s` for the token's messages; True once they are in effect.

        False also for messages of an earlier incarnation of their topic.

        Parameters
        ----------
        receive
            Tells that the client has disconnected, which ends the wait.

        Raises
        ------
        InvalidToken
            The token is malformed.
        TooManyWaiting
            The bound on waiting requests is reached.
        ClientDisconnect
            The client has disconnected.
        """
        waiter = Waiter(parse_token(token), asyncio.get_running_loop().time())
        if len(self._waiters) >= self._most:
            raise TooManyWaiting(
                f"{self._most} requests wait for events to take effect: try again in a moment, "
                "or ask without ?after="
            )
        self._waiters[waiter] = None
        WAITING.set(len(self._waiters))
        self._arrived.set()
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll_while_waiting())
        gone = asyncio.ensure_future(_disconnected(receive)) if receive is not None else None
        watched: set[asyncio.Future[Any]] = {waiter.reached}
        if gone is not None:
            watched.add(gone)
        try:
            await asyncio.wait(watched, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._waiters[waiter]
            WAITING.set(len(self._waiters))
            if gone is not None:
                gone.cancel()
        if waiter.reached.done():
            return waiter.reached.result()
        if gone is not None and gone.done():
            gone.result()
            raise ClientDisconnect
        return False

    async def close(self) -> None:
        """Cancel the task that reads watermarks."""
        await end_tasks(self._poller, self._topics.asking)

    async def _poll_while_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiters:
            self._arrived.clear()
            started_s, waiters = loop.time(), list(self._waiters)
            try:
                await self._read_watermarks(waiters)
            except Exception as error:  # noqa: BLE001  the waiting requests raise it
                for waiter in waiters:
                    if not waiter.reached.done():
                        waiter.reached.set_exception(error)
            took_s = loop.time() - started_s
            least_s = min(MOST_POLL_S, max(POLL_S, REST * took_s))
            await asyncio.sleep(least_s)
            newest_s = loop.time() - max((one.since_s for one in self._waiters), default=0.0)
            more_s = min(MOST_POLL_S, SHARE * newest_s) - least_s
            if self._waiters and more_s > 0:
                # A new request ends the pause: most often its effects are there already.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(more_s):
                        await self._arrived.wait()

    async def _read_watermarks(self, waiters: Sequence[Waiter]) -> None:
        """Read the watermarks of all waiters at once, and settle those that are reached."""
        now_s = asyncio.get_running_loop().time()
        fields_of: dict[Waiter, list[str]] = {}
        for waiter in waiters:
            if waiter.reached.done():
                continue
            fields = self._topics.fields(waiter, now_s, self._field_of)
            if fields == []:
                waiter.reached.set_result(False)
            elif fields is not None:
                fields_of[waiter] = fields
        wanted = list({field for fields in fields_of.values() for field in fields})
        marks = dict(zip(wanted, await self._watermarks(wanted), strict=True))
        for waiter, fields in fields_of.items():
            is_reached = all(
                marks[field] >= position.offset
                for field, position in zip(fields, waiter.positions, strict=True)
            )
            if is_reached and not waiter.reached.done():
                waiter.reached.set_result(True)


class _Topics:
    """The topics' incarnations as last read, and the age of that."""

    def __init__(self, load: LoadIncarnations) -> None:
        self._load = load
        self._known: Mapping[TopicKind, str] = {}
        self._short: Mapping[TopicKind, str] = {}
        self._known_s = float("-inf")
        self._tried_s = float("-inf")
        self.asking: asyncio.Task[None] | None = None

    def fields(self, waiter: Waiter, now_s: float, field_of: FieldOf) -> list[str] | None:
        """Names of the watermarks of the waiter's messages.

        None while Kafka must be asked first; empty if a topic has a new incarnation.
        """
        is_known = all(
            not position.incarnation or position.incarnation == self._short.get(position.kind)
            for position in waiter.positions
        )
        if not is_known and self._known_s >= waiter.since_s:
            return []
        if not is_known or self._tried_s < waiter.since_s - INCARNATIONS_AGE_S:
            self._ask(now_s)
            if not is_known or now_s < waiter.since_s + PATIENCE_S:
                return None
        if not self._known:
            return None
        return [
            field_of(one.kind, self._known[one.kind], one.partition) for one in waiter.positions
        ]

    def _ask(self, now_s: float) -> None:
        is_asking = self.asking is not None and not self.asking.done()
        if not is_asking and now_s >= self._tried_s + ASK_EVERY_S:
            self.asking = asyncio.create_task(self._renew(now_s))

    async def _renew(self, now_s: float) -> None:
        try:
            known = await self._load()
        except Unavailable:
            pass  # the last known incarnations stand; /readyz reports Kafka
        else:
            self._known, self._known_s = known, now_s
            self._short = {kind: short_incarnation(one) for kind, one in known.items()}
        self._tried_s = now_s


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
