"""Waiting in tests. The one limit only ends a test that would hang: no test passes or fails by its duration."""

import contextlib
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

LIMIT_S = 600.0
EVERY_S = 0.02  # between two polls
LOG_CHARACTERS = 5000  # of the end of a log, in a message

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, process: subprocess.Popen | None = None, log: Path | None = None) -> T:
    """Poll `condition` until its value is truthy, and return that value.

    Fails after LIMIT_S, or as soon as `process`, which is to bring it about, has ended. `log` is quoted then.
    """
    end = time.monotonic() + LIMIT_S
    while not (value := condition()):
        assert process is None or process.poll() is None, f"the process ended before: {what}{_log_tail(log)}"
        assert time.monotonic() < end, f"not within {LIMIT_S:.0f} s: {what}{_log_tail(log)}"
        time.sleep(EVERY_S)
    return value


def join(thread: threading.Thread) -> None:
    """Wait for the end of a thread."""
    thread.join(LIMIT_S)
    assert not thread.is_alive(), f"thread {thread.name} has not ended within {LIMIT_S:.0f} s"


def until_healthy(url: str, process: subprocess.Popen, log: Path) -> None:
    """Wait for a server to answer at `url`."""

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=LIMIT_S):
            return True
        return False

    until(answers, f"an answer at {url}", process, log)


def _log_tail(log: Path | None) -> str:
    return f"\n{log.read_text()[-LOG_CHARACTERS:]}" if log else ""
