"""The log: one format and level for every process and library."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import httpx
import pytest

from api.personalize.operations import OPERATIONS
from models.secrets import redact_output
from ops.logs import JsonFormatter, SparseFilter
from tests.openapi_document import application
from tests.servers import ROOT

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) worker \S+: ."
)

SCRIPT = """
import asyncio, logging
import aiokafka, faust, kafka, uvicorn
from ops.logs import configure_logging
configure_logging("worker", "{level}", "{form}")
for name in ("aiokafka.cluster", "faust.app", "kafka.net", "uvicorn.error", "streams.agents"):
    logger = logging.getLogger(name)
    logger.debug("at %s,\\nand \\x1b[2J", name)
    logger.info("at %s,\\nand \\x1b[2J", name)
    logger.warning("at %s,\\nand \\x1b[2J", name)
    logger.error("at %s,\\nand \\x1b[2J", name)
for _ in range(50):
    logging.getLogger("kafka.net.transport").error("Abort")
try:
    raise ValueError("one\\ntwo")
except ValueError:
    logging.getLogger("api").exception("an error")
"""


@pytest.mark.parametrize(("level", "n_records"), [("debug", 17), ("warning", 10)])
def test_every_logger_has_one_format_and_level(level: str, n_records: int) -> None:
    """Records of all libraries have the format; control characters are escaped.

    At `debug`, three of the libraries would log payloads: they log from `info` on.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(level=level, form="text")],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    begun = [line for line in lines if LINE.match(line)]
    assert len([line for line in begun if "at " in line]) == n_records
    assert len([line for line in begun if line.endswith("an error")]) == 1
    assert all(line.startswith("    ") for line in lines if line not in begun)
    assert any(line.startswith("    ValueError: one") for line in lines)
    assert "\x1b" not in done.stderr
    # Each failed attempt at a connection would be a page of errors.
    assert done.stderr.count("Abort") == (50 if level == "debug" else 1)
    assert done.stdout == ""


def test_a_closed_client_is_no_error() -> None:
    """kafka-python logs the end of its own question as one; real failures are logged."""
    sparse = SparseFilter()
    for text, is_logged in (("Cancelled", False), ("no broker", True)):
        record = logging.LogRecord(
            "kafka.cluster", logging.ERROR, "cluster.py", 175, "Metadata refresh: failed %s",
            (text,), None,
        )  # fmt: skip
        assert sparse.filter(record) is is_logged


def test_a_busy_machine_is_no_warning() -> None:
    """kafka-python warns of its own steps that took long; of what else it warns is logged."""
    sparse = SparseFilter()
    for text, is_logged in (
        ("Task <Task> ran for 0.128s (>0.100s threshold). It is blocking the event loop", False),
        ("the socket is gone", True),
    ):
        record = logging.LogRecord(
            "kafka.net.selector", logging.WARNING, "selector.py", 661, text, (), None
        )
        assert sparse.filter(record) is is_logged


def test_json_has_one_object_a_line() -> None:
    """Every library's record is an object with the same members; a traceback is one of them."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(level="info", form="json")],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    records = [json.loads(line) for line in lines]
    members = {"time", "level", "component", "logger", "message"}
    failed = [one for one in records if "traceback" in one]

    assert all(set(one) - {"traceback"} == members for one in records)
    assert {one["component"] for one in records} == {"worker"}
    assert all(re.fullmatch(r"[\d-]{10}T[\d:.]{12}Z", one["time"]) for one in records)
    assert len([one for one in records if one["message"].startswith("at ")]) == 15
    assert [(one["message"], one["level"]) for one in failed] == [("an error", "ERROR")]
    assert failed[0]["traceback"].endswith("ValueError: one\ntwo")
    assert all(line.isascii() and line.isprintable() for line in lines)


def test_json_has_known_ids_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids of events and requests are members; what else a caller adds is not; secrets are gone."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    failure = ValueError("redis://app:s3cret@cache:6379")
    made = logging.getLogRecordFactory()
    try:
        redact_output()
        record = logging.getLogger("api").makeRecord(
            "api", logging.WARNING, "a.py", 7, "at \x7f, password=%s", ("s3cret",),
            (ValueError, failure, None),
            extra={"event_ids": ["6f1c"], "request_id": "4f3c", "user_id": "ada"},
        )  # fmt: skip
    finally:
        logging.setLogRecordFactory(made)
    line = JsonFormatter("api").format(record)
    shown = json.loads(line)

    assert shown.pop("time").endswith("Z")
    assert shown == {
        "level": "WARNING",
        "component": "api",
        "logger": "api",
        "message": "at \x7f, password=***",
        "event_ids": ["6f1c"],
        "request_id": "4f3c",
        "traceback": "ValueError: redis://app:***@cache:6379",
    }
    assert line.isprintable()


@pytest.mark.parametrize(
    ("path", "headers", "body", "answered"),
    [
        (
            "/events",
            {},
            {
                "trackingId": "shop",
                "sessionId": "s",
                "eventList": [{"eventType": "click", "itemId": "tent", "sentAt": 1_790_000_000}],
            },
            "x-request-id",
        ),
        (
            "/personalize",
            {"x-amz-target": "AmazonPersonalize.ListRecipes"},
            {},
            "x-amzn-requestid",
        ),
    ],
)
async def test_the_log_names_a_failed_request(
    path: str,
    headers: dict[str, str],
    body: object,
    answered: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An answer 500 and the record of its fault have the same id."""

    async def broken(*_: object) -> dict[str, object]:
        raise AssertionError

    # The publisher of this application is broken, too.
    monkeypatch.setitem(OPERATIONS, "ListRecipes", broken)
    transport = httpx.ASGITransport(application(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.post(path, json=body, headers=headers)
    (record,) = [one for one in caplog.records if "unexpected error" in one.getMessage()]

    assert answer.status_code == 500, answer.text
    assert len(answer.headers[answered]) == 36
    assert vars(record)["request_id"] == answer.headers[answered]
