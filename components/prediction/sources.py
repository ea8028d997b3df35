"""What the command line names to look at: images, folders, globs, list files, videos, cameras, streams, addresses."""

import glob
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.datasets.sources import image_files
from components.storage.location import is_remote
from yolo_core.errors import UserError
from yolo_core.progress import Progress

VIDEOS = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp"))
LISTS = frozenset((".txt",))
_STREAM = re.compile(r"(rtsp|rtmp|http|https)://", re.IGNORECASE)
LONGEST_NAME = 100  # characters of a file name without its suffix


@dataclass(frozen=True)
class Source:
    """One image, or one video."""

    address: str
    """Path, address of a stream, or number of a camera."""
    base: str
    """The folder it was found below, which is not part of its name; "" for none."""
    is_video: bool
    is_live: bool = False
    """Whether it has no end: a camera or a stream."""

    def state(self) -> list[int] | None:
        """Size in bytes and modification time in ns, to notice another file of this name; None if there is no file."""
        try:
            found = os.stat(self.address)  # noqa: PTH116
        except OSError:
            return None
        return [found.st_size, found.st_mtime_ns]


def find(given: Iterable[str], progress: Progress) -> list[Source]:
    """The images and videos that are named, in this order, each once; a folder's are sorted by path.

    Objects in the store are fetched to a local copy. Raises UserError for what does not exist or holds nothing.
    """
    found: dict[str, Source] = {}
    for text in given:
        for source in _named(text, progress):
            found.setdefault(source.address, source)
    return list(found.values())


def _named(text: str, progress: Progress) -> Iterator[Source]:
    if text.isdecimal() and not os.path.exists(text):  # noqa: PTH110
        yield Source(text, "", is_video=True, is_live=True)
    elif is_remote(text):
        from components.storage.stage_paths import local_copy  # boto3 takes time

        yield from _local(Path(local_copy(text, progress)), text)
    elif _STREAM.match(text):
        yield Source(text, "", is_video=True, is_live=True)
    else:
        yield from _local(Path(text), text)


def _local(path: Path, text: str) -> Iterator[Source]:
    if path.is_dir():
        yield from _in_folder(path)
    elif path.suffix.lower() in LISTS and path.is_file():
        for listed in image_files.listed(path, path.parent):
            yield _file(listed, path.parent)
    elif path.exists():
        yield _file(path, path.parent)
    elif glob.has_magic(text) and (matches := sorted(glob.glob(text, recursive=True))):  # noqa: PTH207
        for match in matches:
            yield from _in_folder(Path(match)) if os.path.isdir(match) else [_file(Path(match), Path())]  # noqa: PTH112
    else:
        raise UserError(f"{text}: {'matches nothing' if glob.has_magic(text) else 'no such file or folder'}")


def _in_folder(folder: Path) -> Iterator[Source]:
    files = [here / name for here, names in image_files.walk(folder) for name in names if _is_seen(Path(name))]
    if not files:
        raise UserError(f"{folder}: holds no images or videos")
    for path in sorted(files):
        yield _file(path, folder)


def _is_seen(name: Path) -> bool:
    suffix = name.suffix.lower()
    return suffix in VIDEOS or suffix in image_files.READ or suffix in image_files.NOT_READ


def _file(path: Path, base: Path) -> Source:
    return Source(str(path), str(base), is_video=path.suffix.lower() in VIDEOS)


class Names:
    """A name for the files about each source, without suffix: unique, and for files the same in every run.

    taken: names that other sources already have, by address.
    """

    def __init__(self, taken: dict[str, str]) -> None:
        self._by_address = dict(taken)
        self._taken = {name.casefold() for name in taken.values()}

    def of(self, source: Source) -> str:
        """Its path below its base, joined by "_"; with a digest of the address if that is too long or taken."""
        known = self._by_address.get(source.address)
        if known is not None and not source.is_live:
            return known
        name = _readable(source)
        if source.is_live:
            numbered = (f"{name}-{number}" for number in itertools.count(2))
            name = next(one for one in itertools.chain([name], numbered) if one.casefold() not in self._taken)
        elif name.casefold() in self._taken or len(name) > LONGEST_NAME:
            digest = hashlib.sha256(os.fsencode(source.address)).hexdigest()[: image_files.DIGEST]
            name = f"{name[-LONGEST_NAME:]}-{digest}"
        self._by_address[source.address] = name
        self._taken.add(name.casefold())
        return name


def _readable(source: Source) -> str:
    if source.is_live:
        text = re.sub(r"^\w+://([^/@]*@)?", "", source.address)  # an address without user name and password
        return re.sub(r"[^\w.-]+", "_", f"camera{text}" if text.isdecimal() else text).strip("_.")
    path = Path(source.address)
    below = path.relative_to(source.base) if source.base and path.is_relative_to(source.base) else Path(path.name)
    return "_".join(part for part in below.with_suffix("").parts if part not in ("..", "/"))
