"""Events of all users of a group, read out of the histories of its shards."""

from __future__ import annotations

import random

from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part, shard_of
from models.state.shards.sharded_store import ShardedStore
from models.state.store import Store
from models.state.users.interactions import histories, imported_events, sample
from tests.models.state.reference import NOW, click
from tests.models.state.shards.test_sharded_steps import make_network, to_log


async def test_events_of_all_users_are_those_of_one_shard(redis_url: str) -> None:
    """Single and imported ones; what a move to other shards has left behind is not among them."""
    async with connect(redis_url) as client:
        try:
            network = await make_network(client, 3, random.Random(1), 20)
            one = Store(client, Settings(group="one", history_events=20))
            marks = [-1, -1]
            for number in range(30):
                user, item = f"u{number % 7}", "abcdef"[number % 6]
                event = click(item, number, NOW - 100 + number)._replace(
                    is_imported=number % 2 == 0, type="buy" if number % 3 else "click"
                )
                message = to_log(network, user, user, [event])
                partition = shard_of(user) % 2
                await one.apply([Part(f"p/{partition}", marks[partition], [message])], now_s=NOW)
                marks[partition] = message.offset
            await network.drain()
            left = (
                await client.get("{h/u00}:history:u:u0")
                or await client.get("{h/u01}:history:u:u0")
                or await client.get("{h/u02}:history:u:u0")
            )
            await client.set("{h/u00.9}:history:u:gone", left or b"")
            many = ShardedStore(client, Settings(group="h", shards=3, outcomes=False))
            found = [
                {owner: own async for owner, own, _ in histories(store)} for store in (one, many)
            ]
            assert found[0] == found[1]
            assert len(found[1]) == 7
            imported = [
                {user: (types, own.tolist(), times.tolist())
                 async for user, types, own, times in imported_events(store)}
                for store in (one, many)
            ]  # fmt: skip
            assert imported[0] == imported[1]
            assert imported[1]
            samples = [await sample(store, most=1000) for store in (one, many)]
            assert samples[0].n_users == samples[1].n_users == 7
            assert samples[0].n_items == samples[1].n_items
            assert sorted(samples[0].interactions) == sorted(samples[1].interactions)
        finally:
            await client.flushdb()
