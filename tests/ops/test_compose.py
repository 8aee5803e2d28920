"""Checks of docker-compose.yml, Dockerfile and mounted files; `test_deployment` runs them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.settings import Settings
from tests.deployment import LASTING, OURS, SERVICES, copied, dockerfile, entry_point
from tests.servers import ROOT, compose

pytestmark = pytest.mark.unit

PINNED = re.compile(r":v?\d+\.\d+(\.\d+)?(-[a-z-]+)?$")


def test_images_are_pinned() -> None:
    """Every image names one version; images that are built here are not pulled."""
    images = [s["image"] for s in SERVICES.values() if "build" not in s]
    assert all(PINNED.search(image) for image in [*images, *(s.image for s in dockerfile())])


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_few_rights(name: str) -> None:
    """A service runs as an ordinary user, cannot gain rights and has a memory limit."""
    service = SERVICES[name]
    assert service["user"].split(":")[0] not in {"", "0", "root"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)
    assert name == "kafka" or service["read_only"] is True


@pytest.mark.parametrize("name", LASTING)
def test_lasting_service_is_restarted(name: str) -> None:
    """A service without end has a health check, and restarts after a crash."""
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_topics_run_once_before_the_rest() -> None:
    """A one-shot service makes the topics, before the services that use them."""
    assert SERVICES["topics"]["restart"].startswith("on-failure")
    assert SERVICES["topics"]["healthcheck"] == {"disable": True}
    made = {"condition": "service_completed_successfully"}
    assert all(SERVICES[n]["depends_on"]["topics"] == made for n in OURS if n != "topics")


def test_workers_can_be_scaled() -> None:
    """A worker has no container name or fixed port."""
    assert not {"container_name", "hostname", "ports", "volumes"} & set(SERVICES["worker"])


def test_ports_are_published_on_loopback_only() -> None:
    """Servers without authentication are not reachable from the network."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_volumes_exist() -> None:
    """Named volumes are declared and used; mounted files are in the repository, read-only."""
    mounts = [m.split(":") for s in SERVICES.values() for m in s.get("volumes", ())]
    named = {mount[0] for mount in mounts if not mount[0].startswith(".")}
    assert named == set(compose()["volumes"])
    files = [mount for mount in mounts if mount[0].startswith(".")]
    assert all((ROOT / mount[0]).exists() and mount[2] == "ro" for mount in files)


@pytest.mark.parametrize("name", OURS)
def test_environment_is_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every RECOMMENDER_* variable of a service is a setting, and its value is accepted."""
    variables = {n: v for n, v in SERVICES[name]["environment"].items() if "RECOMMENDER_" in n}
    fields = {f"RECOMMENDER_{field.upper()}" for field in Settings.model_fields}
    assert set(variables) <= fields
    for variable, value in variables.items():
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert Settings().kafka == "kafka:9092"


@pytest.mark.parametrize("name", OURS)
def test_services_run_the_installed_command(name: str) -> None:
    """The image's entry point is a command of the distribution; a service gives its arguments."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [program for program in entry_point() if program not in project["scripts"]] == []
    assert "entrypoint" not in SERVICES[name]
    assert SERVICES[name]["command"]


def test_image_runs_as_the_user_of_the_services() -> None:
    """The image's user is not root, and the one that docker-compose.yml names."""
    [user] = dockerfile()[-1].all("USER")
    assert {SERVICES[name]["user"] for name in OURS} == {user}
    assert f"--uid {user.split(':')[0]} " in dockerfile()[-1].all("RUN")[0]


def test_build_context_holds_copied_files() -> None:
    """Every source of a COPY exists, and .dockerignore lets it pass."""
    rules = (ROOT / ".dockerignore").read_text().split("\n")
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {source for sources, _ in copied() for source in sources}
    assert sources == allowed
    missing = {source for source in sources if not (ROOT / source).exists()}
    assert missing == set()


def test_prometheus_scrapes_services_that_serve_metrics() -> None:
    """Each scrape target is a service on the port where it answers /metrics."""
    jobs = yaml.safe_load((ROOT / "ops" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: scrape_targets(job) for job in jobs}
    assert targets == {
        "api": [f"api:{SERVICES['api']['environment']['RECOMMENDER_PORT']}"],
        "worker": [f"worker:{SERVICES['worker']['environment']['RECOMMENDER_METRICS_PORT']}"],
        "jobs": [f"jobs:{SERVICES['jobs']['environment']['RECOMMENDER_METRICS_PORT']}"],
        "forwarder": [
            f"forwarder:{SERVICES['forwarder']['environment']['RECOMMENDER_METRICS_PORT']}"
        ],
    }


def scrape_targets(job: Mapping[str, Any]) -> list[str]:
    """Targets of a scrape job, listed or found by DNS."""
    listed = [t for c in job.get("static_configs", ()) for t in c["targets"]]
    named = [f"{n}:{c['port']}" for c in job.get("dns_sd_configs", ()) for n in c["names"]]
    return listed + named


def test_grafana_finds_prometheus_and_its_dashboards() -> None:
    """The data source names the Prometheus service; dashboards use it and are mounted."""
    provisioning = ROOT / "ops" / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "recommender.yml").read_text())[
        "providers"
    ]
    folder = provider["options"]["path"]
    assert any(mount.split(":")[1] == folder for mount in SERVICES["grafana"]["volumes"])
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    dashboard = json.loads((ROOT / "ops/grafana/dashboards" / Path(home).name).read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}


def test_dashboard_variables_choose_group_and_process() -> None:
    """Every query of a process' series is of the chosen processes; variables are those used."""
    file = ROOT / "ops" / "grafana" / "dashboards" / "recommender.json"
    dashboard = json.loads(file.read_text())
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    series = [
        found
        for query in queries
        for found in re.findall(r"\b(?:recommender|process)_\w+(?:\{[^}]*\})?", query)
    ]

    assert {name for q in queries for name in re.findall(r"\$(\w+)", q)} == {
        *defined,
        "__rate_interval",
    }
    assert [one for one in series if 'instance=~"$instance"' not in one] == []
    assert [one for one in series if "quality" in one and 'group=~"$group"' not in one] == []
