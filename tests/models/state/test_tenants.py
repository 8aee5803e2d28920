"""Groups of tracking ids, their creation and removal, on a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from models.errors import InvalidInput, LimitExceeded, ResourceAlreadyExists, ResourceInUse
from models.settings import Settings
from models.state import tenants as module
from models.state.catalogue.metadata import put_items
from models.state.clients.client import connect
from models.state.groups import group_registry as groups
from models.state.messages import Part
from models.state.tenants import RESERVED, Tenants
from tests.models.state.reference import NOW, click, contents, message


class Clock:
    """A monotonic clock that tests advance."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """The present."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock at 0."""
    return Clock()


@pytest.fixture
async def tenants(redis_url: str, clock: Clock) -> AsyncIterator[Tenants]:
    """The tenants of an empty Redis; `shop` is the settings' group."""
    one = Tenants(connect(redis_url), Settings(tracking_id="t-shop", cache_s=1), clock=clock)
    await one.redis.flushdb()
    yield one
    await one.redis.flushdb()
    await one.redis.aclose()


async def test_a_tracking_id_has_its_group(tenants: Tenants) -> None:
    """The settings' group always exists, a registered one at once; unknown ids have None."""
    assert await tenants.group_of("t-shop") == "shop"
    assert await tenants.group_of("t-books") is None
    assert await tenants.groups() == {"shop"}

    await tenants.register("t-books", "books")
    await tenants.register("t-books", "books")

    assert await tenants.group_of("t-books") == "books"
    assert await tenants.groups() == {"shop", "books"}


async def test_a_removed_tracking_id_is_cached_for_a_bounded_time(
    tenants: Tenants, redis_url: str, clock: Clock
) -> None:
    """The removing process rejects it at once, another process after `cache_s`."""
    other = Tenants(connect(redis_url), tenants.settings, clock=clock)
    await tenants.register("t-books", "books")
    assert await other.group_of("t-books") == "books"

    await tenants.remove("t-books", now_s=NOW)
    await tenants.remove("t-books", now_s=NOW)

    assert await tenants.group_of("t-books") is None
    assert await other.group_of("t-books") == "books"
    clock.now_s = 1.5
    assert await other.group_of("t-books") is None
    await tenants.register("t-books", "papers")
    assert await other.group_of("t-books") == "papers"
    await tenants.remove("t-books", now_s=NOW)
    other.forget()
    assert await other.group_of("t-books") is None
    await other.redis.aclose()


async def test_a_removed_tracking_id_leads_to_its_group_for_what_was_sent_before(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late it is read; the first removed is forgotten first, and all with the group."""
    monkeypatch.setattr(groups, "MAX_FORMER", 2)
    for number, name in enumerate(("one", "two", "three")):
        await tenants.register(name, "books")
        await tenants.remove(name, now_s=NOW + number)

    assert await tenants.group_when_sent("one", NOW) is None
    assert await tenants.group_when_sent("two", NOW + 1) == "books"
    assert await tenants.group_when_sent("two", NOW + 1 + tenants.settings.cache_s) == "books"
    assert await tenants.group_when_sent("two", NOW + 100) is None
    await tenants.register("three", "papers")
    assert await tenants.group_when_sent("three", NOW) == "papers"
    assert await tenants.group_when_sent("t-shop", NOW) == "shop"
    await tenants.erase("books")
    assert await tenants.group_when_sent("two", NOW) is None


async def test_a_group_needs_no_tracking_id(tenants: Tenants) -> None:
    """It exists once it is created, and stays when its tracking id is removed."""
    await tenants.create("books")
    await tenants.create("shop")
    assert await tenants.groups() == {"shop", "books"}
    await tenants.register("one", "books")

    await tenants.remove("one", now_s=NOW)

    assert await tenants.group_of("one") is None
    assert await tenants.groups() == {"shop", "books"}


@pytest.mark.parametrize(
    ("tracking_id", "group"),
    [
        ("", "books"),
        ("x" * 257, "books"),
        ("t", ""),
        ("t", "a b"),
        ("t", "x" * 64),
        ("t", RESERVED),
    ],
)
async def test_invalid_names_are_rejected(tenants: Tenants, tracking_id: str, group: str) -> None:
    """Names that would not give a key of their own are rejected."""
    with pytest.raises(InvalidInput):
        await tenants.register(tracking_id, group)
    assert await tenants.group_of(tracking_id) is None
    assert await tenants.groups() == {"shop"}


async def test_a_tracking_id_belongs_to_one_group(tenants: Tenants) -> None:
    """Neither a registered id nor that of the settings can be registered for another group."""
    await tenants.register("t-books", "books")
    for tracking_id in ("t-books", "t-shop"):
        with pytest.raises(ResourceAlreadyExists):
            await tenants.register(tracking_id, "papers")
    await tenants.register("t-shop", "shop")
    await tenants.register("t-shop-2", "shop")

    assert await tenants.group_of("t-books") == "books"
    assert await tenants.group_of("t-shop") == await tenants.group_of("t-shop-2") == "shop"
    assert await tenants.groups() == {"shop", "books"}


async def test_tracking_ids_are_bounded(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the maximum is rejected; known ids can be registered again."""
    monkeypatch.setattr(module, "MAX_TRACKERS", 2)
    await tenants.register("one", "a")
    await tenants.register("two", "b")
    with pytest.raises(LimitExceeded):
        await tenants.register("three", "c")
    await tenants.register("two", "b")
    for tracking_id in ("one", "two", "t-shop"):
        assert await tenants.group_of(tracking_id)
    await tenants.remove("one", now_s=NOW)
    await tenants.register("three", "c")
    assert await tenants.group_of("three") == "c"
    assert len(tenants._groups) <= 2


async def test_stores_are_bounded(tenants: Tenants) -> None:
    """A group's store is made once, and again after those of many others."""
    own, first = tenants.store("shop"), tenants.store("g0")
    assert tenants.store("g0") is first
    for number in range(module.MAX_STORES):
        tenants.store(f"g{number + 1}")

    assert tenants.store("shop") is own
    assert tenants.store("g0") is not first
    assert tenants.store("g0").prefix == "{g0}:"


async def test_an_erased_group_leaves_no_keys(tenants: Tenants) -> None:
    """All keys and tracking ids of the group are removed, and no others."""
    await tenants.register("t-books", "books")
    await tenants.register("t-book", "book")
    for group in ("books", "book"):
        store = tenants.store(group)
        part = Part("p/0", -1, [message(0, click("a", 0), user="ada")])
        await store.apply([part], now_s=NOW)
        await put_items(store, [(f"i{n}", {"GENRE": f"g{n}"}) for n in range(1200)], NOW)
    with pytest.raises(ResourceInUse):
        await tenants.erase("shop")
    kept = await contents(tenants.store("book"))

    await tenants.erase("books")

    assert await contents(tenants.store("books")) == {}
    assert await contents(tenants.store("book")) == kept
    assert await tenants.group_of("t-books") is None
    assert await tenants.group_of("t-book") == "book"
    assert await tenants.groups() == {"shop", "book"}
    await tenants.erase("books")
