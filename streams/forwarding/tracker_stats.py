"""Counts and errors of each tracker since the ledger was saved, and the forwarder's metrics."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from functools import partial

import prometheus_client

from models.state.operations.forwarding_ledger import WaitingEvents
from streams.event_sinks import SendFailed, SinkAnswer

EVENTS = prometheus_client.Counter(
    "recommender_forward_events_total",
    "Events by tracker and outcome at the sink.",
    ["tracker", "outcome"],
)
CALLS = prometheus_client.Counter(
    "recommender_forward_calls_total",
    "Calls to the sink by tracker and answer.",
    ["tracker", "outcome"],
)
WAITING = prometheus_client.Gauge(
    "recommender_forward_waiting_events",
    "Events that were read from Kafka and are not settled.",
    ["tracker"],
)
WAITING_AGE = prometheus_client.Gauge(
    "recommender_forward_oldest_waiting_age_seconds",
    "Age in Kafka of the oldest of them; 0 without any.",
    ["tracker"],
)


class TrackerStats:
    """Counts and last errors by tracker, for the ledger and the metrics.

    Attributes
    ----------
    waiting
        Waiting events by tracker, as of the last save.
    """

    def __init__(self, trackers: Collection[str]) -> None:
        self._calls: dict[str, Counter[str]] = defaultdict(Counter)
        self._notes: dict[str, dict[str, str | float]] = defaultdict(dict)
        self.waiting: Mapping[str, WaitingEvents] = {}
        for tracker in trackers:
            EVENTS.labels(tracker, "refused")  # an alert on growth needs the zero before the first
            WAITING.labels(tracker).set_function(partial(self._n_waiting, tracker))
            WAITING_AGE.labels(tracker).set_function(partial(self._waiting_age_s, tracker))

    def events(self, tracker: str, outcome: str, n: int) -> None:
        """Count events with an outcome."""
        EVENTS.labels(tracker, outcome).inc(n)

    def call(self, tracker: str) -> None:
        """Count a call that begins."""
        self._calls[tracker]["calls"] += 1

    def success(self, tracker: str) -> None:
        """Count a call that the sink has taken."""
        CALLS.labels(tracker, "ok").inc()
        self._notes[tracker]["last_success_at"] = time.time()

    def failure(self, tracker: str, failure: SendFailed) -> None:
        """Count a call that failed, and keep its error."""
        outcome = "failed" if failure.answer is SinkAnswer.DENIED else failure.answer.value
        CALLS.labels(tracker, outcome).inc()
        self._calls[tracker]["retries"] += failure.answer is not SinkAnswer.REFUSED
        self._calls[tracker]["throttles"] += failure.answer is SinkAnswer.THROTTLED
        self._notes[tracker] |= {"last_error": failure.text, "last_error_at": time.time()}

    def pop(self) -> tuple[Mapping[str, Counter[str]], Mapping[str, Mapping[str, str | float]]]:
        """Counts of calls and the notes since the last `pop`, by tracker."""
        calls, self._calls = self._calls, defaultdict(Counter)
        notes, self._notes = self._notes, defaultdict(dict)
        return calls, notes

    def _n_waiting(self, tracker: str) -> float:
        return self.waiting[tracker].events if tracker in self.waiting else 0

    def _waiting_age_s(self, tracker: str) -> float:
        found = self.waiting.get(tracker)
        return max(0.0, time.time() - found.since_s) if found else 0.0
