"""The forwarder as a process, on a real broker and Redis, against an AWS in good and bad moods."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer

from models.errors import NotConfigured
from models.events import Event, PutEvents, encode, parse
from models.ledger import ForwardCounts, forward_counts, forward_positions
from models.settings import Settings
from models.store import connect
from ops.embedded import Server, start_broker, start_redis
from streams.dead_letters import letters
from streams.forward import BURST_S, LAST_BACKOFF_S, Pace, backoff_s, forward_app
from streams.topics import Topics, ensure_topics
from tests.streams.personalize_stub import Behaviour, PersonalizeStub

WORKER = """
from models.settings import Settings
from streams.app import run
from streams.forward import forward_app
run(forward_app(Settings()))
"""
PATIENCE_S = 60.0


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_backoff_is_bounded(attempt: int, chance: float) -> None:
    """However long an outage lasts, the next attempt is at most `LAST_BACKOFF_S` away."""
    assert 0 <= backoff_s(attempt, chance) <= LAST_BACKOFF_S


@given(st.floats(0.5, 1000), st.lists(st.floats(0, 0.5), min_size=2, max_size=50))
def test_calls_are_paced(per_s: float, pauses_s: list[float]) -> None:
    """In any stretch of time there are at most as many calls as allowed, and one burst."""
    pace, now_s = Pace(per_s), 1000.0
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


def wait_for(claim: Callable[[], Any], what: str) -> None:
    """Return once the claim holds; fails when patience ends."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline_s, f"never: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A broker that this module's tests share, each with topics of its own."""
    server = start_broker(tmp_path_factory.mktemp("broker"))
    yield server
    server.stop()


@dataclass
class Bench:
    """One test's topics, keys and AWS, and the forwarders between them."""

    settings: Settings
    stub: PersonalizeStub
    folder: Path
    redis: Server
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sent: dict[str, list[str]] = field(default_factory=dict)

    def start(self, **overrides: str) -> subprocess.Popen[bytes]:
        """A forwarder process."""
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "RECOMMENDER_KAFKA": self.settings.kafka,
            "RECOMMENDER_REDIS": self.settings.redis,
            "RECOMMENDER_GROUP": self.settings.group,
            "RECOMMENDER_TOPIC_PREFIX": self.settings.topic_prefix,
            "RECOMMENDER_PARTITIONS": str(self.settings.partitions),
            "RECOMMENDER_SESSION_TIMEOUT_S": "2",
            "RECOMMENDER_FORWARD_TRACKING_ID": "real-tracker",
            "RECOMMENDER_FORWARD_TIMEOUT_S": "0.5",
            "AWS_ENDPOINT_URL_PERSONALIZE_EVENTS": self.stub.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            **overrides,
        }
        with (self.folder / "forward.log").open("ab") as log:
            worker = subprocess.Popen([sys.executable, "-c", WORKER], env=env, stderr=log)
        self.workers.append(worker)
        return worker

    def send(self, n_sessions: int, n_messages: int, n_events: int = 1) -> None:
        """Produce messages of many sessions, one after another, to clicks."""
        messages = []
        for _ in range(n_messages):
            for session in (f"s{n}" for n in range(n_sessions)):
                known = self.sent.setdefault(session, [])
                ids = [f"{session}/{len(known) + n}" for n in range(n_events)]
                events = [Event("click", 1.7e9, event_id=event_id, item_id="i") for event_id in ids]
                known.extend(ids)
                put = PutEvents(session, events, user_id=f"u-{session}", tracking_id="shop")
                messages.append((session, encode(put)))
        self.produce(*messages)

    def produce(self, *messages: tuple[str, bytes]) -> None:
        """Put bytes on the clicks topic, each under the key of its session."""
        producer = KafkaProducer(bootstrap_servers=self.settings.kafka, linger_ms=5)
        for session, raw in messages:
            producer.send(Topics.of(self.settings).clicks, key=session.encode(), value=raw)
        producer.flush()
        producer.close()

    async def counts(self) -> ForwardCounts:
        """The ledger's counters."""
        async with connect(self.settings.redis) as client:
            return await forward_counts(client, self.settings.group)

    async def positions(self) -> dict[str, int]:
        """The ledger's positions."""
        async with connect(self.settings.redis) as client:
            return await forward_positions(client, self.settings.group)

    async def until(self, claim: Callable[[ForwardCounts], bool], what: str) -> ForwardCounts:
        """The counters once they are so."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not claim(counts := await self.counts()):
            log = (self.folder / "forward.log").read_text()[-3000:]
            assert self.workers[-1].poll() is None, f"the forwarder has ended\n{log}"
            assert time.monotonic() < deadline_s, f"never: {what}; {counts}\n{log}"
            time.sleep(0.05)  # noqa: ASYNC251  nothing else runs in this loop
        return counts


@pytest.fixture
def bench(broker: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Topics and keys of the test's own; its forwarders are gone afterwards."""
    server = start_redis(tmp_path)
    settings = Settings(
        kafka=broker.address,
        redis=server.url,
        topic_prefix=f"{request.node.name}.",
        group=request.node.name[:50],
        partitions=2,
    )
    ensure_topics(settings)
    with PersonalizeStub() as stub:
        made = Bench(settings, stub, tmp_path, server)
        yield made
        for worker in made.workers:
            worker.kill()
            worker.wait()
        made.redis.stop()


async def test_every_event_arrives_in_order_through_all_kinds_of_trouble(bench: Bench) -> None:
    """Throttles, failures, hangs, resets and lost answers delay events and lose none."""
    for behaviour in get_args(Behaviour) * 2:
        bench.stub.script.extend([behaviour, "answer"])
    bench.send(n_sessions=12, n_messages=15)
    bench.start()
    counts = await bench.until(lambda counts: counts.forwarded == 180, "all are forwarded")
    assert bench.stub.taken_by_session() == bench.sent
    assert {taken.user_id for taken in bench.stub.taken} == {f"u-s{n}" for n in range(12)}
    assert {body["trackingId"] for body in bench.stub.requests} == {"real-tracker"}
    assert (counts.retries, counts.throttles, counts.refused) == (16, 4, 0)
    assert counts.calls == len(bench.stub.requests)
    assert sum((await bench.positions()).values()) == 180


async def test_one_bad_event_goes_to_the_dead_letters_alone(bench: Bench) -> None:
    """Nine of ten are forwarded, the tenth is kept with AWS's reason, the unreadable is skipped."""
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
    """After kill -9 in the middle, a new process goes on; each event counts once."""
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


async def test_an_outage_holds_the_position_and_does_not_hold_up_a_stop(bench: Bench) -> None:
    """While AWS is down the ledger says so and nothing moves; a hanging call is left behind."""
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


async def test_a_redis_that_is_away_delays_and_skips_nothing(bench: Bench) -> None:
    """What AWS took while Redis was away is in the ledger once Redis is back."""
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
