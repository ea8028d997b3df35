"""Records on their way to a service: a file that holds them until they are delivered, and the thread that does that.

A journal is JSON lines: a header that says what it is about, then numbered entries, each flushed to the disk before
`append` returns. Beside it a small file remembers the last entry delivered, so that a process that comes later (after a
kill, or `scaled-yolov4 sync`) goes on in order. An entry whose delivery was cut off is delivered again: what delivers
must change nothing the second time.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from yolo_core.atomic import write_json, write_text
from yolo_core.errors import UserError

Entry = dict[str, Any]

FORMAT = 1
BATCH = 1000  # entries handed over at a time
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # between attempts; doubles with each
REFUSALS = 3  # after which an entry is set aside: a request damaged on its way is refused too, but not again

log = logging.getLogger(__name__)


class Busy(UserError):
    """Another process writes the journal."""


class Journal:
    """An open journal. header: as it was first written; history: the entries it held when it was opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header, self.history = _read(path)
        self._cursor = _read_cursor(path)
        self._waiting = deque(entry for entry in self.history if entry["n"] > self._cursor["delivered"])
        self._last = self.history[-1] if self.history else {"n": 0}
        self._unwritten = b""
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many entries are not delivered."""
        return len(self._waiting)

    @property
    def last(self) -> Entry:
        """The newest entry; only its number (0) before the first."""
        return self._last

    @property
    def state(self) -> Entry:
        """What was kept with `keep`."""
        return {key: value for key, value in self._cursor.items() if key != "delivered"}

    def append(self, entry: Entry) -> None:
        """Add an entry and have it on the disk; while the disk is full it waits in memory."""
        with self._lock:
            self._last = {"n": self._last["n"] + 1, **entry}
            self._waiting.append(self._last)
            self._unwritten += json.dumps(self._last).encode() + b"\n"
            self._write()

    def next(self, most: int = BATCH) -> list[Entry]:
        """The oldest entries that wait."""
        with self._lock:
            return list(islice(self._waiting, most))

    def mark(self, entries: list[Entry]) -> None:
        """Remember that these, the oldest, are delivered."""
        with self._lock:
            for _ in entries:
                self._waiting.popleft()
        self.keep(delivered=entries[-1]["n"])

    def keep(self, **state: Any) -> None:
        """Keep values beside the journal, for whoever opens it next."""
        self._cursor |= state
        with contextlib.suppress(OSError):  # a full disk; what is delivered again changes nothing
            write_json(_cursor(self.path), self._cursor)

    def set_aside(self, entry: Entry, reason: str) -> None:
        """Take the oldest entry out of the way, into a file of its own."""
        place = self.path.with_suffix(".refused.jsonl")
        log.warning("%s: refused, kept in %s: %s", self.path.stem, place, reason)
        with place.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "reason": reason}) + "\n")
        self.mark([entry])

    def remove(self) -> None:
        """When everything is delivered and nothing will follow."""
        for path in (self.path, _cursor(self.path)):
            path.unlink(missing_ok=True)

    def _write(self) -> None:
        try:
            with self.path.open("ab", buffering=0) as file:  # nothing that a later close would write again
                whole = file.tell()
                try:
                    if file.write(self._unwritten) < len(self._unwritten):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self.path, whole)
                    raise
            self._unwritten = b""
        except OSError as error:
            log.warning("%s: cannot be written (%s); %d records wait in memory", self.path, error, self.waiting)


class Courier:
    """Delivers a journal's entries in order, in a thread of its own; after a failure it waits and tries again.

    deliver: gets the oldest entries; raises when the service is away. is_refusal: is an error the service's answer to
    the entries themselves, which will not change?
    """

    def __init__(
        self, journal: Journal, deliver: Callable[[list[Entry]], None], is_refusal: Callable[[Exception], bool]
    ) -> None:
        self._journal, self._deliver, self._is_refusal = journal, deliver, is_refusal
        self.error: Exception | None = None  # of the last attempt
        self._wake = threading.Event()
        self._end = float("inf")  # when to give up, on the monotonic clock
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._thread.start()

    def notice(self) -> None:
        """There is something to deliver."""
        if self.error is None:
            self._wake.set()

    def finish(self, within_s: float) -> bool:
        """Stop when everything is delivered, or after some seconds; was everything delivered?"""
        self._end = time.monotonic() + within_s
        self._wake.set()
        self._thread.join(within_s)
        return not self._journal.waiting

    def _run(self) -> None:
        wait, refused, singly = FIRST_WAIT_S, 0, 0  # singly: entries to deliver one by one, to find which is refused
        while True:
            batch = self._journal.next(1 if singly else BATCH)
            if not batch:
                if self._end < float("inf"):
                    return
                self._sleep(None)
                continue
            try:
                self._deliver(batch)
            except Exception as error:
                refused = refused + 1 if self._is_refusal(error) else 0
                if refused == REFUSALS and len(batch) > 1:
                    refused, singly = 0, len(batch)
                    continue
                if refused == REFUSALS:
                    self._journal.set_aside(batch[0], str(error))
                    refused, singly = 0, singly - 1
                    continue
                if self.error is None:
                    log.warning("%s; %d records wait in %s", error, self._journal.waiting, self._journal.path)
                self.error = error
                if time.monotonic() > self._end:
                    return
                self._sleep(min(wait, max(0.05, self._end - time.monotonic())))
                wait = min(2 * wait, LONGEST_WAIT_S)
            else:
                self._journal.mark(batch)
                self.error, wait, refused, singly = None, FIRST_WAIT_S, 0, max(0, singly - 1)

    def _sleep(self, seconds: float | None) -> None:
        self._wake.wait(seconds)
        self._wake.clear()


@contextlib.contextmanager
def opened(path: Path, header: Entry | None = None) -> Iterator[Journal]:
    """The journal at `path`, made with `header` when missing; a last line that a kill has torn is dropped.

    Raises Busy while another process has it open, UserError when it is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path}: another process is writing it; wait for it to end or stop it") from None
        if not path.exists():
            write_text(path, json.dumps({"format": FORMAT, **(header or {})}) + "\n")
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        yield Journal(path)


def found(folder: Path) -> list[Path]:
    """The journals of a folder, oldest first."""
    paths = (path for path in folder.glob("*.jsonl") if not path.name.endswith(".refused.jsonl"))
    return sorted(paths, key=lambda path: path.stat().st_mtime)


def look(path: Path) -> tuple[Entry, int]:
    """The header of a journal that may be in use, and how many entries wait in it."""
    header, entries = _read(path)
    delivered = _read_cursor(path)["delivered"]
    return header, sum(entry["n"] > delivered for entry in entries)


def _cursor(path: Path) -> Path:
    return path.with_suffix(".delivered.json")


def _read_cursor(path: Path) -> Entry:
    try:
        return {"delivered": 0, **json.loads(_cursor(path).read_bytes())}
    except (OSError, ValueError, TypeError):  # without it everything is delivered again, which changes nothing
        return {"delivered": 0}


def _read(path: Path) -> tuple[Entry, list[Entry]]:
    lines = path.read_bytes().split(b"\n")[:-1]  # after the last line end there is nothing, or a line being written
    header, *entries = [_parse(path, number, line) for number, line in enumerate(lines, 1)] or [{}]
    if header.get("format") != FORMAT:
        raise UserError(f"{path}:1: not a journal of this version; move it away")
    return header, entries


def _parse(path: Path, number: int, line: bytes) -> Entry:
    try:
        entry = json.loads(line)
        if isinstance(entry, dict) and (number == 1 or isinstance(entry["n"], int)):
            return entry
    except (ValueError, KeyError, RecursionError):
        pass
    raise UserError(f"{path}:{number}: damaged line; remove it to have the others delivered")
