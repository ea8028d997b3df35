"""Work repeated in a thread while a block runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def periodically(
    work: Callable[[], object], every_s: float, name: str, *, at_start: bool = False, at_end: bool = False
) -> Iterator[None]:
    """Call `work` every `every_s` seconds in a thread while the block runs.

    The first call comes after `every_s` seconds, with `at_start` at once; with `at_end` a last one follows the block.
    The block does not wait for calls, but its end waits for the one in progress. An exception in `work` ends the calls.
    """
    over = threading.Event()

    def loop() -> None:
        if at_start:
            work()
        while not over.wait(every_s):
            work()

    thread = threading.Thread(target=loop, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if at_end:
            work()
