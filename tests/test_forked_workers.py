"""Test processes that are forked from one that has imported the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT

BROKEN = """
def test_one() -> None: ...

import no_such_module

def test_another() -> None: ...
"""
FORKED = """
import pytest, sys
from tests.forked_workers import import_tests

import_tests(["."])
sys.exit(pytest.main(["-q", "-p", "no:randomly"]))
"""


def test_a_module_that_cannot_be_imported_fails_the_run(tmp_path: Path) -> None:
    """Its tests are not passed over as if there were none."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    (tmp_path / "test_broken.py").write_text(BROKEN)
    (tmp_path / "test_whole.py").write_text("def test_it() -> None: ...")
    ran = subprocess.run(
        [sys.executable, "-c", FORKED],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "No module named 'no_such_module'" in ran.stdout
