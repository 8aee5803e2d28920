"""The Helm chart: what it renders has few rights, valid settings, and bounds on disruption.

`helm_snapshot.yaml` is what Helm renders from the chart and `helm_values.yaml`; a slow test
compares. After a change of the chart: ``python -m tests.ops.test_helm``.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from yaml import YAMLError

from models.settings import Settings
from models.settings.secret_files import is_secret
from tests.helm import HELM_LAYERS, KUBERNETES, check_kubernetes_objects, helm, objects
from tests.servers import ROOT

CHART = ROOT / "ops" / "helm" / "streaming-recommender"
VALUES = ROOT / "tests" / "ops" / "helm_values.yaml"
SNAPSHOT = ROOT / "tests" / "ops" / "helm_snapshot.yaml"
LASTING = {"api", "worker", "jobs", "forward"}

OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all(SNAPSHOT.read_text()))


def of_kind(kind: str) -> list[dict[str, Any]]:
    """The rendered objects of a kind."""
    return [one for one in OBJECTS if one["kind"] == kind]


def pods() -> dict[str, dict[str, Any]]:
    """The pods' specifications by their component."""
    templates = [one["spec"]["template"] for one in of_kind("Deployment") + of_kind("Job")]
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"] for one in templates
    }


def rendered(version: str, *arguments: str) -> str:
    """What a version of Helm renders."""
    done = subprocess.run(
        [helm(version), "template", "shop", CHART, "--namespace", "shop",
         "--kube-version", KUBERNETES, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ValueError(done.stderr)
    return done.stdout


@pytest.mark.unit
def test_every_process_runs_its_command() -> None:
    """Those that last, and one that makes the topics."""
    assert set(pods()) == {*LASTING, "topics"}
    for component, pod in pods().items():
        [container] = pod["containers"]
        assert container["args"] == [component]


@pytest.mark.unit
@pytest.mark.parametrize("component", sorted(pods()))
def test_a_pod_has_few_rights(component: str) -> None:
    """No root, no writing but to /tmp, no capability, no token of the cluster, bounded memory."""
    pod = pods()[component]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
    assert writable == ["/tmp"]  # noqa: S108
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


@pytest.mark.unit
@pytest.mark.parametrize("component", sorted(pods()))
def test_settings_are_valid(
    component: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The product reads its settings from a pod's environment; secrets come from files only."""
    [container] = pods()[component]["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert len(given) == len(container["env"])
    for name in list(os.environ):
        if name.startswith("RECOMMENDER_"):
            monkeypatch.delenv(name)
    for name, value in given.items():
        file = tmp_path / Path(value).name
        if value.startswith("/run/secrets/"):
            file.write_text("redis://redis.example" if name == "RECOMMENDER_REDIS_FILE" else "x")
        monkeypatch.setenv(name, str(file) if file.exists() else value)
    settings = Settings()

    assert settings.redis == "redis://redis.example"
    assert settings.max_items == 12_000_000
    assert settings.event_weights == {"cart": 2.0, "purchase": 3.5}
    assert settings.requires_keys
    assert "shop-recommender-api" in settings.allowed_hosts
    for name, field in Settings.model_fields.items():
        assert not (is_secret(field) and f"RECOMMENDER_{name.upper()}" in given)


@pytest.mark.unit
def test_probes_ask_what_each_process_answers() -> None:
    """An API that is not ready is taken out of service; only a dead one is restarted."""
    for component in LASTING:
        [container] = pods()[component]["containers"]
        port, path = ("http", "/healthz") if component == "api" else ("metrics", "/metrics")
        environment = {one["name"]: one["value"] for one in container["env"]}
        [listening] = container["ports"]
        name = "RECOMMENDER_PORT" if component == "api" else "RECOMMENDER_METRICS_PORT"
        assert int(environment[name]) == listening["containerPort"]
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": path, "port": port}
        starting = container["startupProbe"]
        assert starting["periodSeconds"] * starting["failureThreshold"] >= 120
    [api] = pods()["api"]["containers"]
    assert api["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert pods()["api"]["terminationGracePeriodSeconds"] > 5 + 30


@pytest.mark.unit
def test_api_and_workers_scale_and_survive_drained_nodes() -> None:
    """Each has an autoscaler and a budget that select its pods; a deployment says no replicas."""
    for component in ("api", "worker"):
        name = f"shop-recommender-{component}"
        [deployment] = [one for one in of_kind("Deployment") if one["metadata"]["name"] == name]
        [scaler] = [
            one for one in of_kind("HorizontalPodAutoscaler") if one["metadata"]["name"] == name
        ]
        [budget] = [
            one for one in of_kind("PodDisruptionBudget") if one["metadata"]["name"] == name
        ]
        assert "replicas" not in deployment["spec"]
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert scaler["spec"]["minReplicas"] >= 2
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    [service] = of_kind("Service")
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind("Deployment")]
    assert [service["spec"]["selector"].items() <= each.items() for each in labels].count(True) == 1
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["worker"]["autoscaling"]["maxReplicas"] <= values["settings"]["partitions"]


@pytest.mark.unit
def test_the_network_is_closed_but_for_what_is_needed() -> None:
    """Every pod is under a policy of both directions; only jobs and forwarder reach AWS."""
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind("NetworkPolicy")}
    everything = policies["shop-recommender"]
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    for one in of_kind("Deployment") + of_kind("Job"):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert everything["podSelector"]["matchLabels"].items() <= labels.items()
    assert all(rule.get("from") for one in policies.values() for rule in one.get("ingress", ()))
    [expression] = policies["shop-recommender-aws"]["podSelector"]["matchExpressions"]
    assert set(expression["values"]) == {"jobs", "forward"}


@pytest.mark.unit
def test_one_version() -> None:
    """Chart and package have the same."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["version"] == chart["appVersion"] == package


@pytest.mark.slow
@pytest.mark.parametrize("version", HELM_LAYERS)
def test_helm_renders_the_snapshot(version: str) -> None:
    """Lint finds nothing, and what is committed is what is rendered."""
    lint = subprocess.run(
        [helm(version), "lint", "--strict", "--kube-version", KUBERNETES, "-f", VALUES, CHART],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert lint.returncode == 0, lint.stdout + lint.stderr
    whole = rendered(version, "-f", str(VALUES))
    # Helm 4 has an empty line more at the end of each object.
    assert whole.replace("\n\n---", "\n---") == SNAPSHOT.read_text()
    for wrong in (
        ["settings.kafka="],
        ["settings.Kafka=a:1"],
        ["image.digest=sha256:1"],
        ["workers.replicas=2"],
    ):
        given = ["--set", "settings.kafka=a:1", *(word for one in wrong for word in ("--set", one))]
        with pytest.raises(ValueError, match="meet the specifications"):
            rendered(version, *given)
    few = rendered(
        version,
        *("--set", "settings.kafka=a:1", "--set", "networkPolicy.enabled=false"),
        *("--set", "jobs.enabled=false", "--set", "api.autoscaling.enabled=false"),
    )
    kinds = [one["kind"] for one in objects(few)]
    assert "NetworkPolicy" not in kinds
    assert kinds.count("Deployment") == 2
    assert kinds.count("HorizontalPodAutoscaler") == 1
    check_kubernetes_objects([*objects(whole), *objects(few)])
    odd = objects(few.replace("containerPort: 9100", "containerPort: 9100, odd: 1"))
    with pytest.raises(ValidationError, match=r"Additional properties .* \('odd' was unexpected\)"):
        check_kubernetes_objects(odd)
    with pytest.raises(YAMLError, match="a key twice"):
        objects(few.replace("containerPort: 9100", "containerPort: 9100, containerPort: 9100"))


if __name__ == "__main__":
    SNAPSHOT.write_text(rendered("3.19.0", "-f", str(VALUES)))
