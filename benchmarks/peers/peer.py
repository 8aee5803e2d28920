"""A peer of the measurements: how it starts, and how it is told and asked over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

K = 20
"""Length of every list that is asked for."""


class Click(NamedTuple):
    """One event of the data: a session, an item, and Unix seconds."""

    session: str
    item: str
    at_s: float


class Sent(NamedTuple):
    """A request: its bytes on the wire, for a connection that stays open."""

    raw: bytes


@dataclass(frozen=True)
class Running:
    """A peer that runs and has seen the training events.

    Attributes
    ----------
    port
        Where it listens on loopback.
    pids
        Its processes, whose children count as well.
    ingest_per_s
        Events a second at which it took in the training events, until they had effect.
    tell
        The request that tells it of a click; None if a question tells it, or nothing does.
    ask
        The request for the next items of a session whose last item this is.
    items
        Items of an answer, best first.
    similar
        The request for items that go with one; None if it has none.
    settled
        Given the answer to a click, returns once the click is in effect; None if it is at once.
    caught_up
        Returns once the training events have taught all that they will, where that goes on in the
        background; None if it is done at once.
    refit_s
        Seconds of a new training on all events, if that is how it learns from others.
    """

    port: int
    pids: Sequence[int]
    ingest_per_s: float
    ask: Callable[[str, str], Sent]
    items: Callable[[bytes], list[str]]
    tell: Callable[[Click], Sent] | None = None
    similar: Callable[[str], Sent] | None = None
    settled: Callable[[bytes], None] | None = None
    caught_up: Callable[[], None] | None = None
    refit_s: float | None = None


class Peer(Protocol):
    """A peer: its name, what it learns from, and how it is made and run."""

    @property
    def name(self) -> str:
        """Its name and language."""

    @property
    def learns(self) -> str:
        """The effects of an event, in a few words for the table."""

    def missing(self) -> str | None:
        """One sentence about what it lacks here; None if it can run. May build it."""

    def run(self, train: Sequence[Click], folder: Path) -> AbstractContextManager[Running]:
        """Start it with the training events, in a folder of its own, and end it with the block."""


def get(path: str) -> Sent:
    """A GET request."""
    return Sent(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def post(path: str, body: object) -> Sent:
    """A POST request with a JSON body."""
    raw = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\n\r\n"
    )
    return Sent(head.encode() + raw)


def sessions_of(clicks: Iterable[Click]) -> dict[str, list[str]]:
    """Items of each session in order."""
    sessions: dict[str, list[str]] = {}
    for click in clicks:
        sessions.setdefault(click.session, []).append(click.item)
    return sessions
