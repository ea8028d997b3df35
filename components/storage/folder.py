"""Folders in step with the store: only what differs travels, and nothing of others is deleted.

A hidden index in the folder remembers which files are the content of which objects, so that files are hashed once.
Hidden files never travel.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from components.storage import transfer
from components.storage.client import connect, reaching
from components.storage.location import Location, is_safe
from yolo_core.atomic import write_json
from yolo_core.errors import UserError
from yolo_core.progress import Progress, silent

INDEX, LOCK = ".objects.json", ".objects.lock"
FILES_AT_A_TIME = 8

log = logging.getLogger(__name__)


class Listed(NamedTuple):
    """An object of a listing. path: below the prefix."""

    path: str
    size: int
    etag: str


class _Known(NamedTuple):
    """A file as it was when it had the content of the object with this ETag."""

    size: int
    modified_ns: int
    etag: str


@dataclass(frozen=True)
class _Index:
    folder: Path
    known: dict[str, _Known]

    @classmethod
    def read(cls, folder: Path) -> "_Index":
        try:
            content = json.loads((folder / INDEX).read_bytes())
            return cls(folder, {path: _Known(*entry) for path, entry in content.items()})
        except (OSError, ValueError, TypeError, AttributeError):
            return cls(folder, {})

    def write(self) -> None:
        write_json(self.folder / INDEX, dict(sorted(self.known.items())))

    def is_same(self, item: Listed) -> bool:
        """Has the file here the object's content?"""
        path, known = self.folder / item.path, self.known.get(item.path)
        if not path.is_file() or path.stat().st_size != item.size:
            return False
        now = _known(path, item.etag)
        if known and known[:2] == now[:2]:
            return known.etag == item.etag
        if transfer.etag(path) != item.etag:
            return False
        self.known[item.path] = now
        return True


def _known(path: Path, etag: str) -> _Known:
    stat = path.stat()
    return _Known(stat.st_size, stat.st_mtime_ns, etag)


def contents(place: Location) -> dict[str, "Listed"]:
    """The objects below `place` by their path there. Raises UserError and TryAgain as `pull` does."""
    with reaching(place):
        objects = listing(connect(), place)
        if not objects:
            raise UserError(f"{place}: no objects there; check the bucket's and the prefix's spelling")
        return objects


def pull(place: Location, folder: Path, progress: Progress = silent) -> int:
    """Make `folder` hold the objects below `place`; returns how many were fetched.

    Files that an earlier pull brought and that the store no longer has are removed. Raises UserError when nothing lies
    there or a key would leave the folder, TryAgain when the store is away.
    """
    with alone_with(folder), reaching(place):
        client = connect()
        objects = listing(client, place)
        if not objects:
            raise UserError(f"{place}: no objects there; check the bucket's and the prefix's spelling")
        index = _Index.read(folder)
        for path in index.known.keys() - objects.keys():
            (folder / path).unlink(missing_ok=True)
            del index.known[path]
        wanted = [item for item in objects.values() if not index.is_same(item)]

        def fetch(item: Listed, progress: Progress = silent) -> tuple[str, _Known]:
            path = folder / item.path
            held = transfer.download(client, place / item.path, path, progress, item.size)
            return item.path, _known(path, held.etag)

        _move(wanted, fetch, index, f"download s3://{place.bucket}", progress)
        return len(wanted)


def push(folder: Path, place: Location, progress: Progress = silent, *, live: bool = False) -> int:
    """Put the files of `folder` below `place`, as far as they differ; returns how many were sent.

    Objects there that the folder does not have stay, and a line says so. `live`: the folder is being worked in; a file
    may vanish meanwhile, and an object whose file the folder once had and has no more goes.
    Raises UserError or TryAgain as the store answers.
    """
    with alone_with(folder), reaching(place):
        client = connect()
        objects, index, here = listing(client, place), _Index.read(folder), _files(folder)
        wanted = [Listed(path, size, "") for path, size in here.items() if not _is_there(path, objects, index)]

        def send(item: Listed, progress: Progress = silent) -> tuple[str, _Known] | None:
            path = folder / item.path
            try:
                before = _known(path, "")
                held = transfer.upload(client, path, place / item.path, progress)
            except FileNotFoundError:
                if live:
                    return None
                raise
            return item.path, before._replace(etag=held.etag)

        _move(wanted, send, index, f"upload s3://{place.bucket}", progress)
        gone = sorted(objects.keys() - here.keys())
        if live:
            _remove(client, place, [path for path in gone if path in index.known], index)
        elif gone:
            log.warning("%s: %d objects there are not part of this result and stay, as %s", place, len(gone), gone[0])
        return len(wanted)


def listing(client: Any, place: Location) -> dict[str, Listed]:
    """Everything below a place by its path there; UserError for a key that would leave a folder."""
    objects = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix):
        for record in page.get("Contents", []):
            path = record["Key"].removeprefix(place.prefix)
            if not path or path.endswith("/"):
                continue  # a folder's placeholder
            if not is_safe(path):
                raise UserError(
                    f"object key {record['Key']!r} leaves the download folder; rename or remove it in the bucket"
                )
            objects[path] = Listed(path, record["Size"], record["ETag"].strip('"'))
    return objects


def _is_there(path: str, objects: dict[str, Listed], index: _Index) -> bool:
    return path in objects and index.is_same(objects[path])


def _move(
    items: list[Listed], move: Callable[..., tuple[str, _Known] | None], index: _Index, label: str, progress: Progress
) -> None:
    """Small files several at a time, large ones one after the other in parts; the index follows."""
    small = [item for item in items if item.size <= transfer.PART_BYTES]
    large = [item for item in items if item.size > transfer.PART_BYTES]
    try:
        for moved in progress(transfer.in_threads(move, small, FILES_AT_A_TIME), label, total=len(small)):
            index.known.update([moved] if moved else [])
        for item in large:
            moved = move(item, progress)
            index.known.update([moved] if moved else [])
    finally:
        index.write()


def _remove(client: Any, place: Location, paths: list[str], index: _Index) -> None:
    """Delete objects, singly: not every store has the call for many."""
    for path in paths:
        client.delete_object(Bucket=place.bucket, Key=(place / path).key)
        del index.known[path]
    index.write()


def _files(folder: Path) -> dict[str, int]:
    """Sizes of the files below a folder by relative path, hidden ones left out."""
    sizes = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(root, name) for name in sorted(names) if not name.startswith(".")):
            with contextlib.suppress(FileNotFoundError):
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Alone with the folder among those who keep it in step; trouble with it is one line."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror or error})") from None
