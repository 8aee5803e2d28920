"""`recommender reshard`, killed where it says that it does something: SHARDS BEGINNING SHARE."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from cli.servers import reachable_settings
from streams.operations.reshard import reshard


def main() -> None:
    """Move the group of the environment, and die."""
    shards, beginning, least = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])

    def tell(what: str, share: float) -> None:
        if what.startswith(beginning) and share >= least:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(reshard(reachable_settings(), shards, tell=tell))


if __name__ == "__main__":
    main()
