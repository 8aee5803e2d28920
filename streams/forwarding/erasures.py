"""Erased users as the forwarder knows them: from the store, and from the log it reads.

A worker applies an erasure and leaves a tombstone in the store. Where no worker runs, or Redis is
away, the erasures that the forwarder itself has read still count.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict

from models.events import Erasure, Event, PutEvents
from models.settings import Settings
from models.state.clients.client import RedisClient
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.groups.group_registry import former_group, registered_group
from models.state.store import Store

MAX_READ = 100_000
"""Most erasures from the log that are kept; the oldest go first. About 100 bytes each."""


class KnownErasures:
    """Times of users' erasures; one for each forwarder.

    Parameters
    ----------
    client
        Redis, which has the tombstones.

    Attributes
    ----------
    n_noted
        Number of erasures that were read from the log so far.
    """

    def __init__(self, settings: Settings, client: RedisClient) -> None:
        self._settings, self._client = settings, client
        self._read: OrderedDict[bytes, int] = OrderedDict()
        self.n_noted = 0
        self._groups: dict[str, str] = {settings.tracking_id: settings.group}

    def note(self, erasure: Erasure) -> None:
        """Keep an erasure that was read from the log."""
        self.n_noted += 1
        # As in apply_group.lua: a session with the user's id as its name is the user's.
        for owner in (f"u:{erasure.user_id}", f"s:{erasure.user_id}"):
            key = _digest(erasure.erase, owner)
            self._read[key] = max(_floor_ms(erasure.accepted_at), self._read.pop(key, 0))
        while len(self._read) > MAX_READ:
            self._read.popitem(last=False)

    async def until_ms(self, put: PutEvents, *, now_s: float) -> tuple[int, Exception | None]:
        """Time of the last erasure of a message's owner, in ms; 0 for none.

        With the error if Redis did not answer: then only erasures from the log are considered.
        """
        tracker = put.tracking_id or self._settings.tracking_id
        owners = [_owner(put)]
        found, error = 0, None
        try:
            group = await self._group_of(tracker)
            if group is None:
                return 0, None
            store = Store(self._client, self._settings.model_copy(update={"group": group}))
            if not put.user_id:
                user = await store.linked_user(put.session_id, now_s=now_s)
                owners += [f"u:{user}"] if user else []
            found = max(_floor_ms(until_s) for until_s in await store.erased_until(owners))
        except AWAY_ERRORS as away:
            group, error = self._groups.get(tracker, ""), away
        return max(found, *(self._read.get(_digest(group, one), 0) for one in owners)), error

    def read_until_ms(self, put: PutEvents) -> int:
        """The same from the log alone, without waiting."""
        group = self._groups.get(put.tracking_id or self._settings.tracking_id, "")
        return self._read.get(_digest(group, _owner(put)), 0)

    async def _group_of(self, tracker: str) -> str | None:
        if tracker == self._settings.tracking_id:
            return self._settings.group
        group = await registered_group(self._client, tracker)
        if group is None:
            # Events from before its removal are forwarded, and erasures hold for them.
            former = await former_group(self._client, tracker)
            group = former[0] if former else None
        if group is not None:
            self._groups[tracker] = group
        return group


def is_before(event: Event, put: PutEvents, until_ms: int) -> bool:
    """True if an event precedes its owner's erasure, by the rule of apply_group.lua."""
    return _floor_ms(min(event.sent_at, put.accepted_at or event.sent_at)) <= until_ms


def _owner(put: PutEvents) -> str:
    return f"u:{put.user_id}" if put.user_id else f"s:{put.session_id}"


def _floor_ms(at_s: float) -> int:
    return math.floor(at_s * 1000)


def _digest(group: str, owner: str) -> bytes:
    text = f"{group}/{owner}".encode(errors="surrogatepass")
    return hashlib.blake2b(text, digest_size=12).digest()
