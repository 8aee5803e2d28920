"""The log: one form and one level for every process and every library in it."""

from __future__ import annotations

import json
import logging
import time
from typing import Literal, get_args

from models.log_throttle import LogThrottle
from models.printable import escaped

LogLevel = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)
DEFAULT_LEVEL: LogLevel = "warning"

LogFormat = Literal["text", "json"]
DEFAULT_FORMAT: LogFormat = "text"

KNOWN_IDS = ("event_ids", "request_id")
"""Names in `extra` that a record in JSON has as further members; others are not logged."""

REPETITIVE_LIBRARIES = frozenset({"aiokafka", "asyncio", "faust", "kafka", "mode", "opentelemetry"})
"""Libraries that log dozens of times a second that a server is away, some with tracebacks."""

PAYLOAD_LIBRARIES = ("aiokafka", "boto3", "botocore", "faust", "kafka", "s3transfer", "urllib3")
"""Libraries that log the payloads they send and receive at level debug: the events of an erased
user would stay in the log."""

NO_FAILURES = frozenset({("kafka.cluster", "Metadata refresh: failed Cancelled")})
"""Logger and text of errors by level only: a client is closed while it asks for metadata."""

SLOW_TASK = "kafka.net.selector", "It is blocking the event loop"
"""Logger and part of the warning that a step of a kafka-python client took 0.1 s: any machine with
other work causes it, and an operator can do nothing about it."""

QUIET_S = 10.0
"""Seconds for which a line of a repetitive library is not repeated."""


class LineFormatter(logging.Formatter):
    r"""A record as a line: UTC time in ISO 8601, level, component, logger and message.

    Control characters are escaped, because a message may quote foreign input: it can neither begin
    a line of its own nor change what a terminal shows. Lines of a traceback follow, indented.

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
        """The line, followed by the lines of a traceback."""
        line, *traceback = super().format(record).split("\n")
        return "\n".join([line, *(f"    {escaped(each)}" for each in traceback)])


class JsonFormatter(logging.Formatter):
    r"""A record as one line of JSON: what `LineFormatter` has, and the ids that are known.

    Everything but printable ASCII is escaped, so a message can neither begin a line of its own nor
    change what a terminal shows.

    Examples
    --------
    >>> record = logging.LogRecord("streams.agents", 30, "", 0, "Redis\nis %s", ("away",), None)
    >>> record.created, record.msecs, record.request_id = 1795381719.123, 123.0, "4f3c"
    >>> print(JsonFormatter("worker").format(record))
    {"time": "2026-11-22T21:08:39.123Z", "level": "WARNING", "component": "worker",
     "logger": "streams.agents", "message": "Redis\nis away", "request_id": "4f3c"}
    """

    converter = staticmethod(time.gmtime)
    default_time_format = LineFormatter.default_time_format
    default_msec_format = LineFormatter.default_msec_format

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        """The line, with a traceback as a member of its own."""
        members = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "component": self._component,
            "logger": record.name,
            "message": record.getMessage().rstrip(),
        }
        members |= {name: value for name in KNOWN_IDS if (value := getattr(record, name, None))}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            members["traceback"] = record.exc_text
        return json.dumps(members, default=str).replace("\x7f", "\\u007f")


class SparseFilter(logging.Filter):
    """Passes one record in a while from each line of code of a repetitive library, with a count.

    >>> records = [logging.LogRecord("kafka.net", 40, "a.py", 7, "lost", (), None) for _ in "abc"]
    >>> for n, record in enumerate(records):
    ...     record.created = 6.0 * n
    >>> sparse = SparseFilter()
    >>> [sparse.filter(record) for record in records], records[2].getMessage()
    ([True, False, True], 'lost (1 more like it before)')
    """

    def __init__(self) -> None:
        super().__init__()
        self._throttle = LogThrottle(QUIET_S)

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the record is to be logged."""
        if record.name.partition(".")[0] not in REPETITIVE_LIBRARIES:
            return True
        if (record.name, record.getMessage()) in NO_FAILURES:
            return False
        if record.name == SLOW_TASK[0] and SLOW_TASK[1] in record.getMessage():
            return False
        place = record.name, record.pathname, record.lineno
        n_suppressed = self._throttle.suppressed(place, record.created)
        if n_suppressed:
            record.msg = f"{record.getMessage()} ({n_suppressed} more like it before)"
            record.args = ()
        return n_suppressed is not None


def configure_logging(component: str, level: LogLevel, form: LogFormat = DEFAULT_FORMAT) -> None:
    """Send the records of every logger to standard error, from this level on.

    At every level but `debug`, repeated records of libraries are left out. Payloads are never
    logged.
    """
    handler = logging.StreamHandler()
    handler.setFormatter((JsonFormatter if form == "json" else LineFormatter)(component))
    if level != "debug":
        handler.addFilter(SparseFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in PAYLOAD_LIBRARIES:
        logging.getLogger(library).setLevel("INFO" if level == "debug" else "NOTSET")
