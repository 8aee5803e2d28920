"""Where machine code of the inner loops is kept, so that each is compiled once.

Code of a module depends on its own source and on that of the modules whose compiled functions and
constants it uses: numba compiles those in, but looks for changes at the function's own file only.
So each module's code lies in a folder named for all of these sources. Nothing here loads numba.
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
from pathlib import Path

from models.errors import CannotStart

SOURCES = Path(__file__).parent
BESIDE = SOURCES / "__pycache__" / "machine-code"
"""Where it is kept if this folder can be written to."""

VARIABLE = "NUMBA_CACHE_DIR"
"""Variable that names another folder."""


def folder_of(module: str) -> Path:
    """The folder for the code of a module of this package, as `models.scores`."""
    return root() / f"{module.rpartition('.')[2]}-{_fingerprint(module.rpartition('.')[2])}"


@functools.cache
def root() -> Path:
    """The folder for all machine code: `NUMBA_CACHE_DIR`, beside the source, or a temporary one.

    A temporary one begins with what lies beside a source that is read-only, as in an image.
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


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Compile while no other process does: what it has compiled need not be compiled again."""
    with (root() / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_once(say: Callable[[str], None]) -> None:
    """Compile all inner loops, in a process of its own, unless that has been done.

    Raises
    ------
    CannotStart
        When that fails, with the end of what it said.
    """
    names = sorted(path.stem for path in SOURCES.glob("*.py") if _is_compiled(path.stem))
    digest = hashlib.sha256("".join(_fingerprint(name) for name in names).encode()).hexdigest()
    version = f"{sys.implementation.cache_tag}-{digest[:16]}"
    done = root() / f"complete-{version}"
    if done.exists():
        return
    say("compiling inner loops, once: about half a minute")
    ended = subprocess.run(
        [sys.executable, "-c", "import models.recommender"],
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


@functools.cache
def _imports(name: str) -> dict[str, frozenset[str]]:
    """What a module of this package imports of others of it, by their names."""
    path = SOURCES / f"{name}.py"
    found: dict[str, frozenset[str]] = {}
    for node in ast.walk(ast.parse(path.read_bytes())) if path.exists() else ():
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [alias.name for alias in node.names]
            if node.module == SOURCES.name:
                found |= {module: frozenset({module.upper()}) for module in names}
            elif node.module.startswith(f"{SOURCES.name}."):
                found[node.module.rpartition(".")[2]] = frozenset(names)
    return found


def _is_compiled(name: str) -> bool:
    return "compiled" in _imports(name)


@functools.cache
def _fingerprint(name: str) -> str:
    """What tells the code of a module from any other: the sources that it is made of."""
    used, ahead = set[str](), [name]
    while ahead:
        module = ahead.pop()
        if module not in used:
            used.add(module)
            ahead += [
                other
                for other, names in _imports(module).items()
                if _is_compiled(other) or any(each.isupper() for each in names)
            ]
    paths = sorted(SOURCES / f"{module}.py" for module in used | {"compiled"})
    content = b"\0".join(path.read_bytes() for path in paths if path.exists())
    return hashlib.sha256(content).hexdigest()[:16]
