"""Erased users and groups: nothing of them is left in Redis or Kafka."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from models.events import parse_erasure
from models.settings import Settings
from models.state.catalogue.metadata import put_items, put_users
from models.state.messages import Part, StoredMessage
from ops.embedded_servers import Server
from streams.jobs.runner import Runner
from streams.kafka.consuming.offsets import messages
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import Topics, ensure_topics
from tests.personalize.control_fixtures import Control
from tests.personalize.jobs.test_runner import deletion, events, run_next, runner_of

_numbers = itertools.count()

PEOPLE = ("u0", "u1", "u2", "u3")


@pytest.fixture
def control(broker: Server, make_control: Callable[..., Control]) -> Control:
    """A control plane with topics of its own."""
    prefix = f"t{next(_numbers)}."
    made = make_control(kafka=broker.address, topic_prefix=prefix)
    ensure_topics(made.settings)
    return made


@pytest.fixture
async def runner(control: Control, tmp_path: Path) -> AsyncIterator[Runner]:
    """A runner of the control plane's jobs."""
    one = runner_of(control, tmp_path)
    yield one
    await one.close()


def kept(settings: Settings) -> set[str]:
    """Keys of the compacted topics whose newest message has a value."""
    topics = Topics.of(settings)
    starts = {
        (topic, partition): 0
        for topic in (topics.items, topics.users)
        for partition in range(settings.partitions)
    }
    newest = {(one.topic, one.key): one.value for one in messages(settings, starts)}
    return {key.decode() for (_, key), value in newest.items() if value}


async def apply_erasures(control: Control, group: str) -> None:
    """Apply the erasures in the log, as workers do."""
    clicks = Topics.of(control.settings).clicks
    starts = {(clicks, partition): 0 for partition in range(control.settings.partitions)}
    store = control.context.tenants.store(group)
    for one in messages(control.settings, starts):
        found = parse_erasure(one.value, now_s=time.time())
        assert found is not None
        assert (found.erase, one.key) == (group, found.user_id.encode())
        stored = StoredMessage(0, found.user_id, "", 0, 0.0, [], erased_at=found.accepted_at)
        part = Part(f"erasures/{one.partition}-{one.offset}", -1, [stored])
        await store.apply([part], now_s=control.now_s)


async def known(control: Control, *groups: str) -> None:
    """Put records of items and users into Kafka; those of the first group are in effect."""
    with Tracker(control.settings) as tracker:
        for group in groups:
            tracker.put_users(group, [(name, {"AGE": 36}) for name in PEOPLE])
            tracker.put_items(group, [("i0", {"PRICE": 1}), ("i1", {"PRICE": 2})])
    store = control.context.tenants.store(groups[0])
    await put_users(store, [(name, {"AGE": 36}) for name in PEOPLE], control.now_s)
    await put_items(store, [("i0", {"PRICE": 1})], control.now_s)


async def test_users_are_erased(control: Control, runner: Runner, tmp_path: Path) -> None:
    """In Redis and Kafka; users with data are counted, other users stay."""
    group = await control.group()
    await events(control, "g", 2, 2)
    await known(control, "g", "other")
    described = await deletion(control, group)
    (tmp_path / "data" / "users.csv").write_text("USER_ID\nu0\nnobody\nu2\nu2\n")
    await run_next(control, runner)
    done = await described()
    store = control.context.tenants.store("g")
    await apply_erasures(control, "g")

    assert (done["status"], done["numDeleted"]) == ("COMPLETED", 2)
    assert await store.redis.keys(store.key("history:*")) == [b"{g}:history:u:u1"]
    left = {key for key in kept(control.settings) if key.partition("/")[2] in PEOPLE}
    assert left == {"g/u1", "g/u3", *(f"other/{name}" for name in PEOPLE)}


@pytest.mark.parametrize("bad", ['""', "u" * 257])
async def test_a_row_without_a_user_ends_the_job(
    control: Control, runner: Runner, tmp_path: Path, bad: str
) -> None:
    """The error names the row; users of the other rows are not erased."""
    described = await deletion(control, await control.group())
    await events(control, "g", 2, 2)
    (tmp_path / "data" / "users.csv").write_text(f"USER_ID\nu1\n{bad}\n")
    await run_next(control, runner)
    failed = await described()
    store = control.context.tenants.store("g")

    assert failed["status"] == "FAILED"
    assert failed["failureReason"].startswith("s3://data/users.csv line 3: ")
    assert len(await store.redis.keys(store.key("history:*"))) == 2


async def test_a_group_is_deleted_with_its_data(control: Control, runner: Runner) -> None:
    """Nothing is left in Redis or Kafka, and it is not listed any more."""
    group = await control.group()
    await events(control, "g", 2, 2)
    await known(control, "g", "other")
    await control("DeleteDatasetGroup", datasetGroupArn=group)
    await run_next(control, runner)

    assert await control.context.tenants.redis.keys("{g}:*") == []
    assert kept(control.settings) == {f"other/{name}" for name in (*PEOPLE, "i0", "i1")}
    names = [one["name"] for one in (await control("ListDatasetGroups"))["datasetGroups"]]
    assert "g" not in names
