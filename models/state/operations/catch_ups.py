"""Catch-ups of the ranker with kept events: their progress, and the copy of the state they work on.

The progress stands in the hash of the ranker's state.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from models.state.store import Store

FIELD = "catch_up"


class CatchUpState(msgspec.Struct, frozen=True):
    """A catch-up: under way, interrupted, or complete.

    Attributes
    ----------
    n_events
        Events of the group when it began.
    wanted
        Examples that the ranker lacked.
    known, done, examples
        Kept events to go through, those gone through, and the examples made of them.
    """

    n_events: int
    wanted: int
    known: int = 0
    done: int = 0
    examples: int = 0

    @property
    def is_complete(self) -> bool:
        """True once all kept events are gone through."""
        return 0 < self.known <= self.done


def stored_catch_up(stored: Mapping[str, bytes]) -> CatchUpState | None:
    """The last catch-up, of the fields of the ranker's hash; None before the first.

    >>> stored_catch_up({"catch_up": b'{"n_events": 9, "wanted": 5, "known": 9}'}).is_complete
    False
    """
    raw = stored.get(FIELD)
    return None if raw is None else msgspec.json.decode(raw, type=CatchUpState)


async def save_catch_up(store: Store, state: CatchUpState) -> None:
    """Store the progress of the group's catch-up."""
    await store.redis.hset(store.key("ranker"), FIELD, msgspec.json.encode(state))


def copy_of(store: Store) -> Store:
    """The group's scratch copy, a group of its own that no dataset group can have the name of."""
    name = f"scratch.catch-up.{store.settings.group}"
    # Nothing of it is served: there are no outcomes.
    changed = {"group": name, "outcomes": False}
    return Store(store.redis, store.settings.model_copy(update=changed))


async def is_copy_there(copy: Store) -> bool:
    """True if something was applied to a scratch copy that has not been erased since."""
    return bool(await copy.redis.exists(copy.key("counts")))
