"""All API keys, as an API process holds them: at most a second old while it is asked."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from hmac import compare_digest

from api.access.callers import Caller
from api.access.request_limits import DAY_S, RequestLimit
from models.api_keys import ID_SLICE, KEY_LENGTH, PREFIX, ApiKey, digest
from models.log_throttle import LogThrottle
from models.state.clients.client import RedisClient
from models.state.groups import key_store

LOG = logging.getLogger(__name__)

FRESH_S = 1.0
"""Age up to which the keys are used without a question to Redis."""

STALE_S = 5.0
"""Age from which a request waits for them to be read again."""

WAIT_S = 1.0
"""Longest such wait; then Redis is away, and the last known keys stay in force."""

AGAIN_S = 0.1
"""Shortest time between two readings for a key that is not among those known."""


class KnownKey:
    """A key with what a request needs of it, made once."""

    __slots__ = ("caller", "digest", "expires_s", "key", "limit", "origins")

    def __init__(self, key: ApiKey, limit: RequestLimit | None) -> None:
        self.key = key
        self.digest = key.digest
        self.expires_s = key.expires_s or math.inf
        self.limit = limit
        self.origins = frozenset(origin.encode() for origin in key.origins)
        self.caller = Caller(
            key.parent or key.id, key.name, frozenset(key.roles), frozenset(key.groups)
        )


class KeyTable:
    """The keys by id; for all tasks of one event loop.

    A change takes effect within `FRESH_S` in a process that is asked, and before the first answer
    of one that was idle. While Redis is away, the keys that were known stay in force: nobody can
    revoke one then either. Unknown keys cost no memory, and few questions to Redis.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        now_s: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._now_s = now_s
        self._clock = clock
        self._known: dict[str, KnownKey] = {}
        self._verified: dict[bytes, KnownKey] = {}
        self._limits: dict[str, RequestLimit] = {}
        self._version: bytes | None = None
        self._read_s = self._tried_s = self._good_until_s = -math.inf
        self._is_away = False
        self._reading: asyncio.Task[None] | None = None
        self.origins: frozenset[bytes] = frozenset()

    @property
    def is_good(self) -> bool:
        """True if the keys can be used as they are."""
        return self._clock() < self._good_until_s

    @property
    def is_read(self) -> bool:
        """True if the keys were ever read."""
        return self._version is not None

    def find(self, text: bytes) -> KnownKey | None:
        """The key of this text; None if it is unknown or has expired."""
        # A table by the secret itself tells nothing by its time: Python's hash of bytes is keyed
        # at random, and only a text with the same 64 bits is compared at all.
        known = self._verified.get(text)
        if known is None:
            known = self._verify(text)
        return None if known is None or known.expires_s <= self._now_s() else known

    def get(self, key_id: str) -> KnownKey | None:
        """The key of an id; None if it is unknown."""
        return self._known.get(key_id)

    async def find_new(self, text: bytes) -> KnownKey | None:
        """As `find`, also of a key that was made since the keys were read."""
        known = self.find(text)
        if known is None:
            await self.read_again()
            known = self.find(text)
        return known

    def _verify(self, text: bytes) -> KnownKey | None:
        if len(text) != KEY_LENGTH or not text.startswith(PREFIX):
            return None
        known = self._known.get(text[ID_SLICE].decode("latin-1"))
        if known is None or not compare_digest(known.digest, digest(text)):
            return None
        # One entry for each key at most: only its one text gets here.
        self._verified[text] = known
        return known

    async def refresh(self) -> None:
        """Read the keys again; waits only where they are much too old."""
        reading = self._read_once()
        if self._clock() - self._read_s < STALE_S or self._is_away:
            # Others go on with what is known until it has been read.
            self._good_until_s = self._clock() + FRESH_S
            return
        done, _ = await asyncio.wait({reading}, timeout=WAIT_S)
        if not done:
            self._is_away = True

    async def read_again(self) -> None:
        """Read the keys for one that is not known: it may have been made just now.

        Questions to Redis stay `AGAIN_S` apart: those for wrong keys wait for each other.
        """
        if self._is_away:
            return
        if self._reading is not None:
            # It may have begun before the key was made.
            await asyncio.wait({self._reading}, timeout=WAIT_S)
        await asyncio.sleep(max(0.0, self._tried_s + AGAIN_S - self._clock()))
        await asyncio.wait({self._read_once()}, timeout=WAIT_S)

    def _read_once(self) -> asyncio.Task[None]:
        """The reading under way, or a new one: simultaneous requests share it."""
        if self._reading is None:
            self._tried_s = self._clock()
            self._reading = asyncio.create_task(self._read())
        return self._reading

    async def _read(self) -> None:
        began_s = self._clock()
        try:
            # The version first: where a change comes between, the next reading sees it.
            version = await key_store.keys_version(self._client)
            if version != self._version:
                self._replace(await key_store.stored_keys(self._client))
                self._version = version
            await self._count()
        except Exception as error:  # noqa: BLE001  what is known stays in force, and the log says why
            self._is_away = True
            if (n := _THROTTLE.suppressed("keys", began_s)) is not None:
                LOG.warning("API keys are not read again (%d times before): %r", n, error)
        else:
            self._is_away = False
            self._read_s = began_s
            self._good_until_s = began_s + FRESH_S
        finally:
            self._reading = None

    def _replace(self, keys: list[ApiKey]) -> None:
        by_id = {key.id: key for key in keys}
        limits: dict[str, RequestLimit] = {}
        known: dict[str, KnownKey] = {}
        for key in keys:
            # A session of a browser shares the limits of its key, and ends with it.
            owner = key if key.is_listed else by_id.get(key.parent)
            if owner is None:
                continue
            limit = limits.get(owner.id) or self._limits.get(owner.id)
            if limit is None or not limit.is_of(owner):
                limit = RequestLimit(owner, now_s=self._clock())
            if limit.limits:
                limits[owner.id] = limit
            known[key.id] = KnownKey(key, limit if limit.limits else None)
        self._limits, self._known, self._verified = limits, known, {}
        self.origins = frozenset(origin for one in known.values() for origin in one.origins)

    async def _count(self) -> None:
        """Exchange the requests of keys with a daily quota with the other processes."""
        day = int(self._now_s() // DAY_S)
        counted: Mapping[str, int] = {
            key_id: limit.take_unsent(day)
            for key_id, limit in self._limits.items()
            if limit.has_quota
        }
        if counted:
            try:
                totals = await key_store.count_requests(self._client, counted, day=day)
            except BaseException:
                for key_id, n in counted.items():
                    self._limits[key_id].give_back(day, n)
                raise
            for key_id, total in totals.items():
                self._limits[key_id].set_used(day, total)


_THROTTLE = LogThrottle(10.0)
