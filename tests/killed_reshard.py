"""`recommender reshard`, killed where it says that it does something: SHARDS BEGINNING SHARE [PID].

With a PID that process dies instead, and the command goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from cli.servers import reachable_settings
from streams.operations.reshard import reshard


def main() -> None:
    """Move the group of the environment, and die or have another process die."""
    shards, beginning, least = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    victims = [int(pid) for pid in sys.argv[4:]] or [os.getpid()]

    def tell(what: str, share: float) -> None:
        if what.startswith(beginning) and share >= least and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    asyncio.run(reshard(reachable_settings(), shards, tell=tell))
