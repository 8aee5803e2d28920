"""Compilation of inner loops: one pass of machine code where numpy would make dozens of passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from models.code_cache import alone, folder_of

F = TypeVar("F", bound=Callable[..., Any])

ANY_ORDER = {"reassoc", "contract", "nsz"}
"""What LLVM may do where the order of sums does not matter; what is not finite stays so."""


def compiled(signature: object, *, any_order: bool = False) -> Callable[[F], F]:
    """Compile a function of arrays and numbers for exactly the types of `signature`.

    That happens when its module is first loaded, seconds once, in one process at a time: the
    machine code is kept where `code_cache` says. Other types are an error and never compiled in
    the middle of a request. With `any_order` numbers are added in the order that is fastest, the
    same at each call.
    """

    def decorate(function: F) -> F:
        with alone():
            numba.config.CACHE_DIR = str(folder_of(function.__module__))
            made: F = numba.njit(
                signature,
                cache=True,
                error_model="numpy",
                fastmath=ANY_ORDER if any_order else False,
            )(function)
        return made

    return decorate
