"""The command of the embedded broker: `python -m ops.broker FOLDER HOST PORT`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ops.broker.broker_server import run

if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    folder, host, port = sys.argv[1:]
    run(Path(folder), host, int(port))
