"""Conditions of a measurement, and the processes that a benchmark starts."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from models.settings import Settings
from ops.embedded_servers import start_broker, start_redis
from ops.processes import end_process, end_with_parent
from tests.servers import apache_kafka, debian_redis

ROOT = Path(__file__).parent.parent


def conditions(**more: object) -> dict[str, Any]:
    """Machine, versions, load and command of this run."""
    packages = ("faust-streaming", "kafka-python", "river", "redis", "fastapi", "uvicorn")
    return {
        "command": " ".join(["python", *map(_without_folders, sys.argv)]),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": [round(load, 2) for load in os.getloadavg()],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {name: metadata.version(name) for name in packages},
        **more,
    }


def _without_folders(argument: str) -> str:
    """An argument as it may be published: of a path, the part within the project or its name."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def report(name: str, figures: dict[str, Any], **more: object) -> None:
    """Print the figures with their conditions as one JSON object."""
    print(json.dumps({"benchmark": name, **figures, "conditions": conditions(**more)}, indent=1))


def median(values: Sequence[float]) -> float:
    """The median, to four significant digits."""
    return float(f"{statistics.median(values):.4g}")


def end_in_order() -> None:
    """Raise an error on SIGTERM, so that this process ends its child processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@contextlib.contextmanager
def process(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdout: IO[bytes] | int | None = None,
    stdin: IO[bytes] | None = None,
    cwd: Path = ROOT,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, and with this process, however that ends."""
    started = subprocess.Popen(
        argv, cwd=cwd, env=environment, stdin=stdin, stdout=stdout, start_new_session=True
    )
    end_with_parent(started)
    try:
        yield started
    finally:
        end_process(started)
        if started.stdout is not None:
            started.stdout.close()


@contextlib.contextmanager
def servers(kind: str = "embedded") -> Iterator[Settings]:
    """Settings of a fresh broker and Redis: `embedded`, or `apache` with Redis from the PATH."""
    end_in_order()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        data_dir = Path(folder)
        if kind == "apache":
            kafka = stack.enter_context(apache_kafka(data_dir / "kafka", jvm=())).address
            redis = stack.enter_context(debian_redis(data_dir / "redis")).address
        else:
            broker = start_broker(data_dir)
            stack.callback(broker.stop)
            server = start_redis(data_dir)
            stack.callback(server.stop)
            kafka, redis = broker.address, server.url
        yield Settings(kafka=kafka, redis=redis, data_dir=data_dir)


@contextlib.contextmanager
def command(name: str, settings: Settings, **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of the product's commands as a process."""
    environment = {
        **os.environ,
        "RECOMMENDER_KAFKA": settings.kafka,
        "RECOMMENDER_REDIS": settings.redis,
        "RECOMMENDER_HOST": settings.host,
        "RECOMMENDER_PORT": str(settings.port),
        **extra,
    }
    with process([sys.executable, "-m", "cli", name], environment) as started:
        yield started


def until(done: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Wait until `done` gives True."""
    deadline = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{done} is not so after {within_s} s")
        time.sleep(0.02)
