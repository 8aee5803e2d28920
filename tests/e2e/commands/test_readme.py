"""The README's commands work as documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT, wait_until

README = (ROOT / "README.md").read_text()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A running `recommender up`: the API's address, and the environment for commands."""
    bare = {
        name: value for name, value in os.environ.items() if not name.startswith("RECOMMENDER_")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{bare['PATH']}"
    environment = bare | {"PATH": path}
    with (tmp_path / "up.log").open("w") as log:
        process = subprocess.Popen(
            ["recommender", "up", "--port", "0"],
            cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    said = tmp_path / "up.log"
    wait_until(lambda: "Ctrl-C stops" in said.read_text(), within_s=180, what="up is running")
    found = re.search(r"http://(\S+)", said.read_text())
    assert found
    yield found[1], environment
    process.terminate()
    process.wait(40)


def as_pattern(text: str) -> str:
    """The text as a regular expression in which `…` matches anything."""
    return re.escape(text).replace("…", r".*?") + r"\Z"


def test_console_session(up: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """Every command of the README's session prints the output below it."""
    address, environment = up
    (session,) = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    steps = re.findall(r"^\$ (.*?)\n(.*?)(?=^\$ |\Z)", session, re.MULTILINE | re.DOTALL)
    assert len(steps) == 5

    for command, expected in steps:
        pattern = re.compile(as_pattern(expected.strip()), re.DOTALL)
        printed = ""

        def prints_it(command: str = command, pattern: re.Pattern[str] = pattern) -> bool:
            nonlocal printed
            printed = subprocess.run(
                ["bash", "-c", command.replace("localhost:8080", address)],
                cwd=tmp_path, env=environment, capture_output=True, text=True,
                timeout=120, check=True, stdin=subprocess.DEVNULL,
            ).stdout.strip()  # fmt: skip
            return bool(pattern.match(printed))

        # Sending is done once; a worker that has just started may still be joining its group.
        if " -d " in command:
            assert prints_it(), printed
        else:
            try:
                wait_until(prints_it, within_s=180, what=f"{command} prints the documented output")
            except TimeoutError:
                pytest.fail(f"{command} prints\n{printed}")

    # A command that finds the servers by itself takes over the number of partitions, too.
    subprocess.run(["recommender", "topics"], cwd=tmp_path, env=environment, check=True, timeout=60)


def test_two_commands_do_all_set_up() -> None:
    """The README's make targets exist."""
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", README)) - {"s"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
