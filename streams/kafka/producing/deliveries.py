"""Calls on their way to Kafka: their messages, and the one result of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from models.tokens import Published, Receipt, TopicKind
from streams.kafka.producing.produced_messages import ProducedMessage


class Delivery:
    """One call on its way: its messages, and the future that is settled once.

    Parameters
    ----------
    incarnations
        Incarnations of the topics, by kind, as known before the messages were sent.
    """

    def __init__(
        self, messages: Sequence[ProducedMessage], incarnations: Mapping[TopicKind, str]
    ) -> None:
        self.messages = messages
        self.incarnations = {one.kind: incarnations[one.kind] for one in messages}
        self.deadline_s = math.inf
        self.published: dict[int, Published] = {}
        self.future: Future[Receipt] = Future()
        # From here on the caller cannot cancel it: a message that was sent cannot be recalled.
        self.future.set_running_or_notify_cancel()
        self._is_claimed = False

    def claim(self) -> bool:
        """True for the first caller, which is to settle the future; called under the lock."""
        is_first, self._is_claimed = not self._is_claimed, True
        return is_first
