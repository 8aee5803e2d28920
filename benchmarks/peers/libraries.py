"""Peers that are libraries, each behind the plainest service, and that service with no library."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.conditions import process, until
from benchmarks.peers.http_answers import answers, fetched
from benchmarks.peers.peer import Click, Running, Sent, get, post
from ops.ports import free_port


@dataclass(frozen=True)
class Library:
    """A model of `library_server`.

    Attributes
    ----------
    model
        Its name there.
    package
        What must be installed for it.
    trains
        It learns from other sessions by a new training.
    """

    name: str
    learns: str
    model: str
    package: str = ""
    trains: bool = False

    def missing(self) -> str | None:
        """One sentence if the package is not installed."""
        if self.package and importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed: the extra `evaluation` has it"
        return None

    @contextlib.contextmanager
    def run(self, train: Sequence[Click], folder: Path) -> Iterator[Running]:
        """Start the service with what it has learned."""
        port = free_port()
        source = folder / "train.txt"
        source.write_text("".join(f"{one.session} {one.item} {one.at_s}\n" for one in train))
        argv = [sys.executable, "-m", "benchmarks.peers.library_server", self.model, str(port)]
        with (
            source.open("rb") as lines,
            process(argv, os.environ, stdin=lines, stdout=subprocess.PIPE) as started,
        ):
            assert started.stdout is not None  # noqa: S101  requested above
            words = started.stdout.readline().split()
            if words[:1] != [b"ready"]:
                raise RuntimeError(f"{self.name} ended early")
            until(lambda: answers(port, "/openapi.json"))
            learning_s = max(float(words[1]), 1e-6)
            yield Running(
                port=port,
                pids=[started.pid],
                ingest_per_s=0.0 if self.model == "empty" else len(train) / learning_s,
                ask=_ask,
                items=json.loads,
                tell=_tell,
                refit_s=_refitted(port) if self.trains else None,
            )


def _ask(session: str, item: str) -> Sent:
    return get(f"/recommend?{urlencode({'session_id': session, 'item_id': item})}")


def _tell(click: Click) -> Sent:
    return post("/events", click._asdict())


def _refitted(port: int) -> float:
    status, body = fetched(port, post("/fit", {}))
    if status != 200:
        raise RuntimeError(f"training again failed: {status}")
    return float(json.loads(body)["seconds"])


LIBRARIES = (
    Library("V-SKNN (own, plain Python)", "every event", "vsknn"),
    Library(
        "implicit item-kNN", "own session; others by training again", "implicit", "implicit", True
    ),
    Library("empty FastAPI route", "nothing", "empty"),
)
