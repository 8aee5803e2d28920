"""The tracker as an event loop uses it: connected in the background, and shared by all calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from models.audit_entries import AuditEntry
from models.errors import Unavailable
from models.events import Erasure, PutEvents
from models.metadata_records import Properties, RecordKind
from models.settings import Settings
from streams.kafka.audit_log import AuditLog
from streams.kafka.topic_incarnations import TopicIncarnations
from streams.kafka.tracker import Tracker

FRESH_S = 5.0
"""Time for which calls fail at once with the reason of the last failed attempt to connect."""


class Publisher:
    """Sends to Kafka for the tasks of one event loop; Kafka may be away at the start.

    There is one attempt to connect at a time, for all calls. The first calls wait for its outcome;
    for `FRESH_S` after it has failed, calls fail at once for the same reason, while the next
    attempt runs in the background.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tracker: Tracker | None = None
        self._audit_log = AuditLog(settings)
        self._opening: asyncio.Task[None] | None = None
        self._failure: Unavailable | None = None
        self._failed_s = 0.0

    async def publish(self, message: PutEvents | Erasure) -> str:
        """Token of a parsed message, or of a user's erasure, once Kafka has acknowledged it.

        Raises
        ------
        Unavailable
            Kafka did not acknowledge it in time; `Overloaded` if too many bytes wait for that.
        """
        opened = await self._opened()
        if isinstance(message, Erasure):
            sent = opened.erase(message.erase, [message.user_id])
        else:
            sent = opened.put_parsed(message)
        return (await asyncio.wrap_future(sent)).token()

    async def put(
        self, kind: RecordKind, group: str, records: Sequence[tuple[str, Properties | None]]
    ) -> str:
        """Token of metadata records, once Kafka has acknowledged them; raises as `publish` does."""
        opened = await self._opened()
        send = opened.put_items if kind == "items" else opened.put_users
        return (await asyncio.wrap_future(send(group, records))).token()

    async def audit(self, entry: AuditEntry) -> None:
        """Write an entry of the audit log; raises `Unavailable` as `publish` does."""
        await asyncio.to_thread(self._audit_log.write, entry)

    async def incarnations(self) -> TopicIncarnations:
        """Current incarnation of each topic, by kind."""
        return await asyncio.wrap_future((await self._opened()).incarnations())

    async def missing(self) -> list[str]:
        """Reasons why nothing can be sent, in words; empty if Kafka answers."""
        try:
            await self._opened()
            await self.incarnations()
        except Unavailable as error:
            return [f"kafka: {error}"]
        return []

    def close(self) -> None:
        """Wait for calls under way, and disconnect; called after the event loop has ended."""
        self._audit_log.close()
        if self._tracker is not None:
            self._tracker.close()

    async def _opened(self) -> Tracker:
        if self._tracker is None:
            failure = self._failure if time.monotonic() - self._failed_s < FRESH_S else None
            if self._opening is None:
                self._opening = asyncio.create_task(self._open())
            if failure is not None:
                raise failure
            # A caller may be cancelled; the attempt goes on for the others.
            await asyncio.shield(self._opening)
        tracker, failure = self._tracker, self._failure
        if tracker is None:
            raise failure or Unavailable("Kafka is not connected: try again")
        return tracker

    async def _open(self) -> None:
        try:
            self._tracker = await asyncio.to_thread(Tracker, self._settings, block_s=0)
        except Unavailable as error:
            self._failure, self._failed_s = error, time.monotonic()
        finally:
            self._opening = None
