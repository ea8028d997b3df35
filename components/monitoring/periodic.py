"""Work done now and then in a thread while a block runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def periodically(work: Callable[[], object], every_s: float, name: str, *, at_end: bool = False) -> Iterator[None]:
    """Call `work` every `every_s` seconds while the block runs, and with `at_end` once more after it.

    The block does not wait for a call, but its end waits for the one under way. An exception in `work` ends the calls.
    """
    over = threading.Event()

    def loop() -> None:
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
