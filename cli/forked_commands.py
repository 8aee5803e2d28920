"""Commands as processes forked from one that has loaded them, where that is safe."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ops.forked_processes import preload

MODULES = ("cli.preloaded",)


def run_command_line() -> None:
    """Do what `recommender` does with `sys.argv`."""
    from cli import main

    main()


def forked_command() -> Callable[[], object] | None:
    """`run_command_line`, with its modules set to be loaded once; `None` where forks are not safe.

    They are on Linux. On macOS its own libraries, which numpy uses, may not survive a fork.
    """
    if sys.platform != "linux":
        return None
    preload(MODULES)
    return run_command_line
