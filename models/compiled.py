"""Compilation of inner loops: one pass of machine code where numpy would make dozens of passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(signature: object) -> Callable[[F], F]:
    """Compile a function of arrays and numbers for exactly the types of `signature`.

    That happens when its module is first loaded, seconds once: the machine code is kept beside the
    source or, where that folder is read-only, in the user's cache. Other types are an error and
    never compiled in the middle of a request.
    """
    decorate: Callable[[F], F] = numba.njit(signature, cache=True, error_model="numpy")
    return decorate
