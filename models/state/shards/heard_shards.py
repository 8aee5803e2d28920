"""The channels of all item shards of a group, heard as one."""

from __future__ import annotations

import msgspec

from models.state.channels import Listener


class HeardShards:
    """Listens to the channels of all item shards: their lists are heard of once all of them are."""

    def __init__(self, listener: Listener, shards: int) -> None:
        self._listener = listener
        self._missing = set(range(shards))

    def of(self, number: int) -> Listener:
        """The listener of one shard's channel."""
        return _HeardShard(self, number)

    def heard(self, number: int, message: bytes) -> None:
        """A message of a shard; the first one after a loss is empty."""
        if message == b"":
            self._missing.discard(number)
            if self._missing:
                return
        self._listener.heard(message)

    def lost(self, number: int) -> None:
        """Messages of a shard may be missed."""
        self._missing.add(number)
        self._listener.lost()


class _HeardShard(msgspec.Struct):
    """One shard's channel."""

    every: HeardShards
    number: int

    def heard(self, message: bytes) -> None:
        """Hand on a message."""
        self.every.heard(self.number, message)

    def lost(self) -> None:
        """Hand on a loss."""
        self.every.lost(self.number)
