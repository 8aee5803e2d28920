"""The services of docker-compose.yml, run natively: without a container engine.

Each runs its command with its environment, out of an environment that the Dockerfile's own
commands have installed. Only addresses, ports and folders differ from what a container would have.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.ports import ReservedPort
from tests.machine_code import share_machine_code
from tests.servers import INHERITED, ROOT, Server, compose, require

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
LASTING = sorted(set(SERVICES) - {"topics"})


@dataclass(frozen=True)
class Stage:
    """One stage of the Dockerfile: the image it starts from, then its instructions."""

    image: str
    instructions: list[tuple[str, str]]

    def all(self, word: str) -> list[str]:
        """The arguments of every instruction of this kind, in order."""
        return [arguments for kind, arguments in self.instructions if kind == word]

    def environment(self) -> dict[str, str]:
        """The variables that the stage sets."""
        return dict(pair.split("=", 1) for line in self.all("ENV") for pair in line.split())


def dockerfile() -> list[Stage]:
    """The stages of the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: list[Stage] = []
    for line in text.replace("\\\n", " ").splitlines():
        word, _, arguments = line.strip().partition(" ")
        if word == "FROM":
            stages.append(Stage(arguments.partition(" ")[0], []))
        elif word:
            stages[-1].instructions.append((word, arguments.strip()))
    return stages


def copied() -> list[tuple[list[str], str]]:
    """What the Dockerfile takes from the build context: sources and destination."""
    found = []
    for arguments in dockerfile()[0].all("COPY"):
        if not arguments.startswith("--from"):
            *sources, destination = arguments.split()
            found.append((sources, destination))
    return found


def entry_point() -> list[str]:
    """What the image runs before a service's own arguments."""
    [entry] = dockerfile()[-1].all("ENTRYPOINT")
    words: list[str] = json.loads(entry)
    return words


def install_image(directory: Path) -> None:
    """Install into `directory`/image what the Dockerfile's first stage installs."""
    require("uv")
    build = directory / "build"
    build.mkdir(parents=True)
    for sources, destination in copied():
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, build / destination, ignore=ignored)
            else:
                shutil.copy(ROOT / source, build / destination)
    given = dockerfile()[0].environment()
    # Its folder can be written to here: only what is used becomes bytecode, when it is.
    here = {
        "UV_PROJECT_ENVIRONMENT": str(directory / "image"),
        "UV_PYTHON": sys.executable,
        "UV_COMPILE_BYTECODE": "0",
    }
    for command in dockerfile()[0].all("RUN"):
        plain = re.sub(r"--mount=\S+\s+", "", command)
        if "compile_once" in plain:
            (models,) = (directory / "image").glob("lib/python*/site-packages/models")
            assert share_machine_code(models) > 0
        subprocess.run(
            ["sh", "-c", plain],
            cwd=build,
            env=os.environ | given | here,
            stdin=subprocess.DEVNULL,
            timeout=800,
            check=True,
        )


@dataclass
class Deployment:
    """The project's own services against servers that run already.

    Parameters
    ----------
    directory
        Holds the installed image, and a folder for each service.
    variables
        What this place sets instead of the values in docker-compose.yml.
    """

    kafka: Server
    redis: Server
    directory: Path
    variables: dict[str, str]
    ports: dict[str, ReservedPort] = field(default_factory=dict)

    def port(self, name: str) -> int:
        """The port of a service, its own from the first call until `release`."""
        if name not in self.ports:
            self.ports[name] = ReservedPort()
        return self.ports[name].number

    def release(self) -> None:
        """Give every port back."""
        for port in self.ports.values():
            port.release()

    def environment(self, name: str) -> dict[str, str]:
        """A service's environment with addresses and ports as they are here."""
        port = str(self.port(name))
        here = self.variables | {
            "RECOMMENDER_KAFKA": self.kafka.address,
            "RECOMMENDER_REDIS": self.redis.address,
            "RECOMMENDER_PORT": port,
            "RECOMMENDER_METRICS_PORT": port,
        }
        named = SERVICES[name]["environment"]
        given = {n: here.get(n, value) for n, value in named.items()}
        path = f"{self.directory / 'image' / 'bin'}:{os.environ['PATH']}"
        set_here = {n: value for n, value in given.items() if value is not None}
        return INHERITED | dockerfile()[-1].environment() | {"PATH": path} | set_here

    def service(self, name: str) -> Server:
        """A service, not yet started."""
        folder = self.directory / name
        folder.mkdir()
        return Server(
            address=f"http://127.0.0.1:{self.port(name)}",
            command=entry_point() + SERVICES[name]["command"],
            environment=self.environment(name),
            health=SERVICES[name]["healthcheck"].get("test", ["CMD", "true"])[1:],
            directory=folder,
        )
