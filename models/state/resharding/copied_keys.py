"""Keys that are read from the shards of one layout and written to those of another.

Values go through this process a few hundred at a time: its memory does not grow with the state.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import redis.exceptions

from models.state.clients.batched_requests import Command
from models.state.clients.client import RedisClient
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.at_once import at_once

AT_ONCE = 500
"""Commands that are sent in one piece: some milliseconds of the server's time."""

FIELDS_AT_ONCE = 500
"""Fields of a large hash that are read at once."""

ATTEMPTS, WAIT_S = 40, 0.25
"""Attempts at what a server does not answer: a replica takes over in seconds, a slot moves."""

_MAY_PASS = (*AWAY_ERRORS, redis.exceptions.AskError, redis.exceptions.MovedError)

T = TypeVar("T")


async def asked(client: RedisClient, *commands: Command) -> list[Any]:
    """Answers of commands on keys of one slot, which may be repeated; waits for a new primary."""
    for _ in range(ATTEMPTS - 1):
        try:
            return list(await client.reads.run(*commands))
        except _MAY_PASS:
            await asyncio.sleep(WAIT_S)
    return list(await client.reads.run(*commands))


def pairs_of(answer: Any) -> list[tuple[bytes, bytes]]:  # noqa: ANN401  as either protocol has it
    """Fields and values of a hash, as either version of the protocol gives them.

    >>> pairs_of([b"a", b"1"]), pairs_of({b"a": b"1"})
    ([(b'a', b'1')], [(b'a', b'1')])
    """
    if isinstance(answer, dict):
        return list(answer.items())
    return list(zip(answer[::2], answer[1::2], strict=True))


async def hash_fields(client: RedisClient, key: str) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Fields and values of a large hash, some at a time; one may come twice."""
    cursor: bytes | int = 0
    while True:
        ((cursor, found),) = await asked(client, ("HSCAN", key, cursor, "COUNT", FIELDS_AT_ONCE))
        if found:
            yield pairs_of(found)
        if int(cursor) == 0:
            return


class KeyWriter:
    """Writes to the shards of the new layout, many commands in one piece; of one task.

    `check` is called before each piece, and raises if nothing more may be written.
    """

    def __init__(self, client: RedisClient, check: Callable[[], None]) -> None:
        self._client = client
        self._check = check
        self._waiting: dict[str, list[Command]] = {}

    async def put(self, prefix: str, verb: str, name: str, *arguments: str | bytes | float) -> None:
        """Have a command done on a key of a shard; it may be repeated."""
        commands = self._waiting.setdefault(prefix, [])
        commands.append((verb, prefix + name, *arguments))
        if len(commands) >= AT_ONCE:
            await self._write(prefix)

    async def flush(self) -> None:
        """Return when everything is written."""
        for prefix in [*self._waiting]:
            await self._write(prefix)

    async def _write(self, prefix: str) -> None:
        commands = self._waiting.pop(prefix)
        self._check()
        await asked(self._client, *commands)


def pieces(values: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """Some values at a time.

    >>> list(pieces([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    return (values[at : at + size] for at in range(0, len(values), size))


async def by_tasks(work: Iterable[T], do: Callable[[T], Awaitable[None]], *, tasks: int) -> None:
    """Do pieces of work, by a number of tasks; the first error ends all."""
    rest, has_failed = iter(work), list[bool]()

    async def take() -> None:
        for one in rest:
            if has_failed:
                return
            try:
                await do(one)
            except BaseException:
                has_failed.append(True)
                raise

    await at_once(take() for _ in range(tasks))
