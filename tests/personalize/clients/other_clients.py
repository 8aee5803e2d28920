"""AWS's own clients beside boto3, fetched once and kept in folders of their own."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.personalize.calls_fixtures import CREDENTIALS
from tests.servers import ROOT, maven_jars, require, require_java, unavailable

CLI_VERSION = "1.46.3"
SDK_VERSION = "3.958.0"
"""One that runs on the Node.js of Debian 12, which is 18."""

JAVA_SDK_VERSION = "2.40.2"
AIOBOTO3_VERSION = "15.5.0"

SERVICES = ("personalize", "personalize-runtime", "personalize-events")


def command_line() -> list[str]:
    """The command of the AWS command line interface, which has a botocore of its own."""
    return [_python_with("awscli", CLI_VERSION), "-m", "awscli"]


def aioboto3() -> str:
    """The Python of an environment with aioboto3, which has a botocore of its own, too."""
    return _python_with("aioboto3", AIOBOTO3_VERSION)


def java() -> list[str]:
    """The command that runs a Java program in one file, with the AWS SDK for Java 2."""
    require_java()
    artifacts = ["url-connection-client", *(name.replace("-", "") for name in SERVICES)]
    jars = maven_jars(
        f"aws-sdk-java-{JAVA_SDK_VERSION}",
        *(("software.amazon.awssdk", name, JAVA_SDK_VERSION) for name in artifacts),
    )
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]


def _python_with(package: str, version: str) -> str:
    """The Python of an environment with a package."""

    def install(made: str) -> None:
        # A program finds its files relative to its folder, so the folder may be moved.
        _fetch([sys.executable, "-m", "venv", made])
        pip = [f"{made}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        _fetch([*pip, "install", "--quiet", f"{package}=={version}"])

    return f"{_filled(f'{package}-{version}', install)}/bin/python"


def javascript() -> dict[str, str]:
    """Environment with which Node.js finds the AWS SDK for JavaScript."""
    packages = [f"@aws-sdk/client-{name}@{SDK_VERSION}" for name in SERVICES]
    return {"NODE_PATH": f"{npm(f'aws-sdk-js-{SDK_VERSION}', packages)}/node_modules"}


def npm(name: str, packages: Sequence[str]) -> Path:
    """A folder of that name with packages of npm."""

    def install(made: str) -> None:
        quiet = ("--no-audit", "--no-fund", "--loglevel=error")
        _fetch(["npm", "install", "--prefix", made, *quiet, *packages])

    require("node", "npm")
    return _filled(name, install)


def environment(url: str) -> dict[str, str]:
    """Environment that sends AWS clients to an address, without this machine's configuration."""
    return {
        "PATH": os.environ["PATH"],
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "1",
        **{name.upper(): value for name, value in CREDENTIALS.items()},
        **{f"AWS_ENDPOINT_URL_{name.upper().replace('-', '_')}": url for name in SERVICES},
    }


def run(command: Sequence[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, with an environment of its own."""
    return subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def parsed(ended: subprocess.CompletedProcess[str]) -> Any:
    """The output of a command as JSON; None if empty."""
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout) if ended.stdout.strip() else None


def _filled(name: str, fill: Callable[[str], None]) -> Path:
    """A folder that is kept, filled at the first call: whole or not there, and by one process."""
    folder = ROOT / ".cache" / name
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
                fill(made)
                Path(made).rename(folder)
    return folder


def _fetch(command: Sequence[str]) -> None:
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL
    )
    if ended.returncode != 0:
        unavailable(f"{' '.join(command)}:\n{(ended.stdout + ended.stderr)[-4000:]}")
