"""The record of a search: one JSON line per finished trial, appended and synced to disk at once.

The first line holds the digest of what determines the results; a ledger is only continued under the same digest.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from yolo_core.atomic import write_text
from yolo_core.errors import UserError
from yolo_core.locks import exclusive

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class Record:
    """A finished trial."""

    trial: Count
    parent: Count | None
    """Number of the trial it was mutated from; None for the starting point."""
    hyp: dict[str, float]
    """Hyperparameters by name."""
    fitness: Share
    """0 for a failed trial."""
    AP: Share
    AP50: Share
    seconds: Seconds
    """Duration."""
    elapsed: Seconds
    """Duration of the whole search when it ended, across restarts."""
    reason: str | None = None
    """Why it failed; None if it did not."""
    rungs: list[Share] = field(default_factory=list)
    """Fitness at each halving rung that it reached."""
    stopped_at: Count | None = None
    """Epoch at which halving stopped it."""


@dataclass(frozen=True)
class Confirmation:
    """A finished training that checks a trial's values with another seed; the other fields are as in Record."""

    confirms: Count
    """Number of the trial."""
    seed: Count
    plan: str
    """Digest of its training configuration."""
    fitness: Share
    AP: Share
    AP50: Share
    seconds: Seconds
    elapsed: Seconds
    reason: str | None = None


KINDS: dict[type, set[str]] = {kind: {one.name for one in dataclasses.fields(kind)} for kind in (Record, Confirmation)}


@dataclass
class Ledger:
    """The file and its content."""

    path: Path
    records: dict[int, Record] = field(default_factory=dict)
    """Records by trial number."""
    confirmations: list[Confirmation] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        """Seconds that the search had run when its latest trial ended."""
        return max((one.elapsed for one in self._all()), default=0.0)

    @property
    def seconds(self) -> float:
        """Total seconds of all trainings."""
        return sum(one.seconds for one in self._all())

    def _all(self) -> list[Record | Confirmation]:
        return [*self.records.values(), *self.confirmations]

    def append(self, record: Record | Confirmation) -> None:
        """Append a line; it is on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.take(record)

    def take(self, record: Record | Confirmation) -> None:
        """Add a line of the file; the first of two records of one trial counts."""
        if isinstance(record, Record):
            self.records.setdefault(record.trial, record)
        else:
            self.confirmations.append(record)


@contextmanager
def opened(path: Path, digest: str) -> Iterator[Ledger]:
    """The ledger at `path`, created if missing; a partial last line left by a kill is dropped.

    Raises UserError while another process holds it, and when it is damaged or has another digest.
    """
    with exclusive(path.with_suffix(".lock"), f"{path}: another search is writing it; wait for it to end or stop it"):
        if not path.exists():
            write_text(path, json.dumps({"digest": digest}) + "\n")
        _drop_torn_line(path)
        yield _read(path, digest)


def _drop_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)


def _read(path: Path, digest: str) -> Ledger:
    header, *lines = [_parse(path, *line) for line in enumerate(path.read_bytes().splitlines(), 1)] or [{}]
    if header.get("digest") != digest:
        raise UserError(f"{path}:1: the ledger of another search; remove it to start again")
    ledger = Ledger(path)
    for number, values in enumerate(lines, 2):
        kind = next((kind for kind, names in KINDS.items() if values.keys() == names), None)
        if kind is None:
            raise _damaged(path, number)
        try:
            ledger.take(msgspec.convert(values, kind))
        except msgspec.ValidationError:
            raise _damaged(path, number) from None
    return ledger


def _parse(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        values = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _damaged(path, number) from None
    if not isinstance(values, dict):
        raise _damaged(path, number)
    return values


def _damaged(path: Path, number: int) -> UserError:
    return UserError(f"{path}:{number}: damaged line; remove it to rerun its trial")
