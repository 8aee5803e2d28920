"""A snapshot that is made while events flow."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from tests.stack import Stack


def saved_while_events_flow(
    one: Stack, folder: str, send: Callable[[int], object]
) -> dict[str, Any]:
    """The manifest of a snapshot that was made with events before, during and after it.

    `send` sends the event of a number, which counts from 0.
    """
    is_over, n_sent = threading.Event(), 0

    def send_all() -> None:
        nonlocal n_sent
        while not is_over.is_set():
            send(n_sent)
            n_sent += 1

    thread = threading.Thread(target=send_all)
    thread.start()
    try:
        one.wait(lambda: n_sent > 100, "events flow")
        saved = one.run("snapshot", "save", folder, "--json")
        n_at_save = n_sent
        one.wait(lambda: n_sent > n_at_save + 50, "more events flow")
    finally:
        is_over.set()
        thread.join()
    assert saved.returncode == 0, saved.stderr
    made: dict[str, Any] = json.loads(saved.stdout)
    return made
