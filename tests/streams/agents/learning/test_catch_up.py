"""Catch-up of the ranker with kept events, on a real Redis."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from models.ranking import examples
from models.ranking.champions import Measures
from models.ranking.features import FEATURES, N_FEATURES
from models.serving.recommenders import Recommenders
from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.operations.catch_ups import stored_catch_up
from models.state.store import Store
from models.state.stored_ranker import load_ranker
from models.state.tenants import Tenants
from models.state.users.interactions import Interaction
from streams.agents.learning import catch_up, rests
from streams.agents.learning.catch_up import CatchUp, chosen, missing_examples, newest

NOW_S = 1.8e9
FACTORS = FEATURES.index("factors_share")
N_SESSIONS = 400
LENGTH = 4

SETTINGS = Settings(catch_up_examples=300, catch_up_events=1000, catch_up_share=1.0, cache_s=0.0)


def visits(n: int) -> list[StoredMessage]:
    """Sessions that walk along a ring of items, a message for each event."""
    chance = random.Random(7)
    made: list[StoredMessage] = []
    for session in range(n):
        at = chance.randrange(30)
        for step in range(LENGTH):
            at = (at + 1) % 30 if chance.random() < 0.8 else chance.randrange(30)
            time = 1_790_000_000 + 60 * session + step
            event = StoredEvent(f"i{at}", time, "click", 0.0, False, len(made))
            name = f"visitor-{session}"
            made.append(StoredMessage(len(made), "", name, shard_of(name), time, [event]))
    return made


class Kept:
    """A group with kept events, its catch-up, and the examples that it has produced."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.tenants = Tenants(connect(url), settings)
        self.store: Store = self.tenants.store(settings.group)
        self.examples: list[bytes] = []
        self.keys: set[bytes | None] = set()
        self.is_late = False
        self.catch_up = CatchUp(
            Recommenders(self.tenants),
            publish=self.publish,
            clock=lambda: NOW_S,
            is_late=lambda: self.is_late,
        )
        self.catch_up.is_learner = True

    async def publish(self, values: Sequence[bytes], key: bytes | None) -> None:
        """Keep examples, as Kafka would."""
        self.examples += values
        self.keys.add(key)

    async def load(self, n: int = N_SESSIONS, *, group: str | None = None) -> None:
        """Bring events into effect as a bulk load does."""
        store = self.store if group is None else self.tenants.store(group)
        messages = visits(n)
        for at in range(0, len(messages), 200):
            await store.apply([Part("c/0", at - 1, messages[at : at + 200])], now_s=NOW_S)

    async def state_without_progress(self) -> dict[bytes, bytes]:
        """Everything in Redis but the progress of the catch-up."""
        keys = await self.store.redis.keys()
        return {
            key: await self.store.redis.dump(key) for key in keys if not key.endswith(b":ranker")
        }


@pytest.fixture
async def kept(redis_url: str) -> AsyncIterator[Kept]:
    """An empty group."""
    one = Kept(redis_url, SETTINGS)
    await one.store.redis.flushdb()
    yield one
    await one.store.redis.flushdb()
    await one.store.redis.aclose()


async def test_a_bulk_load_is_caught_up_with_once(kept: Kept) -> None:
    """Examples of the newest events, evenly; progress is kept; nothing else changes."""
    await kept.load()
    before = await kept.state_without_progress()

    await kept.catch_up.check()

    made = [examples.decode(raw) for raw in kept.examples]
    assert len(made) == SETTINGS.catch_up_examples
    assert kept.keys == {None}
    ranks = [
        one.ranks["interactions"]["ranker"] for one in made if one and one.ranks["interactions"]
    ]
    # The ring is learned: its next item is mostly among the first.
    assert sum(1 <= rank <= 3 for rank in ranks[100:]) > 0.6 * len(ranks[100:])
    assert await kept.state_without_progress() == before
    progress = stored_catch_up(await load_ranker(kept.store))
    assert progress is not None
    assert progress.is_complete
    assert (progress.n_events, progress.known, progress.examples) == (1600, 1000, 300)

    await kept.catch_up.check()
    assert len(kept.examples) == SETTINGS.catch_up_examples


async def test_examples_have_the_factors_of_their_time(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are learned in the copy as it grows, as a worker would have learned them meanwhile."""
    # These sessions are short.
    monkeypatch.setattr("models.serving.sources.MIN_FACTOR_ITEMS", 1)
    kept = Kept(redis_url, SETTINGS.model_copy(update={"catch_up_events": 1600}))
    await kept.store.redis.flushdb()
    try:
        await kept.load()
        await kept.catch_up.check()
        decoded = [examples.decode(raw) for raw in kept.examples]
        made = [np.frombuffer(one.rows, np.float16) for one in decoded if one is not None]
        has_factors = [bool(rows.reshape(-1, N_FEATURES)[:, FACTORS].any()) for rows in made]
        first = has_factors.index(True)
        assert 0.55 < first / len(made) < 0.7
        assert sum(has_factors[first:]) > 0.9 * len(made[first:])
    finally:
        await kept.store.redis.flushdb()
        await kept.store.redis.aclose()


async def test_idle_time_is_no_work(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was idle for an hour does not rest from it before it catches up."""
    now_s, slept = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(rests, "time", SimpleNamespace(perf_counter=lambda: now_s))
    monkeypatch.setattr(rests, "asyncio", SimpleNamespace(sleep=sleep))
    kept = Kept(redis_url, SETTINGS.model_copy(update={"catch_up_share": 0.5}))
    try:
        await kept.load()
        now_s = 3600.0
        await kept.catch_up.check()
        assert len(kept.examples) == SETTINGS.catch_up_examples
        assert slept == []
    finally:
        await kept.store.redis.flushdb()
        await kept.store.redis.aclose()


async def test_each_group_has_its_own_examples(kept: Kept) -> None:
    """A registered group's are produced under its name; a small group's are not made."""
    await kept.tenants.create("books")
    await kept.load(group="books")
    await kept.load(100)

    await kept.catch_up.check()

    assert kept.keys == {b"books"}


async def test_an_interrupted_catch_up_begins_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies leaves its copy behind; the next one erases it, and makes the examples."""
    await kept.load()
    monkeypatch.setattr(kept.tenants, "erase", _nothing)
    sent = kept.publish

    async def die(values: Sequence[bytes], key: bytes | None) -> None:
        await sent(values, key)
        if len(kept.examples) >= 100:
            raise KeyboardInterrupt

    monkeypatch.setattr(kept.catch_up, "_publish", die)
    with pytest.raises(KeyboardInterrupt):
        await kept.catch_up.check()
    assert await kept.store.redis.keys("{scratch.*")
    monkeypatch.undo()
    kept.examples.clear()

    await kept.catch_up.check()

    assert len(kept.examples) == SETTINGS.catch_up_examples
    assert await kept.store.redis.keys("{scratch.*") == []


async def _nothing(*_: Any) -> None:
    """Do nothing."""


async def test_a_worker_that_no_longer_learns_stops(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the partition of examples is another's, no more of them are made."""
    await kept.load()
    sent = kept.publish

    async def lose(values: Sequence[bytes], key: bytes | None) -> None:
        await sent(values, key)
        kept.catch_up.is_learner = False

    monkeypatch.setattr(kept.catch_up, "_publish", lose)
    await kept.catch_up.check()

    assert len(kept.examples) == catch_up.PUBLISHED_TOGETHER
    assert await kept.store.redis.keys("{scratch.*") == []


async def test_a_group_that_is_erased_does_not_come_back(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its catch-up ends, and leaves nothing."""
    await kept.tenants.create("books")
    await kept.load(group="books")
    sent = kept.publish

    async def erase(values: Sequence[bytes], key: bytes | None) -> None:
        await sent(values, key)
        if len(kept.examples) == 2 * catch_up.PUBLISHED_TOGETHER:
            await Tenants(kept.tenants.redis, kept.tenants.settings).erase("books")

    monkeypatch.setattr(kept.catch_up, "_publish", erase)
    await kept.catch_up.check()

    assert len(kept.examples) == 2 * catch_up.PUBLISHED_TOGETHER
    assert await kept.store.redis.keys("*books*") == []


async def test_no_copy_without_room(kept: Kept) -> None:
    """Where Redis would be full, the ranker stays as it is."""
    await kept.load()
    used = (await kept.store.redis.info("memory"))["used_memory"]
    await kept.store.redis.config_set("maxmemory", used + 1000)
    try:
        await kept.catch_up.check()
    finally:
        await kept.store.redis.config_set("maxmemory", 0)

    assert kept.examples == []


@pytest.mark.parametrize(
    ("n_events", "n_learned", "progress", "missing"),
    [
        (999, 0, None, 0),
        (1000, 0, None, 300),
        (1000, 99, None, 201),
        (1000, 100, None, 0),
        (100_000, 299, None, 1),
        (100_000, 300, None, 0),
        (1999, 50, {"n_events": 1000, "wanted": 1, "known": 5, "done": 5}, 0),
        (2000, 50, {"n_events": 1000, "wanted": 1, "known": 5, "done": 5}, 250),
        (1000, 50, {"n_events": 1000, "wanted": 1, "known": 5, "done": 4}, 250),
    ],
)
def test_who_is_caught_up_with(
    n_events: int, n_learned: int, progress: dict[str, int] | None, missing: int
) -> None:
    """Rankers with few examples of many events; not again until the events have doubled."""
    stored = {"interactions:scoreboard": msgspec.json.encode(Measures(n_learned))}
    if progress is not None:
        stored["catch_up"] = msgspec.json.encode(progress)

    assert missing_examples(SETTINGS, n_events, stored) == missing
    on_cluster = SETTINGS.model_copy(update={"redis_cluster": True})
    assert missing_examples(on_cluster, n_events, stored) == 0


def test_the_newest_events_by_time() -> None:
    """Those of one time stay in their order."""
    events = [Interaction("u", str(n), "click", at) for n, at in enumerate([3.0, 1.0, 3.0, 2.0])]
    assert [event.item for event in newest(events, 3)] == ["3", "0", "2"]
    assert newest(events[:1], 3) == events[:1]


def test_choices_are_spread_evenly() -> None:
    """The gaps between chosen events differ by one at most; all are chosen where few are known."""
    events = [Interaction(str(n % 10), "i", "click", float(n)) for n in range(110)]
    places = sorted(chosen(events, 30))

    assert len(places) == 30
    gaps = {later - earlier for earlier, later in pairwise(places)}
    assert gaps <= {3, 4}
    assert sorted(chosen(events, 500)) == list(range(10, 110))
    assert chosen(events[:10], 5) == set()
