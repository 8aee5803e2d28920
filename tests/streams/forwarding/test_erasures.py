"""Erased users as the forwarder knows them: from the log, and from the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.events import Erasure, Event, PutEvents
from models.settings import Settings
from models.state.clients.client import connect
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


async def test_erasures_from_the_log_count_without_redis() -> None:
    """The newest one of the user, and of a session with its name, in its group only."""
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


async def test_erasures_from_the_log_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept; a user counts as two."""
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
    """As in the store: by the time it was sent, or accepted if that was earlier."""
    event = Event("click", sent_at)
    message = PutEvents("s", [event], accepted_at=accepted_at)
    assert is_before(event, message, 1_800_000_000_000) == is_over


async def test_a_session_linked_later_is_the_users(redis: Server) -> None:
    """Its events from before the erasure are the erased user's."""
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
