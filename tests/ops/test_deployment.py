"""Every service of docker-compose.yml at work, on Apache Kafka, Redis and Prometheus."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
import yaml
from kafka import KafkaAdminClient

from ops.ports import ReservedPort
from tests.deployment import SERVICES, Deployment, install_image
from tests.servers import (
    INHERITED,
    ROOT,
    Server,
    apache_kafka,
    debian_redis,
    require,
    running,
    wait_until,
)
from tests.streams.forwarding.personalize_stub import PersonalizeStub

pytestmark = pytest.mark.kafka


def dashboard_queries() -> list[str]:
    """Every PromQL expression of the dashboards, with all variables filled in as for "All"."""
    files = (ROOT / "ops" / "grafana" / "dashboards").glob("*.json")
    panels = [panel for file in files for panel in json.loads(file.read_text())["panels"]]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    filled = {"$__rate_interval": "1m", "$group": ".*", "$instance": ".*"}
    return [re.sub(r"\$\w+", lambda found: filled[found[0]], query) for query in queries]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Apache Kafka and Redis, and the image's environment, before any service has started."""
    directory = tmp_path_factory.mktemp("deployment")
    install_image(directory)
    with (
        PersonalizeStub() as personalize,
        apache_kafka(directory / "kafka") as kafka,
        debian_redis(directory / "redis") as redis,
    ):
        deployment = Deployment(
            kafka,
            redis,
            directory,
            variables={
                "RECOMMENDER_FORWARD_TRACKING_ID": "11111111-2222-3333-4444-555555555555",
                "AWS_DEFAULT_REGION": "eu-central-1",
                "AWS_ACCESS_KEY_ID": "an-id",
                "AWS_SECRET_ACCESS_KEY": "a-secret",
                "AWS_ENDPOINT_URL_PERSONALIZE_EVENTS": personalize.url,
            },
        )
        yield deployment
        deployment.release()


@pytest.fixture(scope="module")
def topics(deployment: Deployment) -> list[str]:
    """Output of the service `topics`, run twice: the second run makes nothing."""
    service = deployment.service("topics")
    runs = [
        subprocess.run(
            service.command,
            env=service.environment,
            cwd=service.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs
    return [run.stdout for run in runs]


@pytest.fixture(scope="module")
def services(deployment: Deployment, topics: list[str]) -> Iterator[dict[str, Server]]:
    """Worker, job runner, forwarder and API, healthy by their own health checks."""
    assert topics
    names = ["worker", "jobs", "forwarder", "api"]
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(running(deployment.service(name))) for name in names}


def scrape_config(services: dict[str, Server]) -> dict[str, Any]:
    """ops/prometheus.yml with the addresses of the services in this test."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "ops" / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        address = services[job["job_name"]].address.removeprefix("http://")
        job["static_configs"] = [{"targets": [address]}]
    config["rule_files"] = [str(ROOT / "ops" / name) for name in config["rule_files"]]
    return config


@pytest.fixture(scope="module")
def prometheus(
    services: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Prometheus with the command line of docker-compose.yml, scraping the services."""
    require("prometheus", "wget")
    directory = tmp_path_factory.mktemp("prometheus")
    (directory / "prometheus.yml").write_text(json.dumps(scrape_config(services)))
    port = ReservedPort()
    moved = {
        "--config.file": directory / "prometheus.yml",
        "--storage.tsdb.path": directory / "data",
    }
    flags = [flag.partition("=") for flag in SERVICES["prometheus"]["command"]]
    local = f"127.0.0.1:{port.number}"
    server = Server(
        address=f"http://{local}",
        command=[
            "prometheus",
            *(f"{name}={moved.get(name, value)}" for name, _, value in flags),
            f"--web.listen-address={local}",
        ],
        environment=INHERITED,
        health=[
            word.replace("127.0.0.1:9090", local)
            for word in SERVICES["prometheus"]["healthcheck"]["test"][1:]
        ],
        directory=directory,
    )
    with running(server, port):
        yield server


def test_topics_are_made(deployment: Deployment, topics: list[str]) -> None:
    """The one-shot service makes the event topics with the configured partitions."""
    assert topics
    admin = KafkaAdminClient(bootstrap_servers=deployment.kafka.address)
    try:
        described = admin.describe_topics(["events.clicks", "events.purchases"])
    finally:
        admin.close()
    expected = int(SERVICES["topics"]["environment"]["RECOMMENDER_PARTITIONS"])
    assert [len(topic["partitions"]) for topic in described] == [expected, expected]


def test_event_changes_the_answer(services: dict[str, Server]) -> None:
    """An event goes through API, Kafka and worker into the next answer."""
    api = services["api"].address
    event = {"eventType": "click", "itemId": "tent", "sentAt": time.time()}
    body = {"trackingId": "shop", "userId": "u1", "sessionId": "s1", "eventList": [event]}
    accepted = httpx.post(f"{api}/events", json=body).raise_for_status().json()
    query = {"user_id": "u1", "after": accepted["after"]}

    def is_reached() -> bool:
        answer = httpx.get(f"{api}/recommend", params=query).raise_for_status().json()
        return answer["freshness"]["afterReached"] is True

    # The worker's metrics answer before Kafka has given it partitions.
    wait_until(is_reached, within_s=120, what="the event is in effect")


@pytest.mark.parametrize("name", ["worker", "jobs", "forwarder", "api"])
def test_other_containers_can_reach_it(services: dict[str, Server], name: str) -> None:
    """A service listens on every address, for Prometheus and the proxy."""
    process = services[name].process
    assert process is not None
    listening = [
        c.laddr
        for c in psutil.Process(process.pid).net_connections()
        if c.status == psutil.CONN_LISTEN
    ]
    port = int(services[name].address.rpartition(":")[2])
    assert port in {at.port for at in listening if at.ip in {"0.0.0.0", "::"}}


def test_prometheus_scrapes_every_service(services: dict[str, Server], prometheus: Server) -> None:
    """With the shipped configuration, Prometheus gets metrics from each service."""

    def all_up() -> bool:
        answer = httpx.get(f"{prometheus.address}/api/v1/targets").raise_for_status()
        found = answer.json()["data"]["activeTargets"]
        return {t["labels"]["job"] for t in found if t["health"] == "up"} == set(services)

    wait_until(all_up, within_s=60, what="every target up")


def test_prometheus_evaluates_every_rule(prometheus: Server) -> None:
    """The rules of the shipped configuration are loaded, and none has an error."""

    def is_healthy() -> bool:
        answer = httpx.get(f"{prometheus.address}/api/v1/rules").raise_for_status()
        groups = answer.json()["data"]["groups"]
        assert not [one for group in groups for one in group["rules"] if one["health"] == "err"]
        # Prometheus begins somewhere in a group's interval: tests/ops evaluate the long ones.
        soon = [one for group in groups if group["interval"] <= 60 for one in group["rules"]]
        return bool(soon) and all(one["health"] == "ok" for one in soon)

    wait_until(is_healthy, within_s=60, what="every rule evaluated")


def test_dashboard_asks_for_series_that_exist(
    services: dict[str, Server], prometheus: Server
) -> None:
    """Every dashboard query is valid, and a process serves each of its series."""
    asked = set()
    for query in dashboard_queries():
        answer = httpx.get(f"{prometheus.address}/api/v1/query", params={"query": query})
        assert answer.status_code == 200, answer.text
        asked |= set(re.findall(r"\b(?:recommender|process)_\w+", query))

    def missing() -> set[str]:
        served = set()
        for server in services.values():
            metrics = httpx.get(f"{server.address}/metrics").raise_for_status().text
            served |= set(re.findall(r"^# TYPE (\S+)", metrics, re.MULTILINE))
        return {name.removesuffix("_bucket") for name in asked} - served

    # A process answers before it has loaded all that it measures.
    wait_until(lambda: not missing(), within_s=120, what="every series")


@pytest.mark.parametrize("name", ["worker", "jobs", "forwarder", "api"])
def test_service_ends_when_asked(services: dict[str, Server], name: str) -> None:
    """SIGTERM ends a service well before the container engine kills it."""
    grace_s = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
    # The API's server ends itself by the signal once it has finished.
    assert services[name].stop(within_s=grace_s) in {0, -signal.SIGTERM}
    services[name].start()
