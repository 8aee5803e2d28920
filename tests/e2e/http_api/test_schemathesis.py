"""Requests that Schemathesis makes of the API reference: no fault, no hang, no growth."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.openapi_document import operations
from tests.stack import Stack

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
"""Not that all that the reference does not describe is refused: null is as good as absent."""

ENDLESS = ("/live", "/live/events")
"""Answers without end, read until the time limit of a request; they have tests of their own."""

PHASES = ("examples,coverage", "fuzzing,stateful")
"""One run each: examples, and every member of every request at and beyond its limits; then drawn
requests, and sequences of operations."""

DRAWN = 5
MAX_GROWTH_BYTES = 40 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_native_api(embedded_stack: Callable[..., Stack], tmp_path: Path) -> None:
    """Every operation, its limits and beyond, drawn requests, and sequences of operations.

    The second run finds what the first has left, and a process that is no larger for it.
    """
    one = embedded_stack(after_timeout_s=0.2)
    one.start("worker")
    api = psutil.Process(one.start("api").pid)
    one.wait_ready()
    sizes, n_operations = [], len(list(operations()))
    n_tested = n_operations - len(ENDLESS)
    for seed, phases in enumerate(PHASES, 1):
        done = subprocess.run(
            [Path(sys.executable).with_name("st"), "run", f"{one.url}/openapi.json",
             "--checks", ",".join(CHECKS), "--phases", phases, "--max-examples", str(DRAWN),
             *(part for path in ENDLESS for part in ("--exclude-path", path)),
             "--request-timeout", "10", "--seed", str(seed), "--no-color"],
            cwd=tmp_path, capture_output=True, text=True, timeout=550, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert f"{n_tested} selected / {n_operations} total" in done.stdout
        assert f"Tested: {n_tested}" in done.stdout
        sizes.append(api.memory_info().rss)
    assert sizes[1] - sizes[0] < MAX_GROWTH_BYTES
    one.wait(lambda: one.status().lag == 0, "everything accepted is in effect")
