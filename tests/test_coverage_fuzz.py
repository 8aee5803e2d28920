"""Decoders of foreign bytes raise what they declare, soon and in bounded memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.servers import ROOT, require, unavailable

ATHERIS = "3.0.0" if sys.version_info < (3, 12) else "3.1.0"
SECONDS = 15
MOST_MB = 700
LONGEST_S = 5
"""Of one input, under instrumentation and beside other work."""


@cache
def atheris() -> Path:
    """A folder with the fuzzer, installed once: it is too large for every environment."""
    folder = ROOT / ".cache" / f"atheris-{ATHERIS}"
    if not folder.exists():
        require("uv")
        done = subprocess.run(
            ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target",
             str(folder), f"atheris=={ATHERIS}"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            unavailable(f"no atheris for this machine: {done.stderr[-300:]}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("target", ["events", "records", "filters", "rows", "questions", "tokens"])
def test_any_bytes(target: str, tmp_path: Path) -> None:
    """No other error, no hang, no memory without bound; and inputs are found that reach further."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.coverage_fuzz", target, inputs,
         f"-max_total_time={SECONDS}", f"-timeout={LONGEST_S}", f"-rss_limit_mb={MOST_MB}",
         "-max_len=4000", f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(atheris()), "NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, timeout=SECONDS + 200, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [runs] = re.findall(r"Done (\d+) runs", done.stderr)
    assert int(runs) > 1000
    assert len(list(inputs.iterdir())) > 3
