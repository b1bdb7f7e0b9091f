"""The one way this package compiles a function."""

from collections.abc import Callable
from typing import TypeVar

import numba

__all__ = ["jit"]

Function = TypeVar("Function", bound=Callable)


def jit(function: Function) -> Function:
    """Compile with Numba, cached on disk where Numba finds a folder that it may write.

    A cached function is stale only if its own file changes: compiled functions of different files
    never call one another here.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # raised when neither this folder nor the user's cache is writable
        return numba.njit(nogil=True)(function)
