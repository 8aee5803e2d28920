"""Sizes of processes and servers over time, and how fast they grow."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import redis

from models.settings import Settings


@dataclass
class Samples:
    """Megabytes of each process and of Redis' data, by seconds since the start."""

    at_s: list[float] = field(default_factory=list)
    mib: dict[str, list[float]] = field(default_factory=dict)

    def figures(self, *, settled_s: float) -> dict[str, dict[str, float]]:
        """Of each: the first and the largest size, and the slope from `settled_s` on, an hour.

        The slope is that of the least squares; caches fill before.
        """
        first = next((n for n, at_s in enumerate(self.at_s) if at_s >= settled_s), 0)
        return {
            name: {
                "first_mib": round(sizes[0], 1),
                "most_mib": round(max(sizes), 1),
                "slope_mib_per_h": _slope_per_h(self.at_s[first:], sizes[first:]),
            }
            for name, sizes in self.mib.items()
        }


def _slope_per_h(at_s: list[float], sizes: list[float]) -> float:
    if len(at_s) < 2:
        return float("nan")
    return round(3600 * statistics.linear_regression(at_s, sizes).slope, 1)


@contextmanager
def sampled(pids: Mapping[str, int], settings: Settings, *, every_s: float) -> Iterator[Samples]:
    """Samples that a thread takes during the block; of all children of each process as well."""
    samples, ended = Samples(), threading.Event()
    begun_s = time.monotonic()

    def take() -> None:
        with redis.Redis.from_url(settings.redis) as client:
            while True:
                samples.at_s.append(time.monotonic() - begun_s)
                used: int = client.info("memory")["used_memory"]
                samples.mib.setdefault("redis data", []).append(used / 2**20)
                for name, pid in pids.items():
                    samples.mib.setdefault(name, []).append(_resident_mib(pid))
                if ended.wait(every_s):
                    return

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _resident_mib(pid: int) -> float:
    process = psutil.Process(pid)
    every = [process, *process.children(recursive=True)]
    return float(sum(one.memory_info().rss for one in every)) / 2**20
