"""Prometheus' own tool, which runs rules over cases."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers import require


def run_cases(cases: Path) -> None:
    """Fail with what the tool says where a case of a file is not met."""
    require("promtool")
    done = subprocess.run(
        ["promtool", "test", "rules", str(cases)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
