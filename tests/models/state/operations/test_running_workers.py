"""Workers list themselves, and those that have ended are listed no more."""

from __future__ import annotations

import msgspec

from models.kafka_operations import RunningWorker
from models.state.operations.running_workers import FRESH_S, report_worker, running_workers
from models.state.store import Store
from tests.models.state.reference import NOW


async def test_workers_that_ended_are_gone(store: Store) -> None:
    """A report counts until it is too old, and the next report of another removes it."""
    group = store.settings.group
    first = RunningWorker("b/1", NOW - 9.0, NOW, {"clicks": [0, 2]}, 7)
    second = RunningWorker("a/2", NOW - 5.0, NOW, {"clicks": [1], "items": [0]}, 0)
    for worker in (first, second):
        await report_worker(store.redis, group, worker)
    assert await running_workers(store.redis, group, now_s=NOW) == [second, first]

    later = msgspec.structs.replace(second, at=NOW + FRESH_S)
    assert await running_workers(store.redis, group, now_s=later.at) == []
    await report_worker(store.redis, group, later)

    assert await running_workers(store.redis, group, now_s=later.at) == [later]
    assert await store.redis.hlen(store.key("workers")) == 1
