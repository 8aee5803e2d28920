"""Tools that are written in Go, built once from the Go module proxy and then kept in .cache."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.servers import ROOT, require

HELM = "helm.sh/helm/v3/cmd/helm@v3.19.2"
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0"
KUBERNETES = "1.37.0"
"""Version of the Kubernetes API that the chart is checked against, and of the package with its
schemas: GitHub, where kubeconform would look for them, is not needed then."""


def go_tool(package: str) -> Path:
    """The program of a Go package at a version; building takes up to two minutes of two cores."""
    path, _, version = package.partition("@")
    folder = ROOT / ".cache" / "go" / version
    program = folder / path.rpartition("/")[2]
    if not program.exists():
        require("go")
        variables = {"GOBIN": str(folder), "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        subprocess.run(
            ["go", "install", package],
            env=os.environ | variables,
            cwd=ROOT / "tests",
            check=True,
            timeout=900,
        )
    return program


def kubernetes_schemas(names: Iterable[str], directory: Path) -> str:
    """Where kubeconform finds strict JSON schemas: a template of a file's name.

    `names` are such as `deployment-apps-v1`; each is written to `directory` with the definitions
    that it refers to, which the package has in a file that kubeconform does not find.
    """
    folder = ROOT / ".cache" / f"kubernetes-validate-{KUBERNETES}"
    if not folder.exists():
        require("uv")
        package = f"kubernetes-validate=={KUBERNETES}"
        subprocess.run(
            ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), package],
            check=True,
            timeout=300,
        )
    schemas = folder / "kubernetes_validate" / "kubernetes-json-schema"
    schemas /= f"v{KUBERNETES}-local-strict"
    definitions = (schemas / "_definitions.json").read_text()
    shared = {"$defs": json.loads(definitions)["$defs"]}
    for name in names:
        raw = (schemas / f"{name}.json").read_text().replace('"/api/_definitions.json#', '"#')
        schema = json.loads(raw)
        del schema["$id"]
        (directory / f"{name}.json").write_text(json.dumps(schema | shared))
    return f"{directory}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
