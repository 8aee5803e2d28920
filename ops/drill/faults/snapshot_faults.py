"""Faults that an operator mends with a snapshot."""

from __future__ import annotations

import random
import signal

from ops.drill.faults.fault_registry import fault
from ops.drill.site import Site


@fault("worker", "api", "redis", needs=("redis",), is_slow=True)
def snapshot_restored(site: Site, chance: random.Random) -> str:
    """A snapshot is saved under load; later everything is stopped, and it is restored."""
    folder = str(site.directory / "saved")
    site.processes.run("snapshot", "save", folder, "--longest-pause", "30")
    site.pause(chance, 1, 6)
    processes = (*site.workers, site.api)
    for process in processes:
        process.down(signal.SIGTERM)
    try:
        said = site.processes.run("snapshot", "restore", folder, "--replace")
    finally:
        for process in processes:
            process.up()
    return said.strip().splitlines()[0]
