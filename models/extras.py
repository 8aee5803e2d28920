"""Optional extras of the package, imported when a command needs them."""

from __future__ import annotations

import importlib.util

from models.errors import NotConfigured


def require_extra(module: str, extra: str, purpose: str) -> None:
    """Raise `NotConfigured`, which names the extra to install, if a module of it is missing.

    >>> require_extra("no_such_module", "prepare", "`recommender prepare`")
    Traceback (most recent call last):
    models.errors.NotConfigured: `recommender prepare` needs no_such_module: \
pip install 'streaming-recommender[prepare]'
    """
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # a package that it would be in
        found = None
    if found is None:
        raise NotConfigured(
            f"{purpose} needs {module}: pip install 'streaming-recommender[{extra}]'"
        )
