"""Locks between processes. The system releases them when a process ends, however it ends; no lock is ever stale."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from yolo_core.errors import UserError


@contextmanager
def exclusive(path: Path, busy: str | UserError | None = None) -> Iterator[None]:
    """Hold the lock file at `path`, creating it and its folder. Works between threads too.

    busy: what to raise when another process holds it (a message becomes a UserError); None waits for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if busy is None else 0, is_singleton=False)
    try:
        lock.acquire()
    except Timeout:
        raise (busy if isinstance(busy, UserError) else UserError(str(busy))) from None
    try:
        yield
    finally:
        lock.release()
