"""Calls on their way to Kafka: their messages, and the one answer each gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from models.tokens import Published, Receipt, TopicKind


class ProducedMessage(NamedTuple):
    """One Kafka message to be; without a value, the removal of what has its key."""

    kind: TopicKind
    topic: str
    key: bytes
    value: bytes | None

    @property
    def size(self) -> int:
        """Bytes that it takes while it waits."""
        return len(self.key) + len(self.value or b"")


class Delivery:
    """One call on its way: its messages, and the future to settle once.

    Parameters
    ----------
    incarnations
        Of the topics, by kind, as they were known before the messages were sent.
    """

    def __init__(
        self, messages: Sequence[ProducedMessage], incarnations: Mapping[TopicKind, str]
    ) -> None:
        self.messages = messages
        self.incarnations = {one.kind: incarnations[one.kind] for one in messages}
        self.deadline_s = math.inf
        self.published: dict[int, Published] = {}
        self.future: Future[Receipt] = Future()
        # From here on the caller cannot cancel it: a message sent cannot be called back.
        self.future.set_running_or_notify_cancel()
        self._is_claimed = False

    def claim(self) -> bool:
        """Whether the caller is the one to settle the future; to be called under the lock."""
        is_first, self._is_claimed = not self._is_claimed, True
        return is_first
