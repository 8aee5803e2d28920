"""Cache folders of the machine code of inner loops, so that each is compiled once.

The code of a module depends on its source and on that of the modules whose compiled functions and
constants it uses: numba compiles those in, but checks only the function's own file for changes.
So each module's code has a folder named by a hash of all these sources. Numba is not loaded here.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from models.errors import CannotStart

SOURCES = Path(__file__).parent
BESIDE = SOURCES / "__pycache__" / "machine-code"
"""Root of the folders, if it can be written to."""

COMPILER = "models.machine_code"
"""Module with the decorator that compiles; modules that import it have inner loops."""

VARIABLE = "NUMBA_CACHE_DIR"
"""Environment variable with another root."""


def folder_of(module: str) -> Path:
    """Folder for the code of a module of this package, such as `models.ranking.selection`."""
    return root() / f"{module.rpartition('.')[2]}-{_fingerprint(module)}"


@functools.cache
def root() -> Path:
    """Root of all machine code: `NUMBA_CACHE_DIR`, a folder beside the source, or a temporary one.

    A temporary one starts as a copy of the folder beside a read-only source, as in an image.
    """
    if os.environ.get(VARIABLE):
        return _made(Path(os.environ[VARIABLE]))
    with contextlib.suppress(OSError):
        BESIDE.mkdir(parents=True, exist_ok=True)
    if os.access(BESIDE, os.W_OK):
        return BESIDE
    own = Path(tempfile.gettempdir()) / f"recommender-machine-code-{os.getuid()}"
    _made(own)
    if own.stat().st_uid != os.getuid() or own.stat().st_mode & 0o022:
        raise CannotStart(f"{own} could be changed by others: set {VARIABLE} to a folder of yours")
    if BESIDE.is_dir():
        shutil.copytree(BESIDE, own, dirs_exist_ok=True)
        own.chmod(0o700)
    return own


def compile_lock() -> AbstractContextManager[None]:
    """Hold the lock for compiling: another process then loads the code instead of compiling it."""
    return _locked("lock")


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    with (root() / name).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_once(say: Callable[[str], None]) -> None:
    """Compile all inner loops in a child process, unless that was done for these sources.

    Raises
    ------
    CannotStart
        Compilation fails; the message has the end of its error output.
    """
    # Every process asks at its start: all sources are read, for finding those that matter in them
    # takes fifty times as long.
    contents = b"\0".join(path.read_bytes() for path in sorted(SOURCES.rglob("*.py")))
    digest = hashlib.sha256(contents).hexdigest()
    version = f"{sys.implementation.cache_tag}-{digest[:16]}"
    done = root() / f"complete-{version}"
    if done.exists():
        return
    # Of processes that start together one looks: to find all compiled takes it a second, too.
    with _locked("once"):
        if done.exists():
            return
        say("compiling inner loops, once: about half a minute")
        ended = subprocess.run(
            [sys.executable, "-c", "import models.serving.recommender"],
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise CannotStart(f"inner loops cannot be compiled: {ended.stderr[-2000:]}")
        done.touch()


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"no folder for machine code ({error}): set {VARIABLE}") from error
    return folder


def _path(name: str) -> Path:
    return SOURCES.joinpath(*name.split(".")[1:]).with_suffix(".py")


@functools.cache
def _imports(name: str) -> dict[str, frozenset[str]]:
    """Imports of a module from this package: names by module, "*" for a whole module."""
    found: dict[str, frozenset[str]] = {}
    for node in ast.walk(ast.parse(_path(name).read_bytes())):
        if isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            for alias in node.names if f"{origin}.".startswith(f"{SOURCES.name}.") else ():
                module = f"{origin}.{alias.name}"
                if _path(module).exists():  # a whole module: any of its constants may be used
                    found[module] = frozenset({"*"})
                else:
                    found[origin] = found.get(origin, frozenset()) | {alias.name}
    return found


def _is_compiled(name: str) -> bool:
    return COMPILER in _imports(name)


@functools.cache
def _fingerprint(name: str) -> str:
    """Hash of all sources that the code of a module is compiled from."""
    used, ahead = {COMPILER}, [name]
    while ahead:
        module = ahead.pop()
        if module not in used:
            used.add(module)
            ahead += [
                other
                for other, names in _imports(module).items()
                if _is_compiled(other) or any(each.upper() == each for each in names)
            ]
    content = b"\0".join(_path(module).read_bytes() for module in sorted(used))
    return hashlib.sha256(content).hexdigest()[:16]
