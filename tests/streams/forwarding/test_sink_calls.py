"""Calls to a sink from Kafka messages: no event lost, none doubled, order kept."""

from __future__ import annotations

import json
from collections import Counter, deque
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.events import Event, MetricAttribution, PutEvents, parse
from streams.aws_personalize import put_events_parameters
from streams.event_sinks import MAX_BATCH_EVENTS, EventBatch
from streams.forwarding.sink_calls import (
    QueuedMessage,
    bisect,
    event_batch,
    pending,
    plan_calls,
    pop_settled,
    single_event_message,
    waiting,
)

lists_of_messages = st.lists(
    st.builds(
        lambda session, user, n_events: (session, user, n_events),
        st.sampled_from(["s1", "s2", "s3"]),
        st.sampled_from([None, "u1", "u2"]),
        st.integers(0, 10),
    ),
    max_size=30,
)


def messages_of(shapes: list[tuple[str, str | None, int]]) -> list[QueuedMessage]:
    """Messages of one partition; one without events is invalid."""
    return [
        message_of(put_of(session, user, n_events, offset) if n_events else None, offset)
        for offset, (session, user, n_events) in enumerate(shapes)
    ]


def message_of(put: PutEvents | None, offset: int = 0) -> QueuedMessage:
    """A message whose events are all to be forwarded."""
    return QueuedMessage("clicks", 0, offset, put, put.event_list if put else (), float(offset))


def put_of(session: str, user: str | None, n_events: int, offset: int = 0) -> PutEvents:
    """A message of n events of one session."""
    events = [
        Event("click", 1.7e9 + n, event_id=f"{session}-{offset}-{n}", item_id=f"i{n}")
        for n in range(n_events)
    ]
    return PutEvents(session, events, user_id=user, tracking_id="shop")


def events_of(messages: list[QueuedMessage]) -> list[str | None]:
    """EventIds in the order of the messages."""
    return [event.event.event_id for event in pending(messages)]


@given(lists_of_messages)
def test_every_event_is_in_exactly_one_call(shapes: list[tuple[str, str | None, int]]) -> None:
    """Each event of any messages is sent once."""
    messages = messages_of(shapes)
    planned = [
        p.event.event_id for calls in plan_calls(pending(messages)) for call in calls for p in call
    ]
    assert sorted(events_of(messages), key=str) == sorted(planned, key=str)


@given(lists_of_messages)
def test_a_session_keeps_its_order_in_calls_of_one_user(
    shapes: list[tuple[str, str | None, int]],
) -> None:
    """The calls of a session hold its events in order, at most ten each."""
    messages = messages_of(shapes)
    sessions = plan_calls(pending(messages))
    assert len(sessions) == len({calls[0][0].put.session_id for calls in sessions})
    for calls in sessions:
        session = calls[0][0].put.session_id
        planned = [p.event.event_id for call in calls for p in call]
        assert [m for m in events_of(messages) if str(m).startswith(f"{session}-")] == planned
        assert all(1 <= len(call) <= MAX_BATCH_EVENTS for call in calls)
        assert all(len({(p.put.session_id, p.put.user_id) for p in call}) == 1 for call in calls)


def test_events_of_several_messages_share_calls() -> None:
    """Twenty-five messages of one event each make three calls, not twenty-five."""
    messages = messages_of([("s1", "u1", 1)] * 25)
    assert [[len(call) for call in calls] for calls in plan_calls(pending(messages))] == [
        [10, 10, 5]
    ]


@given(st.integers(2, 10))
def test_bisect_keeps_the_order_and_ends_at_single_events(n_events: int) -> None:
    """Both halves are smaller than the call, and no event is lost."""
    call = list(pending(messages_of([("s1", None, n_events)])))
    one, other = bisect(call)
    assert call == [*one, *other]
    assert 1 <= len(one) < n_events
    assert 1 <= len(other) < n_events


def test_parameters_carry_every_member() -> None:
    """Every member of an event reaches AWS, properties as JSON text."""
    event = Event(
        "click",
        1795381719.123,
        event_id="e1",
        item_id="i9",
        event_value=2.5,
        impression=["i9", "i3"],
        recommendation_id="r1",
        metric_attribution=MetricAttribution("mail"),
        properties={"a": "ü", "n": 1},
    )
    message = message_of(PutEvents("s1", [event], user_id="u1", tracking_id="shop"))
    request = put_events_parameters(event_batch(list(pending([message])), "real-tracker"))
    sent: dict[str, Any] = request["eventList"][0]
    assert request["trackingId"] == "real-tracker"
    assert (request["sessionId"], request["userId"]) == ("s1", "u1")
    assert sent.pop("sentAt").timestamp() == 1795381719.123
    assert json.loads(sent.pop("properties")) == {"a": "ü", "n": 1}
    assert sent == {
        "eventType": "click",
        "eventId": "e1",
        "itemId": "i9",
        "eventValue": 2.5,
        "impression": ["i9", "i3"],
        "recommendationId": "r1",
        "metricAttribution": {"eventAttributionSource": "mail"},
    }


def test_properties_sent_as_text_stay_as_they_are() -> None:
    """JSON text in `properties` is not encoded twice."""
    event = Event("click", 1.7e9, event_id="e1", properties='{"a": 1}')
    message = message_of(PutEvents("s1", [event]))
    request = put_events_parameters(event_batch(list(pending([message])), "real-tracker"))
    assert request["eventList"][0]["properties"] == '{"a": 1}'
    assert "userId" not in request


@given(lists_of_messages, st.sets(st.integers(0, 30)))
def test_a_position_stops_at_the_first_unsettled_message(
    shapes: list[tuple[str, str | None, int]], open_ones: set[int]
) -> None:
    """It moves past settled messages without a gap, and each event is counted once."""
    messages = messages_of(shapes)
    for message in messages:
        if message.put and message.offset not in open_ones:
            message.outcomes["forwarded"] = message.unsettled
            message.unsettled = 0
    first_open = next((m.offset for m in messages if m.unsettled), len(messages))
    queues = {("clicks", 0): deque(messages)}
    moves = pop_settled(queues, {})
    if first_open == 0:
        assert moves == {}
    else:
        sizes = [n_events for _, _, n_events in shapes[:first_open]]
        expected = {"shop": {"forwarded": sum(sizes)}, "": {"skipped": sizes.count(0)}}
        [(offset, outcomes)] = moves.values()
        assert offset == first_open
        assert {tracker: +Counter(n) for tracker, n in outcomes.items()} == {
            tracker: Counter(n) for tracker, n in expected.items() if any(n.values())
        }
    assert pop_settled(queues, {}) == {}


def test_messages_settled_twice_count_once() -> None:
    """Messages that were read twice move the position, and count the first time."""
    put = PutEvents("s1", [Event("click", 1.7e9, event_id="e")], tracking_id="shop")
    twice = [message_of(put, n) for n in (4, 5, 6, 5, 6, 7)]
    for message in twice:
        message.unsettled = 0
        message.outcomes["forwarded"] = 1
    (move,) = pop_settled({("clicks", 0): deque(twice)}, {("clicks", 0): 5}).values()

    assert move.offset == 8
    assert move.outcomes == {"shop": {"forwarded": 3}}


def test_a_single_event_is_a_valid_message() -> None:
    """A dead letter holds a message of the one event, with session and user."""
    event = list(pending([message_of(put_of("s1", "u1", 10), 42)]))[4]
    assert parse(single_event_message(event), now_s=1.8e9) == PutEvents(
        "s1", [event.event], user_id="u1", tracking_id="shop"
    )


def test_equal_session_ids_of_two_trackers_are_two_sessions() -> None:
    """Events of two trackers never share a call."""
    puts = [put_of("s1", "u1", 1), msgspec.structs.replace(put_of("s1", "u1", 1), tracking_id="b")]
    messages = [message_of(put, n) for n, put in enumerate(puts * 2)]
    planned = [[event.message.tracker for event in call] for calls in plan_calls(pending(messages))
               for call in calls]  # fmt: skip
    assert planned == [["shop", "shop"], ["b", "b"]]


@pytest.mark.parametrize(
    ("properties", "without", "sent"),
    [
        ({"a": 1, "email": "x"}, ["email"], {"a": 1}),
        ('{"a": 1, "email": "x"}', ["email", "b"], {"a": 1}),
        ({"a": {"email": 1}}, ["email"], {"a": {"email": 1}}),
        ({"a": 1}, ["*"], None),
        ('{"a": 1}', ["a"], None),
        ({}, [], None),
        (None, ["*"], None),
    ],
)
def test_redacted_properties_do_not_leave(
    properties: Any, without: list[str], sent: dict[str, Any] | None
) -> None:
    """Named keys, or all, are left out of properties that came as text or as an object."""
    event = Event("click", 1.7e9, event_id="e1", item_id="i1", properties=properties)
    batch = EventBatch("t", "s1", None, [event])
    [members] = put_events_parameters(batch, without)["eventList"]
    text = members.get("properties")
    assert (json.loads(text) if text else None) == sent
    assert members["itemId"] == "i1"


@given(lists_of_messages, st.sets(st.integers(0, 30)))
def test_waiting_events_are_counted_by_tracker_since_the_oldest(
    shapes: list[tuple[str, str | None, int]], answered: set[int]
) -> None:
    """Unsettled events are summed, and the earliest of their messages gives the time."""
    messages = messages_of(shapes)
    for message in messages:
        if message.offset in answered:
            message.unsettled = 0
    left = [message for message in messages if message.unsettled]
    expected = {"shop": (sum(m.unsettled for m in left), left[0].at_s)} if left else {}
    assert waiting(messages) == expected
