"""Compilation of inner loops: one pass of machine code where numpy would make dozens of passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def _fingerprint() -> str:
    """What tells this source of the package from any other."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]


if not numba.config.CACHE_DIR:
    # numba looks at a function's own file only to see whether it has changed, but constants and
    # functions of other files are compiled into it.
    numba.config.CACHE_DIR = str(Path(__file__).parent / "__pycache__" / f"numba-{_fingerprint()}")


ANY_ORDER = {"reassoc", "contract", "nsz"}
"""What LLVM may do where the order of sums does not matter; what is not finite stays so."""


def compiled(signature: object, *, any_order: bool = False) -> Callable[[F], F]:
    """Compile a function of arrays and numbers for exactly the types of `signature`.

    That happens when its module is first loaded, seconds once: the machine code is kept beside the
    source or, where that folder is read-only, in the user's cache. Other types are an error and
    never compiled in the middle of a request. With `any_order` numbers are added in the order that
    is fastest, the same at each call.
    """
    decorate: Callable[[F], F] = numba.njit(
        signature, cache=True, error_model="numpy", fastmath=ANY_ORDER if any_order else False
    )
    return decorate
