"""What was found, a JSON line per image or frame: the main result of `predict`, and its memory of what is done.

    detections.jsonl   {"source", "name", "state", "frame", "width", "height", "detections": [...]}, or "error"
    run.json           the detector and the settings; a folder holds results of one of these only

`state` is the size and time of the file, null for cameras and streams; `frame` is the number in a video. A video ends
with a line that has its number of frames and no detections; a file without that line is read again from the start.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from components.prediction.sources import Source
from yolo_core.atomic import replaced, write_json
from yolo_core.errors import UserError, without_credentials
from yolo_core.inference.result import Result

DETECTIONS, RUN = "detections.jsonl", "run.json"


class _Source(TypedDict):
    """What every line begins with."""

    source: str
    """Path or address."""

    name: str
    """What its files are named after."""

    state: list[int] | None
    """Size in bytes and modification time in ns; None for cameras and streams."""


class FoundObject(TypedDict):
    """An object in an image."""

    label: str
    """Class name."""

    class_id: int
    """Class index."""

    score: float
    """0 to 1."""

    xyxy: list[float]
    """Left, top, right, bottom in px of the image."""


class Seen(_Source):
    """An image or a frame, and what is in it."""

    frame: int | None
    """Number in the video, from 0; None for an image."""

    width: int
    """px."""

    height: int
    """px."""

    detections: list[FoundObject]
    """Best first."""


class Unreadable(_Source):
    """A source that cannot be read."""

    error: str
    """Why."""


class Ended(_Source):
    """The end of a video."""

    frames: int
    """How many there were."""


Record = Seen | Unreadable | Ended


@dataclass(frozen=True)
class Folder:
    """The folder that the results are written to."""

    path: Path

    @property
    def records(self) -> Path:
        return self.path / DETECTIONS

    def holds(self, settings: Mapping[str, object]) -> bool:
        """Whether its results, if any, were made with these settings."""
        try:
            return json.loads((self.path / RUN).read_text(encoding="utf-8")) == settings
        except FileNotFoundError:
            return not self.records.exists()
        except ValueError:
            return False

    def open(self, settings: Mapping[str, object]) -> None:
        """Write the settings; UserError if there are results of others."""
        if not self.holds(settings):
            raise UserError(f"{self.path}: holds results of another detector or other settings; give another --out")
        write_json(self.path / RUN, settings)

    def read(self) -> Iterator[Record]:
        """All complete lines."""
        if self.records.exists():
            with self.records.open(encoding="utf-8") as file:
                for line in file:
                    if line.endswith("\n"):
                        yield json.loads(line)

    def keep(self, wanted: Mapping[str, Source]) -> tuple[set[str], dict[str, str]]:
        """Drop a torn line, and the lines of `wanted` sources that have to be looked at again.

        These are unfinished videos, files that could not be read, and files that have changed since.
        wanted: sources by address. Returns the addresses that are done, and the names of all sources by address.
        """
        done, names = set[str](), dict[str, str]()
        for record in self.read():
            address = record["source"]
            names[address] = record["name"]
            if address not in wanted or record["state"] is None or _is_current(record, wanted[address]):
                done.add(address)
        if self.records.exists():
            with replaced(self.records) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.writelines(_line(record) for record in self.read() if record["source"] in done)
        return done, names


def found(source: Source, name: str, result: Result, frame: int | None) -> Record:
    """The record of an image or a frame."""
    height, width = result.image.shape[:2]
    detections: list[FoundObject] = [
        {
            "label": one.label,
            "class_id": one.class_id,
            "score": round(one.score, 6),
            "xyxy": [round(edge, 3) for edge in one.xyxy],
        }
        for one in result
    ]
    return {**_head(source, name), "frame": frame, "width": width, "height": height, "detections": detections}


def failed(source: Source, name: str, error: str) -> Record:
    """The record of a source that cannot be read."""
    return {**_head(source, name), "error": error}


def ended(source: Source, name: str, frames: int) -> Record:
    """The last record of a video."""
    return {**_head(source, name), "frames": frames}


def append(folder: Folder, record: Record) -> None:
    """Add a line; written at once, so that a killed process has lost no finished image."""
    with folder.records.open("a", encoding="utf-8") as file:
        file.write(_line(record))


def _head(source: Source, name: str) -> _Source:
    return {"source": without_credentials(source.address), "name": name, "state": source.state()}


def _is_current(record: Record, source: Source) -> bool:
    """Whether this line says that a source is done: an image, or the end of a video, of the file as it is now."""
    ends = "frames" in record or ("error" not in record and record["frame"] is None)
    return ends and record["state"] == source.state()


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"  # ASCII: any file name fits
