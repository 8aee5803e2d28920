"""Imported events that a later import replaces: as if never sent, and they may come again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.events import Event, event_hash, removal
from models.settings import Settings
from models.state import layout
from models.state.clients.client import connect
from models.state.messages import Part, StoredMessage, shard_of, stored_events
from models.state.store import Store
from models.state.users.interactions import imported_events
from tests.models.state.reference import NOW, contents, history_of
from tests.models.state.test_withdrawals import (
    TAKERS,
    TYPES,
    Act,
    assert_as_if_never_sent,
    event_of,
)

DRAWN = st.tuples(
    st.sampled_from(["ada", "ada", "bob"]),
    st.sampled_from(["click", "cart", "purchase", "dislike", *TAKERS]),
    st.sampled_from("abcd"),
    st.booleans(),
)
"""User, kind and item of an event, and whether it is imported."""


class Sender:
    """Sends events to a store, each in a step of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offset = 0

    async def send(self, user: str, *events: Event, imported: bool) -> dict[str, int]:
        """Apply a message; gives the counts of the step."""
        stored = stored_events(events, TYPES, are_imported=imported)
        message = StoredMessage(self._offset, user, user, shard_of(user), NOW, stored)
        part = Part("p/0", self._offset - 1, [message])
        ((status, *_),), counts = await self._store.apply([part], now_s=NOW)
        assert status == "applied"
        self._offset += 1
        return counts


def removal_of(number: int, act: Act) -> Event:
    """The removal of an act's event."""
    event = event_of(number, act)
    return removal(event_hash(event.event_id or ""), act.kind, event.sent_at)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(DRAWN, min_size=3, max_size=25), st.sets(st.integers(0, 24)))
def test_what_is_replaced_is_as_if_it_never_was(
    redis_url: str, drawn: list[tuple[str, str, str, bool]], removed: Iterable[int]
) -> None:
    """Removals, sent twice, take what was imported out of all counts; live events stay."""
    acts = [Act(user, kind, item) for user, kind, item, _ in drawn]
    gone = [n for n in sorted(removed) if n < len(acts) and drawn[n][3]]

    async def check() -> None:
        async with connect(redis_url) as client:
            store = Store(client, Settings(group="r", cache_s=0))
            try:
                sender = Sender(store)
                for n, act in enumerate(acts):
                    await sender.send(act.user, event_of(n, act), imported=drawn[n][3])
                for n in [*sorted(removed), *sorted(removed)]:
                    if n < len(acts):
                        await sender.send(acts[n].user, removal_of(n, acts[n]), imported=True)
                undone = [Act(acts[n].user, "undo", "", n) for n in gone]
                await assert_as_if_never_sent(store, [*acts, *undone])
                for user in ("ada", "bob"):
                    left = [n for n, a in enumerate(acts) if a.user == user and n not in gone]
                    history = await history_of(store, f"u:{user}")
                    assert (history.count, len(history.items)) == (len(left), len(left))
            finally:
                await client.flushall()

    asyncio.run(check())


async def test_a_removed_event_counts_when_it_comes_again(store: Store) -> None:
    """Removed and imported again, the state is as after the first import."""
    sender = Sender(store)
    acts = [Act("ada", kind, item) for kind, item in (("click", "a"), ("purchase", "b"))]
    events = [event_of(n, act) for n, act in enumerate(acts)]
    await sender.send("ada", *events, imported=True)
    before = await contents(store)
    counts = await sender.send("ada", removal_of(1, acts[1]), imported=True)
    assert (counts["undone"], counts["undone_purchases"]) == (1, 1)

    counts = await sender.send("ada", events[1], imported=True)

    assert (counts["events"], counts["duplicates"]) == (1, 0)
    after = await contents(store)
    changed = {key for key in after if after[key] != before.get(key)}
    # Sums of logarithms are right within their rounding.
    assert changed <= {
        "counts",
        "watermarks",
        "witnesses",
        "recent",
        "stats:0",
        "pairs:1",
        "pairs:2",
    }
    assert (await store.counts())["purchases"] == 1


async def test_an_event_that_is_live_too_stays(store: Store) -> None:
    """Whichever comes first: the event of an import that was also sent live is not replaced."""
    sender = Sender(store)
    acts = [Act("ada", "click", item) for item in "abc"]
    events = [event_of(n, act) for n, act in enumerate(acts)]
    await sender.send("ada", events[0], imported=True)
    await sender.send("ada", events[0], events[1], imported=False)
    await sender.send("ada", events[1], events[2], imported=True)
    marked = [
        (owner, types, hashes.tolist()) async for owner, types, hashes, _ in imported_events(store)
    ]
    assert marked == [("ada", ["click"], [event_hash("ada2")])]
    await sender.send("bob", *events[:2], imported=True)
    both = [
        hashes.tolist() async for owner, _, hashes, _ in imported_events(store) if owner == "bob"
    ]
    assert both == [[event_hash("ada0"), event_hash("ada1")]]

    removals = [removal_of(n, act) for n, act in enumerate(acts)]
    await sender.send("ada", *removals, imported=True)

    history = await history_of(store, "u:ada")
    assert history.items.tolist() == [1, 2]
    assert np.all(history.types <= layout.TYPES)
    assert (await store.counts())["events"] == 4


async def test_types_of_imported_events_have_names(store: Store) -> None:
    """What is read by type finds imported events, too."""
    sender = Sender(store)
    act = Act("ada", "purchase", "a")
    await sender.send("ada", event_of(0, act), imported=True)

    (code,) = (await history_of(store, "u:ada")).types.tolist()

    assert code == layout.IMPORTED - 1
    assert (await store.event_types())[code] == "purchase"
