"""The floor of ingest: a Faust agent that reads messages and does nothing with them."""

from __future__ import annotations

from benchmarks.conditions import servers
from benchmarks.learning import empty_rate
from models.events import Event, PutEvents
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import ensure_topics


def empty_agent_per_s(n_messages: int) -> float:
    """Messages of one event a second through an empty agent, on a broker of its own."""
    with servers() as settings:
        ensure_topics(settings)
        with Tracker(settings, linger_ms=20) as tracker:
            for number in range(n_messages):
                event = Event("click", 1_790_000_000.0 + number, item_id=f"i{number % 1000}")
                tracker.put_events(PutEvents(f"s{number % 5000}", [event]))
                if number % 2000 == 0:
                    tracker.flush()
        return empty_rate(settings, n_messages, 0)
