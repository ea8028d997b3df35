"""Synchronises folders with the store: only what differs is transferred, and nothing of others is deleted.

A hidden index in the folder records which file has the content of which object, so that files are hashed once.
Hidden files are never transferred.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from botocore.client import BaseClient

from components.storage import checksums
from components.storage.client import connect, reaching
from components.storage.download import download
from components.storage.location import Location, is_safe
from components.storage.threads import in_threads
from components.storage.upload import upload
from yolo_core.atomic import write_json
from yolo_core.errors import UserError
from yolo_core.locks import exclusive
from yolo_core.progress import Progress, silent

INDEX, LOCK = ".objects.json", ".objects.lock"
FILES_AT_A_TIME = 8

log = logging.getLogger(__name__)


class Listed(NamedTuple):
    """An object of a listing."""

    path: str
    """Below the prefix."""
    size: int
    """Size in bytes."""
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
        """Does the local file have the object's content?"""
        path, known = self.folder / item.path, self.known.get(item.path)
        if not path.is_file() or path.stat().st_size != item.size:
            return False
        now = _known(path, item.etag)
        if known and known[:2] == now[:2]:
            return known.etag == item.etag
        if checksums.etag(path) != item.etag:
            return False
        self.known[item.path] = now
        return True


def _known(path: Path, etag: str) -> _Known:
    stat = path.stat()
    return _Known(stat.st_size, stat.st_mtime_ns, etag)


def contents(location: Location) -> dict[str, "Listed"]:
    """The objects below `location` by relative path. Raises as `pull` does."""
    with reaching(location):
        objects = listing(connect(), location)
        if not objects:
            raise UserError(f"{location}: no objects there; check the bucket's and the prefix's spelling")
        return objects


def pull(location: Location, folder: Path, progress: Progress = silent) -> int:
    """Download the objects below `location` into `folder`; returns how many were downloaded.

    Files from an earlier pull that the store no longer has are removed. Raises UserError if there are no objects or a
    key would leave the folder, TryAgain if the store is unavailable.
    """
    with alone_with(folder), reaching(location):
        client = connect()
        objects = listing(client, location)
        if not objects:
            raise UserError(f"{location}: no objects there; check the bucket's and the prefix's spelling")
        index = _Index.read(folder)
        for path in index.known.keys() - objects.keys():
            (folder / path).unlink(missing_ok=True)
            del index.known[path]
        wanted = [item for item in objects.values() if not index.is_same(item)]

        def fetch(item: Listed, progress: Progress = silent) -> tuple[str, _Known]:
            path = folder / item.path
            held = download(client, location / item.path, path, progress, item.size)
            return item.path, _known(path, held.etag)

        _move(wanted, fetch, index, f"download s3://{location.bucket}", progress)
        return len(wanted)


def push(folder: Path, location: Location, progress: Progress = silent, *, live: bool = False) -> int:
    """Upload the files of `folder` that differ from the objects below `location`; returns how many were uploaded.

    Objects that the folder does not have stay, with a warning. live: the folder is in use; files may vanish meanwhile,
    and objects whose files have been deleted here are deleted too.
    Raises UserError or TryAgain as the store answers.
    """
    with alone_with(folder), reaching(location):
        client = connect()
        objects, index, here = listing(client, location), _Index.read(folder), _files(folder)
        wanted = [Listed(path, size, "") for path, size in here.items() if not _is_there(path, objects, index)]

        def send(item: Listed, progress: Progress = silent) -> tuple[str, _Known] | None:
            path = folder / item.path
            try:
                before = _known(path, "")
                held = upload(client, path, location / item.path, progress)
            except FileNotFoundError:
                if live:
                    return None
                raise
            return item.path, before._replace(etag=held.etag)

        _move(wanted, send, index, f"upload s3://{location.bucket}", progress)
        gone = sorted(objects.keys() - here.keys())
        if live:
            _remove(client, location, [path for path in gone if path in index.known], index)
        elif gone:
            log.warning(
                "%s: %d objects there are not part of this result and were left in place, such as %s",
                location,
                len(gone),
                gone[0],
            )
        return len(wanted)


def listing(client: BaseClient, location: Location) -> dict[str, Listed]:
    """The objects below `location` by relative path; UserError for a key that would leave a folder."""
    objects = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=location.prefix):
        for record in page.get("Contents", []):
            path = record["Key"].removeprefix(location.prefix)
            if not path or path.endswith("/"):
                continue  # a folder's placeholder
            if not is_safe(path):
                raise UserError(
                    f"object key {record['Key']!r} is outside the download folder; rename or remove it in the bucket"
                )
            objects[path] = Listed(path, record["Size"], record["ETag"].strip('"'))
    return objects


def _is_there(path: str, objects: dict[str, Listed], index: _Index) -> bool:
    return path in objects and index.is_same(objects[path])


class _Move(Protocol):
    """Transfers one file and returns its entry in the index, or None if the file has vanished."""

    def __call__(self, item: Listed, progress: Progress = silent) -> tuple[str, _Known] | None: ...


def _move(items: list[Listed], move: _Move, index: _Index, label: str, progress: Progress) -> None:
    """Transfer small files several at a time and large ones one by one, in parts; updates the index."""
    small = [item for item in items if item.size <= checksums.PART_BYTES]
    large = [item for item in items if item.size > checksums.PART_BYTES]
    try:
        for moved in progress(in_threads(move, small, FILES_AT_A_TIME), label, total=len(small)):
            index.known.update([moved] if moved else [])
        for item in large:
            moved = move(item, progress)
            index.known.update([moved] if moved else [])
    finally:
        index.write()


def _remove(client: BaseClient, location: Location, paths: list[str], index: _Index) -> None:
    """Delete objects one by one: not every store can delete several in a request."""
    for path in paths:
        client.delete_object(Bucket=location.bucket, Key=(location / path).key)
        del index.known[path]
    index.write()


def _files(folder: Path) -> dict[str, int]:
    """Sizes of the files below a folder by relative path, without hidden ones."""
    sizes = {}
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(root, name) for name in sorted(names) if not name.startswith(".")):
            with contextlib.suppress(FileNotFoundError):
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Keep other processes from synchronising the folder meanwhile, waiting for one that does.

    Raises UserError if the folder cannot be used.
    """
    try:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(exclusive(folder / LOCK, busy=_Busy("")))
            except _Busy:
                log.warning("%s: another process is synchronising this folder; waiting until it has finished", folder)
                held.enter_context(exclusive(folder / LOCK))
            yield
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror or error})") from None


class _Busy(UserError):
    """Another process holds the lock."""
