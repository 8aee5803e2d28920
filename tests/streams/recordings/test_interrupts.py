"""Ctrl-C while a lock may be held comes later, and at once otherwise."""

from __future__ import annotations

import signal
import threading

import pytest

from streams.recordings.interrupts import Interrupts

pytestmark = pytest.mark.unit


def test_ctrl_c_comes_at_once_outside_of_a_deferred_block() -> None:
    """As without it."""
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_comes_at_the_end_of_a_deferred_block() -> None:
    """Once, however often it was pressed."""
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.deferred():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("all")
        with interrupts.deferred():
            done.append("more")

    assert done == ["all", "more"]


def test_an_error_of_the_block_comes_before_the_interrupt() -> None:
    """The interrupt comes at the end of the next block."""
    with Interrupts() as interrupts:
        with pytest.raises(ValueError, match="wrong"), interrupts.deferred():  # noqa: PT012
            signal.raise_signal(signal.SIGINT)
            raise ValueError("wrong")
        with pytest.raises(KeyboardInterrupt), interrupts.deferred():
            pass


def test_the_handler_before_is_put_back() -> None:
    """Afterwards Ctrl-C is what it was."""
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before

    assert signal.getsignal(signal.SIGINT) == before


def test_other_threads_may_use_it() -> None:
    """They get no signals."""
    done = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.deferred():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert done == [True]
