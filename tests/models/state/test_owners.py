"""Owners of histories: sessions that join a user, links, expiry, and erasure."""

from __future__ import annotations

from collections.abc import Callable

from models.state.messages import (
    Part,
    shard_of,
)
from models.state.store import Store
from models.state.users.user_data import user_data_counts
from tests.models.state.message_fixtures import send
from tests.models.state.reference import (
    NOW,
    click,
    contents,
    erasure,
    history_of,
    message,
)


async def test_login_joins_the_session(store: Store) -> None:
    """The session's events become the user's, by time, none twice; later ones follow."""
    seen_on_both = click("b", 2, NOW + 2)
    await send(
        store,
        message(0, click("d", 4, NOW + 4), seen_on_both, user="ada", session="old"),
        message(1, click("a", 1, NOW + 1), seen_on_both, click("c", 3, NOW + 3), session="new"),
        message(2, click("e", 5, NOW + 5), user="ada", session="new"),
        message(3, click("f", 6, NOW + 6), session="new"),
        batch=1,
    )
    history = await history_of(store, "u:ada")

    assert await store.item_ids(history.items.tolist()) == list("abcdef")
    assert history.count == 6
    assert not await store.redis.exists(store.key("history:s:new"))


async def test_a_joined_history_is_bounded(make_store: Callable[..., Store]) -> None:
    """Joined events count against the limit, even if the login itself is a repetition."""
    store = make_store(history_events=10)
    newest = click("z", 99, NOW + 99)
    await send(
        store,
        message(0, *(click("a", n, NOW + n) for n in range(9)), newest, user="ada", session="old"),
        message(1, *(click("b", n, NOW + n) for n in range(20, 29)), session="new"),
        message(2, newest, user="ada", session="new"),
    )
    history = await history_of(store, "u:ada")

    assert history.times.tolist() == [*range(NOW + 20, NOW + 29), NOW + 99]
    assert history.count == 19


async def test_links_and_histories_expire(make_store: Callable[..., Store]) -> None:
    """A link lives for one to two session lifetimes; every history expires."""
    store = make_store(session_ttl_s=1000, user_ttl_s=5000)
    await send(store, message(0, click("a", 0), user="ada"), message(1, click("b", 1), session="t"))

    found = [await store.linked_user("s", now_s=NOW + later) for later in (0, 1000, 2000)]
    assert found == ["ada", "ada", None]
    for n, (later, owner) in enumerate([(1000, "u:ada"), (3000, "s:s")], 2):
        await store.apply([Part("p/0", n - 1, [message(n, click("c", n))])], now_s=NOW + later)
        assert (await history_of(store, owner)).items[-1] == 3
    for key, most in (("u:ada", 5000), ("s:t", 1000)):
        assert most - 60 < await store.redis.ttl(store.key(f"history:{key}")) <= most
    for generation in (NOW // 1000, NOW // 1000 + 1):
        links = store.key(f"links:{generation}:{shard_of('s')}")
        assert 1940 < await store.redis.ttl(links) <= 2000


async def test_a_session_in_use_keeps_its_link(make_store: Callable[..., Store]) -> None:
    """Events renew the link: it expires one session_ttl after the last of them."""
    store = make_store(session_ttl_s=1000)
    for n in range(5):
        one = message(n, click("a", n), user="" if n else "ada")
        await store.apply([Part("p/0", n - 1, [one])], now_s=NOW + 900 * n)

    assert await store.linked_user("s", now_s=NOW + 4500) == "ada"
    assert (await history_of(store, "u:ada")).count == 5
    assert (await store.counts())["users"] == 1


async def test_erasing_a_user(store: Store) -> None:
    """History, links and linked sessions' histories go; counts of items stay."""
    await send(
        store,
        message(0, click("a", 0), session="s1"),
        message(1, click("b", 1), user="ada", session="s1"),
        message(2, click("c", 2), user="ada", session="s2"),
        message(3, click("c", 3), user="bob", session="s3"),
        message(4, click("d", 4), session="ada"),
    )
    before = await contents(store)
    assert await store.linked_user("s1", now_s=NOW) == "ada"

    held = await user_data_counts(store, "ada", now_s=NOW)
    await send(store, erasure(5, "ada", NOW))

    assert held == {"events": 4, "sessions": 2, "links": 2, "records": 0}
    assert await store.linked_user("s1", now_s=NOW) is None
    assert await store.linked_user("s3", now_s=NOW) == "bob"
    after = await contents(store)
    assert "ada" not in str(after)
    assert [key for key in before if after.get(key) != before[key]] == [
        key
        for key in before
        if "ada" in key + str(before[key]) or key in ("watermarks", "witnesses")
    ]
    assert not any((await user_data_counts(store, "ada", now_s=NOW)).values())


async def test_erased_events_are_dropped_if_repeated(
    make_store: Callable[..., Store],
) -> None:
    """Of linked sessions too; later events count."""
    store = make_store(session_ttl_s=1000)
    late, again = click("a", 0), click("b", 1)
    await send(store, message(0, late, user="ada", session="s1"), message(1, again, session="s1"))
    await send(store, erasure(2, "ada", NOW + 0.5), erasure(3, "ada", NOW + 0.5))
    came = [
        message(4, late, user="ada", session="s1"),
        message(5, again, session="s1"),
        message(6, again, session="s1")._replace(accepted_at=NOW + 9.0),
        message(7, click("c", 2, NOW + 5), user="ada", session="new"),
        message(8, late._replace(time=NOW + 5), user="bob", session="s1"),
        message(9, click("d", 3, NOW + 5), user="ada")._replace(accepted_at=NOW + 9.0),
    ]
    counts = await send(store, *came)

    assert (counts["erased"], counts["events"]) == (4, 2)
    history = await history_of(store, "u:ada")
    assert await store.item_ids(history.items.tolist()) == ["d"]
    assert not await store.redis.exists(store.key("history:s:s1"))
    assert await store.erased_until(["u:ada", "s:s1", "u:bob"]) == [NOW + 0.5, NOW + 0.5, 0.0]
    assert "ada" not in str(await store.redis.zrange(store.key("erased"), 0, -1))


async def test_a_late_erasure_leaves_newer_events(store: Store) -> None:
    """Other partitions may be ahead of the erasure's: events sent after it stay."""
    events = [click("a", 0, NOW - 9), click("b", 1, NOW + 9)]
    await send(store, message(0, *events, user="ada"), erasure(1, "ada", NOW))
    history = await history_of(store, "u:ada")

    assert await store.item_ids(history.items.tolist()) == ["b"]
    assert history.count == 1
    assert await store.owner_keys(history.numbers) == ["u:ada"]


async def test_tombstones_are_bounded(make_store: Callable[..., Store]) -> None:
    """By number and by age."""
    store = make_store(max_tombstones=1000)
    await send(store, *(erasure(n, f"u{n}", NOW - 1000.0 + n) for n in range(600)))
    assert await store.redis.zcard(store.key("erased")) == 1000

    old = NOW - store.settings.kept_tombstones_s - 1.0
    await send(store, erasure(600, "old", old))
    assert await store.erased_until(["u:u599", "u:u0", "u:old"]) == [NOW - 401.0, 0.0, 0.0]
    ttl = await store.redis.ttl(store.key("erased"))
    assert 0 < ttl <= store.settings.kept_tombstones_s


async def test_links_of_a_user_are_bounded(make_store: Callable[..., Store]) -> None:
    """The oldest goes for a new one, so that an erasure finds them all."""
    store = make_store(user_sessions=3)
    sessions = [f"s{n}" for n in range(5)]
    await send(
        store, *(message(n, click("a", n), user="ada", session=s) for n, s in enumerate(sessions))
    )

    linked = [await store.linked_user(session, now_s=NOW) for session in sessions]
    assert linked == [None, None, "ada", "ada", "ada"]
    assert (await user_data_counts(store, "ada", now_s=NOW))["links"] == 3
