"""The convenient way to send events and metadata: validated, in order, acknowledged.

Any Kafka client may produce to the event topics; this one adds the schema, the split by topic and
a receipt. An acknowledged event is on every in-sync replica.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import msgspec

from models.errors import InvalidEvent, require_one_shard
from models.events import Event, PutEvents, parse
from models.metadata_records import Properties
from models.servers.running_servers import located
from models.settings import Settings
from models.tokens import Receipt
from streams.kafka.producing.produced_messages import (
    erasure_messages,
    event_messages,
    record_messages,
)
from streams.kafka.producing.receipt_producer import ReceiptProducer
from streams.kafka.topics import Topics


class Tracker:
    """Sends events and metadata to their topics; safe to use from many threads.

    Every sending call returns a `concurrent.futures.Future` of a `Receipt`. It is done when Kafka
    has acknowledged all of the call's events, or has `Unavailable` as its exception: by
    `settings.publish_timeout_s` and little more. After a failure an event may still arrive; sending
    it again with the same eventId takes effect once. `MessageRefused` instead says that Kafka never
    accepts it, for a topic takes only shorter messages. From asyncio: `asyncio.wrap_future`.

    Parameters
    ----------
    settings
        `kafka` names the servers. By default those of the environment; where that names none, those
        of the `recommender up` or `demo` that runs in this folder.
    linger_ms
        How long a message may wait for others to share a request; more is faster in bulk.
    block_s
        How long a call may wait while `settings.publish_buffer_bytes` are under way before it
        ends with `Overloaded`; `settings.publish_timeout_s` by default. Use 0 on an event loop.
    now_s
        The clock that stamps `acceptedAt` and a missing `sentAt`.

    Raises
    ------
    Unavailable
        From the constructor, when Kafka does not answer in time or lacks the event topics.

    Examples
    --------
    In the folder of a running `recommender up`::

        with Tracker() as tracker:
            tracker.track("u7", "s42", "i9", "click").result().token()  # 'c0-0'
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        linger_ms: int = 0,
        block_s: float | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        if settings is None:
            settings = located(Settings(), needs_redis=False)
        self._settings = settings
        self._topics = Topics.of(settings)
        self._now_s = now_s
        # Seeded by the system once: asking it for every event costs more than the event.
        self._random = random.Random()
        self._producer = ReceiptProducer(
            settings,
            linger_ms=linger_ms,
            block_s=settings.publish_timeout_s if block_s is None else block_s,
        )

    def track(
        self,
        user_id: str | None,
        session_id: str,
        item_id: str | None,
        event_type: str,
        *,
        event_id: str | None = None,
        sent_at: float | None = None,
        value: float | None = None,
        properties: Mapping[str, Any] | None = None,
        impression: Sequence[str] | None = None,
        recommendation_id: str | None = None,
    ) -> Future[Receipt]:
        """The future receipt of one event; see `Tracker` for how it ends.

        Parameters
        ----------
        event_id
            Two events with one id are one event; a new id by default.
        sent_at
            Time of the event in seconds since the epoch; now by default.

        Raises
        ------
        InvalidEvent
            At once, naming the member that breaks the schema.
        """
        event = Event(
            event_type=event_type,
            sent_at=self._now_s() if sent_at is None else sent_at,
            event_id=f"{self._random.getrandbits(128):032x}" if event_id is None else event_id,
            item_id=item_id,
            event_value=value,
            impression=None if impression is None else list(impression),
            recommendation_id=recommendation_id,
            properties=None if properties is None else dict(properties),
        )
        return self.put_events(PutEvents(session_id, [event], user_id=user_id))

    def put_events(self, message: PutEvents | Mapping[str, Any] | bytes) -> Future[Receipt]:
        """The future receipt of one to ten events of a session; see `Tracker` for how it ends.

        Purchases and the rest go to topics of their own, each keyed by the session, so that each
        stays in order. A missing `trackingId` is the settings'; `acceptedAt` is now.

        Raises
        ------
        InvalidEvent
            At once, naming the member that breaks the schema.
        """
        raw = message if isinstance(message, bytes) else _as_json(message)
        limit_s = self._settings.future_limit_s
        return self.put_parsed(parse(raw, now_s=self._now_s(), future_limit_s=limit_s))

    def put_parsed(self, message: PutEvents) -> Future[Receipt]:
        """The future receipt of a message that `models.events.parse` returned; as `put_events`.

        It is encoded once, and not validated again.

        Raises
        ------
        InvalidEvent
            At once, when it is too long.
        """
        messages = event_messages(message, self._settings, at_s=self._now_s())
        return self._producer.deliver(messages)

    def put_items(
        self,
        group: str,
        records: Iterable[tuple[str, Properties | None]],
        *,
        imported_by: str = "",
    ) -> Future[Receipt]:
        """The future receipt of items' metadata; see `Tracker` for how it ends.

        Each record replaces the item's earlier one; None removes it. `imported_by` names the
        import in bulk that they are of.

        Raises
        ------
        InvalidRecord
            At once, naming the record that breaks a rule; then none is sent.
        NeedsOneShard
            At once, for another group than that of settings of several shards.
        """
        self._check_group(group)
        at_s = self._now_s()
        return self._producer.deliver(
            record_messages(
                "items", group, records, self._topics, at_s=at_s, imported_by=imported_by
            )
        )

    def put_users(
        self,
        group: str,
        records: Iterable[tuple[str, Properties | None]],
        *,
        imported_by: str = "",
    ) -> Future[Receipt]:
        """The future receipt of users' metadata; as `put_items`."""
        self._check_group(group)
        at_s = self._now_s()
        return self._producer.deliver(
            record_messages(
                "users", group, records, self._topics, at_s=at_s, imported_by=imported_by
            )
        )

    def _check_group(self, group: str) -> None:
        if group != self._settings.group:
            require_one_shard(self._settings.shards, f"Metadata of group {group}")

    def erase(self, group: str, user_ids: Iterable[str]) -> Future[Receipt]:
        """The future receipt of the erasure of users from a group; see `Tracker` for how it ends.

        Their events that were sent or accepted until now are removed, and dropped where they come
        later; so is their metadata. Erasing again, or erasing an unknown user, is harmless.

        Raises
        ------
        InvalidRecord
            At once, naming the user that breaks a rule; then none is erased.
        """
        at_s = self._now_s()
        return self._producer.deliver(erasure_messages(group, user_ids, self._topics, at_s=at_s))

    def flush(self) -> None:
        """Wait until everything sent so far has been acknowledged or has failed.

        Raises
        ------
        Unavailable
            When an event sent since the last flush was not acknowledged.
        """
        self._producer.flush()

    def close(self) -> None:
        """Wait as `flush` does, without its error, then disconnect; calls after it fail."""
        self._producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self.close()


def _as_json(message: PutEvents | Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(message if isinstance(message, PutEvents) else dict(message))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidEvent(f"cannot be written as JSON: {error}") from error
