"""Records on their way to a service: a file that holds them until they are delivered, and the thread that delivers.

A journal is JSON lines: a header that describes it, then numbered entries, each flushed to the disk before `append`
returns. A small file beside it remembers the last entry delivered, so that a later process (after a kill, or
`scaled-yolov4 sync`) continues in order. An entry whose delivery was interrupted is delivered again, so delivering
twice must change nothing. It is a plain file rather than a database because it must survive a full disk and work on any
file system, network ones included.
"""

import contextlib
import errno
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
from yolo_core.locks import exclusive

Entry = dict[str, Any]  # a JSON object

FORMAT = 1
BATCH = 1000  # entries delivered at a time
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0  # between attempts; doubles each time
REFUSALS = 3  # before an entry is set aside: a request damaged in transit is refused too, but not repeatedly

log = logging.getLogger(__name__)


class Busy(UserError):
    """Another process has the journal open."""


class Journal:
    """An open journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header, self.history = _read(path)  # as first written; the entries it held when it was opened
        self._cursor = _read_cursor(path)
        self._waiting = deque(entry for entry in self.history if entry["n"] > self._cursor["delivered"])
        self._last = self.history[-1] if self.history else {"n": 0}
        self._unwritten = b""
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """The number of entries not delivered."""
        return len(self._waiting)

    @property
    def last(self) -> Entry:
        """The newest entry; before the first, only its number (0)."""
        return self._last

    @property
    def state(self) -> Entry:
        """The values stored by `save_state`."""
        return {key: value for key, value in self._cursor.items() if key != "delivered"}

    def append(self, entry: Entry) -> None:
        """Add an entry and flush it to the disk; while the disk is full it stays in memory."""
        with self._lock:
            self._last = {"n": self._last["n"] + 1, **entry}
            self._waiting.append(self._last)
            self._unwritten += json.dumps(self._last).encode() + b"\n"
            self._write()

    def next(self, most: int = BATCH) -> list[Entry]:
        """The oldest entries not delivered."""
        with self._lock:
            return list(islice(self._waiting, most))

    def mark(self, entries: list[Entry]) -> None:
        """Record that these, the oldest, are delivered."""
        with self._lock:
            for _ in entries:
                self._waiting.popleft()
        self.save_state(delivered=entries[-1]["n"])

    def save_state(self, **state: object) -> None:
        """Store values beside the journal, for the process that opens it next."""
        self._cursor |= state
        with contextlib.suppress(OSError):  # a full disk; delivering again changes nothing
            write_json(_cursor(self.path), self._cursor)

    def set_aside(self, entry: Entry, reason: str) -> None:
        """Move the oldest entry, which the service refuses, to a file beside the journal."""
        refused = self.path.with_suffix(".refused.jsonl")
        log.warning("%s: refused, kept in %s: %s", self.path.stem, refused, reason)
        with refused.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "reason": reason}) + "\n")
        self.mark([entry])

    def remove(self) -> None:
        """Delete the journal, once everything is delivered and nothing will follow."""
        for path in (self.path, _cursor(self.path)):
            path.unlink(missing_ok=True)

    def _write(self) -> None:
        try:
            with self.path.open("ab", buffering=0) as file:  # unbuffered: a later close writes nothing
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


class DeliveryThread:
    """Delivers a journal's entries in order, in a thread; retries with exponential backoff.

    deliver: gets the oldest entries, raises when the service is down. is_refusal: whether an error is the service's
    final answer to the entries themselves.
    """

    def __init__(
        self, journal: Journal, deliver: Callable[[list[Entry]], None], is_refusal: Callable[[Exception], bool]
    ) -> None:
        self._journal, self._deliver, self._is_refusal = journal, deliver, is_refusal
        self.error: Exception | None = None  # of the last attempt
        self._refusals = 0  # in a row
        self._singly = 0  # how many entries to deliver one by one, to find which is refused
        self._wake = threading.Event()
        self._end = float("inf")  # when to give up, on the monotonic clock
        self._thread = threading.Thread(target=self._run, name="journal delivery", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Wake the thread: there is something to deliver."""
        if self.error is None:
            self._wake.set()

    def finish(self, within_s: float) -> bool:
        """Stop when everything is delivered, or after `within_s`; returns whether everything was delivered."""
        self._end = time.monotonic() + within_s
        self._wake.set()
        self._thread.join(within_s)
        return not self._journal.waiting

    def _run(self) -> None:
        wait = FIRST_WAIT_S
        while True:
            batch = self._journal.next(1 if self._singly else BATCH)
            if not batch:
                if self._end < float("inf"):
                    return
                self._sleep(None)
                continue
            try:
                self._deliver(batch)
            except Exception as error:
                if self._refused_for_good(batch, error):
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
                self.error, wait = None, FIRST_WAIT_S
                self._refusals, self._singly = 0, max(0, self._singly - 1)

    def _refused_for_good(self, batch: list[Entry], error: Exception) -> bool:
        """Count refusals. After enough of them, try the entries of a batch one by one, or set a single one aside."""
        self._refusals = self._refusals + 1 if self._is_refusal(error) else 0
        if self._refusals < REFUSALS:
            return False
        self._refusals = 0
        if len(batch) > 1:
            self._singly = len(batch)
        else:
            self._journal.set_aside(batch[0], str(error))
            self._singly = max(0, self._singly - 1)
        return True

    def _sleep(self, seconds: float | None) -> None:
        self._wake.wait(seconds)
        self._wake.clear()


@contextlib.contextmanager
def open_journal(path: Path, header: Entry | None = None) -> Iterator[Journal]:
    """The journal at `path`, created with `header` when missing; a last line torn by a kill is dropped.

    Raises Busy while another process has it open, UserError when it is damaged.
    """
    busy = Busy(f"{path}: another process is writing it; wait for it to end or stop it")
    with exclusive(path.with_suffix(".lock"), busy):
        if not path.exists():
            write_text(path, json.dumps({"format": FORMAT, **(header or {})}) + "\n")
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        yield Journal(path)


def journals_in(folder: Path) -> list[Path]:
    """The journals of a folder, oldest first."""
    paths = (path for path in folder.glob("*.jsonl") if not path.name.endswith(".refused.jsonl"))
    return sorted(paths, key=lambda path: path.stat().st_mtime)


def peek(path: Path) -> tuple[Entry, int]:
    """The header of a journal that may be in use, and its number of undelivered entries."""
    header, entries = _read(path)
    delivered = _read_cursor(path)["delivered"]
    return header, sum(entry["n"] > delivered for entry in entries)


def _cursor(path: Path) -> Path:
    return path.with_suffix(".delivered.json")


def _read_cursor(path: Path) -> Entry:
    try:
        return {"delivered": 0, **json.loads(_cursor(path).read_bytes())}
    except (OSError, ValueError, TypeError):  # then everything is delivered again, which changes nothing
        return {"delivered": 0}


def _read(path: Path) -> tuple[Entry, list[Entry]]:
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is being written
    header, *entries = [_parse(path, number, line) for number, line in enumerate(lines, 1)] or [{}]
    if header.get("format") != FORMAT:
        raise UserError(f"{path}:1: not a journal of this version; move it elsewhere")
    return header, entries


def _parse(path: Path, number: int, line: bytes) -> Entry:
    try:
        entry = json.loads(line)
        if isinstance(entry, dict) and (number == 1 or isinstance(entry["n"], int)):
            return entry
    except (ValueError, KeyError, RecursionError):
        pass
    raise UserError(f"{path}:{number}: damaged line; remove it so that the others can be delivered")
