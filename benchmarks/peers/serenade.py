"""Serenade (bol.com, Rust): session kNN by VMIS-kNN over an index made offline.

https://github.com/bolcom/serenade, version 0.3.1 of crates.io, built by `cargo install`. A question
tells it of a click: it learns the session it is asked for, and nothing of others.

Its RocksDB is described to Rust by a bindgen of 2021, which fails on the output of a libclang newer
than LLVM 15's. So PyPI's wheel of LLVM 14's is used, with the headers of the C compiler, which that
wheel lacks.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.conditions import ROOT, process, until
from benchmarks.peers.http_answers import answers
from benchmarks.peers.peer import Click, Running, Sent, get
from ops.ports import free_port

VERSION = "0.3.1"
BUILT = ROOT / ".cache" / "peers" / f"serenade-{VERSION}"

LIBCLANG = "libclang==14.0.6"

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
        if (BUILT / "bin" / "serving").exists():
            return None
        cargo = shutil.which("cargo")
        if cargo is None:
            return "Rust's cargo is not on the PATH: https://rustup.rs, or apt install cargo"
        try:
            environment = os.environ | _libclang(BUILT / "libclang")
            # With its own lock: of the newest versions of what it needs, some do not go together.
            built = [cargo, "install", "--locked", "serenade", "--version", VERSION]
            _run([*built, "--root", str(BUILT)], environment)
        except subprocess.CalledProcessError as error:
            return f"{Path(error.cmd[0]).name} failed: {_reason(str(error.stderr))}"
        except FileNotFoundError as error:
            return f"{error.filename} is not on the PATH: its RocksDB is C++"
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


def _libclang(folder: Path) -> dict[str, str]:
    """Variables by which bindgen finds a libclang that it understands; those of the caller win."""
    if "LIBCLANG_PATH" in os.environ:
        return {}
    native = folder / "clang" / "native"
    if not native.exists():
        uv, python = shutil.which("uv"), ["--python", sys.executable]
        install = (
            [uv, "pip", "install", *python] if uv else [sys.executable, "-m", "pip", "install"]
        )
        _run([*install, "--no-deps", "--target", str(folder), LIBCLANG], os.environ)
    compiler = _run(["cc", "-print-file-name=include"], os.environ)
    return {
        "LIBCLANG_PATH": str(native),
        "BINDGEN_EXTRA_CLANG_ARGS": f"-I{compiler.strip()}",
    }


def _reason(output: str) -> str:
    r"""The first line of an error output that names an error, else the last one.

    >>> _reason("Compiling one\nerror[E0432]: unresolved import\nTo reuse those artifacts, ...")
    'error[E0432]: unresolved import'
    """
    lines = output.strip().splitlines() or ["no reason given"]
    return next((line for line in lines if line.startswith("error")), lines[-1])


def _run(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a command prints; its error output is in the error that it raises."""
    return subprocess.run(
        argv,
        check=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    ).stdout
