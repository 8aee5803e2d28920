"""Observations of the API's callers during a drill: times without an answer, and fresh ones."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Span = tuple[float, float]
"""Begin and end, seconds of the monotonic clock."""


class Probe(NamedTuple):
    """An event that was sent to see when it is in effect; seconds of the monotonic clock."""

    began_s: float
    accepted_s: float
    visible_s: float


class Strike(NamedTuple):
    """One or two faults that were caused together, and when."""

    names: tuple[str, ...]
    began_s: float
    ended_s: float


class FaultFigures(NamedTuple):
    """Effects of a kind of fault on callers.

    Attributes
    ----------
    unavailable_s
        Seconds without an answer or an acceptance, from the fault's begin until its recovery; the
        worst of this kind.
    freshness_s
        The longest time from an acceptance until it was in effect, in the same time.
    recovery_s
        The longest time from the end of the fault until an event that was sent after that was in
        effect; `None` if the next fault was always sooner.
    """

    times: int
    unavailable_s: float
    freshness_s: float
    recovery_s: float | None


@dataclass
class Observations:
    """Observations of all senders."""

    probes: list[Probe] = field(default_factory=list)
    unaccepted: list[Span] = field(default_factory=list)
    """Of messages that were not accepted at once: first attempt and acceptance."""

    unanswered: list[Span] = field(default_factory=list)
    strikes: list[Strike] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, probe: Probe) -> None:
        """Take note of an event in effect."""
        with self._lock:
            self.probes.append(probe)

    def note_unaccepted(self, began_s: float, ended_s: float) -> None:
        """Take note of an event that was not accepted for a time."""
        with self._lock:
            self.unaccepted.append((began_s, ended_s))

    def note_unanswered(self, began_s: float, ended_s: float) -> None:
        """Take note of recommendations that were not given for a time."""
        with self._lock:
            self.unanswered.append((began_s, ended_s))

    def recovered_s(self, after_s: float) -> float | None:
        """Time of effect of the first event that was sent after a time; `None` if none was."""
        with self._lock:
            return min((p.visible_s for p in self.probes if p.began_s >= after_s), default=None)

    @property
    def away(self) -> list[Span]:
        """Times in which some caller had no answer or acceptance."""
        return [*self.unaccepted, *self.unanswered]

    @property
    def worst_freshness_s(self) -> float:
        """The longest time from an acceptance until it was in effect."""
        return max((p.visible_s - p.accepted_s for p in self.probes), default=0.0)

    def by_kind(self) -> dict[str, FaultFigures]:
        """The figures of each kind of fault."""
        found: dict[str, list[FaultFigures]] = {}
        for number, strike in enumerate(self.strikes):
            later = self.strikes[number + 1 :]
            next_s = later[0].began_s if later else float("inf")
            recovered_s = self.recovered_s(strike.ended_s)
            is_own = recovered_s is not None and recovered_s <= next_s
            until_s = recovered_s if is_own and recovered_s is not None else next_s
            span = (strike.began_s, until_s)
            ages = [
                probe.visible_s - probe.accepted_s
                for probe in self.probes
                if probe.visible_s >= span[0] and probe.accepted_s <= span[1]
            ]
            figures = FaultFigures(
                1,
                covered_s(_within(self.away, span)),
                max(ages, default=0.0),
                until_s - strike.ended_s if is_own else None,
            )
            for name in strike.names:
                found.setdefault(name, []).append(figures)
        return {name: _worst(own) for name, own in sorted(found.items())}


def _worst(own: Sequence[FaultFigures]) -> FaultFigures:
    return FaultFigures(
        len(own),
        max(one.unavailable_s for one in own),
        max(one.freshness_s for one in own),
        max((one.recovery_s for one in own if one.recovery_s is not None), default=None),
    )


def _within(spans: Iterable[Span], whole: Span) -> list[Span]:
    """The parts of spans that lie in another one."""
    cut = [(max(start, whole[0]), min(end, whole[1])) for start, end in spans]
    return [(start, end) for start, end in cut if start < end]


def covered_s(spans: Iterable[Span]) -> float:
    """Time that at least one of these spans covers.

    >>> covered_s([(1.0, 3.0), (2.0, 4.0), (6.0, 7.0)])
    4.0
    """
    total, until_s = 0.0, float("-inf")
    for start_s, end_s in sorted(spans):
        total += max(0.0, end_s - max(start_s, until_s))
        until_s = max(until_s, end_s)
    return total
