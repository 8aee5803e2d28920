"""Workers that count twice, or lose: the drill must find it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from cli.forked_commands import run_command_line
from models.state.messages import Part, PartResult, StoredMessage
from models.state.store import Store

BROKEN_EVERY = 20
"""Messages of which one is applied wrongly."""


def counting_twice() -> None:
    """Run a command whose step takes some events twice, under another id."""
    _run_with(
        lambda message: message._replace(
            events=[*message.events, *(e._replace(hash=e.hash ^ 1) for e in message.events)]
        )
    )


def acknowledging_first() -> None:
    """Run a command whose step moves the watermark over some messages without their effects."""
    _run_with(lambda message: message._replace(events=[]))


def _run_with(broken: Callable[[StoredMessage], StoredMessage]) -> None:
    original, numbers = Store.apply, itertools.count(1)

    def wrongly(message: StoredMessage) -> StoredMessage:
        return broken(message) if next(numbers) % BROKEN_EVERY == 0 else message

    async def apply(
        self: Store, parts: Sequence[Part], *, now_s: float
    ) -> tuple[list[PartResult], dict[str, int]]:
        changed = [part._replace(messages=[*map(wrongly, part.messages)]) for part in parts]
        return await original(self, changed, now_s=now_s)

    Store.apply = apply  # type: ignore[method-assign]
    run_command_line()
