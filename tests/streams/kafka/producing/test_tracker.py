"""The tracker on a real broker: order, true receipts, bounds, and outages of Kafka."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from models.errors import InvalidEvent, InvalidRecord, Overloaded, Unavailable
from models.events import MAX_MESSAGE_BYTES, Event, PutEvents, encode, parse
from models.metadata_records import parse_record
from models.settings import Settings
from models.tokens import Position, Published, parse_token, short_incarnation
from ops.embedded_servers import Server, start_broker
from streams.kafka.producing import tracker as tracker_module
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import Topics, ensure_topics
from tests.servers import own_port
from tests.streams.kafka.produced_fixtures import NOW_S, eventually, raw, read

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def _no_sockets_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Collect the sockets of refused connections, which kafka-python does not close.

    Its log is silenced because a log record keeps the error, and so the socket, alive.
    """
    caplog.set_level(logging.CRITICAL, logger="kafka")
    yield
    gc.collect()


def test_a_message_has_every_member_of_its_event(settings: Settings) -> None:
    """It also has the time of acceptance and the tracking id."""
    with Tracker(settings, now_s=lambda: NOW_S) as tracker:
        future = tracker.track(
            *("u1", "s1", "i1", "click"),
            event_id="e1",
            sent_at=NOW_S - 1,
            value=2.5,
            properties={"shelf": 3},
            impression=["i1", "i2"],
            recommendation_id="r1",
        )
        (sent,) = future.result().published
    event = Event(
        event_type="click",
        sent_at=NOW_S - 1,
        event_id="e1",
        item_id="i1",
        event_value=2.5,
        impression=["i1", "i2"],
        recommendation_id="r1",
        properties={"shelf": 3},
    )
    message = PutEvents("s1", [event], tracking_id="shop", user_id="u1", accepted_at=NOW_S)
    assert read(settings, sent.topic) == {(sent.partition, sent.offset): (b"s1", message)}


def test_purchases_go_to_a_topic_of_their_own(settings: Settings) -> None:
    """One message with both kinds becomes two, under one key, and the receipt names both."""
    types = ["click", "Purchase", "cart", "buy"]
    message = {
        "sessionId": "s1",
        "eventList": [
            {"eventType": kind, "itemId": f"i{n}", "sentAt": NOW_S} for n, kind in enumerate(types)
        ],
    }
    with Tracker(settings, now_s=lambda: NOW_S) as tracker:
        receipt = tracker.put_events(message).result()
    topics = Topics.of(settings)
    assert [one.topic for one in receipt.published] == [topics.clicks, topics.purchases]
    found = [read(settings, one.topic)[one.partition, one.offset] for one in receipt.published]
    assert [key for key, _ in found] == [b"s1", b"s1"]
    assert [[event.item_id for event in kept.event_list] for _, kept in found] == [
        ["i0", "i2"],
        ["i1", "i3"],
    ]
    assert parse_token(receipt.token()) == [
        Position(one.kind, one.partition, one.offset, short_incarnation(one.incarnation))
        for one in receipt.published
    ]


def test_a_session_stays_in_order_and_receipts_name_its_offsets(settings: Settings) -> None:
    """Each receipt names the offset of its own event, and offsets follow the order of sending."""
    sent: dict[str, list[tuple[str, Published]]] = {}
    with Tracker(settings, linger_ms=5) as tracker:
        futures = []
        for n in range(300):
            session = f"s{n % 7}"
            futures.append((session, f"i{n}", tracker.track(None, session, f"i{n}", "click")))
        for session, item, future in futures:
            (published,) = future.result().published
            sent.setdefault(session, []).append((item, published))
    found = read(settings, Topics.of(settings).clicks)
    assert len(found) == 300
    for session, ones in sent.items():
        assert len({published.partition for _, published in ones}) == 1
        offsets = [published.offset for _, published in ones]
        assert offsets == sorted(offsets)
        for item, published in ones:
            key, message = found[published.partition, published.offset]
            assert (key, message.event_list[0].item_id) == (session.encode(), item)


def test_each_tracked_event_has_its_own_id(settings: Settings) -> None:
    """Two equal clicks at one moment are two events, unless the caller gives an id."""
    with Tracker(settings) as tracker:
        for _ in range(2):
            tracker.track("u", "s", "i", "click", sent_at=NOW_S)
    ids = {
        message.event_list[0].event_id
        for _, message in read(settings, Topics.of(settings).clicks).values()
    }
    assert len(ids) == 2


def test_equal_messages_without_ids_are_one_event(settings: Settings) -> None:
    """Bytes, mapping and struct sent without eventId get the id of their content."""
    message = PutEvents("s", [Event(event_type="click", sent_at=NOW_S, item_id="i")])
    forms: list[PutEvents | dict[str, object] | bytes] = [
        message,
        encode(message),
        {"sessionId": "s", "eventList": [{"eventType": "click", "sentAt": NOW_S, "itemId": "i"}]},
    ]
    with Tracker(settings) as tracker:
        for form in forms:
            tracker.put_events(form)
    found = read(settings, Topics.of(settings).clicks)
    assert len(found) == 3
    assert len({kept.event_list[0].event_id for _, kept in found.values()}) == 1


def test_a_parsed_message_is_not_parsed_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is encoded once, and gets the time of acceptance and the settings' tracking id."""
    event = {"eventType": "click", "itemId": "i", "sentAt": NOW_S}
    message = parse(msgspec.json.encode({"sessionId": "s", "eventList": [event]}), now_s=NOW_S)

    def fail(*_: object, **__: object) -> PutEvents:
        raise AssertionError("parsed again")

    monkeypatch.setattr(tracker_module, "parse", fail)
    with Tracker(settings, now_s=lambda: NOW_S) as tracker:
        tracker.put_parsed(message)
    ((_, found),) = read(settings, Topics.of(settings).clicks).values()
    assert found == msgspec.structs.replace(message, accepted_at=NOW_S, tracking_id="shop")


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b"{}",
        {"sessionId": "s", "eventList": []},
        {"sessionId": "s", "eventList": [{"eventType": "click", "sentAt": float("nan")}]},
        {"sessionId": "s", "eventList": [{"eventType": "click", "sentAt": NOW_S + 301}]},
        {"sessionId": "\ud800", "eventList": [{"eventType": "click", "sentAt": NOW_S}]},
        {"sessionId": object()},
        {"sessionId": "s", "userId": "u" * 257, "eventList": []},
        b" " * (MAX_MESSAGE_BYTES + 1),
    ],
)
def test_an_invalid_message_is_refused_at_once(
    settings: Settings, message: bytes | dict[str, object]
) -> None:
    """Nothing is sent, and the caller does not wait."""
    with (
        Tracker(settings, now_s=lambda: NOW_S) as tracker,
        pytest.raises(InvalidEvent),
    ):
        tracker.put_events(message)
    assert read(settings, Topics.of(settings).clicks) == {}


async def test_a_receipt_can_be_awaited(settings: Settings) -> None:
    """Cancelling the wait does not recall the message."""
    tracker = Tracker(settings, block_s=0)
    try:
        receipt = await asyncio.wrap_future(tracker.track("u", "s", "i1", "click"))
        assert receipt.published[0].offset == 0
        given_up = asyncio.wrap_future(tracker.track("u", "s", "i2", "click"))
        given_up.cancel()
        receipt = await asyncio.wrap_future(tracker.track("u", "s", "i3", "click"))
        assert receipt.published[0].offset == 2
    finally:
        tracker.close()


def test_an_outage_at_the_start(tmp_path: Path) -> None:
    """Without Kafka the constructor fails with an error that names the address."""
    address = f"127.0.0.1:{own_port()}"
    with pytest.raises(Unavailable, match=address):
        Tracker(Settings(kafka=address, publish_timeout_s=0.3, data_dir=tmp_path))


def test_missing_topics_at_the_start(broker: str) -> None:
    """Sending creates no topics; the error names the command that creates them."""
    with pytest.raises(Unavailable, match=r"no topic nothing\.events\.clicks: run `recommender"):
        Tracker(Settings(kafka=broker, topic_prefix="nothing.", publish_timeout_s=0.5))


def test_a_full_buffer_does_not_block_an_event_loop(mortal: Server) -> None:
    """While Kafka hangs, calls beyond the bound of memory fail at once."""
    settings = Settings(
        kafka=mortal.address, partitions=1, publish_timeout_s=2, publish_buffer_bytes=1000
    )
    ensure_topics(settings)
    tracker = Tracker(settings, block_s=0)
    mortal.process.send_signal(signal.SIGSTOP)
    futures = [tracker.track("u", "s", "i", "click") for _ in range(20)]
    refused = [future for future in futures if future.done()]
    assert 0 < len(refused) < 20
    for future in refused:
        with pytest.raises(Overloaded, match="1000 bytes wait for Kafka"):
            future.result()
    mortal.process.send_signal(signal.SIGCONT)
    tracker.close()
    assert all(future.done() for future in futures)


def test_kafka_is_killed_while_sending(mortal: Server, tmp_path: Path) -> None:
    """Calls fail in bounded time until Kafka is back, and then the same tracker goes on."""
    settings = Settings(kafka=mortal.address, partitions=1, publish_timeout_s=0.5)
    ensure_topics(settings)
    tracker = Tracker(settings)
    tracker.track("u", "s", "i", "click").result()
    mortal.process.kill()
    mortal.process.wait()
    for _ in range(3):
        with pytest.raises(Unavailable, match=mortal.address):
            tracker.track("u", "s", "i", "click").result(timeout=20)
    with pytest.raises(Unavailable, match="did not acknowledge 3 "):
        tracker.flush()
    again = start_broker(tmp_path / "again", port=mortal.port)
    try:
        ensure_topics(settings)
        eventually(lambda: tracker.track("u", "s", "i", "click").exception(timeout=20) is None)
        tracker.close()
    finally:
        again.stop()


def test_kafka_restarts_between_calls(mortal: Server, tmp_path: Path) -> None:
    """A new broker that does not know this producer's id does not end the tracker."""
    settings = Settings(kafka=mortal.address, partitions=1, publish_timeout_s=2)
    ensure_topics(settings)
    tracker = Tracker(settings)
    tracker.track("u", "s", "i", "click").result()
    mortal.process.kill()
    mortal.process.wait()
    again = start_broker(tmp_path / "again", port=mortal.port)
    try:
        ensure_topics(settings)
        eventually(lambda: tracker.track("u", "s", "i", "click").exception(timeout=20) is None)
        tracker.close()
    finally:
        again.stop()


def test_leaving_the_block_reports_lost_events(mortal: Server) -> None:
    """A caller that ignores the future still gets the error."""
    settings = Settings(kafka=mortal.address, partitions=1, publish_timeout_s=0.5)
    ensure_topics(settings)

    def send_to_a_killed_broker() -> None:
        with Tracker(settings) as tracker:
            mortal.process.kill()
            mortal.process.wait()
            tracker.track("u", "s", "i", "click")

    with pytest.raises(Unavailable, match="did not acknowledge 1 "):
        send_to_a_killed_broker()


def test_calls_after_close_fail(settings: Settings) -> None:
    """None is lost silently."""
    tracker = Tracker(settings)
    tracker.close()
    tracker.close()
    with pytest.raises(Unavailable, match="not connected"):
        tracker.track("u", "s", "i", "click").result()


def test_metadata_records_are_keyed_by_their_id(settings: Settings) -> None:
    """So the records of an item or user stay in order; None becomes a tombstone."""
    with Tracker(settings, now_s=lambda: NOW_S) as tracker:
        items = tracker.put_items("shop", [(f"i{n}", {"N": n}) for n in range(20)]).result()
        users = tracker.put_users("shop", [("ada", {"AGE": 36})]).result()
        again = tracker.put_users("shop", [("ada", None)]).result()
        assert tracker.put_items("shop", []).result().published == ()
        with pytest.raises(InvalidRecord):
            tracker.put_items("shop", [("good", {}), ("bad", {"A": []})])  # type: ignore[dict-item]
        with pytest.raises(InvalidRecord):
            tracker.put_items("a/b", [("good", {})])

    assert {one.kind for one in items.published} == {"items"}
    assert len(parse_token(items.token())) == len({one.partition for one in items.published}) > 1
    (first,), (second,) = users.published, again.published
    assert (first.partition, first.offset + 1) == (second.partition, second.offset)
    found = raw(settings, Topics.of(settings).items)
    assert len(found) == 20
    for one in items.published:
        key, value = found[one.partition, one.offset]
        record = parse_record("items", key, value, now_s=NOW_S)
        assert key == f"shop/{record.id}".encode()
        assert record[:4] == ("shop", f"i{record.properties['N']}", record.properties, NOW_S)  # type: ignore[index]
    kept = raw(settings, Topics.of(settings).users)
    assert kept[second.partition, second.offset] == (b"shop/ada", b"")
