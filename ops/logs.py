"""The log: one format and one level for every process and every library in it."""

from __future__ import annotations

import logging
import time
from typing import Literal, get_args

from models.escapes import escaped

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
DEFAULT: Level = "warning"

CHATTY = ("kafka.net", "kafka.cluster")
"""Loggers of kafka-python that call each failed attempt at a connection an error, several times and
with tracebacks, while it goes on trying. That a server is away is said by whoever needs it."""


class Line(logging.Formatter):
    r"""A record as a line: UTC time in ISO 8601, level, component, logger and message.

    Control characters are escaped: what others sent may be in a message, and neither begins a line
    of its own nor changes what a terminal shows. A traceback follows on lines that are indented.

    Examples
    --------
    >>> record = logging.LogRecord("streams.steps", 30, "", 0, "Redis\nis %s", ("away",), None)
    >>> record.created, record.msecs = 1795381719.123, 123.0
    >>> Line("worker").format(record)
    '2026-11-22T21:08:39.123Z WARNING worker streams.steps: Redis\\nis away'
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, component: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {component} %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        """The line itself."""
        record.message = escaped(record.message.rstrip())
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802  logging's own name
        """The traceback."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(f"    {escaped(line)}" for line in lines)


def configure(component: str, level: Level) -> None:
    """Send the records of every logger to standard error, from this level on.

    Those of `CHATTY` are left out unless the level is `info` or `debug`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(Line(component))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in CHATTY:
        is_wanted = level in {"debug", "info"}
        logging.getLogger(name).setLevel(logging.NOTSET if is_wanted else logging.CRITICAL)
