"""Read-your-writes: waiting until acknowledged events and records have taken effect.

The watermarks of the settings' group tell it of every group: they move with the effects. All who
wait share one watch: one task, which asks Redis once a round for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from prometheus_client import Gauge
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from models.errors import TooManyWaiting, Unavailable
from models.state.store import Store
from models.tokens import Position, TopicKind, parse_token, short_incarnation

POLL_S = 0.002
"""Shortest pause between two looks at the watermarks."""

MOST_POLL_S = 0.05
"""Longest pause between two looks, while somebody waits."""

SHARE = 0.25
"""Pause between looks, as a share of how long the newest to come has waited."""

REST = 4.0
"""Shortest pause between looks, in times of what the last one took."""

INCARNATIONS_AGE_S = 1.0
"""How old the knowledge of the topics may be when somebody comes; else Kafka is asked again."""

ASK_EVERY_S = 0.1
"""Shortest time between two questions to Kafka, whatever the tokens say."""

PATIENCE_S = 0.5
"""How long Kafka's answer is waited for before what was known last stands."""

WAITING = Gauge("recommender_after_waiting", "Requests that wait for events to take effect")

LoadIncarnations = Callable[[], Awaitable[Mapping[TopicKind, str]]]
"""The incarnation of each topic, by kind: clicks, purchases, items and users."""


class Waiter:
    """Somebody who waits for messages to take effect."""

    def __init__(self, positions: Sequence[Position], since_s: float) -> None:
        self.positions = positions
        self.since_s = since_s
        self.reached: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class ReadYourWrites:
    """Knows which messages are in effect, by the store's watermarks.

    Parameters
    ----------
    most
        Requests that may wait at once; more are refused.
    """

    def __init__(self, store: Store, load_incarnations: LoadIncarnations, *, most: int) -> None:
        self._store = store
        self._most = most
        self._topics = _Topics(load_incarnations)
        self._waiters: dict[Waiter, None] = {}
        self._arrived = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def wait(self, token: str, *, wait_s: float, receive: Receive | None = None) -> bool:
        """Whether the token's messages are in effect, waiting at most `wait_s` for it.

        False as well for messages of a topic that was made anew since.

        Parameters
        ----------
        receive
            Tells when the client has gone: the wait ends with it.

        Raises
        ------
        InvalidToken
            The token is malformed.
        TooManyWaiting
            As many wait already as may.
        ClientDisconnect
            The client has gone.
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
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look_while_needed())
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
        """End the watch."""
        for task in (self._watch, self._topics.asking):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def _look_while_needed(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiters:
            self._arrived.clear()
            started_s, waiters = loop.time(), list(self._waiters)
            try:
                await self._look(waiters)
            except Exception as error:  # noqa: BLE001  those who wait raise it
                for waiter in waiters:
                    if not waiter.reached.done():
                        waiter.reached.set_exception(error)
            took_s = loop.time() - started_s
            least_s = min(MOST_POLL_S, max(POLL_S, REST * took_s))
            await asyncio.sleep(least_s)
            newest_s = loop.time() - max((one.since_s for one in self._waiters), default=0.0)
            more_s = min(MOST_POLL_S, SHARE * newest_s) - least_s
            if self._waiters and more_s > 0:
                # Whoever comes is looked at soon: most often the effects are there already.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(more_s):
                        await self._arrived.wait()

    async def _look(self, waiters: Sequence[Waiter]) -> None:
        """One question to Redis for all of them; settles those of whom it tells."""
        now_s = asyncio.get_running_loop().time()
        judged: dict[Waiter, list[str]] = {}
        for waiter in waiters:
            if waiter.reached.done():
                continue
            fields = self._topics.fields(waiter, now_s)
            if fields == []:
                waiter.reached.set_result(False)
            elif fields is not None:
                judged[waiter] = fields
        wanted = list({field for fields in judged.values() for field in fields})
        marks = dict(zip(wanted, await self._store.watermarks(wanted), strict=True))
        for waiter, fields in judged.items():
            is_reached = all(
                marks[field] >= position.offset
                for field, position in zip(fields, waiter.positions, strict=True)
            )
            if is_reached and not waiter.reached.done():
                waiter.reached.set_result(True)


class _Topics:
    """What is known of the topics' incarnations, and how old that is."""

    def __init__(self, load: LoadIncarnations) -> None:
        self._load = load
        self._known: Mapping[TopicKind, str] = {}
        self._short: Mapping[TopicKind, str] = {}
        self._known_s = float("-inf")
        self._tried_s = float("-inf")
        self.asking: asyncio.Task[None] | None = None

    def fields(self, waiter: Waiter, now_s: float) -> list[str] | None:
        """The watermarks that tell of the waiter's messages.

        None while Kafka must be asked first; empty where a topic was made anew since.
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
        return [f"{self._known[one.kind]}/{one.partition}" for one in waiter.positions]

    def _ask(self, now_s: float) -> None:
        is_asking = self.asking is not None and not self.asking.done()
        if not is_asking and now_s >= self._tried_s + ASK_EVERY_S:
            self.asking = asyncio.create_task(self._renew(now_s))

    async def _renew(self, now_s: float) -> None:
        try:
            known = await self._load()
        except Unavailable:
            pass  # what was known last stands; /readyz tells of Kafka
        else:
            self._known, self._known_s = known, now_s
            self._short = {kind: short_incarnation(one) for kind, one in known.items()}
        self._tried_s = now_s


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
