"""Serenade (bol.com, Rust): session kNN by VMIS-kNN over an index made offline.

https://github.com/bolcom/serenade, version 0.3.1 of crates.io, built by `cargo install`. A question
tells it of a click: it learns the session it is asked for, and nothing of others.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.conditions import ROOT, process, until
from benchmarks.peers.http_answers import answers
from benchmarks.peers.peer import Click, Running, Sent, get
from ops.ports import free_port

VERSION = "0.3.1"
BUILT = ROOT / ".cache" / "peers" / f"serenade-{VERSION}"

CONFIG = """[server]
num_workers = 2
host = "127.0.0.1"
port = {port}
[data]
training_data_path = "{train}"
"""


class Serenade:
    """Serenade with the configuration that it ships."""

    name = f"Serenade {VERSION} (Rust)"
    learns = "own session only"

    def missing(self) -> str | None:
        """One sentence without Rust, or if it cannot be built; builds it once, some ten minutes."""
        binary = BUILT / "bin" / "serving"
        if binary.exists():
            return None
        cargo = shutil.which("cargo")
        if cargo is None:
            return "Rust's cargo is not on the PATH: https://rustup.rs, or apt install cargo"
        built = subprocess.run(
            [cargo, "install", "serenade", "--version", VERSION, "--root", str(BUILT)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if built.returncode:
            return f"cargo install serenade failed: {built.stderr.strip().splitlines()[-1]}"
        return None

    @contextlib.contextmanager
    def run(self, train: Sequence[Click], folder: Path) -> Iterator[Running]:
        """Start it; it makes its index of the training clicks first."""
        port, source, config = free_port(), folder / "train.txt", folder / "config.toml"
        rows = (f"{one.session}\t{one.item}\t{one.at_s}\n" for one in train)
        source.write_text("SessionId\tItemId\tTime\n" + "".join(rows))
        config.write_text(CONFIG.format(port=port, train=source))
        begun_s = time.perf_counter()
        argv = [str(BUILT / "bin" / "serving"), str(config)]
        with process(argv, os.environ, cwd=folder, stdout=subprocess.DEVNULL) as started:
            until(lambda: answers(port, "/internal/prometheus"), within_s=300)
            yield Running(
                port=port,
                pids=[started.pid],
                ingest_per_s=len(train) / (time.perf_counter() - begun_s),
                ask=_ask,
                items=lambda body: [str(item) for item in json.loads(body)],
            )


def _ask(session: str, item: str) -> Sent:
    asked = {"session_id": session, "item_id": item, "user_consent": "true"}
    return get(f"/v1/recommend?{urlencode(asked)}")
