"""The alert rules: their metrics exist, each has its section in the documents, each is tested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deployment import SERVICES
from tests.promtool import run_cases
from tests.servers import ROOT

RULES = ROOT / "ops" / "alerts.yml"
CASES = ROOT / "tests" / "ops" / "alert_cases.yml"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PACKAGES = ("api", "cli", "models", "ops", "streams")

DEFINED = re.compile(r"\b(Counter|Gauge|Histogram)\(\s*\"(recommender_\w+)\"")
"""A metric in the code: its type and name."""


def rules() -> list[dict[str, Any]]:
    """Every rule, of alerts and of recorded series."""
    parsed = yaml.safe_load(RULES.read_text())
    return [rule for group in parsed["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def served_series() -> set[str]:
    """Names of the series that the code's metrics have."""
    endings = {"Counter": ("",), "Gauge": ("",), "Histogram": ("_bucket", "_count", "_sum")}
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = [each for path in files for each in DEFINED.findall(path.read_text())]
    return {name + ending for kind, name in found for ending in endings[kind]}


@pytest.mark.unit
def test_every_metric_of_a_rule_exists() -> None:
    """A rule asks for metrics of the code, what another rule records, and Prometheus' own."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = served_series() | recorded | {"up"}
    for rule in rules():
        # Without label matchers, strings and what `by` names, only series and functions are left.
        bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\bby \([^)]*\)", " ", rule["expr"])
        asked = set(re.findall(r"\b(?:recommender[\w:]*|up)\b", bare))
        assert asked, rule
        assert asked <= known, rule


@pytest.mark.unit
def test_every_alert_has_its_section() -> None:
    """Alerts and sections under "Alerts" are the same; each annotation names its own section."""
    _, _, rest = OPERATIONS.partition("\n## Alerts\n")
    section, _, _ = rest.partition("\n## ")
    parts = re.split(r"^### (.+)$", section, flags=re.MULTILINE)[1:]
    texts = dict(zip(parts[::2], parts[1::2], strict=True))

    assert len(alerts()) == sum("alert" in rule for rule in rules())
    assert set(texts) == set(alerts())
    assert all(len(text.split()) > 40 for text in texts.values())
    for name, alert in alerts().items():
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.unit
def test_every_alert_has_cases() -> None:
    """One case at least where it fires, and one where it does not."""
    tests = yaml.safe_load(CASES.read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    fires = {check["alertname"] for check in checks if check["exp_alerts"]}
    is_quiet = {check["alertname"] for check in checks if not check["exp_alerts"]}

    assert fires == set(alerts())
    assert is_quiet == set(alerts())


@pytest.mark.unit
def test_prometheus_loads_the_rules() -> None:
    """docker-compose.yml mounts the file where the configuration names it."""
    config = ROOT / "ops" / "prometheus.yml"
    (named,) = yaml.safe_load(config.read_text())["rule_files"]
    mounts = dict(one.split(":")[:2] for one in SERVICES["prometheus"]["volumes"])
    folder = Path(mounts["./ops/prometheus.yml"]).parent

    assert mounts["./ops/alerts.yml"] == str(folder / named)


@pytest.mark.kafka
def test_alerts_fire_when_they_should() -> None:
    """Prometheus' own tool runs the rules over the cases."""
    run_cases(CASES)
