"""Waits between two attempts or questions, which double up to a longest one."""

from __future__ import annotations

from collections.abc import Iterator


def waits_s(first_s: float, max_s: float) -> Iterator[float]:
    """Seconds to wait, one wait after another, without end.

    >>> waits = waits_s(0.5, 3.0)
    >>> [next(waits) for _ in range(5)]
    [0.5, 1.0, 2.0, 3.0, 3.0]
    """
    wait_s = first_s
    while True:
        yield min(wait_s, max_s)
        wait_s = min(2 * wait_s, max_s)
