"""CPU of an event in a group of many shards, next to a group of one: python -m benchmarks.shards.

One Redis server holds all shards, so that its CPU is the sum over them; deltas go from step to step
without Kafka. Rounds of all numbers of shards take turns, and the figures are medians of rounds.
Behind the first one, which is not measured, the hottest items' lists are split; not with
`--no-split`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.conditions import median, report
from models.settings import Settings
from models.state.clients.client import RedisClient, connect
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.shards.shard_names import (
    DeltaMessage,
    DeltaPart,
    by_shard,
    names_value,
    owner_shard,
    split,
)
from models.state.shards.sharded_steps import ShardedSteps
from models.state.shards.split_lists import SPLIT_AHEAD_S, wanted_splits
from models.state.store import Store
from ops.embedded_servers import start_redis

START_S = 1_790_000_000
ZIPF = 1.1

LONGER_LOG2 = 20.0
"""What popularities gain while the load of the first round lasts for hours: lists of items that are
asked for a few times in all are never split."""


class Load:
    """Events of users in sessions, on items whose popularity is by Zipf's law with `ZIPF`."""

    def __init__(self, items: int, users: int) -> None:
        self._chance = random.Random(7)
        self._weights = list(itertools.accumulate((n + 1) ** -ZIPF for n in range(items)))
        self._items, self._users, self._offset = range(items), users, 0

    def messages(self, n: int) -> list[StoredMessage]:
        """The next messages of one partition, of one event each."""
        found = []
        for item in self._chance.choices(self._items, cum_weights=self._weights, k=n):
            user = self._chance.randrange(self._users)
            event = StoredEvent(
                f"item-{item}", START_S + self._offset // 100, "click", 0.0, False,
                self._chance.getrandbits(32),
            )  # fmt: skip
            session = f"s{user:07d}"
            found.append(
                StoredMessage(
                    self._offset, f"u{user}", session, shard_of(session), START_S, [event]
                )
            )
            self._offset += 1
        return found


class OneShard:
    """The step of a group of one shard."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._store = Store(client, settings)
        self._mark = -1

    async def apply(self, messages: list[StoredMessage]) -> None:
        """Bring messages into effect."""
        await self._store.apply([Part("p/0", self._mark, messages)], now_s=START_S)
        self._mark = messages[-1].offset


class ManyShards:
    """The two steps of a group of many shards, in waves as a busy worker makes them."""

    def __init__(self, client: RedisClient, settings: Settings, shards: int) -> None:
        self._steps = ShardedSteps(client, settings, shards=shards)
        self._marks: dict[int, int] = defaultdict(lambda: -1)
        self._delta_marks: dict[str, int] = defaultdict(lambda: -1)
        self._indexes: dict[str, int] = {}
        self._types: dict[str, int] = {}
        self.n_bytes = self.n_events = self.n_split = 0
        self.session_us = 0.0
        self.cpu: dict[str, float] = defaultdict(float)

    async def apply(self, messages: list[StoredMessage]) -> None:
        """Bring messages into effect, with their deltas."""
        self.n_events += len(messages)
        await self._name(messages)
        began = await _server_cpu(self._steps.redis)
        values: dict[str, list[bytes]] = defaultdict(list)
        for shard, own in by_shard(messages, self._steps.shards).items():
            names = {event.item_id for message in own for event in message.events}
            result = await self._steps.apply_events(
                shard, [Part("p/0", self._marks[shard], own)],
                indexes={name: self._indexes[name] for name in names},
                types=self._types, now_s=START_S,
            )  # fmt: skip
            self._marks[shard] = own[-1].offset
            for name, value in result.outbox:
                values[name].append(value)
                self.n_bytes += len(value)
        self.session_us += 1e6 * (await _server_cpu(self._steps.redis) - began)
        for name, some in values.items():
            began = await _server_cpu(self._steps.redis)
            await self._apply_deltas(name, some)
            self.cpu[name] += await _server_cpu(self._steps.redis) - began
        applied = {name: await self._steps.applied_sources(name) for name in values}
        for source in range(self._steps.shards):
            await self._steps.trim_outbox(source, applied)

    async def split_hot_lists(self) -> None:
        """Split lists as a worker does after an hour of this load, from the next event on."""
        popularities = {
            index: log2 + LONGER_LOG2 for index, log2 in (await self._steps.popularities()).items()
        }
        wanted = wanted_splits(
            popularities, {}, self._steps.shards, now_s=START_S - SPLIT_AHEAD_S, ahead_s=0
        )
        await self._steps.split_lists(wanted)
        await self._steps.read_splits(START_S)
        self.n_split = len(wanted)
        self.cpu.clear()

    async def _apply_deltas(self, name: str, values: list[bytes]) -> None:
        mark = self._delta_marks[name]
        messages = [DeltaMessage(mark + n + 1, split(value)[1]) for n, value in enumerate(values)]
        part = DeltaPart(f"d/{name}", mark, messages)
        self._delta_marks[name] += len(values)
        if name[0] == "i":
            await self._steps.apply_deltas(int(name[1:]), [part], now_s=START_S)
        else:
            await self._steps.apply_events(
                int(name[1:]), [], [part], indexes={}, types={}, now_s=START_S
            )

    async def _name(self, messages: list[StoredMessage]) -> None:
        new: dict[int, list[str]] = defaultdict(list)
        for message in messages:
            for event in message.events:
                if event.item_id not in self._indexes:
                    new[owner_shard(event.item_id, self._steps.shards)].append(event.item_id)
        if not self._types:
            new[0] += []
        for shard, names in new.items():
            types = [] if self._types else ["click"]
            await self._apply_deltas(f"i{shard:02d}", [names_value(names, types)])
            self._indexes |= await self._steps.indexes_of(names)
        self._types = self._types or await self._steps.type_codes()


async def measure(url: str, args: argparse.Namespace) -> dict[str, Any]:
    """CPU of each number of shards, in µs an event, of Redis and of the client."""
    async with connect(url) as client:
        ways: dict[str, Any] = {"one shard": OneShard(client, Settings(group="one"))}
        for shards in args.shards:
            ways[str(shards)] = ManyShards(client, Settings(group=f"g{shards}"), shards)
        loads = {name: Load(args.items, args.users) for name in ways}
        redis: dict[str, list[float]] = defaultdict(list)
        python: dict[str, list[float]] = defaultdict(list)
        for number in range(args.rounds + 1):
            # First one way round, then the other: what a neighbour of the machine takes changes.
            for name in (list(ways), list(reversed(ways)))[number % 2]:
                way = ways[name]
                shards = 1 if name == "one shard" else int(name)
                n = args.events // (args.step * shards) or 1
                batches = [loads[name].messages(args.step * shards) for _ in range(n)]
                used, began = await _server_cpu(client), time.process_time()
                for batch in batches:
                    await way.apply(batch)
                if number == 0 and isinstance(way, ManyShards) and args.split:
                    await way.split_hot_lists()
                if number:
                    n = sum(map(len, batches)) / 1e6
                    redis[name].append((await _server_cpu(client) - used) / n)
                    python[name].append((time.process_time() - began) / n)
        figures: dict[str, Any] = {}
        for name, way in ways.items():
            ratios = [a / b for a, b in zip(redis[name], redis["one shard"], strict=True)]
            figures[name] = {
                "redis_us": median(redis[name]),
                "client_us": median(python[name]),
                "redis_ratio": median(ratios),
            }
            if isinstance(way, ManyShards):
                items = [used for key, used in way.cpu.items() if key[0] == "i"]
                figures[name] |= {
                    "session_us": median([way.session_us / way.n_events]),
                    "delta_bytes": median([way.n_bytes / way.n_events]),
                    "split_lists": way.n_split,
                    "busiest_item_shard": median([max(items) * len(items) / sum(items)]),
                }
        return figures


async def _server_cpu(client: RedisClient) -> float:
    used = await client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--step", type=int, default=200, help="messages of a step, each shard")
    parser.add_argument("--events", type=int, default=6_400, help="of a round")
    parser.add_argument("--split", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            figures = asyncio.run(measure(server.url, args))
        finally:
            server.stop()
    report("shards", figures, **vars(args))


if __name__ == "__main__":
    main()
