"""The index of checked images, so that `prepare` reads only those that changed since its last run.

As in git's index, a file counts as unchanged if its size, times and inode are. A file modified just before it was read
is not indexed: it could change again within one tick of the file system's clock. The checked copy in the dataset folder
must be unchanged, too; it is hard-linked into the new folder.
"""

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import msgspec
import PIL

from components.datasets import image_check, jpeg_check
from components.datasets.raw import RawImage
from yolo_core.atomic import write_bytes

SETTLED_NS = 2_000_000_000  # the coarsest file system clock in use (FAT) ticks every two seconds


@dataclass(frozen=True, slots=True)
class Written:
    """A checked image in the dataset folder."""

    name: str
    """File name."""
    sha256: str
    """SHA-256, hex."""
    width: int
    """Width, px."""
    height: int
    """Height, px."""
    scale: tuple[float, float]
    """Factors (x, y) from recorded to actual pixels."""
    conversions: tuple[str, ...]
    """Conversions applied to the image."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An indexed image."""

    source: list[object]
    """Path, state and recorded size of the image."""
    copy: list[int]
    """State of the checked copy."""
    content: str
    """SHA-256 (hex) of the source file."""
    written: Written


class ImageIndex:
    """The index of one dataset folder, stored in `file`; None keeps no index."""

    def __init__(self, file: Path | None, dataset: Path) -> None:
        self._file, self._images = file, dataset / "images"
        self._known = _load(file) if file else {}
        self._found: dict[str, _Entry] = {}

    def reuse(self, split: str, image: RawImage, folder: Path) -> Written | None:
        """Link the checked copy of an unchanged image into `folder`; None if the image must be read."""
        key = f"{split}/{image.name}"
        entry = self._known.get(key)
        if entry is None:
            return None
        copy = self._images / split / entry.written.name
        try:
            if entry.source != _source(image, os.stat(image.path)) or entry.copy != _copy(os.lstat(copy)):  # noqa: PTH116
                return None
            os.link(copy, folder / entry.written.name)
        except (OSError, ValueError):  # deleted, or a file system without links: it is read again
            return None
        self._found[key] = entry
        return entry.written

    def content(self, image: RawImage, splits: tuple[str, ...]) -> str | None:
        """SHA-256 (hex) of an unchanged source file, in whichever of `splits` it was; None if it must be read."""
        try:
            state = _source(image, os.stat(image.path))  # noqa: PTH116
        except (OSError, ValueError):
            return None
        entries = (self._known.get(f"{split}/{image.name}") for split in splits)
        return next((entry.content for entry in entries if entry and entry.source == state), None)

    @property
    def reused(self) -> int:
        """The number of images that did not have to be read."""
        return sum(self._known.get(key) is entry for key, entry in self._found.items())

    def remember(
        self, split: str, image: RawImage, before: os.stat_result, content: str, written: Written, copy: Path
    ) -> None:
        """Add a checked image. before: the file's state when it was opened for reading, just now; content: SHA-256."""
        changed = max(before.st_mtime_ns, before.st_ctime_ns)
        if self._file and changed + SETTLED_NS < time.time_ns():
            self._found[f"{split}/{image.name}"] = _Entry(_source(image, before), _copy(copy.lstat()), content, written)

    def save(self) -> None:
        """Store the index of this run, once the new dataset folder is in place."""
        if self._file:
            files = {key: _row(entry) for key, entry in self._found.items()}
            write_bytes(self._file, json.dumps({"rules": _rules(), "files": files}).encode())  # ASCII: any name fits


_Name = Annotated[str, msgspec.Meta(pattern=r"^[^/\0]+$")]  # a file name without a folder
_Pixels = Annotated[int, msgspec.Meta(gt=0)]
# The states of source and copy, the digest of the source, then `_values`.
_Row = tuple[list[Any], list[int], str, _Name, str, _Pixels, _Pixels, tuple[float, float], tuple[str, ...]]


def _source(image: RawImage, state: os.stat_result) -> list[object]:
    size = list(image.size_px) if image.size_px else None
    return [os.fspath(image.path.absolute()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, size]


def _copy(state: os.stat_result) -> list[int]:
    """The recorded state without the inode's change time, which a link updates."""
    return [state.st_mode, state.st_size, state.st_mtime_ns, state.st_ino]


def _row(entry: _Entry) -> list[object]:
    return [entry.source, entry.copy, entry.content, *_values(entry.written)]


def _values(written: Written) -> list[object]:
    return [written.name, written.sha256, written.width, written.height, written.scale, written.conversions]


def _load(file: Path) -> dict[str, _Entry]:
    """The index of an earlier run with the same rules; empty if there is none or it is damaged."""
    try:
        content = json.loads(file.read_bytes())
        if content["rules"] != _rules():
            return {}
        rows = msgspec.convert(content["files"], dict[str, _Row])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, msgspec.ValidationError):
        return {}
    return {
        key: _Entry(source, copy, content, Written(name, sha256, width, height, scale, conversions))
        for key, (source, copy, content, name, sha256, width, height, scale, conversions) in rows.items()
    }


def _rules() -> str:
    """Digest of all that determines how an image is checked and written; another one invalidates the index."""
    sources = [Path(module).read_bytes() for module in (__file__, image_check.__file__, jpeg_check.__file__)]
    versions = [PIL.__version__.encode(), cv2.__version__.encode()]
    return hashlib.sha256(b"\0".join([*sources, *versions])).hexdigest()
