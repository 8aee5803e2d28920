"""The log while a server is away."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from api import app
from api.outages import MAX_REASONS, OutageLog
from models.errors import Unavailable
from tests.api_server import accepting_publisher, request, run_api

EVENT = b'{"sessionId":"s","eventList":[{"eventType":"click","itemId":"i","sentAt":1700000000}]}'


def test_refused_requests_share_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Kafka is away the log says it once, and later how often."""
    now_s = 1000.0
    monkeypatch.setattr(app, "OUTAGES", OutageLog(clock=lambda: now_s))

    async def away(*_: object) -> str:
        raise Unavailable("Kafka does not answer")

    with run_api(tmp_path, kafka=accepting_publisher(publish=away)) as one:
        event = request("/events", method="POST", body=EVENT)
        statuses = {one.ask(event).status for _ in range(50)}
        now_s += 11
        statuses.add(one.ask(event).status)

    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert statuses == {503}
    assert said == [
        "unavailable: Kafka does not answer",
        "unavailable: Kafka does not answer (49 more requests before)",
    ]


def test_reasons_are_forgotten() -> None:
    """The number of remembered reasons is bounded."""
    outages = OutageLog(clock=lambda: 0.0)
    assert all(outages.note(f"reason {n}") for n in range(3 * MAX_REASONS))
    assert not outages.note(f"reason {3 * MAX_REASONS - 1}")
    assert outages.note("reason 0")
