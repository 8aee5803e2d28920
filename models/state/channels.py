"""Channels that tell readers of a group what a step has changed.

Each atomic step publishes to `{group}:changed` the indexes of the items whose neighbour lists it
wrote, as numbers with spaces between; 0 says that items were hidden, or are shown again; an empty
message says that anything may have changed.
Messages come on the connection of the batched reads: an answer that Redis gives after a step comes
after the step's message, so that a request whose history holds an event finds no older list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from models.state.timed_cache import TimedCache


class Listener(Protocol):
    """Receiver of a channel's messages."""

    def heard(self, message: bytes) -> None:
        """A message; the first is empty, and from it on none is missed until `lost`."""

    def lost(self) -> None:
        """Messages may be missed from now on."""


HIDDEN_CHANGED = b"0"
"""Message that other items are hidden than before."""


class ListInvalidation:
    """Keeps a cache of values by item as new as the messages of its group's channel.

    `load` of the cache must read through the connection on which the messages come.
    `hidden_changed` is called when other items may be hidden than before.
    """

    def __init__(
        self, cache: TimedCache[int, bytes], hidden_changed: Callable[[], None] = lambda: None
    ) -> None:
        self._cache = cache
        self._hidden_changed = hidden_changed

    def heard(self, message: bytes) -> None:
        """Drop the values of the items in the message; all for an empty one."""
        if message == HIDDEN_CHANGED:
            self._hidden_changed()
        elif message:
            self._cache.invalidate(map(int, message.split()))
        else:
            self._cache.invalidate_all()
            self._cache.hears_changes = True
            self._hidden_changed()

    def lost(self) -> None:
        """Let values age again."""
        self._cache.hears_changes = False


Unsubscribe = Callable[[], None]
"""Ends a subscription."""
