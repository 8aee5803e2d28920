"""Two instances: one forwards to the other's Personalize endpoint."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from models.events import Event, MetricAttribution, PutEvents, encode, parse
from models.state.operations.forwarding_ledger import tracker_counts
from streams.kafka.consuming.offsets import end_offsets
from streams.kafka.topics import Topics
from tests.servers import own_port
from tests.stack import Stack
from tests.streams.agents.faulty_proxy import FaultyProxy, at_random

NOW_S = 1_800_000_000.0


def sent_events(stack: Stack) -> list[PutEvents]:
    """Send clicks and purchases of some sessions to the topics of an instance."""
    topics = Topics.of(stack.settings)
    puts = [
        PutEvents(
            f"s{n % 7}",
            [
                Event(
                    event_type,
                    1_700_000_000.5 + n,
                    event_id=f"e{n}-{event_type}",
                    item_id=f"i{n % 5}",
                    event_value=float(n),
                    impression=["i1", "i2"],
                    metric_attribution=MetricAttribution("mail"),
                    properties='{"price":9.5}',
                )
            ],
            user_id=f"u{n % 7}" if n >= 30 else None,
            tracking_id="shop",
        )
        for n in range(60)
        for event_type in ("click", "purchase")
    ]
    producer = KafkaProducer(bootstrap_servers=stack.settings.kafka)
    for put in puts:
        is_click = put.event_list[0].event_type == "click"
        topic = topics.clicks if is_click else topics.purchases
        producer.send(topic, key=put.session_id.encode(), value=encode(put))
    producer.flush()
    producer.close()
    return puts


def arrived_events(stack: Stack) -> dict[tuple[str, str], tuple[str | None, Event]]:
    """Events on the topics of an instance by session and eventId, the first of each."""
    topics = Topics.of(stack.settings)
    ends = end_offsets(stack.settings, [topics.clicks, topics.purchases])
    consumer = KafkaConsumer(bootstrap_servers=stack.settings.kafka, auto_offset_reset="earliest")
    found: dict[tuple[str, str], tuple[str | None, Event]] = {}
    left = {TopicPartition(*tp) for tp, end in ends.items() if end}
    consumer.assign(sorted(left))
    while left:
        for partition, records in consumer.poll(timeout_ms=1000).items():
            for record in records:
                put = parse(record.value, now_s=NOW_S)
                for event in put.event_list:
                    key = put.session_id, str(event.event_id)
                    first = found.setdefault(key, (put.user_id, event))
                    assert first == (put.user_id, event)
            if records[-1].offset + 1 >= ends[partition.topic, partition.partition]:
                left.discard(partition)
    consumer.close()
    return found


def test_another_instance_gets_every_event_once(stack: Callable[..., Stack]) -> None:
    """Through a proxy that breaks every third call, all events arrive unchanged."""
    source, other = stack(), stack(tracking_id="mirror")
    other.start("api")
    other.start("worker")
    other.wait(lambda: other.ask("GET", "/readyz")[0] == 200, "the other is ready")
    sent: dict[tuple[str, str], tuple[str | None, Event]] = {
        (put.session_id, str(event.event_id)): (put.user_id, event)
        for put in sent_events(source)
        for event in put.event_list
    }
    port = own_port()
    with FaultyProxy(f"{other.url}/personalize") as proxy:
        proxy.fault = at_random(5, 0.33, "outage", "throttle", "reset", "lose", "cut", "malformed")
        source.start("forward", **forwarding(proxy), RECOMMENDER_METRICS_PORT=str(port))
        source.wait(lambda: forwarded(source) >= len(sent), "all are forwarded")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = answer.read().decode()
    for series in (
        f'events_total{{outcome="forwarded",tracker="shop"}} {float(len(sent))}',
        'waiting_events{tracker="shop"} 0.0',
        'oldest_waiting_age_seconds{tracker="shop"} 0.0',
    ):
        assert f"recommender_forward_{series}\n" in metrics
    assert arrived_events(other) == sent
    assert forwarded(source) == len(sent)
    other.wait(lambda: other.counts().get("events", 0) >= len(sent), "all took effect")
    assert other.counts()["events"] == len(sent)


def forwarding(proxy: FaultyProxy) -> dict[str, str]:
    """The environment of a forwarder whose AWS is behind a proxy."""
    return {
        "RECOMMENDER_FORWARD_TRACKING_IDS": '{"shop": "mirror"}',
        "AWS_ENDPOINT_URL_PERSONALIZE_EVENTS": proxy.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def forwarded(stack: Stack) -> int:
    """Events that AWS has accepted, by the ledger of the instance."""
    counts = stack.stored(lambda store: tracker_counts(store.redis, stack.settings.group))
    return counts["shop"].forwarded if counts else 0
