"""A snapshot of a shop while steps go on: how long writes wait, and what it costs.

python -m benchmarks.snapshots [--users 50000] [--items 20000] [--rate 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import resource
import tempfile
import threading
import time
from typing import Any

from benchmarks.conditions import median, report, servers
from benchmarks.state import START_S, STEP, fill
from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from streams.operations.snapshots import restore, save

ROUNDS = 5


def steps(settings: Settings, rate: float, users: int, items: int, is_over: threading.Event) -> int:
    """Apply events at a rate until told to end; a worker's steps. Returns their number."""

    async def run() -> int:
        store, chance, began_s = Store(connect(settings.redis), settings), random.Random(1), 0.0
        (offset,) = await store.watermarks(["fill/0"])
        start = offset
        for number in itertools.count():
            if is_over.is_set():
                break
            messages = []
            for _ in range(STEP // 4):
                offset += 1
                session = f"s{chance.randrange(users):07d}"
                item = f"item-{int(chance.paretovariate(0.6)) % items}"
                event = StoredEvent(
                    item, START_S + offset, "click", 0.0, False, chance.getrandbits(32)
                )
                messages.append(
                    StoredMessage(offset, "", session, shard_of(session), START_S, [event])
                )
            await store.apply([Part("fill/0", messages[0].offset - 1, messages)], now_s=START_S)
            began_s = began_s or time.monotonic()
            await asyncio.sleep(
                max(0.0, began_s + number * len(messages) / rate - time.monotonic())
            )
        await store.close()
        return offset - start

    return asyncio.run(run())


def measure(settings: Settings, users: int, items: int, rate: float) -> dict[str, Any]:
    """Figures of saves under load, and of restoring the last."""
    is_over = threading.Event()
    applied: list[int] = []
    writer = threading.Thread(
        target=lambda: applied.append(steps(settings, rate, users, items, is_over))
    )
    began_s = time.monotonic()
    writer.start()
    with tempfile.TemporaryDirectory() as folder:
        saved, walls = [], []
        try:
            for _ in range(ROUNDS):
                at_s = time.monotonic()
                saved.append(save(settings, folder, longest_pause_s=5, tell=lambda _: None))
                walls.append(time.monotonic() - at_s)
        finally:
            is_over.set()
            writer.join()
        seconds = time.monotonic() - began_s
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        at_s = time.monotonic()
        restore(settings, folder, saved[-1].name, replaces=True, tell=lambda _: None)
        restored_s = time.monotonic() - at_s
    return {
        "events_per_s_meanwhile": median([applied[0] / seconds]),
        "pause_ms": [round(1000 * one.manifest.pause_s, 1) for one in saved],
        "save_s": median(walls),
        "restore_s": median([restored_s]),
        "values": saved[-1].manifest.values,
        "mb": round(sum(part.bytes for part in saved[-1].manifest.parts) / 2**20, 1),
        "packed_mb": round(saved[-1].bytes / 2**20, 1),
        "peak_mb_with_the_writer": round(peak_mb, 1),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=2000)
    options = parser.parse_args()
    with servers() as settings:
        asyncio.run(filled(settings, options.users, options.items))
        figures = measure(settings, options.users, options.items, options.rate)
    report("snapshots", figures, users=options.users, items=options.items, rate=options.rate)


async def filled(settings: Settings, users: int, items: int) -> None:
    """Ten events a user."""
    await (await fill(settings, users=users, items=items, events_per_user=10)).close()


if __name__ == "__main__":
    main()
