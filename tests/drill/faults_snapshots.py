"""Faults that an operator mends with a snapshot."""

from __future__ import annotations

import random
import signal
import subprocess

from tests.drill.faults import fault
from tests.drill.site import Site, pause


@fault("worker", "api", "redis", is_slow=True)
def snapshot_restored(site: Site, chance: random.Random) -> None:
    """A snapshot is saved under load; later everything is stopped, and it is restored."""
    folder = str(site.directory / "saved")
    _succeeded(site.stack.run("snapshot", "save", folder, "--longest-pause", "30"))
    pause(chance, 1, 6)
    processes = (*site.workers, site.api)
    for process in processes:
        process.down(signal.SIGTERM)
    try:
        _succeeded(site.stack.run("snapshot", "restore", folder, "--replace"))
    finally:
        for process in processes:
            process.up()


def _succeeded(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise RuntimeError(done.stderr)
