"""The drill of a group of several shards at a small size: one fault of each kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.servers import require, require_java
from tests.sharded_drill import FAULTS, DrillRequest, Strike, opened_site, requests_by_shard, run


@pytest.mark.kafka
@pytest.mark.filterwarnings("ignore:(unclosed|Unclosed|loop is closed):ResourceWarning")
def test_a_small_drill_of_shards_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """On a Redis Cluster and three brokers; `python -m tests.sharded_drill` goes on for longer."""
    require("redis-server", "redis-cli")
    require_java()
    said: list[str] = []
    with opened_site(tmp_path) as site:
        report = run(site, n_faults=len(FAULTS), seed=3, say=said.append)
    assert report["passed"], json.dumps(report, indent=1) + "\n".join(said)
    assert report["by_kind"] == dict.fromkeys(FAULTS, 1)
    assert (report["lost"], report["doubled"], report["audits"]) == (0, 0, 1)
    assert report["events"] > 50


@pytest.mark.unit
def test_requests_are_told_apart_by_shard() -> None:
    """Of the time of a fault: those for users whose shard it hit, and the others."""
    asked = [
        DrillRequest(1.0, "answer", "u00", "503"),  # before
        DrillRequest(2.5, "answer", "u00", "503"),
        DrillRequest(4.5, "answer", "u01", "ok"),
        DrillRequest(4.5, "event", "u01", "ok"),
        DrillRequest(9.0, "event", "u01", "0"),  # long after
    ]
    strike = Strike("primary_killed", 2.0, 3.0, frozenset({"u00", "i02"}), "")
    assert requests_by_shard(asked, [strike]) == {
        "primary_killed": {
            "answer hit": {"503": 1},
            "answer others": {"ok": 1},
            "event others": {"ok": 1},
        }
    }
