"""What `prepare` remembers of the images it has checked: the next run reads only those that changed.

As in git's index, a file is unchanged while its size, times and inode are. A file that was modified just before it was
read is not remembered: it could have changed once more within one tick of the file system's clock. The checked copy in
the dataset folder must be unchanged, too; it is linked into the new folder.
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

from components.datasets import image_check
from components.datasets.raw import RawImage
from yolo_core.atomic import write_bytes

SETTLED_NS = 2_000_000_000  # the coarsest clock of a file system in use (FAT) ticks every two seconds


@dataclass(frozen=True, slots=True)
class Written:
    """A checked image in the dataset folder.

    name: of its file; sha256: hex; width, height: px; scale: factors (x, y) from recorded to real pixels;
    conversions: what was changed.
    """

    name: str
    sha256: str
    width: int
    height: int
    scale: tuple[float, float]
    conversions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """source: path, state and recorded size of the image; copy: state of what was made of it."""

    source: list[Any]
    copy: list[int]
    written: Written


class ImageIndex:
    """The memory of one dataset folder, in `file`; with None nothing is remembered."""

    def __init__(self, file: Path | None, dataset: Path) -> None:
        self._file, self._images = file, dataset / "images"
        self._known = _load(file) if file else {}
        self._found: dict[str, _Entry] = {}

    def reuse(self, split: str, image: RawImage, folder: Path) -> Written | None:
        """Link the checked copy of an unchanged image into `folder`; None where the image has to be read."""
        key = f"{split}/{image.name}"
        entry = self._known.get(key)
        if entry is None:
            return None
        copy = self._images / split / entry.written.name
        try:
            if entry.source != _source(image, os.stat(image.path)) or entry.copy != _copy(os.lstat(copy)):  # noqa: PTH116
                return None
            os.link(copy, folder / entry.written.name)
        except (OSError, ValueError):  # gone, or a file system without links: it is read again
            return None
        self._found[key] = entry
        return entry.written

    @property
    def reused(self) -> int:
        """How many images of this run did not have to be read."""
        return sum(self._known.get(key) is entry for key, entry in self._found.items())

    def remember(self, split: str, image: RawImage, before: os.stat_result, written: Written, copy: Path) -> None:
        """Note a checked image. before: the file's state when it was opened for reading, just now."""
        changed = max(before.st_mtime_ns, before.st_ctime_ns)
        if self._file and changed + SETTLED_NS < time.time_ns():
            self._found[f"{split}/{image.name}"] = _Entry(_source(image, before), _copy(copy.lstat()), written)

    def save(self) -> None:
        """Write down what this run has found, once the new dataset folder is in place."""
        if self._file:
            files = {key: [one.source, one.copy, *_values(one.written)] for key, one in self._found.items()}
            write_bytes(self._file, json.dumps({"rules": _rules(), "files": files}).encode())  # ASCII: any name fits


_Name = Annotated[str, msgspec.Meta(pattern=r"^[^/\0]+$")]  # of a file in its folder
_Pixels = Annotated[int, msgspec.Meta(gt=0)]
# What `_values` gives, after the states of source and copy.
_Row = tuple[list[Any], list[int], _Name, str, _Pixels, _Pixels, tuple[float, float], tuple[str, ...]]


def _source(image: RawImage, state: os.stat_result) -> list[Any]:
    size = list(image.size_px) if image.size_px else None
    return [os.fspath(image.path.absolute()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, size]


def _copy(state: os.stat_result) -> list[int]:
    """Without the time of the inode's change, which a link changes."""
    return [state.st_mode, state.st_size, state.st_mtime_ns, state.st_ino]


def _values(written: Written) -> list[Any]:
    return [written.name, written.sha256, written.width, written.height, written.scale, written.conversions]


def _load(file: Path) -> dict[str, _Entry]:
    """What an earlier run under the same rules wrote down; nothing where there is none or it is damaged."""
    try:
        content = json.loads(file.read_bytes())
        if content["rules"] != _rules():
            return {}
        rows = msgspec.convert(content["files"], dict[str, _Row])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, msgspec.ValidationError):
        return {}
    return {
        key: _Entry(source, copy, Written(name, sha256, width, height, scale, conversions))
        for key, (source, copy, name, sha256, width, height, scale, conversions) in rows.items()
    }


def _rules() -> str:
    """What decides how an image is checked and written: another one makes the memory worthless."""
    sources = [Path(module).read_bytes() for module in (__file__, image_check.__file__)]
    versions = [PIL.__version__.encode(), cv2.__version__.encode()]
    return hashlib.sha256(b"\0".join([*sources, *versions])).hexdigest()
