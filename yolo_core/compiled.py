"""Loops compiled to machine code.

numba takes half a second to import, so modules that use `compiled` are imported where they are needed, not at the top.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numba

if TYPE_CHECKING:
    from numba.core.ccallback import CFunc
    from numba.core.typing.templates import Signature

Function = TypeVar("Function", bound=Callable)


def compiled(function: Function) -> Function:
    """`function` compiled at its first call; it releases the GIL and divides as NumPy does.

    The machine code is cached beside the source or in the user's cache folder, whichever is writable. Functions that
    it calls must be in the same file: numba looks at that file alone to tell whether the cached code is stale.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)  # pyright: ignore[reportReturnType] - a callable object
    except RuntimeError:  # neither place is writable: every process compiles it
        return numba.njit(**options)(function)  # pyright: ignore[reportReturnType]


def compiled_callback(signature: "Signature") -> "Callable[[Callable], CFunc]":
    """The same for a function that C code calls, with a given numba signature; compiled immediately."""

    def decorate(function: Callable) -> "CFunc":
        try:
            return numba.cfunc(signature, cache=True, error_model="numpy")(function)
        except RuntimeError:
            return numba.cfunc(signature, error_model="numpy")(function)

    return decorate
