"""Times of an answer's stages, for a question that asks for them; others pay some 50 ns a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class StageTimes:
    """Seconds that each stage took, in the order in which they were first reached.

    Parameters
    ----------
    clock
        Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_s = clock()
        self.took_s: dict[str, float] = {}

    def reached(self, stage: str) -> None:
        """The time since the last call was that of this stage."""
        now_s = self._clock()
        self.took_s[stage] = self.took_s.get(stage, 0.0) + now_s - self._last_s
        self._last_s = now_s


_OF_TASK: ContextVar[StageTimes | None] = ContextVar("stage_times", default=None)


@contextmanager
def measured_stages(clock: Callable[[], float], *, is_wanted: bool) -> Iterator[StageTimes | None]:
    """Measures the stages of this task's block; None unless `is_wanted`.

    >>> from itertools import count
    >>> with measured_stages(count().__next__, is_wanted=True) as times:
    ...     stage_reached("read"), stage_reached("score"), stage_reached("read")
    (None, None, None)
    >>> times.took_s
    {'read': 2.0, 'score': 1.0}
    """
    if not is_wanted:
        yield None
        return
    times = StageTimes(clock)
    token = _OF_TASK.set(times)
    try:
        yield times
    finally:
        _OF_TASK.reset(token)


def stage_reached(stage: str) -> None:
    """Note the end of a stage, if the question asks for times."""
    times = _OF_TASK.get()
    if times is not None:
        times.reached(stage)
