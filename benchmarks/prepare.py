"""Memory and time of `recommender prepare` on a file of many rows, some of them bad.

python -m benchmarks.prepare [--rows N] [--memory-mb N]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.conditions import end_in_order, process, report

USERS, ITEMS = 1_000_000, 100_000
START_S = 1_600_000_000


def write(path: Path, rows: int) -> int:
    """Write a CSV with a quoted column and 1 % bad rows; gives its size in bytes."""
    chance = random.Random(7)
    with path.open("w") as file:
        file.write("user,item,rating,ts,note\n")
        for n in range(rows):
            item = "" if n % 100 == 0 else f"item-{chance.randrange(ITEMS)}"
            user, rating = f"user-{chance.randrange(USERS)}", chance.randrange(1, 6)
            file.write(f'{user},{item},{rating},{START_S + n // 10},"some, ""text"" {n % 1000}"\n')
    return path.stat().st_size


def measure(source: Path, target: Path, memory_mb: int) -> dict[str, Any]:
    """Seconds, peak memory and counts of one run of the command as a process."""
    argv = [sys.executable, "-m", "cli", "prepare", str(source), str(target), "--json",
            "--event-type", "rating", "--where", "rating >= 3.5"]  # fmt: skip
    environment = {**os.environ, "RECOMMENDER_PREPARE_MEMORY_MB": str(memory_mb)}
    start_s = time.perf_counter()
    said_path = target.with_suffix(".json")
    with (
        said_path.open("wb") as said_file,
        process(argv, environment, stdout=said_file) as started,
    ):
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise SystemExit(f"prepare ended with {started.returncode}")
    seconds = time.perf_counter() - start_s
    said = json.loads(said_path.read_text())
    # Linux counts in KiB, macOS in bytes.
    peak_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "peak_mb": round(peak_bytes / 1e6),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "rows_read": said["rows"],
        "rows_kept": said["kept"]["rows"],
        "rows_filtered": said["filtered"],
        "rows_dropped": sum(each["rows"] for each in said["dropped"]),
        "output_mb": round((target / "interactions.csv").stat().st_size / 1e6),
    }


def main() -> None:
    """Generate, measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--memory-mb", type=int, default=512)
    arguments = parser.parse_args()
    end_in_order()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "events.csv"
        size = write(source, arguments.rows)
        figures = measure(source, Path(folder) / "out", arguments.memory_mb)
    report("prepare", figures, rows=arguments.rows, memory_mb=arguments.memory_mb,
           input_mb=round(size / 1e6), duckdb=metadata.version("duckdb"))  # fmt: skip


if __name__ == "__main__":
    main()
