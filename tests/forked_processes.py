"""Commands of the product as processes forked from one that has loaded their modules.

Loading them takes one to two seconds of CPU, and the suites start some hundred processes. A command
runs as it does on a command line: in a session, environment and folder of its own, with its own
signals and exit code. What a start itself does is left to the tests that start `recommender`.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.forked_commands import run_command_line
from ops.forked_processes import ForkedProcess, fork, preload

MODULES = (
    "cli.preloaded",
    "streams.forwarding.app",
    "streams.jobs.batch_inference",
    "streams.jobs.training",
    "streams.operations.status",
    "streams.s3_objects",
)
"""What commands load; each of them is importable from anywhere."""

preload(MODULES)


def start_command(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    output: Path,
    errors: Path | None = None,
) -> ForkedProcess:
    """Start a command of `recommender`; see `fork`."""
    return fork(
        run_command_line,
        ["recommender", *arguments],
        environment,
        output,
        name=arguments[0],
        errors=errors,
        directory=directory,
    )


def command_result(
    arguments: Sequence[str], *, environment: Mapping[str, str], directory: Path, within_s: float
) -> subprocess.CompletedProcess[str]:
    """Exit code and output of a command of `recommender` that ends by itself."""
    with tempfile.TemporaryDirectory() as printed:
        output, errors = Path(printed, "output"), Path(printed, "errors")
        process = start_command(
            arguments, environment=environment, directory=directory, output=output, errors=errors
        )
        try:
            code = process.wait(within_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())
