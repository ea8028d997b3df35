"""A watchdog that ends a training that hangs."""

from __future__ import annotations

import faulthandler
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STANDARD_ERROR = 2


@contextmanager
def watched(limit_s: float | None) -> Iterator[Callable[[], None]]:
    """Yield a heartbeat callback.

    After `limit_s` seconds without one the stacks of all threads go to standard error and the process ends with exit
    code 1; None for no limit. The watchdog does not need the GIL: it also catches native code that hangs.
    """
    if limit_s is None:
        yield lambda: None
        return

    def alive() -> None:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=STANDARD_ERROR)

    alive()
    try:
        yield alive
    finally:
        faulthandler.cancel_dump_traceback_later()
