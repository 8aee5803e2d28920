"""A group moves to other numbers of shards while events come and answers are asked."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from models.state.shards.stored_layout import layout_and_move
from models.state.store import Store
from ops.forked_processes import fork
from tests import killed_reshard
from tests.redis_servers import redis_cluster
from tests.servers import ROOT, apache_kafka
from tests.stack import Redis, Servers, Stack, embedded_servers, make_stacks

OPTIONS: dict[str, Any] = {"outcomes": False, "exploration_share": 0, "examples_per_s": 0}
ITEMS = [f"i{n}" for n in range(40)]

EVENT_EVERY_S, ANSWERS_EVERY_S = 0.1, 0.2
"""Pauses of traffic. A move holds events for more than a second, so that some wait at each step of
it; more of them would only take CPU.
"""


class Traffic:
    """Events and answers from two threads, until it ends; what was sent, and what failed.

    Attributes
    ----------
    sent
        Accepted events by item.
    failed
        Requests that had another status than they should, with it.
    """

    def __init__(self, stack: Stack) -> None:
        self.sent: collections.Counter[str] = collections.Counter()
        self.failed: list[object] = []
        self.n_answers = 0
        self.slowest_s = 0.0
        self._stack = stack
        self._has_ended = threading.Event()
        self._chance = random.Random(3)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within the block."""
        threads = [threading.Thread(target=one) for one in (self._send, self._ask)]
        for one in threads:
            one.start()
        try:
            yield
        finally:
            self._has_ended.set()
            for one in threads:
                one.join()

    def _send(self) -> None:
        number = 0
        while not self._has_ended.is_set():
            item, user = self._chance.choice(ITEMS), f"u{self._chance.randrange(30)}"
            event: dict[str, Any] = {"eventType": "click", "itemId": item, "eventId": f"e{number}"}
            event["sentAt"] = time.time()
            message: dict[str, Any] = {"sessionId": f"s{number % 50}", "eventList": [event]}
            if number % 3:
                message["userId"] = user
            status, answer = self._stack.ask("POST", "/events", message)
            if status == 202:
                self.sent[item] += 1
            else:
                self.failed.append((status, answer))
            number += 1
            time.sleep(EVENT_EVERY_S)

    def _ask(self) -> None:
        while not self._has_ended.is_set():
            for path in (
                f"/recommend?user_id=u{self._chance.randrange(30)}",
                f"/similar/{self._chance.choice(ITEMS)}",
                "/trending",
            ):
                began_s = time.monotonic()
                status, answer = self._stack.ask("GET", path)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
                self.n_answers += 1
                if status != 200 or answer.get("level") == "cached" or not answer["items"]:
                    self.failed.append((path, status, answer))
            time.sleep(ANSWERS_EVERY_S)


def begin(one: Stack) -> None:
    """Start a worker and an API, and have every item known."""
    one.start("worker")
    one.start("api")
    one.wait_ready()
    for item in ITEMS:
        after = one.click(item, user="first", session="first")
    one.wait(
        lambda: bool(one.recommend(f"after={after}")["freshness"]["afterReached"]), "in effect"
    )


def event_counts(one: Stack) -> dict[str, float]:
    """Events in effect by item."""

    async def read(store: Store) -> list[float]:
        return await store.event_counts(await store.item_indexes(ITEMS))

    return dict(zip(ITEMS, one.stored(read), strict=True))


def moved(one: Stack, shards: int) -> dict[str, Any]:
    """Move the group; what the command says."""
    done = one.run("reshard", str(shards), "--json")
    assert done.returncode == 0, done.stderr + one.log()
    found: dict[str, Any] = json.loads(done.stdout)
    assert "copying" in done.stderr
    return found


def is_moving(one: Stack) -> bool:
    """True while a move of the group goes on, or has been killed a moment ago."""

    async def read(store: Store) -> bool:
        return (await layout_and_move(store.redis, one.settings.group))[1] is not None

    return one.stored(read)


def settled(one: Stack, traffic: Traffic) -> None:
    """Every event that was accepted is in effect, once."""
    wanted = {item: traffic.sent[item] + 1 for item in ITEMS}
    one.wait(lambda: one.status().lag == 0, "nothing waits")
    one.wait(lambda: event_counts(one) == wanted, "each event is in effect once", within_s=30)
    assert one.counts()["events"] == sum(wanted.values()) + 1  # and the first one of all
    assert not traffic.failed, traffic.failed[:5]


@pytest.mark.slow
def test_a_group_moves_to_more_and_fewer_shards(embedded_stack: Callable[..., Stack]) -> None:
    """From one to four, three, and back to one, under events and answers all the time."""
    one = embedded_stack(**OPTIONS)
    begin(one)
    traffic = Traffic(one)
    with traffic.running():
        for shards in (4, 3, 1):
            done = moved(one, shards)
            assert done["after"] == shards
            after = one.click("i1", user="me", session="me")
            traffic.sent["i1"] += 1
            one.wait(
                lambda: bool(
                    one.recommend(f"user_id=me&after={after}")["freshness"]["afterReached"]  # noqa: B023
                ),
                "a new event is in effect",
            )
    settled(one, traffic)
    assert traffic.n_answers > 50


def killed_move(one: Stack, *arguments: object) -> int:
    """The exit code of `tests.killed_reshard`."""
    output = one.logs / f"killed-{len(one.processes)}.log"
    process = fork(
        killed_reshard.main, ["killed_reshard", *map(str, arguments)], one.environment, output,
        name="reshard", directory=ROOT,
    )  # fmt: skip
    one.processes.append(process)
    return process.wait(180)


STAGES = (
    ("waiting for what", 0.0),
    ("copying", 1.0),
    ("waiting for answers", 0.0),
    ("removing the keys", 0.0),
)
"""Where the command is killed."""


@pytest.mark.slow
def test_a_killed_move_loses_and_doubles_nothing(embedded_stack: Callable[..., Stack]) -> None:
    """Killed anywhere, and run again; in between events go on by themselves."""
    one = embedded_stack(shards=2, **OPTIONS)
    begin(one)
    traffic = Traffic(one)
    with traffic.running():
        for (beginning, share), shards in zip(STAGES, itertools.cycle((3, 2)), strict=False):
            assert killed_move(one, shards, beginning, share) == -signal.SIGKILL
            if (beginning, share) == STAGES[1]:
                n_before = one.counts()["events"]
                one.wait(lambda: one.counts()["events"] > n_before, "events go on")  # noqa: B023
            one.wait(lambda: not is_moving(one), "the killed move has expired")
            again = one.run("reshard", str(shards))
            assert again.returncode == 0, again.stderr + one.log()
            assert one.status().shards
    settled(one, traffic)
    # Of the stored layout, not of the first one of the setting.
    assert one.run("topics").stdout == "all topics exist\n"


@contextlib.contextmanager
def what_stays_under_way(one: Stack) -> Iterator[None]:
    """A value in an outbox that no worker publishes meanwhile: no move gets beyond it."""
    worker = one.processes[0]
    key = f"{{{one.settings.group}/u00}}:outbox:i00"
    with redis.Redis.from_url(one.settings.redis) as client:
        worker.send_signal(signal.SIGSTOP)
        try:
            client.rpush(key, b"held")
            yield
        finally:
            client.lrem(key, 0, b"held")
            worker.send_signal(signal.SIGCONT)


def test_a_move_that_is_broken_off_or_refused_changes_nothing(
    embedded_stack: Callable[..., Stack],
) -> None:
    """Ctrl-C, a pause that would be too long, and what cannot be."""
    one = embedded_stack(shards=2, **OPTIONS)
    refused = one.run("reshard", "3")
    assert refused.returncode == 1
    assert "has no state yet: set RECOMMENDER_SHARDS=3" in refused.stderr
    begin(one)
    before = event_counts(one)
    refused = one.run("reshard", "3", "--longest-pause", "0.1")
    assert refused.returncode == 1
    assert "events would wait for more than 0 s, so nothing has changed" in refused.stderr
    refused = one.run("reshard", "3", RECOMMENDER_OUTCOMES="true")
    assert refused.returncode == 1
    assert "RECOMMENDER_SHARDS=2 needs RECOMMENDER_OUTCOMES false" in refused.stderr
    with what_stays_under_way(one):
        process = one.start("reshard", "3")
        log = one.logs / f"reshard-{len(one.processes) - 1}.log"
        one.wait(lambda: "waiting for what" in log.read_text(), "it has begun")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "broken off" in log.read_text()
    after = one.click("i1", user="me", session="me")
    one.wait(
        lambda: bool(one.recommend(f"after={after}")["freshness"]["afterReached"]), "it goes on"
    )
    assert event_counts(one) == {**before, "i1": before["i1"] + 1}
    assert one.run("reshard", "2").returncode == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(unclosed|Unclosed|loop is closed):ResourceWarning")
@pytest.mark.parametrize("of", ["source", "target"])
def test_a_primary_that_dies_in_mid_copy_loses_and_doubles_nothing(of: str, tmp_path: Any) -> None:
    """One with shards of before, and one with shards that are being written; replicas take over.

    The command goes on or says that nothing has changed; run again, it is done.
    """
    with (
        embedded_servers(tmp_path / "servers") as servers,
        redis_cluster(tmp_path / "cluster") as cluster,
    ):
        redis = Redis(cluster.url, tmp_path, *[lambda: None] * 3)
        with make_stacks(Servers(servers.kafka, redis), tmp_path) as make:
            one = make(redis_cluster=True, shards=2, **OPTIONS)
            begin(one)
            traffic = Traffic(one)
            with traffic.running():
                time.sleep(2)
                generation = ".1" if of == "target" else ""
                node = cluster.primary_of(f"{{{one.settings.group}/u00{generation}}}:counts")
                assert node.process is not None
                first = killed_move(one, 3, "copying", 0.1, node.process.pid)
                assert node.process.wait(10) == -signal.SIGKILL
                node.process = None
                cluster.mend()
                if first:
                    assert one.run("reshard", "3").returncode == 0
            wanted = {item: traffic.sent[item] + 1 for item in ITEMS}
            one.wait(lambda: event_counts(one) == wanted, "each event counts once", within_s=90)
            assert {row.name for row in one.status().shards} >= {"u02", "i02"}


@pytest.mark.kafka
@pytest.mark.filterwarnings("ignore:(unclosed|Unclosed|loop is closed):ResourceWarning")
def test_four_shards_become_eight_on_a_cluster_under_load(tmp_path: Any) -> None:
    """On Apache Kafka and a Redis Cluster of six processes; a worker dies in the middle."""

    def nothing() -> None:
        pass

    with (
        apache_kafka(tmp_path / "kafka") as kafka,
        redis_cluster(tmp_path / "cluster") as cluster,
        make_stacks(
            Servers(kafka.address, Redis(cluster.url, tmp_path, nothing, nothing, nothing)),
            tmp_path,
        ) as make,
    ):
        one = make(redis_cluster=True, shards=4, **OPTIONS)
        begin(one)
        second = one.start("worker")
        traffic = Traffic(one)
        with traffic.running():
            time.sleep(5)
            killing = threading.Timer(4, second.kill)
            killing.start()
            done = moved(one, 8)
            killing.join()
            assert done["after"] == 8
            after = one.click("i1", user="me", session="me")
            traffic.sent["i1"] += 1
            one.wait(
                lambda: bool(
                    one.recommend(f"user_id=me&after={after}")["freshness"]["afterReached"]
                ),
                "a new event is in effect",
            )
        settled(one, traffic)
        assert {row.name for row in one.status().shards} >= {"u07", "i07"}
