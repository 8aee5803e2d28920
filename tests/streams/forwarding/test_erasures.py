"""Who was erased, as the forwarder knows it: what it has read, and what the store says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.events import Erasure, Event, PutEvents
from models.settings import Settings
from models.state.client import connect
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from ops.embedded_servers import Server, start_redis
from streams.forwarding import erasures
from streams.forwarding.erasures import KnownErasures, is_before

AT_S = 1_800_000_000.0005
AWAY = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An embedded Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


def put(user: str | None, session: str = "s", tracking_id: str | None = None) -> PutEvents:
    """A message of a user."""
    return PutEvents(session, [], user_id=user, tracking_id=tracking_id)


async def test_what_was_read_holds_without_redis() -> None:
    """Of the user, and of a session with that name; in that group alone; and the newest of them."""
    settings = Settings(group="shop", tracking_id="t")
    client = connect(AWAY)
    known = KnownErasures(settings, client)
    known.note(Erasure("shop", "ada", AT_S))
    known.note(Erasure("shop", "ada", AT_S - 10))
    known.note(Erasure("other", "bob", AT_S))
    found = [
        (await known.until_ms(one, now_s=AT_S))[0]
        for one in (put("ada"), put(None, "ada"), put("bob"), put("ada", tracking_id="other"))
    ]
    assert found == [1_800_000_000_000, 1_800_000_000_000, 0, 0]
    assert (await known.until_ms(put("ada"), now_s=AT_S))[1] is not None
    await client.aclose()


async def test_what_was_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are remembered; a user is two of them."""
    monkeypatch.setattr(erasures, "MAX_READ", 4)
    client = connect(AWAY)
    known = KnownErasures(Settings(), client)
    for n in range(5):
        known.note(Erasure("shop", f"u{n}", AT_S))
    found = [(await known.until_ms(put(f"u{n}"), now_s=AT_S))[0] > 0 for n in range(5)]
    assert found == [False, False, False, True, True]
    await client.aclose()


@pytest.mark.parametrize(
    ("sent_at", "accepted_at", "is_over"),
    [
        (AT_S, None, True),
        (AT_S + 0.0004, None, True),
        (AT_S + 0.001, None, False),
        (AT_S - 9, AT_S + 9, True),
        (AT_S + 9, AT_S - 9, True),
        (AT_S + 9, AT_S + 9, False),
    ],
)
def test_an_event_of_the_same_millisecond_is_before(
    sent_at: float, accepted_at: float | None, *, is_over: bool
) -> None:
    """As the store has it: by when it was sent, or accepted if that was earlier."""
    event = Event("click", sent_at)
    message = PutEvents("s", [event], accepted_at=accepted_at)
    assert is_before(event, message, 1_800_000_000_000) == is_over


async def test_a_session_that_is_linked_afterwards_is_the_users(redis: Server) -> None:
    """What it did before the erasure, and comes later, is the erased user's."""
    settings = Settings(redis=redis.url)
    client = connect(redis.url)
    store = Store(client, settings)
    event = StoredEvent("i", int(AT_S) + 5, "click", 0.0, False, 1, {}, 0)
    erasure = StoredMessage(0, "ada", "", 0, 0.0, [], erased_at=AT_S)
    later = StoredMessage(1, "ada", "s9", shard_of("s9"), AT_S + 5, [event])
    await store.apply([Part("c/t/0", -1, [erasure, later])], now_s=AT_S + 5)
    known = KnownErasures(settings, client)
    for one, until_ms in ((put(None, "s9"), 1_800_000_000_000), (put(None, "s8"), 0)):
        assert await known.until_ms(one, now_s=AT_S + 5) == (until_ms, None)
    await client.aclose()
