"""The record of a search: one JSON line per finished trial, added at the end and flushed to the disk at once.

The first line holds the digest of what determines the results; a ledger is continued only under the same digest.
"""

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_core.atomic import write_text
from yolo_core.errors import UserError


@dataclass(frozen=True)
class Record:
    """A finished trial.

    parent: number of the trial it was mutated from, None for the starting point. hyp: its values by name.
    fitness, AP, AP50: 0 to 1. reason: why it failed, None when it did not; a failed trial counts as fitness 0.
    seconds: it took; elapsed: the whole search had taken when it ended, over all its processes.
    """

    trial: int
    parent: int | None
    hyp: dict[str, float]
    fitness: float
    AP: float
    AP50: float
    seconds: float
    elapsed: float
    reason: str | None = None


FIELDS = {field.name for field in dataclasses.fields(Record)}


@dataclass
class Ledger:
    """The file and what it holds, by trial number."""

    path: Path
    records: dict[int, Record]

    @property
    def elapsed(self) -> float:
        """Seconds that the search had taken when its latest trial ended."""
        return max((record.elapsed for record in self.records.values()), default=0.0)

    def append(self, record: Record) -> None:
        """Add a line and have it on the disk before returning."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[record.trial] = record


@contextmanager
def opened(path: Path, digest: str) -> Iterator[Ledger]:
    """The ledger at `path`, made when missing; a last line that a kill has torn is dropped.

    Raises UserError while another process holds it, and when it is damaged or of another digest.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another search is writing it; wait for it to end or stop it") from None
        if not path.exists():
            write_text(path, json.dumps({"digest": digest}) + "\n")
        _drop_torn_line(path)
        yield Ledger(path, _read(path, digest))


def _drop_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)


def _read(path: Path, digest: str) -> dict[int, Record]:
    header, *lines = [_parse(path, *line) for line in enumerate(path.read_bytes().splitlines(), 1)] or [{}]
    if header.get("digest") != digest:
        raise UserError(f"{path}:1: the ledger of another search; remove it to start anew")
    records: dict[int, Record] = {}
    for number, values in enumerate(lines, 2):
        if values.keys() != FIELDS:
            raise _damaged(path, number)
        records.setdefault(values["trial"], Record(**values))
    return records


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError:
        raise _damaged(path, number) from None
    if not isinstance(values, dict):
        raise _damaged(path, number)
    return values


def _damaged(path: Path, number: int) -> UserError:
    return UserError(f"{path}:{number}: damaged line; remove it to have its trial run again")
