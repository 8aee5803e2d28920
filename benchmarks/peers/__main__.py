"""The command: `python -m benchmarks.peers FOLDER [--quick] [--json FILE] [--write]`.

FOLDER has Serenade's split (`train.txt.gz`, `test.txt.gz`). `--quick` is a run of minutes to see
that all works; `--write` puts the results into docs/peers.json, its plot and README's table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.conditions import ROOT, conditions, end_in_order
from benchmarks.peers.empty_agent import empty_agent_per_s
from benchmarks.peers.libraries import LIBRARIES
from benchmarks.peers.measure import (
    Rates,
    answers_per_s,
    memory_mib,
    others_freshness_ms,
    own_freshness_ms,
    quality,
    under_load,
)
from benchmarks.peers.peer import Click, Peer
from benchmarks.peers.published import PUBLISHED
from benchmarks.peers.results_page import write_results
from benchmarks.peers.serenade import Serenade
from benchmarks.peers.split import read_split
from benchmarks.peers.this_project import ThisProject

PEERS: tuple[Peer, ...] = (ThisProject(), Serenade(), *LIBRARIES)

RATES = (
    Rates(500, 0),
    Rates(1000, 0),
    Rates(200, 100),
    Rates(500, 100),
    Rates(1000, 100),
    Rates(200, 500),
    Rates(500, 500),
    Rates(1000, 500),
)


def measured(
    peer: Peer, train: Sequence[Click], test: Sequence[Click], options: argparse.Namespace
) -> dict[str, Any]:
    """All figures of a peer, or why there are none."""
    missing = peer.missing()
    if missing:
        return {"name": peer.name, "learns": peer.learns, "not_run": missing}
    items = list(dict.fromkeys(click.item for click in reversed(train)))[:50]
    with tempfile.TemporaryDirectory() as folder, peer.run(train, Path(folder)) as running:
        figures: dict[str, Any] = {"name": peer.name, "learns": peer.learns}
        if running.ingest_per_s:
            figures["ingest_per_s"] = round(running.ingest_per_s)
        figures["memory_mib"] = memory_mib(running)
        if running.caught_up is not None:
            begun_s = time.perf_counter()
            running.caught_up()
            figures["catch_up_s"] = round(time.perf_counter() - begun_s, 1)
        if peer.learns != "nothing":
            figures["quality"] = quality(running, test, options.queries)
            figures["own_freshness_ms"] = own_freshness_ms(running, items, options.probes)
            figures["others_freshness_ms"] = others_freshness_ms(running, options.probes)
            figures["refit_s"] = running.refit_s
        # The first load warms what is compiled or cached at first use; it does not count.
        under_load(running, test, Rates(100, 0), 2.0)
        figures["answers_per_s"] = round(answers_per_s(running, test, options.seconds))
        figures["load"] = [
            under_load(running, test, rates, options.seconds)
            for rates in RATES
            if rates.answers <= options.max_rate
        ]
        figures["memory_after_load_mib"] = memory_mib(running)
    return figures


def main() -> None:
    """Measure one peer after the other, and print everything as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.peers")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="few events and seconds")
    parser.add_argument("--events", type=int, help="newest training clicks; default: all")
    parser.add_argument("--queries", type=int, help="test clicks that are told; default: all")
    parser.add_argument("--probes", type=int, help="probes of freshness; default: 100")
    parser.add_argument("--seconds", type=float, help="of each load; default: 20")
    parser.add_argument("--max-rate", type=int, default=1000, help="largest answers a second")
    parser.add_argument("--only", default="", help="peers whose name contains this")
    parser.add_argument("--json", type=Path, help="a file for the results as well")
    parser.add_argument("--write", action="store_true", help="write docs and README's table")
    options = parser.parse_args()
    full, quick = (10**9, 10**9, 100, 20.0), (4000, 100, 5, 2.0)
    for name, value in zip(
        ("events", "queries", "probes", "seconds"), quick if options.quick else full, strict=True
    ):
        if getattr(options, name) is None:
            setattr(options, name, value)
    end_in_order()
    split = read_split(options.folder, limit=options.events)
    peers = []
    for peer in PEERS:
        if options.only in peer.name:
            sys.stderr.write(f"{peer.name} ...\n")
            peers.append(measured(peer, split.train, split.test, options))
    if options.only in "empty Faust agent":
        rate = round(empty_agent_per_s(min(len(split.train), 20_000)))
        peers.append({"name": "empty Faust agent", "learns": "nothing", "ingest_per_s": rate})
    results = {
        "benchmark": "peers",
        "peers": [*peers, *PUBLISHED],
        "conditions": conditions(
            train=len(split.train),
            test=min(len(split.test), options.queries),
            probes=options.probes,
            seconds=options.seconds,
            data=options.folder.name,
        ),
    }
    text = json.dumps(results, indent=1) + "\n"
    sys.stdout.write(text)
    if options.json:
        options.json.write_text(text)
    if options.write:
        write_results(results, ROOT)


if __name__ == "__main__":
    main()
