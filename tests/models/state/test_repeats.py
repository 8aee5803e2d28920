"""An event counts once, in any order and under any of its user's sessions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from models.state import layout
from models.state.catalogue import metadata
from models.state.messages import Part, StoredEvent, StoredMessage
from models.state.store import Store
from tests.models.state.reference import NOW, click, history_of, message

LIMIT = 10


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    """A store with short histories."""
    return make_store(history_events=LIMIT)


async def send(store: Store, *sent: tuple[str, str, StoredEvent], batch: int = 1) -> int:
    """Apply events of a user ("" for none), each in a session; returns the duplicates."""
    messages: list[StoredMessage] = []
    repeated = 0
    for offset, (user, session, event) in enumerate(sent):
        messages.append(message(offset, event, user=user, session=session))
        if len(messages) == batch or offset == len(sent) - 1:
            part = Part("p/0", messages[0].offset - 1, messages)
            _, counts = await store.apply([part], now_s=NOW)
            repeated += counts["duplicates"]
            messages = []
    return repeated


async def times_counted(store: Store, item: str) -> int:
    """Number of counted events on the item."""
    found = await metadata.item(store, item, now_s=NOW)
    return found.events if found else 0


@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize("user", ["ada", ""])
async def test_a_late_event_counts_once(store: Store, user: str, batch: int) -> None:
    """It is trimmed at once from a history of newer events, and recognised all the same."""
    full = [click(f"i{n}", n, NOW + n) for n in range(2 * LIMIT)]
    late = click("late", 99, NOW - 1000)

    repeated = await send(
        store, *((user, "s", event) for event in [*full, *5 * [late]]), batch=batch
    )

    assert repeated == 4
    assert await times_counted(store, "late") == 1
    assert len((await history_of(store, f"u:{user}" if user else "s:s")).items) == LIMIT


async def test_a_late_event_of_a_session_counts_once_after_its_login(store: Store) -> None:
    """Ids that a session has trimmed count for the user that it is linked to."""
    full = [click(f"i{n}", n, NOW + n) for n in range(2 * LIMIT)]
    late = click("late", 99, NOW - 1000)
    before = [("", "s", event) for event in [*full, late]]
    login, after = ("ada", "s", click("door", 100, NOW + 500)), ("ada", "t", late)

    assert await send(store, *before, login, after, ("", "s", full[0])) == 2
    assert await times_counted(store, "late") == 1
    assert (await history_of(store, "u:ada")).count == 2 * LIMIT + 2


@pytest.mark.parametrize(
    ("sent", "counted"),
    [
        ([("ada", "q1"), ("", "q2"), ("ada", "q2")], 1),
        ([("", "q1"), ("ada", "q1"), ("ada", "q2")], 1),
        ([("", "q1"), ("", "q2"), ("ada", "q1"), ("ada", "q2")], 1),
        ([("", "q2"), ("ada", "q1"), ("", "q1")], 1),
        ([("ada", "q1"), ("bob", "q2"), ("ada", "q3"), ("bob", "q2")], 2),
    ],
)
async def test_one_event_in_several_sessions(
    store: Store, sent: list[tuple[str, str]], counted: int
) -> None:
    """One event if it may be of one user, two if two users are known to have it."""
    await send(store, *((user, session, click("x", 1)) for user, session in sent))

    assert await times_counted(store, "x") == counted


async def test_ids_may_repeat_between_sessions(store: Store) -> None:
    """Clients may number events per session: another time is another event."""
    first = click("x", 1)
    others = [first._replace(millisecond=1), first._replace(time=NOW + 1)]
    others += [first._replace(item_id="y"), first._replace(type="view"), first._replace(hash=9)]

    assert await send(store, *((("", f"s{n}", one)) for n, one in enumerate([first, *others]))) == 0


@pytest.mark.parametrize("seed", range(5))
async def test_any_order_counts_once(store: Store, seed: int) -> None:
    """Late, repeated, over several sessions and logins, cut anywhere."""
    chance = random.Random(seed)
    sessions = {user: [f"{user}{n}" for n in range(3)] for user in ("ada", "bob", "eve")}
    arrived: dict[str, list[StoredEvent]] = {user: [] for user in sessions}
    expected: Counter[str] = Counter()
    sent = []
    for n in range(400):
        user = chance.choice(list(sessions))
        last = arrived[user][-LIMIT // 2 :]
        if last and chance.random() < 0.5:
            event = chance.choice(last)
        else:
            event = click(f"i{chance.randrange(6)}", n, NOW - chance.randrange(500))
            expected[event.item_id] += 1
        arrived[user].append(event)
        sent.append((user if chance.random() < 0.3 else "", chance.choice(sessions[user]), event))

    await send(store, *sent, batch=chance.randint(1, 30))

    assert {item: await times_counted(store, item) for item in expected} == expected


async def test_deduplication_is_bounded(make_store: Callable[..., Store]) -> None:
    """It does not grow with the number of events, and trimmed ids expire with their history."""
    store = make_store(history_events=LIMIT, recent_events=1000, session_ttl_s=1000)
    chance = random.Random(1)
    for _ in range(3):
        events = [
            click("a", chance.getrandbits(32), NOW - chance.randrange(900)) for _ in range(900)
        ]
        await send(store, *(("", "s", event) for event in events), batch=100)
        # The watermark is that of the first messages: they are others' now.
        await store.redis.delete(store.key("watermarks"))
    forgotten = store.key("forgotten:s:s")

    assert await store.redis.strlen(store.key("recent")) == 1000 * layout.RECENT_EVENT.itemsize
    assert await store.redis.strlen(forgotten) == 2 * LIMIT * layout.EVENT_HASH.itemsize
    assert 0 < await store.redis.ttl(forgotten) <= 1000
