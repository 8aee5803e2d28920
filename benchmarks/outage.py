"""Freshness and throughput during an outage of Amazon Personalize, against no forwarder.

    python -m benchmarks.outage [--rounds 5] [--rate 100] [--seconds 5] [--events 60000]

One worker and one API. Each round has the same load twice: without a forwarder, and with one whose
AWS, a local server, refuses every call (in every other round: answers none). Their order
alternates. The load is that of `benchmarks.freshness`, and then events written to Kafka, ten a
message, timed from the first one sent to the last one in effect. Ratios are within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Iterator

from benchmarks import freshness
from benchmarks.conditions import command, median, report, servers, until
from models.events import Event, PutEvents
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from ops.ports import free_port
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import ensure_topics
from tests.streams.forwarding.personalize_stub import Behaviour, PersonalizeStub

AWS: tuple[Behaviour, ...] = ("unavailable", "hang")
EVENTS_A_MESSAGE = 10
SETTLE_S = 6.0
"""Wait after the first call, while the forwarder reads ahead as far as it may."""


@contextlib.contextmanager
def forwarding(settings: Settings, behaviour: Behaviour) -> Iterator[PersonalizeStub]:
    """A forwarder that tries in vain."""
    with PersonalizeStub() as stub:
        stub.behaviour = behaviour
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        where = {"AWS_ENDPOINT_URL_PERSONALIZE_EVENTS": stub.url}
        tracker = {"RECOMMENDER_FORWARD_TRACKING_ID": "away"}
        with command("forward", settings, **keys, **where, **tracker):
            until(lambda: bool(stub.requests))
            time.sleep(SETTLE_S)
            yield stub


async def in_effect(settings: Settings, n: int) -> int:
    """Number of events in effect, once there are at least `n`."""
    store = Store(connect(settings.redis), settings)
    try:
        while True:
            done = int((await store.counts()).get("events", 0))
            if done >= n:
                return done
            await asyncio.sleep(0.01)
    finally:
        await store.redis.aclose()


def throughput(settings: Settings, events: int, tag: str) -> float:
    """Events a second, from the first one sent to the last one in effect."""
    before = asyncio.run(in_effect(settings, 0))
    with Tracker(settings, linger_ms=20) as tracker:
        start = time.perf_counter()
        for n in range(0, events, EVENTS_A_MESSAGE):
            user = f"v{n % 501}"
            some = [
                Event("click", 1.7e9 + at, event_id=f"{tag}/{at}", item_id=f"i{at * 7919 % 2000}")
                for at in range(n, n + EVENTS_A_MESSAGE)
            ]
            tracker.put_events(PutEvents(user, some, user_id=user))
        asyncio.run(asyncio.wait_for(in_effect(settings, before + events), 120))
        return events / (time.perf_counter() - start)


def measured(settings: Settings, options: argparse.Namespace, tag: str) -> dict[str, float]:
    """The figures of one load."""
    waits = sorted(freshness.run(settings, options.rate, options.seconds)[0])
    p50, p99 = (waits[int(q * (len(waits) - 1))] for q in (0.5, 0.99))
    return {
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "events_per_s": round(throughput(settings, options.events, tag)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--events", type=int, default=60_000)
    options = parser.parse_args()
    rounds = []
    with servers() as found:
        settings = found.model_copy(update={"port": free_port()})
        ensure_topics(settings)
        with command("worker", settings), command("api", settings):
            measured(settings, options, "warm")
            for n in range(options.rounds):
                each: dict[str, dict[str, float]] = {}
                for name in ("without", "with") if n % 2 else ("with", "without"):
                    if name == "without":
                        each[name] = measured(settings, options, f"{n}/{name}")
                        continue
                    with forwarding(settings, AWS[n % len(AWS)]) as stub:
                        each[name] = measured(settings, options, f"{n}/{name}")
                        if stub.taken:
                            raise RuntimeError("the server was to take nothing")
                        each[name]["calls"] = len(stub.requests)
                rounds.append(each)
                print(json.dumps(each), file=sys.stderr)
    ratios = {
        f"{figure}_ratio": median([one["with"][figure] / one["without"][figure] for one in rounds])
        for figure in ("p50_ms", "p99_ms", "events_per_s")
    }
    report(
        "outage",
        {**ratios, "rounds": rounds},
        rate_per_s=options.rate,
        seconds=options.seconds,
        events=options.events,
    )


if __name__ == "__main__":
    main()
