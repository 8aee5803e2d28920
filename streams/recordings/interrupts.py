"""Ctrl-C in a thread that takes locks: it waits until none is held."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self


class Interrupts:
    """Ctrl-C as a `KeyboardInterrupt`, but none within `deferred`; a context manager.

    Python raises it between any two instructions: also where a lock has just been taken and is not
    yet given back, by this thread or by a library. All other threads then wait for it for ever.
    Outside of the main thread, which gets no signals, nothing changes.
    """

    def __init__(self) -> None:
        self._is_deferring = False
        self._came = False
        self._before: signal._HANDLER = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that Ctrl-C does not interrupt; the `KeyboardInterrupt` comes at its end."""
        self._is_deferring = True
        try:
            yield
        finally:
            self._is_deferring = False
        if self._came:
            self._came = False
            raise KeyboardInterrupt

    def _take(self, _: int, __: FrameType | None) -> None:
        if not self._is_deferring:
            raise KeyboardInterrupt
        self._came = True
