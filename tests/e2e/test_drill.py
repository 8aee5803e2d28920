"""The drill at a small size; `make drill` is the whole of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.drill.storm import Plan, run


# A producer whose broker was killed leaves the pair of sockets by which kafka-python wakes it.
@pytest.mark.filterwarnings(
    r"ignore:unclosed <socket.socket fd=\d+, family=1, type=1, proto=0>:ResourceWarning",
    r"ignore:Exception ignored in. <socket.socket fd=\d+, family=1, type=1, proto=0>",
)
@pytest.mark.kafka
def test_a_small_drill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Faults of fifteen kinds or more, of which every event comes out once."""
    report = run(tmp_path, Plan(n_faults=18, seed=7, audit_every=18), say=print)
    assert report["kinds"] >= 15
    assert report["acknowledged_events"] > 300
    assert report["passed"], json.dumps(report, indent=1)
