"""The results of one run in the documentation: docs/peers.json, its plot and README's table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS, PLOT = Path("docs/peers.json"), Path("docs/peers.svg")

_TABLE = re.compile(r"(<!-- peers -->\n).*?(<!-- /peers -->)", re.DOTALL)

_HEAD = (
    "beside | learns | events/s in | own event, others' in effect | most answers/s | "
    "500 answers/s | 500 answers/s + 500 events/s | memory | HR@20, MRR@20"
)


def write_results(results: Mapping[str, Any], root: Path) -> None:
    """Write all three; needs matplotlib, of the extra `evaluation`."""
    (root / RESULTS).write_text(json.dumps(results, indent=1) + "\n")
    readme = root / "README.md"
    readme.write_text(with_table(readme.read_text(), results))
    _plot(results, root / PLOT)


def with_table(text: str, results: Mapping[str, Any]) -> str:
    """README's text with the table of these results between its marks."""
    rows = "\n".join(table(results))
    replaced, n_tables = _TABLE.subn(lambda found: f"{found[1]}{rows}\n{found[2]}", text)
    if n_tables != 1:
        raise ValueError("README.md has no marks <!-- peers --> and <!-- /peers -->")
    return replaced


def table(results: Mapping[str, Any]) -> list[str]:
    """Lines of the table: peers that ran, then those whose published figures stand.

    >>> table({"peers": [{"name": "a", "learns": "nothing", "not_run": "no Rust"}]})[2]
    '| a | nothing | not run: no Rust | | | | | | |'
    """
    width = _HEAD.count("|") + 1
    lines = [f"| {_HEAD} |", "|" + "---|" * width]
    for peer in results["peers"]:
        if "not_run" in peer:
            published = peer.get("published", {})
            told = [f"{name}: {value}" for name, value in published.items() if name != "source"]
            if told:
                told.append(f"[published]({published['source'].split(',')[0]})")
            text = "; ".join([f"not run: {peer['not_run']}", *told]).replace("_", " ")
            cells = [peer["name"], peer.get("learns", ""), text, *[""] * (width - 3)]
        else:
            cells = _cells(peer)
        lines.append(" ".join(f"| {cell}" if cell else "|" for cell in cells) + " |")
    return lines


def _cells(peer: Mapping[str, Any]) -> list[str]:
    ingest = peer.get("ingest_per_s")
    own, others = peer.get("own_freshness_ms"), peer.get("others_freshness_ms")
    quality = peer.get("quality")
    fresh = ""
    if own:
        fresh = f"p50 {own['p50']:g}, p99 {own['p99']:g} ms; "
        if others:
            fresh += f"p50 {others['p50']:g}, p99 {others['p99']:g} ms"
        elif peer.get("refit_s"):
            fresh += f"trained again, {peer['refit_s']:.2g} s"
        else:
            fresh += "never" if peer["learns"] == "own session only" else "at once"
    return [
        peer["name"],
        peer["learns"],
        f"{ingest:,}" if ingest else "",
        fresh,
        f"{peer['answers_per_s']:,}" if "answers_per_s" in peer else "",
        _latency(peer, 500, 0),
        _latency(peer, 500, 500),
        f"{peer['memory_mib']:.0f} MiB" if "memory_mib" in peer else "",
        f"{quality['all']['hr_20']:.3f}, {quality['all']['mrr_20']:.3f}" if quality else "",
    ]


def _latency(peer: Mapping[str, Any], answers: int, events: int) -> str:
    for load in peer.get("load", ()):
        if (load["answers"], load["events"]) == (answers, events) and "p50_ms" in load:
            named = [name for name in ("p50", "p90", "p99") if f"{name}_ms" in load]
            return ", ".join(f"{name} {load[f'{name}_ms']:g}" for name in named) + " ms"
    return ""


def _plot(results: Mapping[str, Any], file: Path) -> None:
    """p99 of answers at each rate, one line a peer."""
    # An extra, which a run without --write does without.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    for peer in results["peers"]:
        loads = [load for load in peer.get("load", ()) if "p99_ms" in load]
        if loads:
            labels = [
                f"{load['answers']}/s" + (f"\n+ {load['events']}" if load["events"] else "")
                for load in loads
            ]
            axes.plot(labels, [load["p99_ms"] for load in loads], marker="o", label=peer["name"])
    axes.set(xlabel="answers a second, and single events a second beside them")
    axes.set(ylabel="p99 of answers, ms", yscale="log")
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    # The same results give the same file.
    with mpl.rc_context({"svg.hashsalt": "peers"}):
        figure.savefig(file, metadata={"Date": None})
