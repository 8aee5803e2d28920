"""Named configurations: versions count up, deletions are versions, and what is kept is bounded."""

from __future__ import annotations

import pytest

from models.errors import LimitExceeded
from models.state import named_versions
from models.state.named_versions import (
    all_versions,
    current_version,
    current_versions,
    save_version,
)
from models.state.store import Store


async def save(store: Store, name: str, value: bytes | None, at: float = 1.0) -> int:
    """Save a version of a placement."""
    return await save_version(store, "placements", name, value, saved_by="ada", now_s=at)


async def test_every_version_is_kept_with_who_saved_it(store: Store) -> None:
    """The newest first; a name that was never saved has none."""
    assert await save(store, "home", b'{"caption":"a"}') == 1
    assert await save(store, "home", b'{"caption":"b"}', 2.5) == 2
    assert await save(store, "cart", b"{}") == 1

    found = await all_versions(store, "placements", "home")
    assert [(one.version, bytes(one.value)) for one in found] == [
        (2, b'{"caption":"b"}'),
        (1, b'{"caption":"a"}'),
    ]
    assert (found[0].saved_at, found[0].saved_by) == (2.5, "ada")
    assert list(await current_versions(store, "placements")) == ["cart", "home"]
    assert await all_versions(store, "placements", "mail") == []
    assert await current_version(store, "placements", "mail") is None


async def test_a_deletion_is_a_version(store: Store) -> None:
    """Nothing is there then, and the next version counts on."""
    assert await save(store, "home", None) == 0
    await save(store, "home", b"{}")
    assert await save(store, "home", None) == 2
    assert await save(store, "home", None) == 0

    assert await current_version(store, "placements", "home") is None
    assert await current_versions(store, "placements") == {}
    assert [one.is_deleted for one in await all_versions(store, "placements", "home")] == [
        True,
        False,
    ]
    assert await save(store, "home", b"{}") == 3


async def test_what_is_kept_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new name takes the place of the one that was deleted first; of a name the last versions."""
    monkeypatch.setattr(named_versions, "MAX_NAMED", 3)
    monkeypatch.setattr(named_versions, "MAX_VERSIONS", 2)
    for at, name in enumerate(("a", "b", "c")):
        await save(store, name, b"{}", 10.0 + at)
    with pytest.raises(LimitExceeded, match="3 placements"):
        await save(store, "d", b"{}")
    await save(store, "b", None, 1e9)
    await save(store, "a", None, 1e9 + 1)

    assert await save(store, "d", b"{}") == 1

    assert list(await current_versions(store, "placements")) == ["c", "d"]
    assert await all_versions(store, "placements", "b") == []
    assert len(await all_versions(store, "placements", "a")) == 2
    for _ in range(5):
        await save(store, "d", b"{}")
    assert [one.version for one in await all_versions(store, "placements", "d")] == [6, 5, 4]
