"""Machine code is cached until its sources change, and compiled by one process only."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import code_cache
from models.errors import CannotStart
from tests.servers import ROOT


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The sources of a small package of the same name."""
    folder = tmp_path / "models"
    for name, source in {
        "machine_code": "",
        "errors": "class Wrong(Exception): ...\n",
        "arrays": "from models.machine_code import compiled\n",
        "state/layout": "WINDOW = 200\n",
        "ranking/selection": "from models.state import layout\n"
        "from models.machine_code import compiled\n"
        "from models.errors import Wrong\nfrom models.arrays import put\n",
    }.items():
        (folder / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setattr(code_cache, "SOURCES", folder)
    monkeypatch.setattr(code_cache, "BESIDE", folder / "__pycache__" / "machine-code")
    monkeypatch.delenv(code_cache.VARIABLE, raising=False)
    _forget()
    yield folder
    _forget()


def _forget() -> None:
    for cached in (code_cache._imports, code_cache._fingerprint, code_cache.root):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("changed", "is_new"),
    [
        ("ranking/selection", True),
        ("arrays", True),
        ("state/layout", True),
        ("machine_code", True),
        ("errors", False),
    ],
)
def test_a_change_of_a_source_changes_the_folder(package: Path, changed: str, is_new: bool) -> None:
    """Constants and functions of other modules are compiled in; classes are not."""
    before = code_cache.folder_of("models.ranking.selection")
    with (package / f"{changed}.py").open("a") as file:
        file.write("# changed\n")
    _forget()

    assert (code_cache.folder_of("models.ranking.selection") != before) is is_new


@pytest.mark.usefixtures("package")
def test_a_read_only_source_is_copied_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image: code that was compiled at its build is copied to a temporary folder."""
    (code_cache.root() / "complete").write_text("built")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    _forget()

    assert code_cache.root().parent == tmp_path
    assert (code_cache.root() / "complete").read_text() == "built"

    code_cache.root().chmod(0o777)
    _forget()
    with pytest.raises(CannotStart, match=code_cache.VARIABLE):
        code_cache.root()


def test_processes_that_start_together_compile_once(tmp_path: Path) -> None:
    """Each function is compiled by one of the processes, and loaded by the other."""
    script = (
        "from models import arrays; print(sum(sum(each.stats.cache_misses.values())"
        " for each in vars(arrays).values() if hasattr(each, 'stats')))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            env=os.environ | {code_cache.VARIABLE: str(tmp_path)},
        )
        for _ in range(2)
    ]  # fmt: skip
    compiled = [int(process.communicate(timeout=300)[0]) for process in both]

    assert sum(compiled) == len(list(tmp_path.rglob("*.nbi"))) > 0
