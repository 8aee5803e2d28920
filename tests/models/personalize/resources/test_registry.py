"""The registry of resources against a naive one, and its other guarantees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import (
    InvalidInput,
    LimitExceeded,
    ResourceAlreadyExists,
    ResourceInUse,
    ResourceNotFound,
    ServiceError,
)
from models.personalize.resources.registry import PREFIX, IndexLimit, Registry
from models.personalize.resources.resource import Resource, index_name, indexes_of
from models.personalize.resources.resource_types import KINDS, path_of, resource_type_of
from models.personalize.resources.statuses import ACTIVE, CREATE_PENDING, UNFINISHED
from models.settings import Settings
from models.state.clients.client import connect
from models.state.scripts.registered_scripts import run_script
from ops.embedded_servers import start_redis

NOW = 1_795_000_000.0

PATHS = {
    "schema/s": (),
    "dataset-group/g": (),
    "dataset-group/h": (),
    "dataset/g/ITEMS": ("dataset-group/g", "schema/s"),
    "dataset-import-job/j1": ("dataset/g/ITEMS", "dataset-group/g"),
    "dataset-import-job/j2": ("dataset/g/ITEMS", "dataset-group/g"),
    "filter/f": ("dataset-group/h",),
    "recommender/r": ("dataset-group/h",),
    "solution/x": ("dataset-group/g",),
    "solution/x/01234567": ("solution/x", "dataset-group/g"),
    "campaign/c": ("solution/x/01234567", "solution/x", "dataset-group/g"),
}
"""Parents of each path, in the naive registry."""

STATUSES = sorted({status for kind in KINDS.values() for status in (*kind.transitions, ACTIVE)})

STEPS = st.lists(
    st.tuples(st.sampled_from(["create", "create", "remove", "move"]), st.sampled_from([*PATHS]),
              st.sampled_from([ACTIVE, CREATE_PENDING, *STATUSES])),
    max_size=40,
)  # fmt: skip


class Naive:
    """The interface of `Registry`, in a dict."""

    def __init__(self) -> None:
        self.all: dict[str, Resource] = {}

    def create(self, resource: Resource) -> None:
        """A new one, if its path is free and its parents are ACTIVE."""
        if resource.path in self.all:
            raise ResourceAlreadyExists
        for link in resource.links:
            if link not in self.all:
                raise ResourceNotFound
            if self.all[link].status != ACTIVE:
                raise ResourceInUse
        self.all[resource.path] = resource

    def move(self, path: str, status: str) -> None:
        """Another status, if the transition is permitted."""
        if status not in self._at(path).kind.transitions.get(self._at(path).status, ()):
            raise ResourceInUse
        self.all[path] = msgspec.structs.replace(self.all[path], status=status)

    def remove(self, path: str) -> None:
        """It is removed with the children that it cascades to, unless others block it."""
        kind = self._at(path).kind
        children = [one for one in self.all.values() if path in one.links]
        if any(child.kind.name in kind.blocked_by for child in children):
            raise ResourceInUse
        taken = [child for child in children if child.kind.name in kind.cascades_to]
        if any(child.status in UNFINISHED for child in taken):
            raise ResourceInUse
        for one in (self.all[path], *taken):
            del self.all[one.path]

    def _at(self, path: str) -> Resource:
        if path not in self.all:
            raise ResourceNotFound
        return self.all[path]


def new(path: str, status: str = ACTIVE, links: Iterable[str] = (), **data: Any) -> Resource:
    """A resource that is not stored yet."""
    return Resource(path, status, NOW, NOW, data, tuple(links))


def moving(status: str) -> Callable[[Resource], Resource]:
    """A transition to another status."""
    return lambda resource: resource.transition(status, now_s=NOW + 1)


async def outcome(step: Any) -> type[ServiceError] | None:
    """The kind of error that a step raises, or None."""
    try:
        await step
    except ServiceError as error:
        return type(error)
    return None


async def contents(resources: Registry) -> dict[str, Resource]:
    """All stored documents, by path."""
    found = {}
    for kind in KINDS:
        for one in await resources.page(kind):
            found[one.path] = one
    return found


@pytest.fixture
async def resources(redis_url: str) -> AsyncIterator[Registry]:
    """An empty registry."""
    async with connect(redis_url) as client:
        yield Registry(client, Settings(cache_s=1))
        await client.flushdb()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_steps_equal_the_naive_registry(
    redis_url: str, steps: list[tuple[str, str, str]]
) -> None:
    """Every step succeeds or fails alike, and leaves the same resources in the same indexes."""

    async def check() -> None:
        async with connect(redis_url) as client:
            try:
                await follow(Registry(client, Settings()), steps)
            finally:
                await client.flushdb()

    asyncio.run(check())


async def follow(resources: Registry, steps: list[tuple[str, str, str]]) -> None:
    """Take the steps in both registries and compare."""
    naive = Naive()
    for step, path, status in steps:
        expected = None
        one = new(path, status, PATHS[path])
        try:
            if step == "create":
                naive.create(one)
            elif step == "move":
                naive.move(path, status)
            else:
                naive.remove(path)
        except ServiceError as error:
            expected = type(error)
        taken = (
            resources.create(one)
            if step == "create"
            else resources.change(path, moving(status))
            if step == "move"
            else resources.remove(path)
        )
        assert await outcome(taken) is expected, (step, path, status)
    stored = await contents(resources)
    assert {path: one.status for path, one in stored.items()} == {
        path: one.status for path, one in naive.all.items()
    }
    await assert_indexed(resources, stored)


async def assert_indexed(resources: Registry, stored: dict[str, Resource]) -> None:
    """Every index holds exactly its resources, by number."""
    expected: dict[str, dict[str, float]] = {}
    for one in stored.values():
        for name in indexes_of(one):
            expected.setdefault(name, {})[one.path] = one.number
    found = {}
    async for key in resources.redis.scan_iter(match=f"{PREFIX}index:*"):
        members = await resources.redis.zrange(key, 0, -1, withscores=True)
        name = key.decode().removeprefix(f"{PREFIX}index:")
        found[name] = {path.decode(): number for path, number in members}
    assert found == expected


async def test_of_creations_at_once_one_wins(resources: Registry) -> None:
    """Twenty creations of one name make one resource; the others get an error."""
    outcomes = await asyncio.gather(
        *(outcome(resources.create(new("schema/s", n=n))) for n in range(20))
    )

    assert sorted(map(str, outcomes)) == sorted(map(str, [None, *[ResourceAlreadyExists] * 19]))


async def test_a_quota_holds_against_creations_at_once(resources: Registry) -> None:
    """Twenty creations within a limit of five make five."""
    full = IndexLimit(index_name("schema"), 4, LimitExceeded("five are enough"))

    outcomes = await asyncio.gather(
        *(outcome(resources.create(new(f"schema/s{n}"), full)) for n in range(20))
    )

    assert outcomes.count(LimitExceeded) == 15
    assert len(await resources.page("schema")) == 5


async def test_a_taken_name_precedes_a_full_quota(resources: Registry) -> None:
    """A repeated program gets ResourceAlreadyExists, not LimitExceeded."""
    await resources.create(new("schema/s"))
    full = IndexLimit(index_name("schema"), 0, LimitExceeded("no more"))

    with pytest.raises(ResourceAlreadyExists, match="schema/s already exists"):
        await resources.create(new("schema/s"), full)


async def test_changes_at_once_are_all_made(resources: Registry) -> None:
    """No change overwrites another one made since its read."""
    await resources.create(new("schema/s", n=0))

    def counted(old: Resource) -> Resource:
        return old.with_data(now_s=NOW, n=old.data["n"] + 1, left=None)

    await asyncio.gather(*(resources.change("schema/s", counted) for _ in range(5)))

    assert (await resources.get("schema/s")).data == {"n": 5}


async def test_a_change_gives_up_after_many_conflicts(resources: Registry) -> None:
    """A resource that others change at every attempt is in use."""
    await resources.create(new("schema/s", n=0))
    rival = Registry(resources.redis, resources.settings)

    class Rivalled(Registry):
        async def get(self, path: str) -> Resource:
            old = await super().get(path)
            await rival.change(path, lambda one: one.with_data(now_s=NOW, n=one.data["n"] + 1))
            return old

    with pytest.raises(ResourceInUse, match="changed by others"):
        await Rivalled(resources.redis, resources.settings).change(
            "schema/s", lambda one: one.with_data(now_s=NOW, mine=True)
        )
    assert "mine" not in (await resources.get("schema/s")).data


async def test_a_command_that_is_repeated_counts_once(
    resources: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated after its answer was lost, a change has the same result."""

    async def twice(*request: Any) -> Any:
        await run_script(*request)
        return await run_script(*request)

    monkeypatch.setattr("models.personalize.resources.registry.run_script", twice)

    def counted(old: Resource) -> Resource:
        return old.with_data(now_s=NOW, n=old.data["n"] + 1)

    created = await resources.create(new("schema/s", n=0))
    assert await resources.get("schema/s") == created
    with pytest.raises(ResourceAlreadyExists):
        await resources.create(new("schema/s", n=0))
    assert (await resources.change("schema/s", counted)).data == {"n": 1}
    await resources.remove("schema/s")
    assert await resources.find("schema/s") is None
    with pytest.raises(ResourceNotFound):
        await resources.remove("schema/s")


async def test_no_child_is_created_under_a_deleted_parent(resources: Registry) -> None:
    """In whatever order a deletion and a creation meet."""
    for n in range(20):
        group, child = f"dataset-group/g{n}", f"solution/x{n}"
        await resources.create(new(group))
        born, gone = await asyncio.gather(
            outcome(resources.create(new(child, links=[group]))),
            outcome(resources.remove(group)),
        )
        assert (born, gone) in {(None, ResourceInUse), (ResourceNotFound, None)}
        assert (await resources.find(group) is None) == (await resources.find(child) is None)


async def test_pages_lose_and_repeat_nothing(resources: Registry) -> None:
    """Pages of any size give all resources of a parent, oldest first, during changes."""
    for group in ("g", "h"):
        await resources.create(new(f"dataset-group/{group}"))
        for n in range(7):
            await resources.create(new(f"filter/{group}{n}", links=[f"dataset-group/{group}"]))

    seen: list[str] = []
    after = 0
    while page := await resources.page("filter", "dataset-group/g", after=after, limit=3):
        seen += [one.path for one in page]
        after = page[-1].number
        await resources.remove(page[0].path)

    assert seen == [f"filter/g{n}" for n in range(7)]
    assert [one.path for one in await resources.page("filter", "dataset-group/g")] == [
        f"filter/g{n}" for n in (1, 2, 4, 5)
    ]
    assert len(await resources.page("filter")) == 4 + 7


async def test_newest_and_counts_follow_the_status(resources: Registry) -> None:
    """The newest ACTIVE version and the unfinished ones are found without reading all."""
    await resources.create(new("solution/x"))
    for n in range(3):
        await resources.create(new(f"solution/x/{n:08x}", CREATE_PENDING, ["solution/x"]))
    for n in (1, 0):
        for status in ("CREATE IN_PROGRESS", ACTIVE):
            await resources.change(f"solution/x/{n:08x}", moving(status))

    active = index_name("solution-version", "solution/x", only="active")
    unfinished = index_name("solution-version", only="unfinished")
    newest = await resources.newest(active)
    last = await resources.newest(index_name("solution-version", "solution/x"))

    assert newest is not None
    assert newest.path == "solution/x/00000001"
    assert last is not None
    assert last.path == "solution/x/00000002"
    assert await resources.count(unfinished) == 1
    assert await resources.newest(index_name("campaign")) is None


async def test_to_api_has_all_members(resources: Registry) -> None:
    """The stored ones, ARN, times and any failure."""
    await resources.create(new("solution/x", name="x"))
    remarked = await resources.change(
        "solution/x",
        lambda one: msgspec.structs.replace(one, failure_reason="a remark", updated_s=NOW + 1),
    )

    assert resources.to_api(remarked) == {
        "name": "x",
        "solutionArn": resources.arn("solution/x"),
        "status": ACTIVE,
        "creationDateTime": NOW,
        "lastUpdatedDateTime": NOW + 1,
        "failureReason": "a remark",
    }


async def test_the_latest_version_is_the_newest_that_is_active(resources: Registry) -> None:
    """$LATEST skips versions that are not, or never will be, ACTIVE."""
    await resources.create(new("solution/x"))
    latest = "solution/x/$LATEST"
    with pytest.raises(ResourceNotFound, match=r"\$LATEST does not exist"):
        await resources.get(latest)
    for n, status in enumerate([ACTIVE, ACTIVE, "CREATE FAILED", CREATE_PENDING]):
        await resources.create(new(f"solution/x/{n:08x}", status, ["solution/x"]))

    assert (await resources.get(latest)).path == "solution/x/00000001"
    assert (await resources.recent(latest, now_s=NOW)).path == "solution/x/00000001"


async def test_recent_shows_own_changes_at_once(
    resources: Registry,
) -> None:
    """Those of other processes once the cache is old."""
    other = Registry(resources.redis, resources.settings)
    await resources.create(new("schema/s", n=0))

    async def seen(now_s: float) -> Any:
        return (await resources.recent("schema/s", now_s=now_s)).data["n"]

    assert await seen(NOW) == 0
    await other.change("schema/s", lambda one: one.with_data(now_s=NOW, n=1))
    assert [await seen(NOW + age) for age in (0.9, 1.0)] == [0, 1]
    await resources.change("schema/s", lambda one: one.with_data(now_s=NOW, n=2))
    assert await seen(NOW + 1.1) == 2
    await resources.remove("schema/s")
    with pytest.raises(ResourceNotFound):
        await seen(NOW + 1.1)


async def test_the_cache_of_recent_is_bounded(
    resources: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many resources are read."""
    monkeypatch.setattr("models.personalize.resources.registry.CACHED", 3)
    for n in range(8):
        await resources.create(new(f"schema/s{n}"))
        assert (await resources.recent(f"schema/s{n}", now_s=NOW)).path == f"schema/s{n}"

    assert len(resources._recent) <= 3


async def test_old_ended_jobs_are_pruned(
    resources: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest and the unfinished ones are kept."""
    monkeypatch.setattr("models.personalize.resources.registry.JOBS_KEPT", 2)
    await resources.create(new("dataset/g/ITEMS"))
    statuses = [CREATE_PENDING, ACTIVE, "CREATE FAILED", ACTIVE, ACTIVE]
    for n, status in enumerate(statuses):
        await resources.create(new(f"dataset-import-job/j{n}", status, ["dataset/g/ITEMS"]))

    kept = await resources.page("dataset-import-job", "dataset/g/ITEMS")

    assert [one.path[-2:] for one in kept] == ["j0", "j3", "j4"]


async def test_a_group_of_a_thousand_filters_goes_at_once(resources: Registry) -> None:
    """A deletion cascades to all children, beyond one page of them."""
    await resources.create(new("dataset-group/g"))
    for n in range(250):
        await resources.create(new(f"filter/f{n}", links=["dataset-group/g"]))

    await resources.remove("dataset-group/g")

    assert await resources.redis.keys() == [f"{PREFIX}sequence".encode()]


async def test_resources_survive_a_restart(tmp_path: Path) -> None:
    """Every resource, index and number."""
    for n in range(2):
        server = start_redis(tmp_path)
        async with connect(server.url) as client:
            resources = Registry(client, Settings())
            await resources.create(new(f"schema/s{n}", text="é"))
            found = await resources.page("schema")
        server.stop()

    assert [one.path for one in found] == ["schema/s0", "schema/s1"]
    assert found[0].data == {"text": "é"}
    assert found[0].number < found[1].number


async def test_arns_have_the_region_and_account_of_the_settings(redis_url: str) -> None:
    """The path of any ARN is the one it was made of."""
    async with connect(redis_url) as client:
        arn = Registry(
            client, Settings(personalize_region="eu-central-1", personalize_account="123456789012")
        ).arn("dataset/g/ITEMS")

    assert arn == "arn:aws:personalize:eu-central-1:123456789012:dataset/g/ITEMS"
    assert path_of(arn) == "dataset/g/ITEMS"
    assert path_of("arn:aws-cn:personalize:cn-north-1:1:campaign/c") == "campaign/c"
    assert path_of("arn:aws:personalize:::recipe/aws-sims") == "recipe/aws-sims"


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "campaign/c",
        "arn:aws:s3:::bucket/key",
        "arn:aws:personalize:us-east-1:1:campaign",
        "arn:aws:personalize:us-east-1:1:campaign/",
        "arn:aws:personalize:us-east-1:1:campaign/a:b",
        "arn:aws:personalize:us-east-1:1:campaign/c\n",
        "arn:aws:personalize:us-east-1:1:campaign/{shop}",
        f"arn:aws:personalize:us-east-1:1:campaign/{'c' * 256}",
    ],
)
def test_other_text_is_no_arn(arn: str) -> None:
    """It is InvalidInput, and becomes no key."""
    with pytest.raises(InvalidInput, match="not an ARN"):
        path_of(arn)


def test_the_type_of_each_path() -> None:
    """By its first part and its length."""
    for name, kind in KINDS.items():
        first = "solution" if name == "solution-version" else name
        path = "/".join([first, *["x"] * (kind.parts - 1)])
        assert resource_type_of(path) is kind
    for path in ("recipe/x", "solution-version/x/y", "dataset/x", "schema/x/y", "nothing", ""):
        assert resource_type_of(path) is None
    with pytest.raises(ValueError, match="not the path"):
        _ = new("recipe/x").kind
