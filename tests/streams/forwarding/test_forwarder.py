"""The forwarder as a process, on a real broker and Redis, against a stub of AWS with faults."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import get_args

import msgspec
import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from models.errors import NotConfigured
from models.events import Erasure, Event, PutEvents, encode, parse
from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part, StoredMessage
from models.state.store import Store
from ops.embedded_servers import start_redis
from streams.event_sinks import EventBatch, SendFailed, SinkAnswer
from streams.forwarding import forwarder, queues
from streams.forwarding.app import forward_app
from streams.forwarding.erasures import KnownErasures
from streams.forwarding.forwarder import Forwarder
from streams.forwarding.rate_limit import BURST_S, RateLimit
from streams.forwarding.sink_calls import QueuedMessage
from streams.forwarding.sinks import SINKS, sink_of
from streams.kafka.dead_letters import DeadLetter, letters
from streams.kafka.topics import Topics
from streams.retry_policy import jittered_backoff
from tests.streams.forwarding.forwarding_fixtures import PATIENCE_S, Bench, wait_for
from tests.streams.forwarding.personalize_stub import Behaviour


@given(st.integers(1, 10_000))
def test_a_backoff_is_bounded(attempt: int) -> None:
    """However long an outage lasts, the next attempt is at most `MAX_BACKOFF_S` away."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    wait_s = jittered_backoff(forwarder.FIRST_BACKOFF_S, forwarder.MAX_BACKOFF_S)(state)
    doubled_s = forwarder.FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, 30)
    assert 0 <= wait_s <= min(forwarder.MAX_BACKOFF_S, doubled_s)


@given(st.floats(0.5, 1000), st.lists(st.floats(0, 0.5), min_size=2, max_size=50))
def test_calls_keep_to_the_rate(per_s: float, pauses_s: list[float]) -> None:
    """In any period there are at most as many calls as allowed, and one burst."""
    pace, now_s = RateLimit(per_s), 1000.0
    starts_s = []
    for pause_s in pauses_s:
        now_s += pause_s
        starts_s.append(now_s + pace.reserve(now_s))
    for first, start_s in enumerate(starts_s):
        for last in range(first, len(starts_s)):
            allowed = (starts_s[last] - start_s + BURST_S) * per_s + 1
            assert last - first + 1 <= allowed + 1e-6


def test_without_a_tracking_id_nothing_is_forwarded() -> None:
    """Forwarding is off by default, and the error names the setting."""
    with pytest.raises(NotConfigured, match="RECOMMENDER_FORWARD_TRACKING_ID"):
        forward_app(Settings(kafka="127.0.0.1:1", redis="redis://127.0.0.1:1"))


class ListSink:
    """A sink that keeps events in a list, and refuses those without an item."""

    def __init__(self, _: Settings) -> None:
        self.taken: list[str | None] = []

    def send(self, batch: EventBatch) -> None:
        """Take a batch, unless one of its events is refused."""
        if not all(event.item_id for event in batch.events):
            raise SendFailed(SinkAnswer.REFUSED, "no item")
        self.taken += [event.event_id for event in batch.events]


async def test_another_sink_is_one_class_and_one_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the events in order; a refused one alone becomes a dead letter."""
    monkeypatch.setitem(SINKS, "list", ListSink)
    settings = bench.settings.model_copy(
        update={"forward_tracking_id": "real-tracker", "forward_sink": "list"}
    )
    sink, dead = sink_of(settings), []

    async def dead_letter(_: bytes | None, letter: bytes) -> None:
        dead.append(msgspec.json.decode(letter, type=DeadLetter).detail)

    async def ignore(_: object) -> None:
        """Commit nothing."""

    clicks = Topics.of(settings).clicks
    events = [Event("click", 1.7e9, event_id=f"e{n}", item_id="i" if n != 2 else None)
              for n in range(5)]  # fmt: skip
    put = PutEvents("s", events, tracking_id="shop")
    async with connect(settings.redis) as client:
        one = Forwarder(
            settings, client, sink=sink, dead_letter=dead_letter, commit=ignore, crash=ignore
        )
        await one.load_positions({(clicks, 0)})
        message = QueuedMessage(clicks, 0, 0, put, put.event_list, size=400)
        await one.forward([message])
        await asyncio.to_thread(wait_for, lambda: not message.unsettled, "all are settled")
        one.close()
    assert isinstance(sink, ListSink)
    assert sink.taken == ["e0", "e1", "e3", "e4"]
    assert dead == ["no item"]


def test_an_unknown_sink_is_named() -> None:
    """The error names the setting and the known sinks."""
    with pytest.raises(NotConfigured, match="RECOMMENDER_FORWARD_SINK is 'x': use personalize"):
        sink_of(Settings(forward_sink="x"))


async def test_every_event_arrives_in_order_despite_faults(bench: Bench) -> None:
    """Throttles, failures, hangs, resets and lost answers delay events and lose none."""
    for behaviour in get_args(Behaviour) * 2:
        bench.stub.script.extend([behaviour, "answer"])
    bench.send(n_sessions=12, n_messages=15)
    # Longer than an answer takes on a busy machine: only calls that hang time out.
    bench.start(RECOMMENDER_FORWARD_TIMEOUT_S="3")
    counts = await bench.until(lambda counts: counts.forwarded == 180, "all are forwarded")
    assert bench.stub.taken_by_session() == bench.sent
    assert {taken.user_id for taken in bench.stub.taken} == {f"u-s{n}" for n in range(12)}
    assert {body["trackingId"] for body in bench.stub.requests} == {"real-tracker"}
    assert (counts.retries, counts.throttles, counts.refused) == (16, 4, 0)
    assert counts.calls == len(bench.stub.requests)
    assert sum((await bench.positions()).values()) == 180


async def test_a_refused_event_alone_becomes_a_dead_letter(bench: Bench) -> None:
    """Nine of ten are forwarded, one is kept with AWS's reason; invalid messages are skipped."""
    bench.stub.refuse = lambda event: "no such item" if event["eventId"] == "s0/6" else None
    foreign = PutEvents("s1", [Event("click", 1.7e9, event_id="x")], tracking_id="other")
    bench.produce(("s0", b"\xff no JSON"), ("s0", encode(foreign)))
    bench.send(n_sessions=1, n_messages=1, n_events=10)
    bench.start()
    counts = await bench.until(lambda counts: counts.forwarded + counts.refused == 10, "answered")
    assert (counts.forwarded, counts.refused, counts.skipped) == (9, 1, 2)
    ids = bench.sent["s0"]
    assert bench.stub.taken_by_session() == {"s0": [i for i in ids if i != "s0/6"]}
    assert sum((await bench.positions()).values()) == 3
    [(letter, record)] = letters(bench.settings, again=True)
    assert letter.detail == "InvalidInputException: no such item"
    assert (letter.stage, letter.reason, letter.source.offset) == ("forward", "refused", 2)
    assert [event.event_id for event in parse(letter.raw(), now_s=1.8e9).event_list] == ["s0/6"]
    assert record.key == b"s0"


async def test_a_killed_forwarder_loses_and_doubles_nothing(bench: Bench) -> None:
    """After a kill -9 a new process goes on; each event counts once."""
    bench.send(n_sessions=20, n_messages=10)
    first = bench.start(RECOMMENDER_FORWARD_CALLS_PER_S="30", RECOMMENDER_BATCH_EVENTS="20")
    await bench.until(lambda counts: counts.forwarded >= 20, "some are forwarded")
    first.kill()
    first.wait()
    stopped_at = (await bench.counts()).forwarded
    assert 0 < stopped_at < 200
    bench.start()
    counts = await bench.until(lambda counts: counts.forwarded >= 200, "all are forwarded")
    assert bench.stub.taken_by_session() == bench.sent
    assert counts.forwarded == 200


async def test_an_outage_holds_the_position_but_not_a_stop(bench: Bench) -> None:
    """While AWS is down the ledger says so and nothing moves; a hanging call is abandoned."""
    bench.stub.behaviour = "fail"
    bench.send(n_sessions=3, n_messages=2)
    worker = bench.start(RECOMMENDER_FORWARD_TIMEOUT_S="300")
    counts = await bench.until(lambda counts: counts.retries >= 4, "calls are tried again")
    assert counts.last_error.startswith("InternalServerException")
    assert counts.last_success_at == 0.0
    assert await bench.positions() == {}
    bench.stub.behaviour = "hang"
    wait_for(lambda: bench.stub.n_hanging, "a call hangs")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
    assert await bench.positions() == {}
    bench.stub.behaviour = "answer"
    bench.start()
    await bench.until(lambda counts: counts.forwarded == 6, "all are forwarded")
    assert bench.stub.taken_by_session() == bench.sent


async def test_queued_messages_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With full queues the forwarder reads no more until the sink has answered."""
    monkeypatch.setattr(queues, "MAX_QUEUED_BYTES", 1000)
    called, answers = threading.Event(), threading.Event()

    class SlowSink:
        def send(self, _: EventBatch) -> None:
            called.set()
            answers.wait()

    async def keep(*_: object) -> None:
        """Do nothing: the test looks at the ledger only."""

    settings = bench.settings.model_copy(update={"forward_tracking_id": "real-tracker"})
    clicks = Topics.of(settings).clicks
    async with connect(settings.redis) as client:
        one = Forwarder(
            settings, client, sink=SlowSink(), dead_letter=keep, commit=keep, crash=keep
        )
        await one.load_positions({(clicks, 0)})
        events = [Event("click", 1.7e9, event_id=f"e{n}", item_id="i") for n in range(4)]
        puts = [PutEvents("s", [event], tracking_id="shop") for event in events]
        messages = [
            QueuedMessage(clicks, 0, n, put, put.event_list, size=400) for n, put in enumerate(puts)
        ]
        await one.forward(messages[:2])
        await asyncio.to_thread(called.wait)
        over = asyncio.create_task(one.forward(messages[2:]))
        await asyncio.sleep(0)
        assert not over.done()
        answers.set()
        await over
        one.close()


@pytest.mark.parametrize("is_read", [True, False])
async def test_queued_events_of_an_erased_user_are_dropped_during_an_outage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, is_read: bool
) -> None:
    """At once if the erasure was read from the log, soon if Redis alone knows it."""
    monkeypatch.setattr(forwarder, "FIND_ERASED_EVERY_S", 0.1)
    monkeypatch.setattr(forwarder, "SAVE_EVERY_S", 0.1)
    sent: list[str] = []
    is_away = True

    class AbsentSink:
        def send(self, batch: EventBatch) -> None:
            if is_away:
                raise SendFailed(SinkAnswer.FAILED, "away")
            sent.extend(str(event.event_id) for event in batch.events)

    async def keep(*_: object) -> None:
        """Do nothing: the test looks at the queued messages only."""

    # The first event is retried until the sink is back; the others wait.
    settings = bench.settings.model_copy(
        update={"forward_tracking_id": "real-tracker", "forward_parallel": 1, "batch_events": 2}
    )
    clicks, now_s = Topics.of(settings).clicks, time.time()
    users = ("bob", "ada", "ada", "cleo", "ada")
    puts = [
        PutEvents(
            f"s{n}",
            [Event("click", now_s - 60 if n < 4 else now_s + 60, event_id=f"e{n}", item_id="i")],
            user_id=user,
            tracking_id=settings.tracking_id,
        )
        for n, user in enumerate(users)
    ]
    messages = [
        QueuedMessage(clicks, 0, n, put, put.event_list, size=400) for n, put in enumerate(puts)
    ]
    erasure = Erasure(settings.group, "ada", now_s)
    async with connect(settings.redis) as client:
        erasures = KnownErasures(settings, client)
        one = Forwarder(
            settings,
            client,
            sink=AbsentSink(),
            dead_letter=keep,
            commit=keep,
            crash=keep,
            erasures=erasures,
        )
        await one.load_positions({(clicks, 0)})
        if is_read:
            erasures.note(erasure)
            await one.forward(messages)
        else:
            await one.forward(messages)
            stored = StoredMessage(0, "ada", "", 0, 0.0, [], erased_at=now_s)
            await Store(client, settings).apply([Part("c/t/0", -1, [stored])], now_s=now_s)
            await asyncio.to_thread(wait_for, lambda: not messages[2].unsettled, "it is dropped")
        held = [(message.put is not None, *message.events) for message in messages]
        assert held == [
            (True, puts[0].event_list[0]),
            (False, None),
            (False, None),
            (True, puts[3].event_list[0]),
            (True, puts[4].event_list[0]),
        ]
        assert [message.outcomes["withheld"] for message in messages] == [0, 1, 1, 0, 0]
        is_away = False
        await asyncio.to_thread(
            wait_for, lambda: not any(one.unsettled for one in messages), "all are answered for"
        )
        assert sent == ["e0", "e3", "e4"]
        # Events that the sink has taken are dropped, too.
        assert {message.put for message in messages} == {None}
        one.close()


async def test_an_outage_of_redis_delays_and_skips_nothing(bench: Bench) -> None:
    """Events forwarded meanwhile are in the ledger once Redis is back."""
    bench.start()
    bench.send(n_sessions=2, n_messages=5)
    await bench.until(lambda counts: counts.forwarded == 10, "the first are forwarded")
    bench.redis.stop()
    bench.send(n_sessions=4, n_messages=5)
    wait_for(lambda: len(bench.stub.taken_ids()) > 10, "AWS has some of the others")
    bench.redis = start_redis(bench.folder, port=bench.redis.port)
    counts = await bench.until(lambda counts: counts.forwarded >= 30, "all are forwarded")
    assert counts.forwarded == 30
    assert sum((await bench.positions()).values()) == 30
    assert bench.stub.taken_by_session() == bench.sent
