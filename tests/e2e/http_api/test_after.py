"""Read-your-writes: true only for events in effect, with a bound on waiting requests."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from api.read_your_writes import ReadYourWrites
from models.errors import TooManyWaiting, Unavailable
from models.settings import Settings
from models.state.clients.client import connect
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.store import Store
from models.tokens import Published, Receipt, TopicKind
from ops.embedded_servers import start_broker, start_redis
from streams.kafka.topics import ensure_topics
from tests.servers import own_port
from tests.stack import EMBEDDED_SESSION_TIMEOUT_S, Redis, Servers, Stack, new_stack

KINDS: tuple[TopicKind, ...] = ("clicks", "purchases", "items", "users")
NEVER = 10**9
_groups = itertools.count()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """A store with a group of its own."""
    one = Store(connect(redis_url), Settings(group=f"g{next(_groups)}"))
    yield one
    await one.redis.aclose()


class Topics:
    """Topics whose incarnations a test decides."""

    def __init__(self) -> None:
        self.incarnation = "first"
        self.is_away = False
        self.asked = 0

    async def load(self) -> Mapping[TopicKind, str]:
        """The incarnations as Kafka gives them."""
        self.asked += 1
        if self.is_away:
            raise Unavailable("Kafka is away")
        return {kind: f"cluster/{self.incarnation}-{kind}" for kind in KINDS}

    def token(self, offset: int, *, partition: int = 0, incarnation: str | None = None) -> str:
        """The token of a click."""
        topic = f"cluster/{incarnation or self.incarnation}-clicks"
        return Receipt((Published("c", partition, offset, "clicks", topic),)).token()

    async def apply(self, store: Store, offset: int, *, partition: int = 0) -> None:
        """Move a watermark of the current incarnation, as a worker does."""
        field = f"cluster/{self.incarnation}-clicks/{partition}"
        await store.redis.hset(store.key("watermarks"), field, offset)


def field_of(_: object, incarnation: str, number: int) -> str:
    """Name of a watermark, of a group of one shard."""
    return f"{incarnation}/{number}"


async def watermark_reads(store: Store) -> int:
    """Reads of the watermarks, counted by Redis."""
    stats = await store.redis.info("commandstats")
    return int(stats.get("cmdstat_hmget", {}).get("calls", 0))


async def test_true_as_soon_as_it_is_in_effect(store: Store) -> None:
    """True at once for events in effect, later for those that take effect, else false."""
    topics = Topics()
    effects = ReadYourWrites(store.watermarks, topics.load, most=10, field_of=field_of)
    await topics.apply(store, 5)

    assert await effects.wait(topics.token(5), wait_s=30)
    assert await effects.wait("c0-5", wait_s=30), "a token of an earlier version"
    assert not await effects.wait(topics.token(6), wait_s=0.05)
    waiting = asyncio.create_task(effects.wait(topics.token(7), wait_s=30))
    await asyncio.sleep(0.2)
    await topics.apply(store, 7)
    assert await waiting
    await effects.close()


async def test_never_true_for_a_topic_made_anew(store: Store) -> None:
    """Watermarks of an earlier incarnation say nothing of the offsets of a new one.

    Nor is anything true of an incarnation that is no more; that is said without waiting.
    """
    topics = Topics()
    effects = ReadYourWrites(store.watermarks, topics.load, most=10, field_of=field_of)
    await topics.apply(store, 100)
    old = topics.token(50)
    assert await effects.wait(old, wait_s=30)

    topics.incarnation = "second"
    new = topics.token(0)
    assert not await effects.wait(new, wait_s=0.3)
    async with asyncio.timeout(20):
        assert not await effects.wait(old, wait_s=60)
    await topics.apply(store, 0)
    assert await effects.wait(new, wait_s=30)
    await effects.close()


async def test_known_incarnations_stand_while_kafka_is_away(store: Store) -> None:
    """A read does not need Kafka once the topics are known."""
    topics = Topics()
    effects = ReadYourWrites(store.watermarks, topics.load, most=10, field_of=field_of)
    topics.is_away = True
    assert not await effects.wait(topics.token(1), wait_s=0.2)
    topics.is_away = False
    await topics.apply(store, 1)
    assert await effects.wait(topics.token(1), wait_s=30)

    topics.is_away = True
    await asyncio.sleep(1.1)
    assert await effects.wait(topics.token(1), wait_s=30)
    assert not await effects.wait(topics.token(1, incarnation="unheard-of"), wait_s=0.2)
    await effects.close()


async def test_one_that_times_out_disturbs_no_other(store: Store) -> None:
    """Some requests time out while others wait, and each gets its own answer."""
    topics = Topics()
    effects = ReadYourWrites(store.watermarks, topics.load, most=1000, field_of=field_of)

    async def one(n: int) -> bool:
        offset = NEVER if n % 2 else n
        return await effects.wait(topics.token(offset), wait_s=0.01 * (n % 10) if n % 2 else 60)

    waiting = [asyncio.create_task(one(n)) for n in range(200)]
    await asyncio.sleep(0.3)
    await topics.apply(store, 200)
    assert await asyncio.gather(*waiting) == [n % 2 == 0 for n in range(200)]
    await effects.close()


async def test_waiting_requests_share_reads_of_redis(store: Store) -> None:
    """All waiting requests share each read; without any, there is none."""
    topics = Topics()
    effects = ReadYourWrites(store.watermarks, topics.load, most=500, field_of=field_of)
    await topics.apply(store, 0)
    asked = []
    for n in (1, 500):
        before = await watermark_reads(store)
        tokens = [topics.token(NEVER + k, partition=k % 16) for k in range(n)]
        async with asyncio.TaskGroup() as group:
            for token in tokens:
                group.create_task(effects.wait(token, wait_s=1))
        asked.append(await watermark_reads(store) - before)
    alone, together = asked
    assert 0 < together <= alone + 10
    assert alone < 100, "the pauses grow while nothing comes"

    before = await watermark_reads(store)
    await asyncio.sleep(0.3)
    assert await watermark_reads(store) == before
    await effects.close()


async def test_more_than_may_wait_are_refused(store: Store) -> None:
    """The bound holds; a place is free again after a wait, or if its client disconnects."""
    topics = Topics()
    effects = ReadYourWrites(store.watermarks, topics.load, most=2, field_of=field_of)
    leave = asyncio.Event()

    async def receive() -> Message:
        await leave.wait()
        return {"type": "http.disconnect"}

    waiting = asyncio.create_task(effects.wait(topics.token(1), wait_s=60))
    leaving = asyncio.create_task(effects.wait(topics.token(1), wait_s=60, receive=receive))
    await asyncio.sleep(0.05)
    with pytest.raises(TooManyWaiting, match="2 requests wait"):
        await effects.wait(topics.token(1), wait_s=60)
    leave.set()
    with pytest.raises(ClientDisconnect):
        await leaving
    again = asyncio.create_task(effects.wait(topics.token(1), wait_s=60))
    await topics.apply(store, 1)
    assert await waiting
    assert await again
    await effects.close()


async def test_redis_away_is_reported_to_all_waiting_requests(tmp_path: Path) -> None:
    """All of them get the error, and the next request starts anew."""
    server = start_redis(tmp_path, port=own_port())
    one = Store(connect(server.url), Settings())
    topics = Topics()
    effects = ReadYourWrites(one.watermarks, topics.load, most=10, field_of=field_of)
    try:
        waiting = [asyncio.create_task(effects.wait(topics.token(1), wait_s=60)) for _ in "ab"]
        await asyncio.sleep(0.05)
        server.stop()
        for told in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(told, AWAY_ERRORS)
        server = start_redis(tmp_path, port=server.port)
        await topics.apply(one, 1)
        assert await effects.wait(topics.token(1), wait_s=30)
    finally:
        await effects.close()
        await one.redis.aclose()
        server.stop()


def waiting_on(one: Stack) -> int:
    """Requests that wait at the API, by its metrics."""
    text = one.ask("GET", "/metrics")[1].decode()
    found = re.search(r"^recommender_after_waiting (\S+)$", text, re.MULTILINE)
    assert found
    return int(float(found[1]))


def test_clients_that_go_free_their_places(stack: Callable[..., Stack]) -> None:
    """On every route that waits; beyond the bound the answer is 429."""
    one = stack(after_timeout_s=30, after_max_waiting=4)
    one.start("api")
    one.wait(lambda: one.ask("GET", "/readyz")[0] == 200, "the API is ready")
    body = b'{"itemIds": ["a"]}'
    heads = [
        b"GET /recommend?after=c0-%d HTTP/1.1\r\n" % NEVER,
        b"GET /similar/x?after=c0-%d HTTP/1.1\r\n" % NEVER,
        b"GET /items/x?after=i0-%d HTTP/1.1\r\n" % NEVER,
        b"POST /rank?after=c0-%d HTTP/1.1\r\nContent-Length: %d\r\n" % (NEVER, len(body)),
    ]
    for _ in range(3):
        clients = []
        for head in heads:
            client = socket.create_connection(("127.0.0.1", one.settings.port))
            client.sendall(head + b"Host: localhost\r\n\r\n" + body * head.startswith(b"POST"))
            clients.append(client)
        one.wait(lambda: waiting_on(one) == 4, "all wait")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{one.url}/popular?after=c0-{NEVER}", timeout=30)
        assert refused.value.code == 429
        assert int(refused.value.headers["retry-after"]) >= 1
        refused.value.close()
        assert one.ask("GET", "/recommend?user_id=x")[0] == 200, "who does not wait is served"
        for client in clients:
            client.close()
        one.wait(lambda: waiting_on(one) == 0, "their places are free")
    assert "unexpected" not in one.log()


@pytest.mark.slow
def test_a_broker_that_forgot_its_topics(tmp_path: Path) -> None:
    """Tokens from before a restart that lost all topics are not true, later ones are."""
    broker = start_broker(tmp_path, port=own_port())
    redis = start_redis(tmp_path)
    servers = Servers(
        broker.address,
        Redis(redis.url, tmp_path, redis.stop, redis.process.kill, lambda: start_redis(tmp_path)),
        EMBEDDED_SESSION_TIMEOUT_S,
    )
    one = new_stack(servers, f"b{broker.port}", tmp_path / "stack", after_timeout_s=1)
    try:
        ensure_topics(one.settings)
        worker = one.start("worker")
        one.start("api")
        one.wait_ready()
        old = [one.click(f"old-{n}", session=f"s{n}") for n in range(20)]
        for token in old:
            one.wait(lambda t=token: reached(one, t), "it is in effect")  # type: ignore[misc]
        worker.terminate()
        worker.wait(120)

        broker.process.kill()
        broker.process.wait()
        broker = start_broker(tmp_path / "again", port=broker.port)
        ensure_topics(one.settings)
        item = f"new-{uuid.uuid4().hex}"
        sent: list[str] = []

        def send() -> bool:
            event = {"eventType": "click", "itemId": item, "sentAt": 1.7e9, "eventId": "e"}
            body = {"sessionId": "s0", "eventList": [event]}
            status, answer = one.ask("POST", "/events", body)
            sent.extend([answer["after"]] if status == 202 else [])
            return status == 202

        one.wait(send, "it is accepted")
        assert not reached(one, sent[0]), "no worker runs"
        assert one.ask("GET", f"/items/{item}")[0] == 404
        assert not any(reached(one, token) for token in old)

        one.start("worker")
        one.wait(lambda: reached(one, sent[0]), "it is in effect")
        assert one.ask("GET", f"/items/{item}")[0] == 200
    finally:
        one.stop_all()
        broker.stop()
        redis.stop()


def reached(one: Stack, token: str) -> bool:
    """The API's answer to a token."""
    return bool(one.recommend(f"user_id=x&after={token}")["freshness"]["afterReached"])
