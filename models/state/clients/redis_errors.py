"""Meaning of Redis' errors: the server cannot serve now, or the command is wrong.

The first kind passes, so retrying is right. The second never does: a bug in a script, a key of
another type, a command that the user may not give.

One convention holds: functions raise `AWAY_ERRORS` as they are, for callers that retry or answer
from a cache; code that reports to a person or to a client turns them into `Unavailable`, by
`unavailable`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio.connection
import redis.exceptions

from models.errors import Unavailable

_CODES = (
    "BUSY",
    "CLUSTERDOWN",
    "FROZEN",  # by this program's own scripts: frozen.lua
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
)
# For a command in a script, older servers put its error behind words of their own.
_NOT_NOW = re.compile(rf"(?:^|: -)(?:{'|'.join(_CODES)}) ")


class NotNow(redis.exceptions.ResponseError):
    """The server cannot do this now: it is full, read-only, busy or failing over."""


class NotPrimary(NotNow, redis.exceptions.ReadOnlyError):
    """The server is a replica: with Sentinels, the client asks them for the primary again."""


def is_not_now(text: str) -> bool:
    """True for the text of an error that says that the server cannot do this now.

    >>> is_not_now("OOM command not allowed when used memory > 'maxmemory'.")
    True
    >>> is_not_now("ERR Error running script (call to f_1): @user_script:3: -READONLY You can't")
    True
    >>> is_not_now("BUSYKEY Target key name already exists.")
    False
    """
    return _NOT_NOW.search(text) is not None


def is_frozen(error: BaseException) -> bool:
    """True if a script refused a step because the group moves to other shards.

    >>> is_frozen(NotNow("FROZEN the group moves to another number of shards"))
    True
    """
    return isinstance(error, NotNow) and "FROZEN " in str(error)


class Parser(redis.asyncio.connection.DefaultParser):  # type: ignore[misc,valid-type]
    """The client's own parser, with the class `NotNow` for its errors."""

    @classmethod
    def parse_error(cls, response: str) -> Any:  # noqa: ANN401  not typed there
        """Exception for an error answer."""
        error = super().parse_error(response)
        if isinstance(error, redis.exceptions.ReadOnlyError):
            return NotPrimary(response)
        if is_not_now(response) and not isinstance(error, redis.exceptions.ConnectionError):
            return NotNow(response)
        return error


class ClusterParser(Parser):
    """The same for nodes of a cluster, whose errors of redirection the client follows itself."""

    @classmethod
    def parse_error(cls, response: str) -> Any:  # noqa: ANN401  not typed there
        """Exception for an error answer."""
        parse: Any = redis.asyncio.connection.DefaultParser.parse_error
        error = parse(response)
        return error if isinstance(error, _OF_CLUSTERS) else super().parse_error(response)


_OF_CLUSTERS = (
    redis.exceptions.AskError,  # and MovedError, which is one
    redis.exceptions.ClusterError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.RedisClusterException,
    redis.exceptions.TryAgainError,
)
"""Errors while slots move or a primary is replaced."""

NOT_HELD = redis.exceptions.LockError
"""A lock of `RedisClient.lock` is not, or no longer, held."""

AWAY_ERRORS = (
    *_OF_CLUSTERS,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    NotNow,
)
"""Errors of a server that is away, starting, stopping, full, read-only or failing over; retrying
may help. Other kinds of `OSError`, such as of a file, are not among them; redis-py wraps those of
sockets."""


@contextmanager
def unavailable(message: str = "Redis does not answer") -> Iterator[None]:
    """Turn `AWAY_ERRORS` of the block into `Unavailable`."""
    try:
        yield
    except AWAY_ERRORS as error:
        raise Unavailable(f"{message}: {error}") from error
