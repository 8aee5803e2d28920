"""The embedded broker as a process; its arguments are `FOLDER HOST PORT [PORT ADVERTISED]`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ops.broker.broker_server import run


def main() -> None:
    """Serve as the process's arguments say, until a signal."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    folder, host, port, *proxied = sys.argv[1:]
    run(Path(folder), host, int(port), *map(int, proxied))
