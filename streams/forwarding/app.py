"""The forwarder's Faust app: consumer, sink, ledger and the timer of standing partitions."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import faust

from models.errors import InvalidEvent, NotConfigured, Unavailable
from models.events import parse, parse_erasure
from models.settings import Settings
from models.state.clients.client import client_of
from streams.forwarding.erasures import KnownErasures
from streams.forwarding.forwarder import Forwarder
from streams.forwarding.queues import OVERHEAD_BYTES
from streams.forwarding.selected_events import selected
from streams.forwarding.sink_calls import QueuedMessage
from streams.forwarding.sinks import sink_of
from streams.kafka.consuming.assignment import Partition, ReadStart, next_read
from streams.kafka.consuming.consumer_log import ConsumerLog
from streams.kafka.consuming.standstill import Standstill
from streams.kafka.faust_clients.faust_app import add_agent, commit, create_app
from streams.kafka.faust_clients.faust_producing import keep_letter
from streams.kafka.topics import Topics

CHECK_EVERY_S = 1.0

LOG = logging.getLogger(__name__)


def forward_app(settings: Settings) -> faust.App:
    """The Faust app that forwards every event, not started.

    Parameters
    ----------
    settings
        `kafka` and `redis` must name the servers, `forward_tracking_id` or `forward_tracking_ids`
        the trackers at the sink.

    Raises
    ------
    NotConfigured
        Without a tracker, or when the sink's own settings are not in order.
    """
    if not settings.forwarded_trackers:
        raise NotConfigured(
            "nothing is forwarded: set RECOMMENDER_FORWARD_TRACKING_ID to the tracking id of an"
            " Amazon Personalize event tracker, or RECOMMENDER_FORWARD_TRACKING_IDS to several"
        )
    topics = Topics.of(settings)
    client = client_of(settings)

    async def dead_letter(key: bytes | None, letter: bytes) -> None:
        await keep_letter(app, topics.dead_letters, key, letter)

    async def load(oldest: Mapping[Partition, int]) -> Mapping[Partition, ReadStart]:
        positions = await forwarder.load_positions(set(oldest))
        return {partition: ReadStart(at, next_read()) for partition, at in positions.items()}

    app, erasures = create_app("forward", settings, load), KnownErasures(settings, client)
    forwarder = Forwarder(
        settings,
        client,
        sink=sink_of(settings),
        dead_letter=dead_letter,
        commit=lambda positions: commit(app, positions),
        crash=app.crash,
        erasures=erasures,
    )

    async def forward(batch: list[faust.EventT]) -> None:
        now_s = time.time()
        await forwarder.forward([read_message(event, settings, erasures, now_s) for event in batch])

    add_agent(
        app,
        (topics.clicks, topics.purchases),
        forward,
        name="forward",
        limit=settings.batch_events,
        wait_s=settings.batch_wait_s,
    )

    standstill, log = Standstill(client, settings.group, "forwarder"), ConsumerLog(app)

    async def check_unreadable() -> None:
        """Report partitions that stand still; go on where an operator has skipped a batch."""
        found = log.unreadable()
        due = await standstill.update(found, now_s=time.time())
        for error in found:
            partition = error.topic, error.partition
            try:
                position = await forwarder.next_offset(partition)
            except Unavailable as away:
                LOG.warning("positions are compared later: %s", away)
                return
            if position > error.first or error in due:
                start = max(position, error.first)
                await log.seek({partition: ReadStart(start, next_read())})

    app.timer(CHECK_EVERY_S)(check_unreadable)

    async def close(*_: object, **__: object) -> None:
        forwarder.close()
        await client.aclose()

    app.on_before_shutdown.connect(close)
    return app


def read_message(
    event: faust.EventT, settings: Settings, erasures: KnownErasures, now_s: float
) -> QueuedMessage:
    """The message of a Faust event, with those of its events that are to be forwarded."""
    source, raw = event.message, event.value or b""
    try:
        erasure = parse_erasure(raw, now_s=now_s, future_limit_s=settings.future_limit_s)
        if erasure is not None:
            erasures.note(erasure)
            return QueuedMessage(source.topic, source.partition, source.offset, None)
        put = parse(raw, now_s=now_s, future_limit_s=settings.future_limit_s)
    except InvalidEvent:
        # The worker that applies events makes the dead letter.
        return QueuedMessage(source.topic, source.partition, source.offset, None)
    known, events = selected(put, settings)
    at_s, size = source.timestamp or now_s, len(raw) + OVERHEAD_BYTES
    return QueuedMessage(source.topic, source.partition, source.offset, known, events, at_s, size)
