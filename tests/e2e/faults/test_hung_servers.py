"""Servers that accept connections and never answer: requests get an error within time limits."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from api.server.admission import STUCK_S, Gate
from models.errors import Overloaded, Unavailable
from ops.embedded_servers import Server, start_broker, start_redis
from ops.forked_processes import ForkedProcess
from streams.kafka.topics import ensure_topics
from tests.stack import EMBEDDED_SESSION_TIMEOUT_S, Redis, Servers, Stack, new_stack

MEBIBYTE = 1024 * 1024
ANSWERED_WITHIN_S = 60.0
SENDERS = 40
BOUND = 10


class TimedAnswer(NamedTuple):
    """An answer, with its `Retry-After`; fails without one."""

    status: int
    retry_after: str | None
    body: bytes


class Running(NamedTuple):
    """A service whose servers can be hung."""

    stack: Stack
    broker: Server
    redis: Server
    api: ForkedProcess

    @property
    def api_bytes(self) -> int:
        """Memory of the API process."""
        return int(psutil.Process(self.api.pid).memory_info().rss)

    def ask(self, method: str, path: str, body: object = None) -> TimedAnswer:
        """The answer to one request, on a connection of its own."""
        port = self.stack.settings.port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWERED_WITHIN_S)
        with contextlib.closing(connection):
            connection.request(method, path, json.dumps(body) if body else None)
            answer = connection.getresponse()
            return TimedAnswer(answer.status, answer.getheader("retry-after"), answer.read())

    def send(self, number: int) -> TimedAnswer:
        """Send an event, the same one for the same number; gives the answer."""
        event = {
            "eventId": f"e{number}",
            "eventType": "click",
            "itemId": f"i{number % 7}",
            "sentAt": 1_790_000_000 + number,
        }
        return self.ask("POST", "/events", {"sessionId": f"s{number}", "eventList": [event]})

    def send_all(self, numbers: Sequence[int]) -> list[TimedAnswer]:
        """Send many events at once; gives the answers."""
        with ThreadPoolExecutor(SENDERS) as senders:
            return list(senders.map(self.send, numbers))

    def send_until_accepted(self, numbers: Sequence[int]) -> None:
        """Send as clients do, again after a refusal."""
        left = list(numbers)
        deadline = time.monotonic() + ANSWERED_WITHIN_S
        while left:
            assert time.monotonic() < deadline, f"{len(left)} events are still refused"
            heard = self.send_all(left)
            left = [n for n, one in zip(left, heard, strict=True) if one.status != 202]

    def wait_for_events(self, count: int) -> None:
        """Wait until exactly this many events are in effect."""
        self.stack.wait(
            lambda: self.stack.counts().get("events", 0) >= count, f"{count} events are in effect"
        )
        assert self.stack.counts()["events"] == count


@contextlib.contextmanager
def hung(server: Server) -> Iterator[None]:
    """Stop the server's process, while the system accepts connections and bytes for it."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def service(directory: Path, **settings: object) -> Iterator[Running]:
    """A worker and an API on servers of their own."""
    broker, redis = start_broker(directory), start_redis(directory)

    def never() -> None:
        raise NotImplementedError

    servers = Servers(
        broker.address,
        Redis(redis.url, directory, never, never, never),
        EMBEDDED_SESSION_TIMEOUT_S,
    )
    stack = new_stack(servers, "hung", directory / "stack", partitions=1, cache_s=0.1, **settings)
    try:
        ensure_topics(stack.settings)
        stack.start("worker")
        api = stack.start("api")
        stack.wait_ready()
        yield Running(stack, broker, redis, api)
    finally:
        stack.stop_all()
        broker.stop()
        redis.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with low bounds on waiting requests."""
    with service(
        tmp_path_factory.mktemp("hung"),
        publish_timeout_s=2,
        max_publishing=BOUND,
        max_answering=BOUND,
    ) as made:
        yield made


def before(running: Running) -> int:
    """Events in effect before the test."""
    return int(running.stack.counts()["events"])


@pytest.mark.slow
def test_kafka_that_never_answers(running: Running) -> None:
    """Events are refused with Retry-After, reads go on; later each event counts once."""
    known, memory = before(running), running.api_bytes
    numbers = range(1000, 1300)
    with hung(running.broker):
        heard = running.send_all(numbers)
        read = [running.ask("GET", "/recommend?user_id=ada") for _ in range(20)]
        ready = running.ask("GET", "/readyz")
        grown = running.api_bytes - memory
    running.send_until_accepted(numbers)

    assert {one.status for one in heard} <= {429, 503}
    assert all(int(one.retry_after or 0) >= 1 for one in heard)
    assert [one.status for one in read] == [200] * 20
    assert (ready.status, b"kafka" in ready.body) == (503, True)
    assert grown < 32 * MEBIBYTE
    running.wait_for_events(known + len(numbers))


@pytest.mark.slow
def test_redis_that_never_answers(running: Running) -> None:
    """Events are accepted or refused, reads get an error; accepted events take effect."""
    known, memory = before(running), running.api_bytes
    numbers = range(2000, 2300)
    with hung(running.redis):
        heard = running.send_all(numbers)
        with ThreadPoolExecutor(SENDERS) as readers:
            read = list(
                readers.map(lambda _: running.ask("GET", "/recommend?user_id=ada"), range(200))
            )
        ready = running.ask("GET", "/readyz")
        grown = running.api_bytes - memory
    refused = [n for n, one in zip(numbers, heard, strict=True) if one.status != 202]
    running.send_until_accepted(refused)

    assert {one.status for one in heard} <= {202, 429, 503}
    # A cached answer, or an error with Retry-After.
    assert {one.status for one in read} <= {200, 429, 503}
    assert all(int(one.retry_after or 0) >= 1 for one in heard + read if one.status in {429, 503})
    assert (ready.status, b"redis" in ready.body) == (503, True)
    assert grown < 32 * MEBIBYTE
    running.wait_for_events(known + len(numbers))


@pytest.mark.parametrize(
    "bound", [{"max_publishing": BOUND}, {"publish_buffer_bytes": 1500}], ids=["requests", "bytes"]
)
def test_requests_beyond_the_queue_are_refused(tmp_path: Path, bound: dict[str, int]) -> None:
    """While Kafka hangs a queue fills; queued events are accepted once it is back."""
    numbers = range(60)
    heard: dict[int, TimedAnswer] = {}
    with service(tmp_path, publish_timeout_s=60, **bound) as running:
        known = before(running)

        def send(number: int) -> None:
            heard[number] = running.send(number)

        senders = [threading.Thread(target=send, args=(number,)) for number in numbers]
        with hung(running.broker):
            for sender in senders:
                sender.start()
            # Refused requests were answered at once; the others wait.
            running.stack.wait(lambda: _are_idle(senders, heard), "the queue is full")
            refused = dict(heard)
        for sender in senders:
            sender.join()
        accepted = [number for number in numbers if number not in refused]

        assert accepted
        assert {one.status for one in refused.values()} <= {429, 503}
        assert any(one.status == 429 for one in refused.values())
        assert all(int(one.retry_after or 0) >= 1 for one in refused.values())
        assert {heard[number].status for number in accepted} == {202}
        if "max_publishing" in bound:
            assert len(accepted) == BOUND
        running.wait_for_events(known + len(accepted))


def _are_idle(senders: Sequence[threading.Thread], heard: dict[int, TimedAnswer]) -> bool:
    """True if the same requests have no answer for a while."""
    known = len(heard)
    time.sleep(1)
    return 0 < known == len(heard) and sum(map(threading.Thread.is_alive, senders)) > 0


def test_a_stuck_full_gate_means_an_unavailable_server() -> None:
    """A full gate answers 429 while it moves, and 503 once it stands still."""
    now_s = 0.0
    gate = Gate(2, "events", "Kafka", clock=lambda: now_s)
    with gate:
        now_s = 100.0  # a long wait before does not count
        with gate, pytest.raises(Overloaded), gate:
            pass
        with gate:
            now_s += STUCK_S + 0.1
            with pytest.raises(Unavailable, match="Kafka does not answer") as raised, gate:
                pass
            assert not isinstance(raised.value, Overloaded)
        with gate, pytest.raises(Overloaded), gate:
            pass
    with gate, gate:
        pass
