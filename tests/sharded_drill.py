"""Faults under a group of four shards, on a Redis Cluster and three brokers of Apache Kafka.

    python -m tests.sharded_drill --faults 100

Prints one JSON object: what was lost or doubled, and which requests failed, by the primary that had
the shard of their user when a fault was caused. `recommender drill` breaks a group of one shard in
more ways.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import RecommenderError
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.shard_names import owner_shard, shard_name, shard_names
from models.state.shards.sharded_store import ShardedStore
from models.state.store import Store
from ops.drill.proxy import TcpProxy
from ops.forked_processes import ForkedProcess
from streams.kafka.topics import ensure_topics
from tests.kafka_cluster import Broker, kafka_cluster
from tests.redis_servers import Node, RedisCluster, redis_cluster
from tests.stack import Redis, Servers, Stack, new_stack

SHARDS = 4
USERS = [f"u{n}" for n in range(300)]
ITEMS = [f"i{n}" for n in range(50)]
PER_S = 12.0
"""Messages a second, and as many questions."""

ASKERS = 4
"""One that waits for a shard does not keep others from asking."""

LATE_S = 2.0
AUDIT_EVERY = 25
SETTLED_WITHIN_S = 300.0
AWAY = (RecommenderError, *AWAY_ERRORS)


class DrillRequest(NamedTuple):
    """A request: when, for which session shard, and whether it had a full answer."""

    at_s: float
    kind: str
    shard: str
    outcome: str


class Strike(NamedTuple):
    """A fault: its kind, from when to when, and the shards at the primary that it hit."""

    kind: str
    began_s: float
    ended_s: float
    hit: frozenset[str]
    seen: str


@dataclass
class Load:
    """Senders and askers in threads of their own, until they are stopped."""

    stack: Stack
    seed: int
    sent: list[tuple[str, str]] = field(default_factory=list)
    asked: list[DrillRequest] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    paused: threading.Event = field(default_factory=threading.Event)
    busy: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Under load within the block."""
        threads = [
            threading.Thread(target=self._send_on, daemon=True),
            *(
                threading.Thread(target=self._ask_on, args=(number,), daemon=True)
                for number in range(ASKERS)
            ),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join(60)

    def _send_on(self) -> None:
        chance = random.Random(f"{self.seed}-send")
        while not self.stopped.wait(1 / PER_S):
            with self.busy:
                if not self.paused.is_set():
                    self._send(chance.choice(USERS), chance.choice(ITEMS), len(self.sent))

    def _send(self, user: str, item: str, number: int) -> None:
        """Send an event until it is accepted: with the same id, so that it counts once."""
        body = {
            "userId": user,
            "sessionId": f"of-{user}",
            "eventList": [
                {"eventId": f"e{number}", "eventType": "click", "itemId": item,
                 "sentAt": time.time()}
            ],
        }  # fmt: skip
        while not self.stopped.is_set():
            at_s = time.monotonic()
            status, _ = self.stack.ask("POST", "/events", body)
            self._note(at_s, "event", user, "ok" if status == 202 else str(status))
            if status == 202:
                self.sent.append((user, item))
                return
            time.sleep(0.2)

    def _ask_on(self, number: int) -> None:
        chance = random.Random(f"{self.seed}-ask{number}")
        while not self.stopped.wait(ASKERS / PER_S):
            user, at_s = chance.choice(USERS), time.monotonic()
            status, answer = self.stack.ask("GET", f"/recommend?user_id={user}")
            if status != 200:
                outcome = str(status)
            elif answer["level"] == "cached":
                outcome = "cached"
            else:
                outcome = "late" if time.monotonic() - at_s > LATE_S else "ok"
            self._note(at_s, "answer", user, outcome)

    def _note(self, at_s: float, kind: str, user: str, outcome: str) -> None:
        shard = shard_name("u", owner_shard(user, SHARDS))
        self.asked.append(DrillRequest(at_s, kind, shard, outcome))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No event is under way within the block."""
        self.paused.set()
        with self.busy:
            pass
        try:
            yield
        finally:
            self.paused.clear()


@dataclass
class Site:
    """All servers and processes."""

    stack: Stack
    cluster: RedisCluster
    brokers: list[Broker]
    proxies: dict[Node, TcpProxy]
    workers: list[ForkedProcess] = field(default_factory=list)

    def shards_at(self, node: Node) -> frozenset[str]:
        """The shards of which a node is the primary."""
        group = self.stack.settings.group
        return frozenset(
            name
            for name in shard_names(SHARDS)
            if self.cluster.primary_of(f"{{{group}/{name}}}:") is node
        )

    def primary(self, chance: random.Random) -> tuple[Node, str]:
        """The primary of a shard that is drawn, and what keys of that begin with."""
        name = chance.choice(shard_names(SHARDS))
        prefix = f"{{{self.stack.settings.group}/{name}}}:"
        return self.cluster.primary_of(prefix), prefix


def primary_killed(site: Site, chance: random.Random) -> tuple[frozenset[str], str]:
    """A primary crashes, and its replica is promoted; it comes back as a replica."""
    node, prefix = site.primary(chance)
    hit = site.shards_at(node)
    node.kill()
    site.stack.wait(lambda: _serves_elsewhere(site.cluster, prefix, node), "promoted", within_s=60)
    promoted = site.cluster.primary_of(prefix)
    time.sleep(chance.uniform(0, 1))
    site.cluster.mend()
    return hit, f"{node.port} was killed, {promoted.port} serves"


def _serves_elsewhere(cluster: RedisCluster, prefix: str, node: Node) -> bool:
    with contextlib.suppress(LookupError):
        return cluster.primary_of(prefix) is not node
    return False


def primary_cut_off(site: Site, chance: random.Random) -> tuple[frozenset[str], str]:
    """Clients and its replica do not reach a primary; what they sent arrives later, or never."""
    node, _ = site.primary(chance)
    hit, proxy = site.shards_at(node), site.proxies[node]
    before = proxy.n_held
    proxy.silence()
    try:
        time.sleep(chance.uniform(1, 4))
        n_reset = proxy.reset() if chance.random() < 0.5 else 0
    finally:
        proxy.resume()
    return hit, f"{proxy.n_held - before} pieces were held back, {n_reset} connections broken off"


def slot_moved(site: Site, chance: random.Random) -> tuple[frozenset[str], str]:
    """The slot of a shard moves to another primary, key by key."""
    node, prefix = site.primary(chance)
    name = prefix.partition("/")[2].removesuffix("}:")
    n_keys = sum(1 for _ in site.cluster.moving(prefix, at_once=chance.choice((5, 20))))
    site.stack.wait(lambda: _serves_elsewhere(site.cluster, prefix, node), "moved", within_s=60)
    return frozenset({name}), f"{name} has moved in {n_keys} pieces"


def worker_killed(site: Site, chance: random.Random) -> tuple[frozenset[str], str]:
    """A worker is killed and started again."""
    number = chance.randrange(len(site.workers))
    site.workers[number].kill()
    site.workers[number].wait(60)
    time.sleep(chance.uniform(0, 2))
    site.workers[number] = site.stack.start("worker")
    return frozenset(), "killed"


def broker_killed(site: Site, chance: random.Random) -> tuple[frozenset[str], str]:
    """One of three brokers crashes, with the leaders of a third of the partitions."""
    broker = chance.choice(site.brokers)
    broker.kill()
    time.sleep(chance.uniform(2, 6))
    broker.start()
    site.stack.wait(broker.answers, "the broker answers")
    return frozenset(), f"the broker at {broker.port} was killed"


FAULTS: dict[str, Callable[[Site, random.Random], tuple[frozenset[str], str]]] = {
    one.__name__: one
    for one in (primary_killed, primary_cut_off, slot_moved, worker_killed, broker_killed)
}


@contextlib.contextmanager
def opened_site(directory: Path) -> Iterator[Site]:
    """A running site of 6 processes of Redis, 3 brokers, 2 workers and an API."""
    with contextlib.ExitStack() as closing:
        proxies: dict[int, TcpProxy] = {}

        def proxy_of(port: int) -> int:
            proxies[port] = closing.enter_context(TcpProxy(lambda: ("127.0.0.1", port)))
            return proxies[port].port

        cluster = closing.enter_context(redis_cluster(directory / "redis", proxy_of))
        brokers = closing.enter_context(kafka_cluster(directory / "kafka"))

        def nothing() -> None:
            pass

        servers = Servers(
            ",".join(f"127.0.0.1:{broker.port}" for broker in brokers),
            Redis(cluster.url, directory, nothing, nothing, nothing),
        )
        stack = new_stack(
            servers, "drilled", directory / "stack", redis_cluster=True, shards=SHARDS,
            replication_factor=3, outcomes=False, exploration_share=0, examples_per_s=1,
        )  # fmt: skip
        ensure_topics(stack.settings)
        closing.callback(stack.stop_all)
        by_node = {node: proxies[node.port] for node in cluster.nodes}
        site = Site(stack, cluster, brokers, by_node)
        site.workers = [stack.start("worker"), stack.start("worker")]
        stack.start("api")
        stack.wait_ready()
        yield site


def run(site: Site, *, n_faults: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Cause faults under load, with an audit after every 25 and at the end; gives the report."""
    chance, strikes = random.Random(seed), list[Strike]()
    load = Load(site.stack, seed)
    load.sent.append(("", "warm"))
    audits: list[list[str]] = []
    with load.running():
        time.sleep(5)
        names: list[str] = []
        for number in range(1, n_faults + 1):
            if not names:
                names = sorted(FAULTS)
                chance.shuffle(names)
            name, began_s = names.pop(), time.monotonic()
            hit, seen = FAULTS[name](site, chance)
            strikes.append(Strike(name, began_s, time.monotonic(), hit, seen))
            say(f"{number:4}  {name}: {seen}")
            time.sleep(chance.uniform(0.5, 3))
            if number % AUDIT_EVERY == 0 or number == n_faults:
                with load.held():
                    audits.append(differences(site, load))
                say(f"audit of {len(load.sent)} events: {audits[-1] or 'nothing differs'}")
                if audits[-1]:
                    break
    found = [one for audit in audits for one in audit]
    return {
        "passed": not found and len(strikes) == n_faults,
        "seed": seed,
        "faults": len(strikes),
        "by_kind": dict(Counter(one.kind for one in strikes)),
        "events": len(load.sent),
        "lost": sum(one.startswith("lost") for one in found),
        "doubled": sum(one.startswith("doubled") for one in found),
        "differences": found[:50],
        "audits": len(audits),
        "requests": requests_by_shard(load.asked, strikes),
    }


def requests_by_shard(asked: list[DrillRequest], strikes: list[Strike]) -> dict[str, Any]:
    """By kind of fault: requests for users of the shards that it hit and of others, failed ones.

    A fault counts from its begin to two seconds behind its end.
    """
    found: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for strike in strikes:
        for one in asked:
            if strike.began_s <= one.at_s <= strike.ended_s + 2:
                where = "hit" if one.shard in strike.hit else "others"
                found[strike.kind][f"{one.kind} {where}"][one.outcome] += 1
    return {
        kind: {name: dict(own) for name, own in sorted(of_kind.items())}
        for kind, of_kind in sorted(found.items())
    }


def differences(site: Site, load: Load) -> list[str]:
    """What was lost or doubled, of histories and of items' counts, once nothing waits."""
    stack = site.stack
    try:
        stack.wait(lambda: _is_settled(stack), "nothing waits", within_s=SETTLED_WITHIN_S)
    except TimeoutError as error:
        return [f"lost: {str(error)[:3000]}"]
    read: list[tuple[float, dict[str, float], dict[str, Counter[str]]]] = []

    def is_read() -> bool:
        with contextlib.suppress(*AWAY):  # a slow answer is no difference
            read.append(stack.stored(_read))
        return bool(read)

    stack.wait(is_read, "the state is read", within_s=SETTLED_WITHIN_S)
    events, of_items, of_users = read[0]
    found = list(_differ("events", {"all": events}, {"all": float(len(load.sent))}))
    found += _differ("item", of_items, Counter(item for _, item in load.sent))
    wanted: dict[str, Counter[str]] = defaultdict(Counter)
    for user, item in load.sent:
        wanted[user][item] += 1
    for user in USERS:
        found += _differ(f"history of {user}", of_users[user], wanted[user])
    return found


def _differ(what: str, found: Mapping[str, float], wanted: Mapping[str, float]) -> Iterator[str]:
    for name in sorted(found.keys() | wanted.keys()):
        own, expected = found.get(name, 0), wanted.get(name, 0)
        if own != expected:
            yield f"{'lost' if own < expected else 'doubled'}: {what} {name}: {own}, not {expected}"


def _is_settled(stack: Stack) -> bool:
    """True if nothing waits, in Kafka or in an outbox."""
    try:
        status = stack.status()
    except AWAY:
        return False
    return status.lag == 0 and not any(one.waiting for one in status.shards)


async def _read(store: Store) -> tuple[float, dict[str, float], dict[str, Counter[str]]]:
    assert isinstance(store, ShardedStore)
    names = [*ITEMS, "warm"]
    indexes = await store.item_indexes(names)
    counts = dict(zip(names, await store.event_counts(indexes), strict=True))
    name_of = dict(zip(indexes, names, strict=True))
    histories = await store.histories([f"u:{user}" for user in USERS])
    of_users = {
        user: Counter(name_of.get(index, "?") for index in history.items.tolist())
        for user, history in zip(USERS, histories, strict=True)
    }
    return (await store.counts()).get("events", 0.0), counts, of_users


def main() -> int:
    """Run it from the command line; the exit code is 1 if anything was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    with tempfile.TemporaryDirectory() as directory, opened_site(Path(directory)) as site:
        report = run(site, n_faults=given.faults, seed=given.seed, say=say)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
