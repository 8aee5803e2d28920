"""Machine code of installed copies of the package, which is that of this environment."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from models.code_cache import BESIDE, SOURCES


def share_machine_code(installed: Path) -> int:
    """Copy what was compiled for these sources to an installed copy of `models`.

    `make .venv` has compiled the same sources by the same versions for this processor: half a
    minute of a core that each installation would take again. Numba keeps the code of a module in a
    folder that is named by the module's own folder.

    Returns
    -------
    int
        Compiled functions.
    """
    folders = [SOURCES, *(path for path in SOURCES.rglob("*") if path.is_dir())]
    theirs = {_name_of(one): _name_of(installed / one.relative_to(SOURCES)) for one in folders}
    target = installed / BESIDE.relative_to(SOURCES)
    for kept in BESIDE.glob("*/*"):
        if kept.name in theirs:
            shutil.copytree(kept, target / kept.parent.name / theirs[kept.name])
    return len([*target.rglob("*.nbi")])


def _name_of(folder: Path) -> str:
    """As numba names the folder of the code of modules in a folder."""
    digest = hashlib.sha1(str(folder).encode(), usedforsecurity=False).hexdigest()
    return f"{folder.name}_{digest}"
