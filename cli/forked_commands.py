"""Commands as processes forked from one that has loaded them, where that is safe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from models.settings import Settings
from ops.forked_processes import call, preload

T = TypeVar("T")

FORKS_ARE_SAFE = sys.platform == "linux"
"""On macOS the system's own libraries, which numpy uses, may not survive a fork."""

MODULES = ("cli.preloaded",)


def run_command_line() -> None:
    """Do what `recommender` does with `sys.argv`."""
    from cli import main

    main()


def call_lean(function: Callable[[Settings], T], settings: Settings) -> T:
    """The result of a function of settings, called in a forked process where that is safe.

    A process that lives as long as the service then need not keep what the function loads.
    """
    if not FORKS_ARE_SAFE:
        return function(settings)
    return call(function, settings)


def forked_command() -> Callable[[], object] | None:
    """`run_command_line`, its modules set to be loaded once; `None` where forks are not safe."""
    if not FORKS_ARE_SAFE:
        return None
    preload(MODULES)
    return run_command_line
