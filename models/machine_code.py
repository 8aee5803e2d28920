"""Compilation of inner loops: one pass of machine code in place of dozens of numpy passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from models.code_cache import compile_lock, folder_of

F = TypeVar("F", bound=Callable[..., Any])

ANY_ORDER = {"reassoc", "contract", "nsz"}
"""LLVM's fast-math flags for sums in any order; infinities and NaN are kept."""


def compiled(
    signature: object, *, any_order: bool = False, releases_gil: bool = False
) -> Callable[[F], F]:
    """Compile a function of arrays and numbers for exactly the types of `signature`.

    It is compiled when its module is first loaded, which takes seconds, by one process at a time;
    `code_cache` keeps the machine code. Other types raise an error, so that nothing is compiled
    during a request. With `any_order`, sums are added in the fastest order, the same at each call.
    With `releases_gil`, other threads of the process go on meanwhile: for what takes more than ms.
    """

    def decorate(function: F) -> F:
        with compile_lock():
            numba.config.CACHE_DIR = str(folder_of(function.__module__))
            made: F = numba.njit(
                signature,
                cache=True,
                error_model="numpy",
                fastmath=ANY_ORDER if any_order else False,
                nogil=releases_gil,
            )(function)
        return made

    return decorate
