"""The forwarder behind a faulty proxy: AWS gets every event once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from kafka import KafkaAdminClient

from models.events import Event, MetricAttribution, PutEvents, encode
from models.state.clients.client import connect
from models.state.operations.forwarding_ledger import WaitingEvents, tracker_counts, tracker_waiting
from streams.forwarding.selected_events import in_sample
from streams.kafka.consuming.offsets import end_offsets
from streams.kafka.topics import Topics
from streams.operations.status import read_status
from tests.streams.agents.faulty_proxy import Fault, FaultyProxy, at_random, in_turn
from tests.streams.forwarding.forwarding_fixtures import Bench, forward_hastily, wait_for

Told = tuple[str, str | None, dict[str, Any]]
"""Session, user and members of an event, as AWS should get them."""


@pytest.fixture
def proxy(bench: Bench) -> Iterator[FaultyProxy]:
    """A proxy before the test's stub of AWS."""
    with FaultyProxy(bench.stub.url) as made:
        yield made


def send(bench: Bench, n_sessions: int, n_messages: int, *, after: int = 0) -> list[Told]:
    """Send events with every member; returns the events that AWS should get, in order.

    Each session gets `n_messages`, behind those `after` messages that it had before.
    """
    told: list[Told] = []
    messages: list[tuple[str, bytes]] = []
    for n in range(after, after + n_messages):
        for session in (f"s{number}" for number in range(n_sessions)):
            # A visitor who logs in half-way through.
            user = f"u-{session}" if n >= after + n_messages / 2 else None
            events = [
                Event(
                    "purchase" if at else "click",
                    1_700_000_000.25 + n,
                    event_id=f"{session}/{n}/{at}",
                    item_id=f"i{n}",
                    event_value=n + 0.5,
                    impression=["i1", f"i{n}"],
                    recommendation_id="r1",
                    metric_attribution=MetricAttribution("mail"),
                    properties={"price": n, "note": "ü"},
                )
                for at in range(1 + n % 3)
            ]
            put = PutEvents(session, events, user_id=user, tracking_id="shop")
            messages.append((session, encode(put)))
            for event in events:
                members = msgspec.to_builtins(event)
                members["properties"] = json.dumps(members["properties"], separators=(",", ":"),
                                                   ensure_ascii=False)  # fmt: skip
                told.append((session, user, members))
    bench.produce(*messages)
    return told


def arrived(bench: Bench) -> list[Told]:
    """Events that AWS got, each eventId once; repetitions are equal."""
    found: dict[str, Told] = {}
    for taken in list(bench.stub.taken):
        told = (taken.session_id, taken.user_id, taken.event)
        assert found.setdefault(taken.event["eventId"], told) == told
    return list(found.values())


def by_session(told: list[Told]) -> dict[str, list[Told]]:
    """Each session's events in order."""
    sessions: dict[str, list[Told]] = {}
    for each in told:
        sessions.setdefault(each[0], []).append(each)
    return sessions


@pytest.mark.parametrize(
    "fault", ["outage", "throttle", "stranger", "slow", "reset", "lose", "malformed", "cut"]
)
async def test_no_fault_loses_or_doubles_an_event(
    bench: Bench, proxy: FaultyProxy, fault: Fault
) -> None:
    """A fault in every other call delays events and changes none."""
    proxy.fault = in_turn(*([fault, "pass"] * 12))
    told = send(bench, n_sessions=6, n_messages=6)
    bench.start(
        function=forward_hastily,
        AWS_ENDPOINT_URL_PERSONALIZE_EVENTS=proxy.url,
        RECOMMENDER_BATCH_EVENTS="6",
        # Longer than an answer takes on a busy machine, where no answer is meant to be late.
        RECOMMENDER_FORWARD_TIMEOUT_S="0.5" if fault == "slow" else "10",
    )
    counts = await bench.until(lambda counts: counts.forwarded >= len(told), "all are forwarded")
    assert by_session(arrived(bench)) == by_session(told)
    assert (counts.forwarded, counts.refused, counts.retries) == (len(told), 0, 12)
    assert counts.throttles == (12 if fault == "throttle" else 0)
    assert proxy.calls[fault] == 12


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_storm_of_all_faults_loses_and_doubles_nothing(
    bench: Bench, proxy: FaultyProxy, seed: int
) -> None:
    """With a random fault in every other call, and a kill, all events arrive in order."""
    proxy.fault = at_random(
        seed, 0.5, "outage", "throttle", "stranger", "slow", "reset", "lose", "malformed", "cut"
    )
    told = send(bench, n_sessions=10, n_messages=8)
    first = bench.start(
        function=forward_hastily,
        AWS_ENDPOINT_URL_PERSONALIZE_EVENTS=proxy.url,
        RECOMMENDER_BATCH_EVENTS="20",
    )
    await bench.until(lambda counts: counts.forwarded > 0, "some are forwarded")
    first.kill()
    first.wait()
    bench.start(function=forward_hastily, AWS_ENDPOINT_URL_PERSONALIZE_EVENTS=proxy.url)
    counts = await bench.until(lambda counts: counts.forwarded >= len(told), "all are forwarded")
    assert by_session(arrived(bench)) == by_session(told)
    assert (counts.forwarded, counts.refused) == (len(told), 0)
    assert proxy.n_faults > 10


@pytest.mark.slow
async def test_an_outage_is_reported_and_ends(bench: Bench, proxy: FaultyProxy) -> None:
    """During an outage nothing moves, and the status tells waiting events and their age."""
    proxy.fault = lambda: "outage"
    told = send(bench, n_sessions=5, n_messages=4)
    bench.start(AWS_ENDPOINT_URL_PERSONALIZE_EVENTS=proxy.url)
    counts = await bench.until(lambda counts: counts.retries >= 8, "it is tried again and again")
    assert (counts.forwarded, counts.refused) == (0, 0)
    assert counts.last_error.startswith("503")
    assert await bench.positions() == {}
    # 100 s from now, whatever the clock shows.
    held = await waiting(bench)
    seen = await read_status(bench.settings, now_s=held.since_s + 100)
    assert held.events == seen.trackers["shop"]["waiting"]
    assert 1 <= held.events <= len(told)
    assert seen.trackers["shop"]["oldest_waiting_age_s"] == 100
    assert seen.forward["waiting"] == 20
    assert seen.forward["oldest_waiting_age_s"] == pytest.approx(100, abs=1)
    proxy.fault = lambda: "pass"
    counts = await bench.until(lambda counts: counts.forwarded >= len(told), "all are forwarded")
    assert by_session(arrived(bench)) == by_session(told)
    done = await read_status(bench.settings, now_s=held.since_s + 100)
    assert done.trackers["shop"]["waiting"] == done.forward["waiting"] == 0
    assert done.forward["oldest_waiting_age_s"] == 0


@pytest.mark.slow
async def test_ten_minutes_without_aws_lose_and_double_nothing(
    bench: Bench, proxy: FaultyProxy
) -> None:
    """As many calls fail as in ten minutes, with a kill; then all events arrive.

    A sender retries every five seconds on average, so four of them make 480 calls.
    """
    kinds: tuple[Fault, ...] = ("outage", "reset", "throttle", "stranger", "lose")
    away = iter(range(480))
    proxy.fault = lambda: "pass" if (n := next(away, None)) is None else kinds[n % len(kinds)]
    environment = {
        "AWS_ENDPOINT_URL_PERSONALIZE_EVENTS": proxy.url,
        "RECOMMENDER_FORWARD_PARALLEL": "4",
    }
    told = send(bench, n_sessions=20, n_messages=4)
    first = bench.start(function=forward_hastily, **environment)
    wait_for(lambda: proxy.n_faults > 150, "calls fail")
    first.kill()
    first.wait()
    bench.start(function=forward_hastily, **environment)
    wait_for(lambda: proxy.n_faults > 300, "calls fail again")
    told += send(bench, n_sessions=20, n_messages=4, after=4)
    counts = await bench.until(lambda counts: counts.forwarded >= len(told), "all are forwarded")

    assert proxy.n_faults == 480
    assert by_session(arrived(bench)) == by_session(told)
    assert (counts.forwarded, counts.refused) == (len(told), 0)
    told += send(bench, n_sessions=20, n_messages=1, after=8)
    counts = await bench.until(lambda counts: counts.forwarded >= len(told), "later ones, too")
    assert by_session(arrived(bench)) == by_session(told)
    assert counts.forwarded == len(told)
    wait_for(lambda: committed(bench) == ends(bench), "Kafka knows it")


async def test_an_outage_of_one_tracker_holds_up_no_other(bench: Bench) -> None:
    """The others go on for many batches; positions wait, and each event counts once."""
    trackers = {"shop": "aws-shop", "outlet": "aws-outlet"}
    environment = {
        "RECOMMENDER_FORWARD_TRACKING_ID": "",
        "RECOMMENDER_FORWARD_TRACKING_IDS": json.dumps(trackers),
        "RECOMMENDER_FORWARD_PARALLEL": "2",
        "RECOMMENDER_BATCH_EVENTS": "10",
    }
    sent: dict[str, list[str]] = {}

    def produce(tracker: str, after: int) -> set[str]:
        """Twelve sessions with five events more each."""
        puts = [
            PutEvents(f"{tracker}-{n % 12}", [event(f"{tracker}/{after + n}")], tracking_id=tracker)
            for n in range(60)
        ]
        for put in puts:
            sent.setdefault(put.session_id, []).append(str(put.event_list[0].event_id))
        bench.produce(*((put.session_id, encode(put)) for put in puts))
        return {str(put.event_list[0].event_id) for put in puts}

    bench.stub.away = {"aws-shop"}
    produce("shop", 0)
    others = produce("outlet", 0)
    first = bench.start(function=forward_hastily, **environment)
    wait_for(lambda: set(bench.stub.taken_ids()) == others, "the others arrive")
    produce("shop", 60)
    others |= produce("outlet", 60)
    wait_for(lambda: set(bench.stub.taken_ids()) == others, "later ones, too")
    assert sum((await bench.positions()).values()) < 60
    first.kill()
    first.wait()
    bench.start(function=forward_hastily, **environment)
    bench.stub.away = set()
    counts = await bench.until(lambda counts: counts.forwarded >= 240, "all are forwarded")

    assert bench.stub.taken_by_session() == sent
    assert (counts.forwarded, counts.refused) == (240, 0)
    wait_for(lambda: committed(bench) == ends(bench), "Kafka knows it")


def ends(bench: Bench) -> dict[int, int]:
    """Ends of the partitions of clicks."""
    found = end_offsets(bench.settings, [Topics.of(bench.settings).clicks])
    return {partition: end for (_, partition), end in found.items()}


def committed(bench: Bench) -> dict[int, int]:
    """The forwarder's committed offsets of the partitions of clicks."""
    admin = KafkaAdminClient(bootstrap_servers=bench.settings.kafka)
    try:
        (found,) = admin.list_group_offsets(f"{bench.settings.group}-forward").values()
    finally:
        admin.close()
    clicks = Topics.of(bench.settings).clicks
    return {tp.partition: one.offset for tp, one in found.items() if tp.topic == clicks}


async def waiting(bench: Bench) -> WaitingEvents:
    """Waiting events of the only tracker, from the ledger."""
    async with connect(bench.settings.redis) as client:
        [held] = (await tracker_waiting(client, bench.settings.group)).values()
        return held


def event(event_id: str, event_type: str = "click", **members: Any) -> Event:
    """An event with properties."""
    return Event(event_type, 1.7e9, event_id=event_id, item_id="i", **members)


async def test_settings_select_events_and_trackers(bench: Bench) -> None:
    """Trackers map to those of AWS; types, sessions and properties are left out."""
    session = next(f"s{n}" for n in itertools.count() if in_sample(f"s{n}", 0.5))
    bench.stub.refuse = lambda event: "bad" if event["eventId"] == "bad" else None
    puts = [
        PutEvents(session, [event("a", properties={"email": "x", "size": 1}), event("b", "View")]),
        PutEvents(session, [event("c", "look"), event("d")], tracking_id="outlet"),
        PutEvents(session, [event("e")], tracking_id="unknown"),
        PutEvents(session, [event("bad"), event("f")], tracking_id="shop", user_id="u"),
        *(PutEvents(f"t{n}", [event(f"t{n}")], tracking_id="shop") for n in range(40)),
    ]
    bench.produce(*((put.session_id, encode(put)) for put in puts))
    bench.start(
        RECOMMENDER_FORWARD_TRACKING_ID="aws-shop",
        RECOMMENDER_FORWARD_TRACKING_IDS='{"outlet": "aws-outlet"}',
        RECOMMENDER_FORWARD_EVENT_TYPES='["CLICK", "view"]',
        RECOMMENDER_FORWARD_WITHOUT_PROPERTIES='["email"]',
        RECOMMENDER_FORWARD_SESSIONS="0.5",
    )
    total = sum(len(put.event_list) for put in puts)
    counts = await bench.until(
        lambda c: c.forwarded + c.refused + c.withheld + c.skipped >= total, "all are answered for"
    )
    sent = {
        (body["trackingId"], body["sessionId"], each["eventId"]): each.get("properties")
        for body in bench.stub.requests
        for each in body["eventList"]
    }
    sampled = {key[2] for key in sent if key[1].startswith("t")}
    assert 10 <= len(sampled) <= 30
    rest = {key: properties for key, properties in sent.items() if key[1] == session}
    assert rest == {
        ("aws-shop", session, "a"): '{"size":1}',
        ("aws-shop", session, "b"): None,
        ("aws-outlet", session, "d"): None,
        ("aws-shop", session, "bad"): None,
        ("aws-shop", session, "f"): None,
    }
    async with connect(bench.settings.redis) as client:
        trackers = await tracker_counts(client, bench.settings.group)
    assert trackers.keys() == {"shop", "outlet"}
    shop, outlet = trackers["shop"], trackers["outlet"]
    assert (shop.forwarded, shop.refused, shop.withheld) == (
        3 + len(sampled), 1, 40 - len(sampled),
    )  # fmt: skip
    assert (outlet.forwarded, outlet.refused, outlet.withheld) == (1, 0, 1)
    assert (counts.skipped, counts.withheld) == (1, shop.withheld + outlet.withheld)
    assert counts.calls == shop.calls + outlet.calls == len(bench.stub.requests)
