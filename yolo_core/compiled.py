"""Loops as machine code.

numba takes half a second to import, so modules that use `compiled` are imported where they are called, not at the top.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable)


def compiled(function: Function) -> Function:
    """`function` compiled at its first call, without holding the interpreter's lock; division as in NumPy.

    The machine code is kept beside the source or in the user's cache folder, where one of them can be written to.
    What it calls must stand in the same file: numba looks at that file alone to tell whether the kept code is stale.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)  # pyright: ignore[reportReturnType] - a callable object
    except RuntimeError:  # neither place can be written to: compiled anew by every process
        return numba.njit(**options)(function)  # pyright: ignore[reportReturnType]


def compiled_callback(signature: Any) -> Callable:
    """The same for a function of a given numba signature that C code is to call; compiled at once."""

    def decorate(function: Callable) -> Any:
        try:
            return numba.cfunc(signature, cache=True, error_model="numpy")(function)
        except RuntimeError:
            return numba.cfunc(signature, error_model="numpy")(function)

    return decorate
