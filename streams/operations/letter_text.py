"""A dead letter as one line of text."""

from __future__ import annotations

from datetime import UTC, datetime

from models.printable import escaped, excerpt
from streams.kafka.dead_letters import DeadLetter

SHOWN_BYTES = 200
"""Bytes of a payload that are shown; `--json` has all of it."""


def as_line(letter: DeadLetter) -> str:
    r"""Time, origin, stage, reason and payload, safe to show in a terminal.

    >>> from streams.kafka.dead_letters import Origin
    >>> letter = DeadLetter("sessions", "invalid", "not JSON", Origin("events.clicks", 3, 17),
    ...     1795381719.123, "GyBb", group="shop")
    >>> as_line(letter)
    '2026-11-22T21:08:39.123Z  events.clicks/3/17  sessions  invalid: not JSON  \\x1b ['
    """
    at = datetime.fromtimestamp(letter.at, UTC).isoformat(timespec="milliseconds")
    source = letter.source
    return "  ".join(
        (
            at.replace("+00:00", "Z"),
            escaped(f"{source.topic}/{source.partition}/{source.offset}"),
            escaped(letter.stage),
            escaped(f"{letter.reason}: {letter.detail}"),
            excerpt(letter.raw(), SHOWN_BYTES),
        )
    )
