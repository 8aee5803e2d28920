"""Events a second through one worker with full effect, as a share of an empty Faust agent.

    python -m benchmarks.learning FILE [--runs 5] [--events-per-message 1] [--limit N]

The file (`user,item,type,ts`) is produced to the topic once; the empty agent and the worker then
read the same messages in turn, each from a fresh start. With more than one event a message, a
session's events are put together, as a client that buffers them would.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.conditions import ROOT, command, median, process, report, servers
from models.events import Event, PutEvents
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import ensure_topics
from streams.recordings.recorded_events import read_events

EMPTY = """
import sys, time
from models.settings import Settings
from streams.kafka.faust_clients.faust_app import create_app, run
import asyncio
settings = Settings()
app = create_app("empty-" + sys.argv[2], settings, None)
topic = app.topic("events.clicks", "events.purchases", value_type=bytes, key_type=bytes,
                  value_serializer="raw", key_serializer="raw")
wanted, seen, started = int(sys.argv[1]), 0, 0.0

@app.agent(topic)
async def empty(stream):
    global seen, started
    async for events in stream.take_events(500, within=0.01):
        started = started or time.perf_counter()
        seen += len(events)
        if seen >= wanted:
            print("\\nrate", seen / (time.perf_counter() - started), flush=True)

run(app)
"""


def messages_of(file: Path, per_message: int, limit: int) -> Iterator[PutEvents]:
    """Messages of each session's events, in the order of their first ones."""
    rows = itertools.islice(read_events(file, now_s=time.time(), as_="sessions"), limit)
    good = [row for _, row in rows if isinstance(row, PutEvents)]
    if per_message == 1:
        yield from good
        return
    sessions: dict[str, list[Event]] = {}
    for row in good:
        sessions.setdefault(row.session_id, []).extend(row.event_list)
    for session_id, events in sessions.items():
        for at in range(0, len(events), per_message):
            yield PutEvents(session_id, events[at : at + per_message])


def produce(file: Path, settings: Settings, per_message: int, limit: int) -> tuple[int, int]:
    """Events and messages sent."""
    events, messages = 0, 0
    with Tracker(settings, linger_ms=20) as tracker:
        for message in messages_of(file, per_message, limit):
            tracker.put_events(message)
            events, messages = events + len(message.event_list), messages + 1
            if messages % 2000 == 0:
                tracker.flush()
    return events, messages


def empty_rate(settings: Settings, messages: int, run: int) -> float:
    """Messages a second of the empty agent."""
    environment = {"RECOMMENDER_KAFKA": settings.kafka, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-c", EMPTY, str(messages), str(run)]
    with process(argv, environment, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None  # noqa: S101  requested above
        for line in started.stdout:
            if line.startswith(b"rate "):
                return float(line.split()[1])
    raise RuntimeError("the empty agent ended early")


def worker_rate(settings: Settings, events: int, run: int) -> float:
    """Events a second of the worker, from its first effect to its last."""

    async def measure() -> float:
        group = settings.model_copy(update={"group": f"run{run}"})
        store = Store(connect(settings.redis), group)
        first: tuple[float, float] | None = None
        while True:
            done = (await store.counts()).get("events", 0.0)
            now = time.perf_counter()
            if done and first is None:
                first = (now, done)
            if first and done >= events:
                return (done - first[1]) / (now - first[0])
            await asyncio.sleep(0.02)

    with command("worker", settings, RECOMMENDER_GROUP=f"run{run}"):
        return asyncio.run(asyncio.wait_for(measure(), 600))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--events-per-message", type=int, default=1)
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--kafka", choices=["embedded", "apache"], default="embedded")
    options = parser.parse_args()
    with servers(options.kafka) as settings:
        ensure_topics(settings)
        events, messages = produce(
            options.file, settings, options.events_per_message, options.limit
        )
        per_message = events / messages
        empty, worker = [], []
        for run in range(options.runs):
            empty.append(empty_rate(settings, messages, run) * per_message)
            worker.append(worker_rate(settings, events, run))
            print(json.dumps({"empty": empty[-1], "worker": worker[-1]}), file=sys.stderr)
    shares = [w / e for w, e in zip(worker, empty, strict=True)]
    report(
        "learning",
        {
            "empty_agent_events_per_s": median(empty),
            "worker_events_per_s": median(worker),
            "share": median(shares),
            "shares": [round(share, 3) for share in shares],
        },
        events=events,
        messages=messages,
        kafka=options.kafka,
        file=options.file.parent.name,
    )


if __name__ == "__main__":
    main()
