"""Histories as columns of bytes: what is written is read again, in Python and in Lua."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.retrieval.user_neighbours import LENGTH_POWER, neighbour_items
from models.state import layout
from models.state.clients.client import connect
from models.state.histories import effects, event_hashes, hash_numbers, item_indexes, unpack_history
from models.state.outcomes.served_outcomes import APPLY_SERVED
from models.state.scripts.registered_scripts import Script, run_script
from tests.models.state.packed_histories import PackedEvent, pack_history

BOUNDS = (layout.FIRST_OF_TWO, layout.FIRST_OF_THREE, layout.FIRST_OF_FIVE)
GAPS = (
    st.integers(0, 3)
    | st.sampled_from([gap + by for gap in BOUNDS for by in (-1, 0, 1)])
    | st.integers(0, 2**26)
)
ITEMS = st.integers(0, 9) | st.integers(2**16 - 2, 2**16 + 1) | st.just(layout.MAX_ITEM_INDEX)
HASHES = st.integers(0, 2**40 - 1) | st.integers(1, 9).map(lambda n: n * 0x0101010101)
TYPES, EFFECTS = st.sampled_from([1, 1, 1, 2, 255]), st.sampled_from([0, 0, 0, 1, 5])
DRAWN = st.lists(
    st.tuples(GAPS, ITEMS, TYPES, EFFECTS, HASHES),
    max_size=12,
)


def events_of(drawn: list[tuple[int, int, int, int, int]]) -> list[PackedEvent]:
    """Events with these gaps between them."""
    time, events = 1_500_000_000, []
    for gap, item, kind, effect, hash_ in drawn:
        time += gap
        events.append(PackedEvent(item, time, kind, effect, hash_))
    return events


@given(DRAWN)
def test_a_stored_history_is_read_as_it_was_written(
    drawn: list[tuple[int, int, int, int, int]],
) -> None:
    """Columns of any width, with and without types and effects."""
    events = events_of(drawn)
    raw = pack_history(events, count=99, number=7, accepted_at=1.5)

    found = unpack_history(raw)

    assert (found.count, found.numbers, found.accepted_at) == (99, (7,), 1.5)
    assert item_indexes(found).tolist() == [event.item for event in events]
    assert effects(found).tolist() == [event.effect for event in events]
    assert found.times.tolist() == [event.time for event in events]
    assert found.types.tolist() == [event.type for event in events]
    assert hash_numbers(event_hashes(raw)).tolist() == [event.hash for event in events]


@given(st.lists(st.none() | DRAWN, max_size=4))
def test_items_of_many_histories_are_those_of_each(
    drawn: list[list[tuple[int, int, int, int, int]] | None],
) -> None:
    """Items of neighbours are read in one pass, whatever the width of each history."""
    raws = [None if one is None else pack_history(events_of(one)) for one in drawn]
    weights = np.arange(1.0, len(raws) + 1)

    found = neighbour_items(raws, weights)

    each = [unpack_history(raw).items for raw in raws]
    expected = [
        weight * len(items) ** LENGTH_POWER
        for weight, items in zip(weights, each, strict=True)
        for _ in items
    ]
    assert found.items.tolist() == [item for items in each for item in items.tolist()]
    assert found.weights.tolist() == pytest.approx(expected)


CHANGES = Script.of(
    APPLY_SERVED.text.partition("local function open_recent_owners")[0]
    + """
local history = without_events({count = 3, number = 4, accepted = 5.5})
for _, change in ipairs(request.changes) do
  local what, k = change[1], change[2]
  if what == 'insert' then
    insert_event(history, k, change[3], change[4], change[5], pack('<I5', change[6]))
  elseif what == 'remove' then remove_event(history, k)
  elseif what == 'drop' then drop_first(history, k)
  elseif what == 'effect' then set_event(history, k, change[3], change[4])
  elseif what == 'type' then set_type(history, k, change[3])
  end
  if k % 2 == 0 then history = unpack_history(pack_history(history)) end
end
local copy = without_events({count = 3, number = 4, accepted = 5.5})
local firsts, places = {}, {}
for k = 1, history.n do
  copy_event(history, k, copy)
  firsts[k] = find_item(history, item_at(history, k), 1) or 0
  places[k] = find_event(history, pack('<I5', hash_at(history, k)))
end
local read = cmsgpack.pack({times_of(history), firsts, places})
return {pack_history(history), pack_history(copy), read}
"""
)
"""Applies changes to an empty history, and gives what it and a copy of it have then."""

Change = tuple[str, int, int, int, int, int, int]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["insert"] * 6 + ["remove", "drop", "effect", "type"]),
            st.integers(0, 11), GAPS, ITEMS, TYPES, EFFECTS, HASHES,
        ),
        max_size=25,
    )
)  # fmt: skip
def test_changes_of_columns_are_those_of_a_list(redis_url: str, changes: list[Change]) -> None:
    """Inserts at any time, removals and other effects, beside a list of events."""
    events: list[PackedEvent] = []
    sent: list[list[str | int]] = []
    for what, place, gap, item, kind, effect, hash_ in changes:
        k = place % len(events) if events else 0
        if what == "insert":
            # Early, late or in the middle.
            time = (events[k].time if events else 1_500_000_000) + (gap if place % 3 else -gap)
            time = max(time, 1)
            at = len(events)
            while at and events[at - 1].time > time:
                at -= 1
            events.insert(at, PackedEvent(item, time, kind, effect, hash_))
            sent.append(["insert", item, effect, time, kind, hash_])
        elif not events:
            continue
        elif what == "remove":
            events.pop(k)
            sent.append(["remove", k + 1])
        elif what == "drop" and len(events) > 1:
            dropped = min(k + 1, len(events) - 1)
            del events[:dropped]
            sent.append(["drop", dropped])
        elif what == "effect":
            events[k] = events[k]._replace(effect=effect, item=item)
            sent.append(["effect", k + 1, effect, item])
        elif what == "type":
            events[k] = events[k]._replace(type=kind)
            sent.append(["type", k + 1, kind])

    async def changed() -> list[Any]:
        async with connect(redis_url) as client:
            payload = msgspec.msgpack.encode({"changes": sent, "limits": {}})
            return [*await run_script(client, CHANGES, ["{h}:none"], payload)]

    raw, copy, packed = asyncio.run(changed())
    times, firsts, places = msgspec.msgpack.decode(packed)
    found, copied = unpack_history(raw), unpack_history(copy)
    assert (found.count, found.numbers, found.accepted_at) == (3, (4,), 5.5)
    assert [found.items.tolist(), found.times.tolist(), found.types.tolist()] == [
        copied.items.tolist(), copied.times.tolist(), copied.types.tolist()
    ]  # fmt: skip
    assert copy == pack_history(events, count=3, number=4, accepted_at=5.5)
    assert found.times.tolist() == times == [event.time for event in events]
    assert item_indexes(found).tolist() == [event.item for event in events]
    assert effects(found).tolist() == [event.effect for event in events]
    assert found.types.tolist() == [event.type for event in events]
    assert hash_numbers(event_hashes(raw)).tolist() == [event.hash for event in events]
    live = [event.item if not event.effect else None for event in events]
    assert firsts == [live.index(event.item) + 1 if event.item in live else 0 for event in events]
    hashes = [event.hash for event in events]
    assert places == [hashes.index(event.hash) + 1 for event in events]
