"""The objective for freshness over 30 days: its rules, their page, and the data that they need."""

from __future__ import annotations

import json
import re

import pytest

from tests.deployment import SERVICES
from tests.ops.test_alerts import rules
from tests.promtool import run_cases
from tests.servers import ROOT

CASES = ROOT / "tests" / "ops" / "objective_cases.yml"
PAGE = ROOT / "ops" / "grafana" / "dashboards" / "objective.json"


@pytest.mark.unit
def test_the_page_shows_recorded_series() -> None:
    """Each query asks for what a rule records, and all that is recorded over 30 days is shown."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    page = json.loads(PAGE.read_text())
    queries = [target["expr"] for panel in page["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"recommender[\w:]*", query)}

    assert all(re.search(r"recommender:\w+:", query) for query in queries)
    assert asked <= recorded
    assert {name for name in recorded if name.endswith("30d")} <= asked
    assert all(panel["description"] for panel in page["panels"])


@pytest.mark.unit
def test_prometheus_keeps_what_the_rules_look_back_on() -> None:
    """The longest range of a rule is within the retention that docker-compose.yml sets."""
    ranges = [int(days) for rule in rules() for days in re.findall(r"\[(\d+)d\]", rule["expr"])]
    [kept] = [
        int(days)
        for word in SERVICES["prometheus"]["command"]
        for days in re.findall(r"retention\.time=(\d+)d", word)
    ]

    assert max(ranges) == 30
    assert kept > max(ranges)


@pytest.mark.kafka
def test_thirty_days_of_freshness() -> None:
    """Prometheus' own tool runs the rules over the cases."""
    run_cases(CASES)
