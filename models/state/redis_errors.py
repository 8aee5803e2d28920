"""What Redis' errors mean: that it cannot serve anybody now, or that what it was asked is wrong.

The first passes, so trying again is right. The second never does: a bug in a script, a key of
another type, a command that the user may not give.
"""

from __future__ import annotations

import re
from typing import Any

import redis.asyncio.connection
import redis.exceptions

_CODES = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
)
# Out of a script, older servers give the error of its command behind words of their own.
_NOT_NOW = re.compile(rf"(?:^|: -)(?:{'|'.join(_CODES)}) ")


class NotNow(redis.exceptions.ResponseError):
    """The server says that it cannot do this now, being full, read-only, busy or failing over."""


def is_not_now(text: str) -> bool:
    """Whether an error's text, as the server sends it, says that it cannot do this now.

    >>> is_not_now("OOM command not allowed when used memory > 'maxmemory'.")
    True
    >>> is_not_now("ERR Error running script (call to f_1): @user_script:3: -READONLY You can't")
    True
    >>> is_not_now("BUSYKEY Target key name already exists.")
    False
    """
    return _NOT_NOW.search(text) is not None


class Parser(redis.asyncio.connection.DefaultParser):  # type: ignore[misc,valid-type]
    """The client's own parser, which gives `NotNow` its class."""

    @classmethod
    def parse_error(cls, response: str) -> Any:  # noqa: ANN401  not typed there
        """The exception that an error answer becomes."""
        error = super().parse_error(response)
        if is_not_now(response) and not isinstance(error, redis.exceptions.ConnectionError):
            return NotNow(response)
        return error


AWAY_ERRORS = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    OSError,
    NotNow,
)
"""What a server causes that is away, starting, stopping, full, read-only or failing over: trying
again later may help, and nothing else is meant by it."""
