"""The API's producer on a real broker: order, true tokens, bounds, and outages of Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient

from models.errors import InvalidEvent, Overloaded, Unavailable
from models.events import MAX_MESSAGE_BYTES, Erasure, Event, PutEvents
from models.settings import Settings
from models.tokens import Position, parse_token
from ops.embedded_servers import Server, start_broker
from streams.kafka.connections.connection import connect
from streams.kafka.producing import publisher as publisher_module
from streams.kafka.producing.publisher import Publisher
from streams.kafka.topics import Topics, ensure_topics
from tests.servers import own_port
from tests.streams.kafka.produced_fixtures import NOW_S, raw, read

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def _no_sockets_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Collect the sockets of refused connections, which kafka-python does not close."""
    caplog.set_level(logging.CRITICAL, logger="kafka")
    yield
    gc.collect()


@contextlib.asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator[Publisher]:
    """A publisher that is closed at the end."""
    publisher = Publisher(settings)
    try:
        yield publisher
    finally:
        await publisher.close()


def message(session_id: str, *items: str, event_type: str = "click") -> PutEvents:
    """A message of one event for each item."""
    events = [
        Event(event_type, NOW_S, event_id=f"{session_id}/{item}", item_id=item) for item in items
    ]
    return PutEvents(session_id, events, user_id="u")


def positions(tokens: list[str]) -> list[Position]:
    """The places that tokens name."""
    return [position for token in tokens for position in parse_token(token)]


async def eventually(call: Callable[[], Awaitable[str]], within_s: float = 60.0) -> str:
    """The token of a call that is repeated until Kafka takes it."""
    deadline_s = time.monotonic() + within_s
    while True:
        with contextlib.suppress(Unavailable):
            return await call()
        assert time.monotonic() < deadline_s, "Kafka never took it"
        await asyncio.sleep(0.02)


async def test_a_session_stays_in_order_and_tokens_name_its_offsets(settings: Settings) -> None:
    """Messages that are sent at once, too; purchases go to a topic of their own."""
    async with publishing(settings) as publisher:
        first = [await publisher.publish(message("s", f"a{n}")) for n in range(3)]
        rest = await asyncio.gather(*(publisher.publish(message("s", f"b{n}")) for n in range(30)))
        bought = await publisher.publish(message("s", "c", event_type="purchase"))
        mixed = await publisher.publish(
            PutEvents(
                "s",
                [Event("click", NOW_S, event_id="1"), Event("purchase", NOW_S, event_id="2")],
                user_id="u",
            )
        )
    found = read(settings, Topics.of(settings).clicks)
    items = [f"a{n}" for n in range(3)] + [f"b{n}" for n in range(30)] + [None]
    assert [each.event_list[0].item_id for _, each in found.values()] == items
    assert {key for key, _ in found.values()} == {b"s"}
    places = positions([*first, *rest])
    assert [(place.partition, place.offset) for place in places] == [*found][:-1]
    assert [position.kind for position in parse_token(mixed)] == ["clicks", "purchases"]
    (purchase,) = parse_token(bought)
    assert read(settings, Topics.of(settings).purchases)[purchase[1:3]][1].tracking_id


async def test_records_and_erasures(settings: Settings) -> None:
    """Each record stands under its id; an erasure is a tombstone and a message."""
    async with publishing(settings) as publisher:
        token = await publisher.put("items", "shop", [("i1", {"A": "x"}), ("i2", None)])
        assert {position.kind for position in parse_token(token)} == {"items"}
        erased = await publisher.publish(Erasure("shop", "u", NOW_S))
        assert [position.kind for position in parse_token(erased)] == ["users", "clicks"]
    items = raw(settings, Topics.of(settings).items)
    assert sorted(value != b"" for _, value in items.values()) == [False, True]


async def test_a_message_that_is_too_long_is_refused(settings: Settings) -> None:
    """It says so, and others pass."""
    async with publishing(settings) as publisher:
        with pytest.raises(InvalidEvent, match=str(MAX_MESSAGE_BYTES)):
            await publisher.publish(message("s", *["i" * 250_000] * 5))
        await publisher.publish(message("s", "i"))


async def test_an_outage_at_the_start(tmp_path: Path) -> None:
    """Calls end with an error that names the address; the second one at once."""
    address = f"127.0.0.1:{own_port()}"
    settings = Settings(kafka=address, publish_timeout_s=0.3, data_dir=tmp_path)
    async with publishing(settings) as publisher:
        for _ in range(2):
            with pytest.raises(Unavailable, match=address):
                await publisher.publish(message("s", "i"))
        assert address in (await publisher.missing())[0]


async def test_a_missing_topic_is_named_and_not_made(broker: str) -> None:
    """Neither at the start nor when it is deleted later."""
    settings = Settings(kafka=broker, topic_prefix="absent.", publish_timeout_s=0.5)
    async with publishing(settings) as publisher:
        with pytest.raises(Unavailable, match=r"no topic absent\."):
            await publisher.publish(message("s", "i"))
    with contextlib.closing(connect(KafkaAdminClient, settings)) as admin:
        assert not [name for name in admin.list_topics() if name.startswith("absent.")]


async def test_calls_beyond_the_bound_of_memory_fail_at_once(mortal: Server) -> None:
    """Kafka hangs; a caller that gives up does not free the bytes of its message."""
    settings = Settings(
        kafka=mortal.address, partitions=1, publish_timeout_s=2, publish_buffer_bytes=1000
    )
    ensure_topics(settings)
    async with publishing(settings) as publisher:
        await publisher.publish(message("s", "i"))
        mortal.process.send_signal(signal.SIGSTOP)
        # A signal takes a moment.
        await asyncio.to_thread(wait_until_stopped, mortal)
        calls = [asyncio.create_task(publisher.publish(message("s", f"{n}"))) for n in range(20)]
        await asyncio.sleep(0.1)
        refused = [call for call in calls if call.done()]
        assert 0 < len(refused) < 20
        for call in refused:
            with pytest.raises(Overloaded, match="1000 bytes wait for Kafka"):
                call.result()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        with pytest.raises(Overloaded):
            await publisher.publish(message("s", "late"))
        mortal.process.send_signal(signal.SIGCONT)
        await eventually(lambda: publisher.publish(message("s", "later")))


async def test_kafka_is_killed_while_sending(mortal: Server, tmp_path: Path) -> None:
    """Calls fail in bounded time until Kafka is back, and then the same publisher goes on."""
    settings = Settings(kafka=mortal.address, partitions=1, publish_timeout_s=0.5)
    ensure_topics(settings)
    async with publishing(settings) as publisher:
        (before,) = parse_token(await publisher.publish(message("s", "i")))
        mortal.process.kill()
        mortal.process.wait()
        for _ in range(3):
            with pytest.raises(Unavailable, match=mortal.address):
                async with asyncio.timeout(20):
                    await publisher.publish(message("s", "i"))
        again = start_broker(tmp_path / "again", port=mortal.port)
        try:
            ensure_topics(settings)
            await eventually(lambda: publisher.publish(message("s", "i")))
            (after,) = parse_token(await publisher.publish(message("s", "i")))
            assert after.incarnation != before.incarnation
        finally:
            again.stop()


async def test_topics_that_are_made_again_while_nothing_is_sent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next token names the new incarnation."""
    monkeypatch.setattr(publisher_module, "VERIFIED_S", 0.0)
    async with publishing(settings) as publisher:
        (before,) = parse_token(await publisher.publish(message("s", "i")))
        make_again(settings)
        (after,) = parse_token(await eventually(lambda: publisher.publish(message("s", "i"))))
        assert after.incarnation != before.incarnation


async def test_topics_that_are_made_again_between_question_and_message(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets that begin again give it away: no token says that the message is in the old topic."""
    async with publishing(settings) as publisher:
        for _ in range(3):
            (before,) = parse_token(await publisher.publish(message("s", "i")))
        # From here on, what was known is young enough for ever.
        monkeypatch.setattr(publisher_module, "VERIFIED_S", 1e9)
        make_again(settings)
        errors: list[str] = []

        async def publish() -> str:
            try:
                return await publisher.publish(message("s", "i"))
            except Unavailable as error:
                errors.append(str(error))
                raise

        (after,) = parse_token(await eventually(publish))
        assert "made again meanwhile" in errors[-1]
        assert after.incarnation != before.incarnation


async def test_calls_that_share_an_attempt_to_connect(settings: Settings) -> None:
    """A caller that gives up does not end it for the others."""
    async with publishing(settings) as publisher:
        impatient = asyncio.create_task(publisher.publish(message("s", "a")))
        patient = asyncio.create_task(publisher.publish(message("s", "b")))
        await asyncio.sleep(0)
        impatient.cancel()
        assert parse_token(await patient)


def wait_until_stopped(server: Server) -> None:
    """Wait until a stop signal has reached a server."""
    while psutil.Process(server.process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)


def make_again(settings: Settings) -> None:
    """Delete the topics, and make them again."""
    names = [*Topics.of(settings).of_tokens.values()]
    with contextlib.closing(connect(KafkaAdminClient, settings)) as admin:
        admin.delete_topics(names)
    ensure_topics(settings)
