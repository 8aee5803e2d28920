"""Nodes of a cluster that are absent are asked until they are back, whatever the answer."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import redis.exceptions

from models.state.clients.cluster_reads import ClusterReads

pytestmark = pytest.mark.unit

NODE = "127.0.0.1:7000"


class AskedNodes:
    """Nodes of a client of redis-py that raises these errors, one at each question, then none."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = [*errors]
        self.nodes_cache: dict[str, Any] = {}
        self.slots_cache = {0: [SimpleNamespace(name=NODE)]}

    async def initialize(self) -> None:
        """Raise the next error."""
        if self.errors:
            raise self.errors.pop(0)


async def said_until_back(error: Exception, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Levels of what is logged while an absent node is asked, with this error first."""
    caplog.set_level(logging.DEBUG, "models.state.clients.cluster_reads")
    nodes = AskedNodes(error)
    client = SimpleNamespace(nodes_manager=nodes, keyslot=lambda _: 0)
    reads = ClusterReads(client, {}, absent_after_s=60.0)
    reads._absent.add(NODE)
    assert reads.is_absent("{shop}:counts")

    await reads._until_back(NODE)

    assert not nodes.errors
    assert not reads.is_absent("{shop}:counts")
    return [record.levelname for record in caplog.records]


async def test_a_node_that_is_away_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is no news after the first line about it."""
    error = redis.exceptions.ConnectionError("refused")
    assert await said_until_back(error, caplog) == ["DEBUG", "INFO"]


async def test_a_fault_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    """It is said as what it is, and does not leave the node absent for ever."""
    assert await said_until_back(AttributeError("moved"), caplog) == ["ERROR", "INFO"]
