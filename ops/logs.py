"""The log: one format and one level for every process and every library in it."""

from __future__ import annotations

import logging
import time
from typing import Literal, get_args

from models.printable import escaped

LogLevel = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
DEFAULT_LEVEL: LogLevel = "warning"

REPETITIVE_LIBRARIES = frozenset({"aiokafka", "asyncio", "faust", "kafka", "mode"})
"""Libraries that say dozens of times a second that a server is away, some with tracebacks."""

PAYLOAD_LIBRARIES = ("aiokafka", "boto3", "botocore", "faust", "kafka", "s3transfer", "urllib3")
"""Libraries that at the level debug log what they send and receive, and so whose events these are:
a user who is erased would stay in the log."""

QUIET_S = 10.0
"""For so long a place in a chatty library is not heard again."""


class LineFormatter(logging.Formatter):
    r"""A record as a line: UTC time in ISO 8601, level, component, logger and message.

    Control characters are escaped: what others sent may be in a message, and neither begins a line
    of its own nor changes what a terminal shows. A traceback follows on lines that are indented.

    Examples
    --------
    >>> record = logging.LogRecord("streams.agents", 30, "", 0, "Redis\nis %s", ("away",), None)
    >>> record.created, record.msecs = 1795381719.123, 123.0
    >>> LineFormatter("worker").format(record)
    '2026-11-22T21:08:39.123Z WARNING worker streams.agents: Redis\\nis away'
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

    def format(self, record: logging.LogRecord) -> str:
        """The line, and those of a traceback below it."""
        line, *traceback = super().format(record).split("\n")
        return "\n".join([line, *(f"    {escaped(each)}" for each in traceback)])


class SparseFilter(logging.Filter):
    """Lets each place in a chatty library speak once in a while, and counts what it says meanwhile.

    >>> said = [logging.LogRecord("kafka.net", 40, "a.py", 7, "lost", (), None) for _ in range(3)]
    >>> for n, record in enumerate(said):
    ...     record.created = 6.0 * n
    >>> sparse = SparseFilter()
    >>> [sparse.filter(record) for record in said], said[2].getMessage()
    ([True, False, True], 'lost (1 more like it before)')
    """

    def __init__(self) -> None:
        super().__init__()
        self._heard: dict[tuple[str, str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        if record.name.partition(".")[0] not in REPETITIVE_LIBRARIES:
            return True
        place = record.name, record.pathname, record.lineno
        heard_s, n_left_out = self._heard.get(place, (-QUIET_S, 0))
        if record.created < heard_s + QUIET_S:
            self._heard[place] = heard_s, n_left_out + 1
            return False
        self._heard[place] = record.created, 0
        if n_left_out:
            record.msg = f"{record.getMessage()} ({n_left_out} more like it before)"
            record.args = ()
        return True


def configure_logging(component: str, level: LogLevel) -> None:
    """Send the records of every logger to standard error, from this level on.

    Unless it is `debug`, what libraries repeat is left out. What they send is never logged.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(component))
    if level != "debug":
        handler.addFilter(SparseFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in PAYLOAD_LIBRARIES:
        logging.getLogger(library).setLevel("INFO" if level == "debug" else "NOTSET")
