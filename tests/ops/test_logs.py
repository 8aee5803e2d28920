"""The log: one format and level for every process and library."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import pytest

from ops.logs import SparseFilter
from tests.servers import ROOT

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) worker \S+: ."
)

SCRIPT = """
import asyncio, logging
import aiokafka, faust, kafka, uvicorn
from ops.logs import configure_logging
configure_logging("worker", "{level}")
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
        [sys.executable, "-c", SCRIPT.format(level=level)],
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
