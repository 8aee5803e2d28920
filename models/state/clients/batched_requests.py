"""Requests of a batched connection: commands sent in one piece, and who waits for the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import hiredis
import redis.exceptions

Values = list[bytes | None]
Answers = list[Any]
Command = tuple[str | bytes | float, ...]
Wanted = list[tuple[list[str], asyncio.Future[Values]]]

TRIES = 2
"""A command whose connection died is sent once more, on a new one."""

# Its types say that a command is one word.
_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]


class Request(Protocol):
    """Commands of one piece, and who waits for their answers."""

    packed: bytes
    n_answers: int
    tries: int

    def answer(self, answers: Answers) -> None:
        """Hand on all answers, none of them an error."""

    def fail(self, error: Exception) -> None:
        """Hand on an error."""


class CommandsRequest:
    """Commands of one task."""

    def __init__(self, commands: Sequence[Command], future: asyncio.Future[Answers]) -> None:
        self.packed = b"".join(map(_pack, commands))
        self.n_answers = len(commands)
        self.tries = 0
        self._future = future

    def answer(self, answers: Answers) -> None:
        """Hand the task its answers."""
        if not self._future.done():
            self._future.set_result(answers)

    def fail(self, error: Exception) -> None:
        """Hand the task the error."""
        if not self._future.done():
            self._future.set_exception(error)


class MgetRequest:
    """An MGET of the keys of several tasks."""

    n_answers = 1

    def __init__(self, wanted: Wanted) -> None:
        self.packed = _pack(("MGET", *(key for keys, _ in wanted for key in keys)))
        self.tries = 0
        self._wanted = wanted

    def answer(self, answers: Answers) -> None:
        """Hand each task its values."""
        at, (values,) = 0, answers
        for keys, future in self._wanted:
            if not future.done():
                future.set_result(values[at : at + len(keys)])
            at += len(keys)

    def fail(self, error: Exception) -> None:
        """Hand the error to all tasks."""
        for _, future in self._wanted:
            if not future.done():
                future.set_exception(error)


class SubscriptionRequest:
    """Subscribes to a channel, and sends it an empty message: the first that its listener hears.

    So what is heard shows that the user may do both, as a worker must.
    """

    n_answers = 1

    def __init__(self, channel: bytes, refused: Callable[[Exception], None]) -> None:
        # The answer to SUBSCRIBE is a message, unless it is an error.
        self.packed = _pack(("SUBSCRIBE", channel)) + _pack(("PUBLISH", channel, b""))
        # Not repeated: a new connection subscribes anew.
        self.tries = TRIES
        self._refused = refused

    def answer(self, answers: Answers) -> None:
        """Nothing: the listener hears the message."""

    def fail(self, error: Exception) -> None:
        """Say so, unless the connection was lost."""
        if isinstance(error, redis.exceptions.ResponseError):
            self._refused(error)


class UnsubscriptionRequest:
    """Unsubscribes from a channel."""

    n_answers = 0

    def __init__(self, channel: bytes) -> None:
        self.packed = _pack(("UNSUBSCRIBE", channel))
        self.tries = TRIES

    def answer(self, answers: Answers) -> None:
        """Nothing."""

    def fail(self, error: Exception) -> None:
        """Nothing: without a connection there is no subscription."""
